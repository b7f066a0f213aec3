"""Which layers of a base an adapter changes: those that "all-linear" stands for, and whether those
that a person names can be.

What PEFT refuses it says by a private function only, tried with PEFT 0.21.
"""

import re
from collections.abc import Iterable, Sequence

from peft import LoraConfig
from peft.tuners.tuners_utils import _check_lora_target_modules_mamba
from peft.utils.transformers_weight_conversion import convert_peft_config_for_transformers
from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from meetara_build.errors import TargetsError

ALL = "all-linear"
LINEAR = (nn.Linear, Conv1D)
_BLOCK = re.compile(r"\.\d+\.")
"""What stands in the names of the layers within a model's blocks, and in no others."""
_ROUTER = re.compile(r"(^|\.)(router|modality_router|gate|shared_expert_gate)(\.|$)")
"""Parts of the names of layers that send tokens to experts, or weigh what experts answer."""


def resolve_targets(model: PreTrainedModel, wanted: str | Sequence[str]) -> list[str]:
    """The names that PEFT is given: whole ones for "all-linear", else those that were named.

    Raises:
        TargetsError: a name stands for no layer, for one that PEFT cannot adapt, or for weights
            that the base uses twice.
    """
    if wanted == ALL:
        if found := linear_layers(model):
            return found
        raise TargetsError(
            f'lora.targets: "{ALL}" matches no layer of {type(model).__name__}: this model has no linear layers that an adapter can '
            "change: choose another base"
        )
    names = sorted({wanted} if isinstance(wanted, str) else wanted)
    _refuse_unknown(model, names)
    _refuse_tied(model, names)
    _refuse_unusual(model, names)
    return names


def linear_layers(model: PreTrainedModel) -> list[str]:
    """The whole names of all layers within the model's blocks that are one plain matrix, and that
    an adapter can change without harm.

    Left out are the output layer, as PEFT does, and what else lies outside the blocks, where
    llama.cpp looks for no adapter (Gemma 3n's projections of embeddings); routers; what PEFT
    refuses (Mamba's out_proj, whose weight fast kernels read past the layer); and names under which
    PEFT would adapt fused experts, which no GGUF file can hold.
    """
    found = {
        name
        for name, part in model.named_modules()
        if type(part) in LINEAR
        and _BLOCK.search(name)
        and not _ROUTER.search(name)
        and _peft_allows(model, name)
    }
    return sorted(_list_kept_layers(model, found))


def output_layer(model: PreTrainedModel) -> nn.Module | None:
    """The layer that makes logits of hidden states."""
    found: nn.Module | None = model.get_output_embeddings()  # type: ignore[no-untyped-call]
    return found


def layer_names(model: PreTrainedModel) -> list[str]:
    """The last parts of the names of the layers that "all-linear" stands for, to tell a person what
    can be named."""
    return sorted({name.rpartition(".")[2] for name in linear_layers(model)})


def _peft_allows(model: PreTrainedModel, name: str) -> bool:
    try:
        _check_lora_target_modules_mamba(LoraConfig(), model, name.rpartition(".")[2])
    except ValueError:
        return False
    return True


def _list_kept_layers(model: PreTrainedModel, names: Iterable[str]) -> set[str]:
    """Those of some names that PEFT takes for layers: where experts were separate layers once, it
    takes these for the fused ones."""
    config = LoraConfig(target_modules=list(names))
    try:
        convert_peft_config_for_transformers(config, model, None)
    except ValueError:  # one name of a fused pair: PEFT refuses it itself, with its reason
        return set(names)
    return set(config.target_modules or ())


def _matching(model: PreTrainedModel, target: str) -> list[nn.Module]:
    return [
        part
        for name, part in model.named_modules()
        if name == target or name.endswith(f".{target}")
    ]


def _refuse_unknown(model: PreTrainedModel, names: Sequence[str]) -> None:
    unknown = [
        name
        for name in names
        if name in _list_kept_layers(model, [name]) and not _matching(model, name)
    ]
    if unknown:
        raise TargetsError(
            f'lora.targets: {unknown!r} matches no layer of {type(model).__name__}: use "{ALL}" or some of '
            f"{', '.join(layer_names(model)) or 'none: this model has no linear layers'}"
        )


def _refuse_tied(model: PreTrainedModel, names: Sequence[str]) -> None:
    """An adapter changes one of two layers that share their weights: merged, it would change the
    other too."""
    source, output = model.get_input_embeddings(), output_layer(model)
    if output is None or getattr(source, "weight", None) is not getattr(output, "weight", None):
        return
    for name in names:
        if any(part in (source, output) for part in _matching(model, name)):
            raise TargetsError(
                f"lora.targets: {name} has the same weights as the base's {_other(model, name)} "
                "(tie_word_embeddings in its config.json), so that neither a merged model nor a "
                f"GGUF file could hold an adapter of one alone: leave {name} out"
            )


def _other(model: PreTrainedModel, name: str) -> str:
    """What the layer that shares a named one's weights is."""
    return "embedding" if output_layer(model) in _matching(model, name) else "output layer"


def _refuse_unusual(model: PreTrainedModel, names: Sequence[str]) -> None:
    """A layer that looks linear to PEFT and gives something else (PhiMoE's router): its adapter
    would fail at the first step."""
    for name in names:
        for part in _matching(model, name):
            if isinstance(part, LINEAR) and type(part) not in LINEAR and _ROUTER.search(name):
                raise TargetsError(
                    f"lora.targets: {name} is a router ({type(part).__name__}), which an adapter "
                    f"cannot change: use some of {', '.join(layer_names(model))}"
                )
