"""The importance matrix: how strongly each input column of a weight is used by the domain's own
text."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import chain, islice

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from meetara_build.stages.gguf.quantize import Imatrix

WINDOW = 512
"""Tokens to a forward pass, as llama.cpp's own imatrix tool has it."""


def measure(
    model: PreTrainedModel, texts: Iterable[Sequence[int]], names: Mapping[str, str], tokens: int
) -> tuple[Imatrix, int]:
    """Mean squared input of each linear layer over up to ``tokens`` tokens of ``texts``, and how
    many there were.

    ``names`` gives the GGUF name of a module's weight; layers without one are skipped, as is the
    output layer, which llama.cpp's imatrix tool leaves out too.
    """
    sums: dict[str, Tensor] = {}
    hooks = []
    for module_name, module in model.named_modules():
        name = names.get(module_name)
        if name and name != "output.weight" and isinstance(module, nn.Linear | Conv1D):
            hooks.append(module.register_forward_pre_hook(_adder(sums, name)))
    seen = 0
    try:
        with torch.inference_mode():
            for window in _windows(texts, tokens):
                model.base_model(torch.tensor([window]), use_cache=False)
                seen += len(window)
    finally:
        for hook in hooks:
            hook.remove()
    return {name: (total / seen).to(torch.float32).numpy() for name, total in sums.items()}, seen


def _adder(sums: dict[str, Tensor], name: str) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
    def add(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        squares = inputs[0].to(torch.float32).flatten(0, -2).square().sum(0, dtype=torch.float64)
        sums[name] = sums[name] + squares if name in sums else squares

    return add


def _windows(texts: Iterable[Sequence[int]], tokens: int) -> Iterator[list[int]]:
    """Texts one after another, cut into windows, up to ``tokens`` tokens in all."""
    flat = list(islice(chain.from_iterable(texts), tokens))
    for start in range(0, len(flat), WINDOW):
        yield flat[start : start + WINDOW]
