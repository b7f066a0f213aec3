"""How many trainings a pass serves: as many as were proved to leave each other's bits alone, and fewer
where memory runs out."""

import gc
from collections.abc import Sequence

import torch

from meetara_build.training.faults import ran_out_of_memory
from meetara_build.training.slots.model import Result, SlotModel, Work
from meetara_build.training.slots.proof import Probe, is_equal, prove_company

DIFFERS = "on this device a training's gradients depend on who else is in the pass"
SPLIT_DIFFERS = (
    "memory ran out for {} slots in a pass, and passes of fewer give other bits on this device"
)


class Company:
    """The passes of a model with slots.

    Attributes:
        size: slots of a pass, which always has as many, whoever is in it; smaller than asked for
            where memory has run out, if that is proved to change nothing.
        reason: why a pass serves one training alone; empty where it serves as many as it has slots.
    """

    def __init__(self, model: SlotModel, slots: int, probe: Probe) -> None:
        """Prove that ``slots`` may be shared, or that fewer may where they do not fit.

        Raises:
            MemoryError, RuntimeError: not even one slot fits into memory.
        """
        self.model, self.size, self.reason = model, slots, ""
        self._slots, self._probe = slots, probe
        self._expected: Result | None = None
        self._prove()

    @property
    def most(self) -> int:
        """Trainings that a pass serves at once."""
        return 1 if self.reason else self.size

    def compute(self, works: Sequence[Work]) -> list[Result | None]:
        """Their results, in as many passes as it takes; None for one that does not fit into memory
        even alone."""
        done: list[Result | None] = []
        while len(done) < len(works):
            part = works[len(done) : len(done) + self.most]
            try:
                empty = [None] * (self.size - len(part))
                done += self.model.compute([*part, *empty])[: len(part)]
            except (MemoryError, RuntimeError) as error:
                if not ran_out_of_memory(error):
                    raise
                fits = self.size > 1
                error.__traceback__ = None  # which holds on to tensors
                let_go()
                if fits:
                    self._split()
                else:
                    done += [None] * len(part)
        return done

    def _split(self) -> None:
        """Passes of half as many slots from now on: nothing was changed, and bits must not be."""
        self.size //= 2
        self._prove()

    def _prove(self) -> None:
        try:
            found = prove_company(self.model, self.size, self._probe)
        except (MemoryError, RuntimeError) as error:
            last = self.size == 1
            if not ran_out_of_memory(error) or (last and self._expected is None):
                raise
            error.__traceback__ = None
            let_go()
            if last:
                self.reason = SPLIT_DIFFERS.format(self._slots)
            else:
                self._split()
            return
        if self._expected is not None and not is_equal(found, self._expected):
            self.reason = SPLIT_DIFFERS.format(self._slots)
        elif found is None:
            self.reason = DIFFERS
        self._expected = self._expected or found


def let_go() -> None:
    """Give back the memory of what nothing holds any more."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
