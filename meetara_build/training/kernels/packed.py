"""A causal language model that reads several records as one row without padding, and proves that it
may.

Whether a model's layers keep records apart, and whether its output layer is one plain matrix,
depends on the architecture. So nothing is taken from a list of known names: each short cut is tried
once on two real records, compared with what transformers computes for each record alone, and left
out where the two differ.
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from meetara_build.errors import TrainingError
from meetara_build.training.batches import fill
from meetara_build.training.chat import Encoded
from meetara_build.training.kernels import attention
from meetara_build.training.kernels.frozen import FrozenMatrix, rearrangeable
from meetara_build.training.kernels.loss import linear_cross_entropy
from meetara_build.training.transformers_internals import attention_in_use

EVALUATION_TOKENS = 2048
"""Tokens in one forward pass without gradients."""
TOLERANCE = {torch.float32: 1e-3, torch.bfloat16: 6e-2, torch.float16: 1e-2}
"""Largest difference from the model's own computation, relative to its largest value: rounding,
never a leak."""


@dataclass(frozen=True)
class Row:
    """Records laid end to end.

    ids, positions: [1, T], positions start again at 0 in each record.
    lengths: tokens of each record, sum T.
    counts: how many of each record's tokens count, sum N.
    keep: [N], where in the row the next token counts.
    targets: [N], that next token.
    """

    ids: Tensor
    positions: Tensor
    lengths: list[int]
    counts: list[int]
    keep: Tensor
    targets: Tensor


def lay(records: Sequence[Encoded], device: torch.device, *, every_token: bool = False) -> Row:
    """One row of whole records; ``every_token`` counts all but turns that are never learnt. A
    record's first token is never predicted."""
    ids: list[int] = []
    positions: list[int] = []
    keep: list[int] = []
    counts: list[int] = []
    for record in records:
        counted = [
            len(ids) + i
            for i, said in enumerate(record.mask[1:])
            if said or (every_token and i + 1 not in record.never)
        ]
        keep += counted
        counts.append(len(counted))
        ids += record.ids
        positions += range(len(record.ids))
    tokens, places, where = (
        torch.tensor(values, dtype=torch.long) for values in (ids, positions, keep)
    )
    return Row(
        tokens[None].to(device),
        places[None].to(device),
        [len(record.ids) for record in records],
        counts,
        where.to(device),
        tokens[where + 1].to(device),
    )


class Loss(NamedTuple):
    """Cross-entropy in nats over the tokens that count, in float32.

    total: the sum, a scalar with a gradient.
    tokens: how many count.
    by_record: [records], each one's part of the sum, without a gradient.
    """

    total: Tensor
    tokens: int
    by_record: Tensor


class PackedModel:
    """A model, plain or with a PEFT adapter, and the fastest exact way to its loss.

    Attributes:
        packs: several records may share a row.
        fused: the output layer is one matrix (with Gemma's bound on logits where the architecture
            has it).
    """

    def __init__(self, model: nn.Module, probe: Sequence[Encoded]) -> None:
        """Try the short cuts on the longest and the shortest record of ``probe``."""
        self.inner: Any = inner_model(model)
        self.packs = self.fused = False
        self._head: FrozenMatrix | None = None
        self._own_attention = attention_in_use(self.inner)
        self._softcap = getattr(
            self.inner.config.get_text_config(), "final_logit_softcapping", None
        )
        records = [record for record in probe if len(record.ids) > 1]
        if records:
            by_length = sorted(records, key=lambda record: len(record.ids))
            self._prove([by_length[-1], by_length[0]])

    def rearrange_head(self) -> None:
        """Lay out a frozen output layer for fast products; pays off over many steps."""
        weight = self.inner.get_output_embeddings().weight if self.fused else None
        if weight is not None and not weight.requires_grad and rearrangeable([weight]):
            self._head = FrozenMatrix(weight, rearrange=True)

    def release(self) -> None:
        """Give the model its own attention back, with which it can generate."""
        self.inner.set_attn_implementation(self._own_attention)

    @property
    def device(self) -> torch.device:
        """Where the model's weights lie."""
        device: torch.device = self.inner.device
        return device

    def loss(self, records: Sequence[Encoded], *, every_token: bool = False) -> Loss:
        """The loss of some records, in one pass."""
        groups = [list(records)] if self.packs else [[record] for record in records]
        rows = [lay(group, self.device, every_token=every_token) for group in groups]
        sums, by_token = zip(*[self._row_loss(row) for row in rows], strict=True)
        parts = torch.split(torch.cat(by_token), [count for row in rows for count in row.counts])
        tokens = sum(len(row.keep) for row in rows)
        return Loss(torch.stack(sums).sum(), tokens, torch.stack([part.sum() for part in parts]))

    @torch.no_grad()
    def mean_loss(
        self, examples: Sequence[Encoded], *, every_token: bool = False
    ) -> tuple[float, int]:
        """Mean cross-entropy in nats over the tokens that count, and how many they are; the model's
        mode stays.

        Raises:
            TrainingError: no token counts.
        """
        order = sorted(range(len(examples)), key=lambda index: len(examples[index].ids))
        was_training = self.inner.training
        self.inner.eval()
        total, count = 0.0, 0
        for run in fill(order, examples, EVALUATION_TOKENS):
            loss, tokens, _ = self.loss([examples[index] for index in run], every_token=every_token)
            total, count = total + loss.item(), count + tokens
        self.inner.train(was_training)
        if not count:
            raise TrainingError("validation: no token counts: give records with an answer")
        return total / count, count

    def _row_loss(self, row: Row) -> tuple[Tensor, Tensor]:
        """The sum, and the loss of each token that counts."""
        if not len(row.keep):
            return torch.zeros((), device=self.device), torch.zeros(0, device=self.device)
        if self.fused:
            head = self.inner.get_output_embeddings()
            hidden = self._hidden(row)[0, row.keep]
            return linear_cross_entropy(
                hidden, head.weight, row.targets, head.bias, self._softcap, self._head
            )
        logits = self.inner(**self._arguments(row), logits_to_keep=row.keep).logits[0]
        by_token = nn.functional.cross_entropy(logits.float(), row.targets, reduction="none")
        return by_token.sum(), by_token.detach()

    def _hidden(self, row: Row) -> Tensor:
        """Final hidden states, [1, T, hidden size]."""
        hidden: Tensor = self.inner.get_decoder()(**self._arguments(row)).last_hidden_state
        return hidden

    def _arguments(self, row: Row) -> dict[str, Any]:
        packed = {"record_lengths": row.lengths} if self.packs else {}
        return {"input_ids": row.ids, "position_ids": row.positions, "use_cache": False, **packed}

    @torch.no_grad()
    def _prove(self, records: Sequence[Encoded]) -> None:
        """Set ``packs`` and ``fused`` to what gives the model's own hidden states and logits."""
        training = self.inner.training
        self.inner.eval()
        try:
            alone = [lay([record], self.device, every_token=True) for record in records]
            hidden = torch.cat([self._hidden(row) for row in alone], dim=1)
            self.packs = self._same_packed(records, hidden)
            if not self.packs:
                self.release()
                warnings.warn(
                    f"{type(self.inner).__name__} cannot take several records in one row: training "
                    "one at a time, which is slower",
                    stacklevel=3,
                )
            self.fused = self._same_logits(alone[1])
        finally:
            self.inner.train(training)

    def _same_packed(self, records: Sequence[Encoded], expected: Tensor) -> bool:
        try:
            self.inner.set_attn_implementation(attention.NAME)
            if attention_in_use(self.inner) != attention.NAME:
                return False
            self.packs = True
            return _close(self._hidden(lay(records, self.device, every_token=True)), expected)
        except (ValueError, TypeError, RuntimeError, NotImplementedError):
            return False

    def _same_logits(self, row: Row) -> bool:
        head = self.inner.get_output_embeddings()
        if type(head) is not nn.Linear:
            return False
        logits = head(self._hidden(row)).float()
        if self._softcap is not None:
            logits = torch.tanh(logits / self._softcap) * self._softcap
        own: Tensor = self.inner(**self._arguments(row)).logits
        return _close(logits, own)


def inner_model(model: nn.Module) -> PreTrainedModel:
    """The transformers model inside a PEFT model, or the model itself."""
    inner: Any = model
    if hasattr(inner, "get_base_model"):
        inner = inner.get_base_model()
    assert isinstance(inner, PreTrainedModel)
    return inner


def _close(got: Tensor, expected: Tensor) -> bool:
    scale = expected.float().abs().max()
    tolerance = TOLERANCE.get(expected.dtype, 1e-3)
    return bool((got.float() - expected.float()).abs().max() <= tolerance * scale)
