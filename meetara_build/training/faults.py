"""Why a training step could not be taken: too little memory, or numbers that are none."""

import torch

from meetara_build.errors import NotFiniteError, StepMemoryError, TrainingError

OUT_OF_MEMORY = "out_of_memory"
NOT_FINITE = "not_finite"
CPU_SIGNS = ("can't allocate memory", "DefaultCPUAllocator")
"""In what torch raises where the machine's own memory runs out: a RuntimeError like any other."""


class StepFault(Exception):
    """A step that was tried and not taken; its text is what a person reads if no observer knows
    better.

    Attributes:
        kind: "out_of_memory" or "not_finite".
        loss, norm: of the step, as far as they are known, else NaN.
        records, tokens: of the micro-batch that did not fit into memory.
    """

    def __init__(
        self,
        kind: str,
        text: str,
        loss: float = float("nan"),
        norm: float = float("nan"),
        records: int = 0,
        tokens: int = 0,
    ) -> None:
        super().__init__(text)
        self.kind, self.loss, self.norm, self.records, self.tokens = (
            kind,
            loss,
            norm,
            records,
            tokens,
        )

    @property
    def error(self) -> TrainingError:
        """What a training that nobody helps ends with."""
        kinds = {OUT_OF_MEMORY: StepMemoryError, NOT_FINITE: NotFiniteError}
        return kinds[self.kind](str(self))


def ran_out_of_memory(error: BaseException) -> bool:
    """Whether this is how Python, torch on a CPU or torch on a GPU says that memory ran out."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(sign in str(error) for sign in CPU_SIGNS)


def too_large(step: int, records: int, tokens: int) -> StepFault:
    """The micro-batch of so many records and tokens did not fit into memory."""
    if records == 1:
        what, mend = f"one record of {tokens} tokens does not fit", "lower data.max_tokens"
    else:
        what, mend = (
            f"{records} records of {tokens} tokens at once do not fit",
            "lower training.micro_batch_tokens",
        )
    text = (
        f"step {step}: out of memory: {what}: {mend}, or use a smaller base or a machine with more "
        "memory"
    )
    return StepFault(OUT_OF_MEMORY, text, records=records, tokens=tokens)


def not_finite(
    step: int, what: str, value: float, loss: float, norm: float = float("nan")
) -> StepFault:
    """The loss or gradient (``what``) is infinite, or no number."""
    text = f"step {step}: the {what} is {value}: lower training.learning_rate, or mend the data"
    return StepFault(NOT_FINITE, text, loss, norm)
