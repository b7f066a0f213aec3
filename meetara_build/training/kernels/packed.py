"""A causal language model that reads several records as one row without padding, and proves that it
may.

Whether a model's layers keep records apart, and whether its output layer is one plain matrix,
depends on the architecture. So nothing is taken from a list of known names: each short cut is tried
once on two real records, compared with what transformers computes for each record alone, and left
out where the two differ.
"""

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from meetara_build.errors import TrainingError
from meetara_build.training.batches import fill
from meetara_build.training.chat import Encoded
from meetara_build.training.kernels import attention
from meetara_build.training.kernels.frozen import FrozenMatrix, can_rearrange, hold_matrix, lay_out
from meetara_build.training.kernels.fuse import Fused
from meetara_build.training.kernels.loss import linear_cross_entropy
from meetara_build.training.kernels.prefix import Group, group_texts
from meetara_build.training.transformers_internals import attention_in_use

EVALUATION_TOKENS = 2048
"""Tokens in one forward pass without gradients."""
MOST_ALIKE = 1000
"""Records that are looked through for two that begin alike."""
TOLERANCE = {torch.float32: 1e-3, torch.bfloat16: 6e-2, torch.float16: 1e-2}
"""Largest difference from the model's own computation, relative to its largest value: rounding,
never a leak."""


@dataclass(frozen=True)
class Row:
    """Records laid end to end, each whole, or as a prefix that several share and its own rest.

    ids, positions: [1, T], positions start again at 0 in each record.
    lengths: tokens of each segment (record, prefix or rest), sum T.
    prefixes: for each segment the one that it goes on from, if there is one.
    places: for each record, where in the row its tokens lie.
    counts: how many of each record's tokens count, sum N; of a prefix as often as it is shared.
    keep: [N], where in the row the next token counts, in the order of records.
    targets: [N], that next token.
    """

    ids: Tensor
    positions: Tensor
    lengths: list[int]
    prefixes: list[int | None]
    places: list[list[int]]
    counts: list[int]
    keep: Tensor
    targets: Tensor


def lay(
    records: Sequence[Encoded],
    device: torch.device,
    *,
    every_token: bool = False,
    share: bool = False,
) -> Row:
    """One row of whole records, or, with ``share``, of what they begin with once and their rests.

    ``every_token`` counts all but turns that are never learnt. A record's first token is never
    predicted.
    """
    ids: list[int] = []
    positions: list[int] = []
    lengths: list[int] = []
    prefixes: list[int | None] = []
    places: list[list[int]] = [[] for _ in records]

    def add(tokens: Sequence[int], first: int, above: int | None) -> list[int]:
        """A segment whose tokens stand at ``first`` and on in their record; where it lies."""
        at = range(len(ids), len(ids) + len(tokens))
        ids.extend(tokens)
        positions.extend(range(first, first + len(tokens)))
        lengths.append(len(tokens))
        prefixes.append(above)
        return list(at)

    alone = [Group(0, [index]) for index in range(len(records))]
    for group in group_texts([record.ids for record in records]) if share else alone:
        shared, common = group.shared, list[int]()
        if shared:
            common = add(records[group.members[0]].ids[:shared], 0, None)
        above = len(lengths) - 1 if shared else None
        for index in group.members:
            places[index] = common + add(records[index].ids[shared:], shared, above)
    counted = [
        [
            i
            for i, said in enumerate(record.mask[1:])
            if said or (every_token and i + 1 not in record.never)
        ]
        for record in records
    ]
    pairs = list(zip(records, places, counted, strict=True))
    keep = [where[i] for _, where, several in pairs for i in several]
    targets = [record.ids[i + 1] for record, _, several in pairs for i in several]
    tokens, at, kept, wanted = (
        torch.tensor(values, dtype=torch.long, device=device)
        for values in (ids, positions, keep, targets)
    )
    counts = [len(several) for several in counted]
    return Row(tokens[None], at[None], lengths, prefixes, places, counts, kept, wanted)


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
        shares: what records of a row begin with together is computed once.
        fused: the output layer is one matrix (with Gemma's bound on logits where the architecture
            has it).
    """

    def __init__(
        self,
        model: nn.Module,
        probe: Sequence[Encoded],
        layers: Fused | None = None,
        origin: str = "",
    ) -> None:
        """Try the short cuts on the longest and the shortest record of ``probe``, and on two of
        those that begin alike.

        ``layers`` are the model's that compute otherwise than they were written; ``origin`` names
        its weights as they were before.
        """
        self.inner: Any = inner_model(model)
        self.packs = self.shares = self.fused = False
        self.layers, self.origin = layers, origin
        self._head: FrozenMatrix | None = None
        self._own_attention = attention_in_use(self.inner)
        self._softcap = getattr(
            self.inner.config.get_text_config(), "final_logit_softcapping", None
        )
        self._probe = sorted(
            (record for record in probe if len(record.ids) > 1), key=lambda record: len(record.ids)
        )
        if self._probe:
            self._prove([self._probe[-1], self._probe[0]], _find_alike(self._probe))

    def rearrange_head(self) -> None:
        """Lay out a frozen output layer for fast products; pays off over many steps."""
        weight = self.inner.get_output_embeddings().weight if self.fused else None
        if weight is not None and not weight.requires_grad and can_rearrange([weight]):
            self._head = lay_out(weight, rearrange=True)

    @torch.no_grad()
    def drop_weights(self) -> None:
        """Hold no frozen weight beside its copies, unless something else reads it: then the
        shortest record's hidden states are no longer the same, bit for bit."""
        if self.layers is None or not self._probe or self.layers.is_held:
            return
        training = self.inner.training
        self.inner.eval()
        row = lay(self._probe[:1], self.device)
        before = self._hidden(row)
        self.layers.drop_weights(self.inner.get_decoder())
        if not torch.equal(self._hidden(row), before):
            self.layers.restore_weights()
        self.layers.lay_out_backward()
        self.inner.train(training)

    def hold(self, base: str) -> None:
        """Have what was laid out outlive this object, for a base of this name."""
        if self.layers is not None:
            self.layers.hold(base)
        if self._head is not None:
            hold_matrix(self._head, base)

    def describe(self) -> dict[str, object]:
        """Which short cuts it takes, and which parts are left to torch's own products."""
        taken: dict[str, object] = {
            "packs": self.packs,
            "shares": self.shares,
            "fused_head": self.fused,
        }
        if self.layers is not None:
            taken |= {
                "fused_adapters": self.layers.lora,
                "rearranged": self.layers.rearranged + (self._head is not None),
                "left_to_torch": self.layers.left,
            }
        return taken

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
        share = self.shares and not self.drops()
        rows = [lay(group, self.device, every_token=every_token, share=share) for group in groups]
        sums, by_token = zip(*[self._row_loss(row) for row in rows], strict=True)
        parts = torch.split(torch.cat(by_token), [count for row in rows for count in row.counts])
        tokens = sum(len(row.keep) for row in rows)
        return Loss(torch.stack(sums).sum(), tokens, torch.stack([part.sum() for part in parts]))

    def backward(
        self, records: Sequence[Encoded], counted_tokens: int, *, every_token: bool = False
    ) -> tuple[float, list[float]]:
        """Add the gradients of some records' loss, divided by ``counted_tokens``, to the weights',
        unless that loss is not finite; the loss, and each record's part of it."""
        total, _, by_record = self.loss(records, every_token=every_token)
        loss = total.item()
        if math.isfinite(loss):
            (total / counted_tokens).backward()  # type: ignore[no-untyped-call]
        return loss, by_record.tolist()

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
        packed: dict[str, Any] = {"record_lengths": row.lengths} if self.packs else {}
        if any(above is not None for above in row.prefixes):
            packed["record_prefixes"] = row.prefixes
        return {"input_ids": row.ids, "position_ids": row.positions, "use_cache": False, **packed}

    def drops(self) -> bool:
        """Whether values are left out at random now: of a shared prefix they would be the same ones
        for all records."""
        config = self.inner.config.get_text_config()
        return bool(self.inner.training) and (
            any(isinstance(part, nn.Dropout) and part.p > 0 for part in self.inner.modules())
            or any(value for name, value in config.to_dict().items() if "dropout" in name)
        )

    @torch.no_grad()
    def _prove(self, records: Sequence[Encoded], alike: Sequence[Encoded]) -> None:
        """Set ``packs``, ``shares`` and ``fused`` to what gives the model's own hidden states and
        logits."""
        training = self.inner.training
        self.inner.eval()
        try:
            alone = [lay([record], self.device, every_token=True) for record in records]
            hidden = [self._hidden(row) for row in alone]
            begun = [
                hidden[1]
                if record.ids == records[1].ids
                else self._hidden(lay([record], self.device))
                for record in alike
            ]
            self.packs = self._same_packed(records, torch.cat(hidden, dim=1))
            self.shares = (
                self.packs and bool(begun) and self._same_shared(alike, torch.cat(begun, 1))
            )
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
            return is_close(self._hidden(lay(records, self.device, every_token=True)), expected)
        except (ValueError, TypeError, RuntimeError, NotImplementedError):
            return False

    def _same_shared(self, records: Sequence[Encoded], expected: Tensor) -> bool:
        row = lay(records, self.device, share=True)
        try:
            return is_close(self._hidden(row)[:, list(chain(*row.places))], expected)
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
        return is_close(logits, own)


def inner_model(model: nn.Module) -> PreTrainedModel:
    """The transformers model inside a PEFT model, or the model itself."""
    inner: Any = model
    if hasattr(inner, "get_base_model"):
        inner = inner.get_base_model()
    assert isinstance(inner, PreTrainedModel)
    return inner


def _find_alike(records: Sequence[Encoded]) -> list[Encoded]:
    """The two shortest of those unlike records that save most as a group; none where none do."""
    several = list({tuple(record.ids): record for record in records}.values())[:MOST_ALIKE]
    groups = group_texts([record.ids for record in several])
    best = max(groups, key=lambda group: group.shared * (len(group.members) - 1))
    ordered = sorted((several[index] for index in best.members), key=lambda one: len(one.ids))
    return ordered[:2] if best.shared else []


def is_close(got: Tensor, expected: Tensor, dtype: torch.dtype | None = None) -> bool:
    """Whether two results differ by rounding alone, of a computation in ``dtype``, if not in their
    own."""
    scale = expected.float().abs().max()
    tolerance = TOLERANCE.get(dtype or expected.dtype, 1e-3)
    return bool((got.float() - expected.float()).abs().max() <= tolerance * scale)
