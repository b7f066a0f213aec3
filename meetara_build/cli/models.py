"""A domain's models, as they answer through llama.cpp."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from meetara_build.engine.planning import select_domains
from meetara_build.errors import ArtifactError, ConfigError, DataError, nearest
from meetara_build.graph import Graph
from meetara_build.graph.stages import LORA

SEED = 17


class Prompt(NamedTuple):
    """A conversation as the model reads it: its token ids, how many of its first turns are left
    out, and the room for an answer."""

    ids: list[int]
    left_out: int
    room: int


class Model:
    """One GGUF file, the system prompt it was trained with, and the adapter on it if the file is
    the base's."""

    def __init__(self, path: Path, system: str | None, adapter: Path | None = None) -> None:
        from llama_cpp import Llama

        from meetara_build.llama_cpp.model import Model as Reader
        from meetara_build.llama_cpp.model import start_backend

        for file in (path, *([adapter] if adapter else [])):
            if not file.exists():
                raise ArtifactError(f"{file}: not built yet; run `meetara-build build`")
        self.path, self.system = path, system
        lora = str(adapter) if adapter else None
        start_backend()  # an adapter's loader writes to the terminal otherwise
        try:
            self.llama = Llama(str(path), n_ctx=0, verbose=False, seed=SEED, lora_path=lora)
        except ValueError as error:
            raise ArtifactError(
                f"{path}: llama.cpp cannot load it ({error}); see `meetara-build verify`, and "
                "`verify --repair` to mend it"
            ) from None
        self.reader = Reader(path, vocab_only=True)
        about = (
            self.llama.metadata
        )  # llama.cpp rounds the context up, beyond the positions that the model was made with
        self.context = int(about[f"{about['general.architecture']}.context_length"])

    def prompt(self, turns: Sequence[dict[str, str]], tokens: int) -> Prompt:
        """As many of the last turns as leave room for an answer of ``tokens`` tokens, or for one of
        half of what the model reads at once.

        Raises:
            DataError: the last question alone is longer than what the model reads at once.
        """
        system = [{"role": "system", "content": self.system}] if self.system else []
        wanted = min(tokens, self.context // 2)
        ids: list[int] = []
        for left_out in range(0, len(turns), 2):  # a question and its answer
            ids = self.reader.prompt([*system, *turns[left_out:]])
            room = self.context - len(ids)
            if room >= wanted or (room > 0 and left_out == len(turns) - 1):
                return Prompt(ids, left_out, room)
        raise DataError(
            f"{self.path.name}: the question has {len(ids)} tokens with what stands around it, and "
            f"the model reads {self.context} at once: ask a shorter one"
        )

    def answer(self, prompt: Prompt, tokens: int) -> Iterator[str]:
        """The answer to a conversation, piece by piece; greedy, so that the same question gets the
        same answer."""
        pieces: Any = self.llama.create_completion(
            prompt.ids,
            max_tokens=min(tokens, prompt.room),
            temperature=0.0,
            repeat_penalty=1.1,
            stream=True,
        )
        for piece in pieces:
            if text := piece["choices"][0]["text"]:
                yield text


def find_model(
    graph: Graph, domain: str, quant: str | None
) -> tuple[Path, str | None, Path | None]:
    """A domain's GGUF file, its system prompt, and the adapter on it where the file is the base's;
    its last type where none is named."""
    select_domains(graph, [domain])
    recipe = graph.step("package", domain).recipe
    kinds = list(dict.fromkeys(["F16", *recipe["quants"]]))
    if quant is not None and quant not in kinds:
        raise ConfigError(f"{domain} has no {quant} file{nearest(quant, kinds)}")
    kind, own = quant or kinds[-1], graph.root / graph.step("gguf", domain).place.folder
    if recipe["files"] != LORA:
        return own / f"{domain}-{kind}.gguf", recipe["system_prompt"], None
    base = recipe["base"]
    of_base = graph.step("gguf" if kind == "F16" else "quantize", f"base/{base}")
    path = graph.root / of_base.place.folder / f"{base}-{kind}.gguf"
    return path, recipe["system_prompt"], own / f"{domain}-lora.gguf"
