"""Merged weights in the place of a base's, in a copy of its F16 file: the converter's own
transformation of just the weights that an adapter changes.

What it cannot do so is told, and then the whole model is converted.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import gguf
import torch
from conversion.base import LazyTorchTensor
from peft import PeftModel
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils import AuxiliaryTrainingWrapper
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from meetara_build.llama_cpp.layout import Layout, Weights
from meetara_build.stages.gguf.convert import converter_class, refuse_as_proof, tell

PLAIN = (nn.Linear, Conv1D, nn.Embedding)
"""Layers that have one weight, which an adapter changes and nothing else of them."""
FLOATS = (gguf.GGMLQuantizationType.F16, gguf.GGMLQuantizationType.F32)


class Placing:
    """One base. ``reason`` says why weights cannot be placed, and is empty as long as they can."""

    def __init__(self, base: Path, layout: Layout) -> None:
        official, hparams = converter_class(base)

        class Placed(official):  # type: ignore[misc, valid-type]
            model_arch = official.model_arch
            no_mtp = True

        self.layout, self.reason = layout, ""
        with refuse_as_proof(base):
            self.model: Any = Placed(base, gguf.LlamaFileType.MOSTLY_F16, base, hparams=hparams)

    def find_changed(self, adapted: PeftModel) -> dict[str, Tensor]:
        """The base's weights that an adapter changes, by name, before they are merged. They have
        to be in the base's files under these names, and as transformers holds them."""
        found: dict[str, Tensor] = {}
        whole: Any = adapted.get_base_model()
        tied = getattr(whole.config.get_text_config(), "tie_word_embeddings", False)
        shared = (whole.get_input_embeddings(), whole.get_output_embeddings()) if tied else ()
        for settings in adapted.peft_config.values():
            if getattr(settings, "lora_bias", False) or getattr(settings, "bias", "none") != "none":
                self.reason = "the adapter changes biases too"
        for name, part in whole.named_modules():
            if isinstance(part, AuxiliaryTrainingWrapper):
                self.reason = f"{name} is trained whole"
            elif isinstance(part, BaseTunerLayer):
                layer: Any = part.get_base_layer()
                if part in shared or not isinstance(layer, PLAIN):
                    self.reason = f"{name} is no plain layer of its own"
                else:
                    found[f"{name}.weight"] = layer.weight.data
        for name, weight in found.items():
            self.reason = self.reason or self._compare(name, weight)
        return found

    def list_weights(self, merged: Mapping[str, Tensor]) -> Iterator[tuple[str, Weights]]:
        """The GGUF tensors that merged weights become, as the base's file stores them; ends early
        where there is a reason."""
        for name, weight in merged.items():
            try:
                placed = list(self.model.modify_tensors(weight, self._kept(name), _block(name)))
            except Exception as error:  # the converter raises whatever went wrong
                self.reason = f"the converter needs more than {name} ({tell(error)})"
                return
            if not placed:
                self.reason = f"the converter joins {name} with others, or leaves it out"
                return
            for tensor, data in placed:
                place, numbers = self.layout.tensors.get(tensor), data.detach().numpy()
                if place is None or place.shape != numbers.shape or place.kind not in FLOATS:
                    self.reason = f"{name} becomes {tensor}, which the base's file has otherwise"
                    return
                yield tensor, gguf.quants.quantize(numbers, place.kind)

    def _compare(self, name: str, weight: Tensor) -> str:
        kept = self._kept(name)
        if kept is None or kept not in self.model.model_tensors:
            return f"{name} has another name in the base's files"
        stored = LazyTorchTensor.to_eager(self.model.model_tensors[kept]())
        same = stored.shape == weight.shape and torch.equal(stored.to(weight.dtype), weight)
        return "" if same else f"{name} is not held as the base's files have it"

    def _kept(self, name: str) -> str | None:
        """What the converter calls a weight; None where it leaves it out."""
        kept = self.model.filter_tensors((name, lambda: None))
        return None if kept is None else str(kept[0])


def _block(name: str) -> int | None:
    return next((int(part) for part in name.split(".") if part.isdecimal()), None)
