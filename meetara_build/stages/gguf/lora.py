"""An adapter alone, as a GGUF file that llama.cpp adds to the base's."""

from collections.abc import Iterable, Iterator
from math import sqrt
from pathlib import Path
from typing import Any

import gguf
import torch
from convert_lora_to_gguf import LoraTorchTensor, get_base_tensor_name
from safetensors.torch import load_file
from torch import Tensor

from meetara_build.errors import ConfigError, ProofError
from meetara_build.outside import parse_json
from meetara_build.stages.gguf.convert import Labels, converter_class, refused_as_proof, write

_PREFIX = "base_model.model."


def check_expressible(adapter: Path) -> dict[str, Any]:
    """The adapter's configuration, if llama.cpp can add such an adapter to a base.

    Raises:
        ConfigError: the adapter is more than pairs of low-rank matrices.
    """
    config: dict[str, Any] = parse_json((adapter / "adapter_config.json").read_text("utf-8"))
    beyond = {"use_dora": "DoRA", "modules_to_save": "whole modules", "alora_invocation_tokens": "aLoRA"}
    if found := [label for key, label in beyond.items() if config.get(key)]:
        raise ConfigError(
            f"gguf.lora: llama.cpp cannot hold {' and '.join(found)} in a LoRA file: set gguf.lora to false "
            "(the merged model is not affected), or train a plain LoRA"
        )
    return config


def convert_adapter(adapter: Path, base: Path, target: Path, labels: Labels) -> int:
    """Write a PEFT adapter as a float32 LoRA GGUF; how many weights it changes.

    llama.cpp scales by alpha / rank alone. What rsLoRA and patterns of ranks and alphas change about that goes into
    the file's alpha and the B matrices.

    Raises:
        ConfigError: the adapter is more than pairs of low-rank matrices.
        ProofError: the converter cannot place a matrix.
    """
    config = check_expressible(adapter)
    official, hparams = converter_class(base)
    pairs = _pairs(adapter, config)

    class Converter(official):  # type: ignore[misc, valid-type]
        model_arch = official.model_arch

        def set_vocab(self) -> None:
            pass

        def set_type(self) -> None:
            labels.write(self)
            self.gguf_writer.add_type(gguf.GGUFType.ADAPTER)
            self.gguf_writer.add_string(gguf.Keys.Adapter.TYPE, "lora")

        def set_gguf_parameters(self) -> None:
            self.gguf_writer.add_float32(gguf.Keys.Adapter.LORA_ALPHA, _alpha(config))

        def generate_extra_tensors(self) -> Iterable[tuple[str, Tensor]]:
            return ()

        def get_tensors(self) -> Iterator[tuple[str, LoraTorchTensor]]:
            turned = self._stored_turned()
            for name, (a, b) in pairs.items():
                kept = self.filter_tensors((name, lambda a=a: a))
                if kept is not None:
                    yield kept[0], LoraTorchTensor(b.T, a.T) if turned else LoraTorchTensor(a, b)

        def _stored_turned(self) -> bool:
            """Whether the base holds its weights as (columns, rows), as GPT-2 does: the converter turns them round."""
            shapes = {name: tuple(self.model_tensors[name]().shape) for name in pairs if name in self.model_tensors}
            wanted = {name: (len(b), a.shape[1]) for name, (a, b) in pairs.items()}
            return any(shape == wanted[name][::-1] != wanted[name] for name, shape in shapes.items())

        def modify_tensors(self, data_torch: Any, name: str, bid: int | None) -> Iterator[tuple[str, Tensor]]:
            placed = list(super().modify_tensors(data_torch, name, bid))
            if not placed:
                raise ProofError(f"the adapter changes {name}, which the GGUF file of this base does not hold")
            for gguf_name, pair in placed:
                a, b = pair.get_lora_A_B()
                yield f"{gguf_name}.lora_a", a.T if "token_embd" in gguf_name else a
                yield f"{gguf_name}.lora_b", b

    with refused_as_proof(adapter), torch.inference_mode():
        write(Converter(base, gguf.LlamaFileType.ALL_F32, target, hparams=hparams))
    return len(pairs)


def _pairs(adapter: Path, config: dict[str, Any]) -> dict[str, tuple[Tensor, Tensor]]:
    """A (rank, columns) and B (rows, rank) by the name of the weight they change."""
    halves: dict[str, dict[str, Tensor]] = {}
    for name, tensor in sorted(load_file(adapter / "adapter_model.safetensors").items()):
        half = "A" if ".lora_A." in name or ".lora_embedding_A" in name else "B"
        if half == "B" and ".lora_B." not in name and ".lora_embedding_B" not in name:
            raise ConfigError(f"gguf.lora: {name} is not a low-rank matrix: set gguf.lora to false")
        halves.setdefault(get_base_tensor_name(name), {})[half] = tensor.to(torch.float32)
    return {
        name: (pair["A"], pair["B"] * _correction(name, pair["A"].shape[0], config)) for name, pair in halves.items()
    }


def _alpha(config: dict[str, Any]) -> float:
    """The alpha that makes alpha / rank right for weights of the usual rank."""
    usual = float(config["lora_alpha"])
    return usual * sqrt(config["r"]) if config.get("use_rslora") else usual


def _correction(name: str, rank: int, config: dict[str, Any]) -> float:
    """PEFT's scale of one weight over the scale that llama.cpp will use."""
    module = name.removeprefix(_PREFIX).removesuffix(".weight")
    own = [alpha for key, alpha in (config.get("alpha_pattern") or {}).items() if module.endswith(key)]
    alpha = float(own[0]) if own else float(config["lora_alpha"])
    peft = alpha / (sqrt(rank) if config.get("use_rslora") else rank)
    return peft / (_alpha(config) / rank)
