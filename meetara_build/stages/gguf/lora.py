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
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.pytorch_utils import Conv1D

from meetara_build.errors import ConfigError, ProofError
from meetara_build.outside import parse_json
from meetara_build.stages.gguf.convert import Labels, converter_class, refuse_as_proof, tell, write

_PREFIX = "base_model.model."
_HALVES = {(".lora_A.", ".lora_embedding_B"): "A", (".lora_B.", ".lora_embedding_A"): "B"}
"""Which matrix a tensor of an adapter is, of the two whose product is added to the weight as it
stands."""


def check_expressible(adapter: Path) -> dict[str, Any]:
    """The adapter's configuration, if llama.cpp can add such an adapter to a base.

    Raises:
        ConfigError: the adapter is more than pairs of low-rank matrices.
    """
    config: dict[str, Any] = parse_json((adapter / "adapter_config.json").read_text("utf-8"))
    beyond = {
        "use_dora": "DoRA",
        "modules_to_save": "whole modules",
        "alora_invocation_tokens": "aLoRA",
    }
    if found := [label for key, label in beyond.items() if config.get(key)]:
        raise ConfigError(
            f"gguf.files: llama.cpp cannot hold {' and '.join(found)} in a LoRA file: set "
            "gguf.files to merged (the merged model is not affected), or train a plain LoRA"
        )
    return config


def convert_adapter(adapter: Path, base: Path, target: Path, labels: Labels) -> int:
    """Write a PEFT adapter as an F16 LoRA GGUF; how many weights it changes.

    llama.cpp scales by alpha / rank alone. What rsLoRA and patterns of ranks and alphas change
    about that goes into the file's alpha and the B matrices.

    Raises:
        ConfigError: the adapter is more than pairs of low-rank matrices.
        ProofError: the converter cannot place a matrix.
    """
    config = check_expressible(adapter)
    official, hparams = converter_class(base)
    pairs, turned = _pairs(adapter, config), _list_turned(base)

    class Converter(official):  # type: ignore[misc, valid-type]
        model_arch = official.model_arch
        no_mtp = True

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
            for name, (a, b) in pairs.items():
                kept = self.filter_tensors((name, lambda a=a: a))
                if kept is not None:
                    yield (
                        kept[0],
                        LoraTorchTensor(b.T, a.T) if name in turned else LoraTorchTensor(a, b),
                    )

        def modify_tensors(
            self, data_torch: Any, name: str, bid: int | None
        ) -> Iterator[tuple[str, Tensor]]:
            try:
                placed = list(super().modify_tensors(data_torch, name, bid))
            except (
                Exception
            ) as error:  # its pair of matrices knows few of the operations on a whole weight
                raise _refuse_rewritten(name, error) from error
            if not placed:
                raise ProofError(
                    f"gguf.files: the adapter changes {name}, which the GGUF file of this base does "
                    "not hold so: set gguf.files to merged (the merged model is not affected), or "
                    "choose other lora.targets"
                )
            for gguf_name, pair in placed:
                a, b = pair.get_lora_A_B()
                # llama.cpp looks rows up in an embedding's, and so wants its two matrices the other
                # way round.
                is_embedding = gguf_name == "token_embd.weight"
                yield f"{gguf_name}.lora_a", b if is_embedding else a
                yield f"{gguf_name}.lora_b", a.T if is_embedding else b

    with refuse_as_proof(adapter), torch.inference_mode():
        write(Converter(base, gguf.LlamaFileType.MOSTLY_F16, target, hparams=hparams))
    return len(pairs)


def _refuse_rewritten(name: str, error: Exception) -> ProofError:
    leaf = [part for part in name.split(".")[:-1] if not part.isdecimal()][-1]
    return ProofError(
        f"gguf.files: llama.cpp's converter splits or rewrites {name}, which it cannot do to an "
        f"adapter of it ({tell(error)}): set gguf.files to merged (the merged model is not "
        f"affected), or leave {leaf} out of lora.targets"
    )


def _list_turned(base: Path) -> set[str]:
    """The weights that the base holds as (columns, rows), as GPT-2 does, which the converter turns
    round."""
    with torch.device("meta"):  # no weights are made: what kind of layer each is, is enough
        config = AutoConfig.from_pretrained(base, local_files_only=True)
        model = AutoModelForCausalLM.from_config(config)  # type: ignore[no-untyped-call]
    return {f"{name}.weight" for name, part in model.named_modules() if isinstance(part, Conv1D)}


def _pairs(adapter: Path, config: dict[str, Any]) -> dict[str, tuple[Tensor, Tensor]]:
    """A (rank, columns) and B (rows, rank) by the name of the weight they change."""
    halves: dict[str, dict[str, Tensor]] = {}
    for name, tensor in sorted(load_file(adapter / "adapter_model.safetensors").items()):
        half = next(
            (half for parts, half in _HALVES.items() if any(part in name for part in parts)), None
        )
        if half is None:
            raise ConfigError(
                f"gguf.files: {name} is not a low-rank matrix: set gguf.files to merged"
            )
        # An embedding's two stand the other way round: it is looked up in rows, not multiplied.
        whole = tensor.T if ".lora_embedding_" in name else tensor
        halves.setdefault(get_base_tensor_name(name), {})[half] = whole.to(torch.float32)
    return {
        name: (pair["A"], pair["B"] * _correction(name, pair["A"].shape[0], config))
        for name, pair in halves.items()
    }


def _alpha(config: dict[str, Any]) -> float:
    """The alpha that makes alpha / rank right for weights of the usual rank."""
    usual = float(config["lora_alpha"])
    return usual * sqrt(config["r"]) if config.get("use_rslora") else usual


def _correction(name: str, rank: int, config: dict[str, Any]) -> float:
    """PEFT's scale of one weight over the scale that llama.cpp will use."""
    module = name.removeprefix(_PREFIX).removesuffix(".weight")
    own = [
        alpha for key, alpha in (config.get("alpha_pattern") or {}).items() if module.endswith(key)
    ]
    alpha = float(own[0]) if own else float(config["lora_alpha"])
    peft = alpha / (sqrt(rank) if config.get("use_rslora") else rank)
    return peft / (_alpha(config) / rank)
