"""Every product with a frozen matrix in the form that costs least, for the time of a training.

Which layers there are depends on the architecture, so they are found by what they are: LoRA on a
plain linear layer, and plain linear layers. What is neither (experts in one tensor, Conv1D, DoRA, a
weight that is trained) stays as it is, and is named in the training's report.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from typing import NamedTuple, cast

from peft.tuners.lora import LoraLayer
from torch import Tensor, nn

from meetara_build.training.kernels.frozen import (
    FrozenMatrix,
    can_rearrange,
    hold_matrix,
    lay_out,
    multiply_frozen,
)
from meetara_build.training.kernels.lora import find_plain, fuse_layer


class Product(NamedTuple):
    """A layer, the matrix it multiplies with, and whether no other layer has that weight;
    ``trained`` is whether there is an adapter in it or before it, so that gradients pass."""

    layer: nn.Module
    matrix: FrozenMatrix
    own: bool
    trained: bool


class Fused:
    """A model's layers that compute otherwise than they were written.

    Attributes:
        lora: how many are LoRA layers that compute as one function.
        left: how many frozen weights are left to torch's own products, by their layers' kinds.
    """

    def __init__(self, lora: list[Product], others: list[Product], left: dict[str, int]) -> None:
        self.lora, self.left = len(lora), left
        self._products = [*lora, *others]

    @property
    def rearranged(self) -> int:
        """How many weights are laid out for this processor."""
        return sum(product.matrix.is_rearranged for product in self._products)

    @property
    def is_held(self) -> bool:
        """Whether all of them outlive this training."""
        return all(product.matrix.is_held for product in self._products)

    def hold(self, base: str) -> None:
        """Have them outlive this training, with what was laid out of them, for a base of this
        name."""
        for product in self._products:
            product.matrix.lay_out_backward()
            hold_matrix(product.matrix, base)

    def drop_weights(self, within: nn.Module) -> None:
        """Hold no weight of a layer within some part beside its copies, where no other layer has
        it."""
        inside = {id(part) for part in within.modules()}
        for product in self._products:
            if product.own and id(product.layer) in inside:
                product.matrix.drop_weight()

    def lay_out_backward(self) -> None:
        """Make the copies for the backward pass now, in the room of dropped weights and before
        activations lie between them."""
        for product in self._products:
            if product.trained:
                product.matrix.lay_out_backward()

    def restore_weights(self) -> None:
        """Put the weights back; layers go on computing as they do."""
        for product in self._products:
            product.matrix.restore_weight()

    def undo(self) -> None:
        """Have every layer compute as it was written, with its weight; each copy goes before the
        next weight comes back. What is held stays as it is."""
        while self._products:
            product = self._products.pop()
            product.matrix.restore_weight()
            if not product.matrix.is_held or isinstance(product.layer, LoraLayer):
                vars(product.layer).pop("forward", None)


Bind = Callable[[nn.Module, FrozenMatrix], None]
"""Has a layer compute with its base's weight in this form."""


def fuse(model: nn.Module, head: nn.Module | None = None, bind: Bind = fuse_layer) -> Fused:
    """Let plain LoRA layers compute as one function, and frozen linear ones with a matrix that is
    laid out once; weights and their names do not change.

    ``head`` is the output layer, which the loss computes itself; ``bind`` is for LoRA layers.
    """
    adapted = find_plain(model)
    within = {id(part.get_base_layer()) for part in model.modules() if isinstance(part, LoraLayer)}
    plain = [
        part
        for part in model.modules()
        if type(part) is nn.Linear
        and id(part) not in within
        and part is not head
        and not any(weight.requires_grad for weight in part.parameters())
    ]
    lora = _lay_out(model, adapted, [_base_weight(layer) for layer in adapted], bind)
    weights = [layer.weight for layer in plain]
    others = _lay_out(model, plain, weights, _fuse_plain) if can_rearrange(weights) else []
    covered = {
        id(product.matrix.weight) for product in [*lora, *others] if product.matrix.is_rearranged
    }
    return Fused(lora, others, _count_left(model, covered, head))


def _lay_out(
    model: nn.Module,
    layers: Sequence[nn.Module],
    weights: Sequence[Tensor],
    bind: Bind,
) -> list[Product]:
    owners = Counter(id(weight) for _, weight in model.named_parameters(remove_duplicate=False))
    trained = _list_trained(model)
    rearrange = can_rearrange(weights)
    made = []
    for layer, weight in zip(layers, weights, strict=True):
        matrix = lay_out(weight, rearrange=rearrange)
        bind(layer, matrix)
        made.append(Product(layer, matrix, owners[id(weight)] == 1, id(layer) in trained))
    return made


def _list_trained(model: nn.Module) -> set[int]:
    """The parts, by identity, from the first one on that holds what is trained; models name their
    layers in the order in which they compute."""
    parts = list(model.modules())
    holds = [any(weight.requires_grad for weight in part.parameters()) for part in parts]
    leaf = [not any(True for _ in part.children()) for part in parts]
    first = next((at for at, part in enumerate(parts) if leaf[at] and holds[at]), len(parts))
    return {id(part) for at, part in enumerate(parts) if at > first or isinstance(part, LoraLayer)}


def _base_weight(layer: nn.Module) -> Tensor:
    return cast(nn.Linear, cast(LoraLayer, layer).get_base_layer()).weight


def _fuse_plain(layer: nn.Module, matrix: FrozenMatrix) -> None:
    bias = cast(nn.Linear, layer).bias

    def forward(x: Tensor) -> Tensor:
        return multiply_frozen(x, matrix, bias)

    layer.forward = forward


def _count_left(model: nn.Module, covered: set[int], head: nn.Module | None) -> dict[str, int]:
    """Frozen matrices and what else has several dimensions, outside embeddings, by kind."""
    kinds = Counter(
        type(part).__name__
        for part in model.modules()
        if not isinstance(part, nn.Embedding) and part is not head
        for weight in part.parameters(recurse=False)
        if weight.dim() > 1 and not weight.requires_grad and id(weight) not in covered
    )
    return dict(sorted(kinds.items()))
