"""A base's importance matrix: how strongly each input column of a weight is used by the domains'
text, measured once for all of them."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import chain, islice
from pathlib import Path

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from meetara_build.llama_cpp.importance import FILE, Imatrix, write_imatrix
from meetara_build.setup.check import check_llama
from meetara_build.stages.gguf.convert import find_names
from meetara_build.stages.gguf.loading import load_tokenizer
from meetara_build.stages.recipes.imatrix import ImatrixRecipe
from meetara_build.stages.sample import SAMPLE, read_sample
from meetara_build.stages.types import Inputs, Metrics
from meetara_build.training.chat import encode
from meetara_build.training.model import load_model

WINDOW = 512
"""Tokens to a forward pass, as llama.cpp's own imatrix tool has it."""


def run(recipe: ImatrixRecipe, inputs: Inputs, output: Path) -> Metrics:
    """Write ``imatrix.gguf``: sums of squared inputs of the base's linear layers over the sample, as
    trainings read it.

    An adapter changes what its base's layers are given by little: a domain's files are quantized by
    the base's matrix, and have to hold their domain's own ``max_kl``.

    Inputs: ``base``, and the file ``sample``.

    Raises:
        DataError: a line of the sample is no conversation.
        ConfigError: llama.cpp does not know the base's architecture.
        SetupError: the three parts of llama.cpp are not from one source.
    """
    check_llama()
    tokenizer = load_tokenizer(inputs["base"])
    texts = (encode(tokenizer, messages).ids for messages in read_sample(inputs[SAMPLE]))
    names = find_names(inputs["base"])
    sums, tokens = measure(load_model(inputs["base"], torch.float32), texts, names, recipe.tokens)
    write_imatrix(output / FILE, sums, tokens, WINDOW)
    return {"tokens": tokens, "tensors": len(sums)}


def measure(
    model: PreTrainedModel, texts: Iterable[Sequence[int]], names: Mapping[str, str], tokens: int
) -> tuple[Imatrix, int]:
    """Sum of squared inputs of each linear layer over up to ``tokens`` tokens of ``texts``, and how
    many there were.

    ``names`` gives the GGUF name of a module's weight; layers without one are skipped, as is the
    output layer, which llama.cpp's imatrix tool leaves out too.
    """
    sums: dict[str, Tensor] = {}
    hooks = []
    for module_name, module in model.named_modules():
        name = names.get(module_name)
        if name and name != "output.weight" and isinstance(module, nn.Linear | Conv1D):
            hooks.append(module.register_forward_pre_hook(_adder(sums, name)))
    seen = 0
    try:
        with torch.inference_mode():
            for window in _windows(texts, tokens):
                model.base_model(torch.tensor([window]), use_cache=False)
                seen += len(window)
    finally:
        for hook in hooks:
            hook.remove()
    return {name: total.to(torch.float32).numpy() for name, total in sums.items()}, seen


def _adder(sums: dict[str, Tensor], name: str) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
    def add(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        squares = inputs[0].to(torch.float32).flatten(0, -2).square().sum(0, dtype=torch.float64)
        sums[name] = sums[name] + squares if name in sums else squares

    return add


def _windows(texts: Iterable[Sequence[int]], tokens: int) -> Iterator[list[int]]:
    """Texts one after another, cut into windows, up to ``tokens`` tokens in all."""
    flat = list(islice(chain.from_iterable(texts), tokens))
    for start in range(0, len(flat), WINDOW):
        yield flat[start : start + WINDOW]
