"""What a device computes in, and what it computes faster in: what ``precision: auto`` asks.

``python -m meetara_build.training.precision`` prints the answer for this processor. It imports
torch and nothing heavier.
"""

import time

import torch

from meetara_build.training.kernels.torch_internals import (
    can_reorder,
    multiply_reordered,
    reorder,
)

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
"""What recipes call them."""
ROWS, INPUTS, OUTPUTS = 256, 576, 1536
"""A product of a small base: its rows and its matrix."""
REPEATS = 7
FASTER = 1.2
"""By what factor bfloat16 must be faster: less is no reason to round, and might be another answer
the next time. Where a processor has it, it is about 1.9."""


def has_bfloat16(device: str) -> bool:
    """Whether a device computes in bfloat16 itself; torch would emulate it elsewhere."""
    if device == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return any(
        known is True for name, known in torch.cpu.get_capabilities().items() if "bf16" in name
    )


def choose_precision() -> str:
    """``bfloat16`` where this processor has it and is faster with it, else ``float32``."""
    types = (torch.float32, torch.bfloat16)
    if not has_bfloat16("cpu") or not all(map(can_reorder, types)):
        return "float32"
    slow, fast = measure_products(types)
    return "bfloat16" if fast * FASTER < slow else "float32"


@torch.no_grad()
def measure_products(types: tuple[torch.dtype, ...]) -> list[float]:
    """Seconds of one product with a frozen matrix, for each type; the least of several that take
    turns, since other work only adds."""
    torch.set_num_threads(1)
    given = [
        (
            torch.ones(ROWS, INPUTS, dtype=dtype),
            reorder(torch.ones(OUTPUTS, INPUTS, dtype=dtype), ROWS),
        )
        for dtype in types
    ]
    best = [float("inf")] * len(types)
    for _ in range(REPEATS + 1):  # the first compiles the kernels, and is never the least
        for index, (x, weight) in enumerate(given):
            started = time.perf_counter()
            multiply_reordered(x, weight, None)
            best[index] = min(best[index], time.perf_counter() - started)
    return best


if __name__ == "__main__":
    print(choose_precision())
