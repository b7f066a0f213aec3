"""LoRA adapters: PEFT attaches, names and saves them; the arithmetic of plain ones runs as one
function a layer.

PEFT computes ``W x + s B A x`` as five separate operations, each with a [T, width] tensor kept for
the backward pass. Done as one autograd function with in-place ``addmm`` it needs two, keeps only
the input, and gives the same numbers. Layers that are more than plain LoRA on a plain linear layer
(DoRA, quantized bases) stay with PEFT.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import torch
from peft import (
    LoraConfig,
    PeftModel,
    get_peft_model,
    get_peft_model_state_dict,
    set_peft_model_state_dict,
)
from peft.tuners.lora import Linear as LoraLinear
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import PreTrainedModel

from meetara_build.errors import TargetsError, WarmStartError
from meetara_build.training.kernels.frozen import FrozenMatrix, multiply_frozen
from meetara_build.training.kernels.torch_internals import reshape_in_place
from meetara_build.training.targets import ALL, layer_names, resolve_targets

ADAPTER = "default"
"""PEFT's name for the one adapter we train."""
LONGEST_REASON = 300
"""Characters of what PEFT says of a layer: it may print the whole of it."""


class _LoraProduct(torch.autograd.Function):
    """``x W' + b + scale * (d A') B'`` with ``d`` the input after dropout, or ``x`` itself.

    Products with a rank of eight are written so that the long side lies along memory, ``A d'``
    rather than ``d A'``: up to three times as fast on a CPU.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        dropped: Tensor | None,
        matrix: FrozenMatrix,
        bias: Tensor | None,
        a: Tensor,
        b: Tensor,
        scale: float,
    ) -> Tensor:
        flat = x.reshape(-1, x.shape[-1])
        source = flat if dropped is None else dropped.reshape(flat.shape)
        down, up = a.to(x.dtype), b.to(x.dtype)
        low = down @ source.t()  # [rank, T]
        out = matrix.forward(flat, bias).addmm_(low.t(), up.t(), alpha=scale)
        ctx.save_for_backward(source, low, down, up)
        ctx.matrix = matrix
        ctx.scale, ctx.dropout, ctx.adapter_dtype = scale, dropped is not None, a.dtype
        return reshape_in_place(out, [*x.shape[:-1], out.shape[-1]])

    @staticmethod
    def backward(ctx: Any, *outputs: Tensor) -> tuple[Tensor | None, ...]:
        source, low, down, up = ctx.saved_tensors
        (grad,) = outputs
        flat = grad.reshape(-1, grad.shape[-1])
        grad_low = (up.t().contiguous() @ flat.t()).mul_(ctx.scale)  # [rank, T]
        grad_a = (grad_low @ source).to(ctx.adapter_dtype)
        grad_b = (low @ flat).t().mul(ctx.scale).to(ctx.adapter_dtype)
        grad_x = grad_dropped = None
        if ctx.needs_input_grad[0]:
            grad_x = ctx.matrix.backward(flat)
        if ctx.needs_input_grad[1] and ctx.dropout:
            grad_dropped = (grad_low.t() @ down).view(*grad.shape[:-1], -1)
        elif grad_x is not None and not ctx.dropout:
            grad_x.addmm_(grad_low.t(), down)
        grad_x = grad_x.view(*grad.shape[:-1], -1) if grad_x is not None else None
        return grad_x, grad_dropped, None, None, grad_a, grad_b, None


def attach(model: PreTrainedModel, settings: Mapping[str, Any], seed: int) -> PeftModel:
    """A fresh adapter on ``model``; A is random from ``seed``, B zero.

    Args:
        settings: rank, alpha, dropout, targets ("all-linear" or a list of module names), rslora,
            dora.

    Raises:
        TargetsError: a target is no layer of the model, or one that no adapter can change.
    """
    targets = resolve_targets(model, settings["targets"])
    names, kind = layer_names(model), type(model).__name__
    config = LoraConfig(
        r=settings["rank"],
        lora_alpha=settings["alpha"],
        lora_dropout=settings["dropout"],
        target_modules=targets,
        use_rslora=settings["rslora"],
        use_dora=settings["dora"],
        task_type="CAUSAL_LM",
    )
    torch.manual_seed(seed)
    try:
        adapted = get_peft_model(model, config, adapter_name=ADAPTER)
    except ValueError as fault:
        reason = " ".join(str(fault).split())[:LONGEST_REASON]
        raise TargetsError(
            f'lora.targets: {settings["targets"]!r} cannot be adapted in {kind} (PEFT says: {reason}): use "{ALL}" or some of '
            f"{', '.join(names)}"
        ) from fault
    assert isinstance(adapted, PeftModel)
    return adapted


def begin_from(model: PeftModel, weights: Path) -> None:
    """Give a fresh adapter another's weights: those of a neighbour's adapter on the same base, to
    train on from there.

    Raises:
        WarmStartError: they are of another base, rank or set of target modules, or cannot be read.
    """
    try:
        found = load_file(weights)
    except (OSError, SafetensorError) as fault:
        raise WarmStartError(
            f"training.warm_start: {weights} cannot be read ({fault}): pin another adapter"
        ) from None
    own = get_peft_model_state_dict(model, adapter_name=ADAPTER, save_embedding_layers=False)
    if {name: tensor.shape for name, tensor in own.items()} != {
        name: tensor.shape for name, tensor in found.items()
    }:
        raise WarmStartError(
            "training.warm_start: that adapter is of another base, lora.rank or lora.targets: pin "
            "one that is made with the same"
        )
    set_peft_model_state_dict(model, found, adapter_name=ADAPTER)


def find_plain(model: nn.Module) -> list[nn.Module]:
    """The layers that are plain LoRA on a plain linear layer."""
    return [part for part in model.modules() if type(part) is LoraLinear and _plain(part)]


def fuse_layer(layer: nn.Module, matrix: FrozenMatrix) -> None:
    """Have a plain LoRA layer compute as one function; its base's weight is ``matrix``."""
    assert isinstance(layer, LoraLinear)
    base = cast(nn.Linear, layer.get_base_layer())
    down, up = layer.lora_A[ADAPTER], layer.lora_B[ADAPTER]
    scale, dropout, slow = layer.scaling[ADAPTER], layer.lora_dropout[ADAPTER], layer.forward

    def forward(x: Tensor, *args: object, **kwargs: object) -> Tensor:
        if layer.merged:
            return slow(x, *args, **kwargs)
        if layer.disable_adapters:
            return multiply_frozen(x, matrix, base.bias)
        dropped = dropout(x) if layer.training and not isinstance(dropout, nn.Identity) else None
        return _LoraProduct.apply(x, dropped, matrix, base.bias, down.weight, up.weight, scale)  # type: ignore[no-any-return,no-untyped-call]

    layer.forward = forward  # type: ignore[method-assign]


def has_changed(model: nn.Module) -> bool:
    """Whether training changed anything: B starts at zero, an embedding's A, and with it the
    adapter's whole effect."""
    halves = ("lora_B", "lora_embedding_A")
    ups: Sequence[Tensor] = [
        value for name, value in model.named_parameters() if any(half in name for half in halves)
    ]
    return any(bool(up.count_nonzero()) for up in ups)


def _plain(layer: LoraLinear) -> bool:
    return (
        type(layer.get_base_layer()) is nn.Linear
        and list(layer.lora_A) == [ADAPTER]
        and not layer.lora_variant
        and not any(layer.lora_bias.values())
        and not layer.merged
        and not getattr(layer, "fan_in_fan_out", False)
        and not layer.get_base_layer().weight.requires_grad
    )
