"""chat and compare: a domain's models answer through llama.cpp."""

import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from meetara_build.cli.output import amount, err, out, print_json, table
from meetara_build.engine.planning import wanted
from meetara_build.errors import ArtifactError, ConfigError, DataError, nearest
from meetara_build.graph import Graph, load
from meetara_build.graph.stages import list_types
from meetara_build.outside import parse_json, show_text
from meetara_build.project import find_project

SEED = 17


class Prompt(NamedTuple):
    """A conversation as the model reads it: its token ids, how many of its first turns are left out, and the room for an answer."""

    ids: list[int]
    left_out: int
    room: int


class Model:
    """One GGUF file, and the system prompt it was trained with."""

    def __init__(self, path: Path, system: str | None) -> None:
        from llama_cpp import Llama

        from meetara_build.llama_cpp.model import Model as Reader

        if not path.exists():
            raise ArtifactError(f"{path}: not built yet; run `meetara-build build`")
        self.path, self.system = path, system
        try:
            self.llama = Llama(str(path), n_ctx=0, verbose=False, seed=SEED)
        except ValueError as error:
            raise ArtifactError(
                f"{path}: llama.cpp cannot load it ({error}); see `meetara-build verify`, and `verify --repair` to mend it"
            ) from None
        self.reader = Reader(path, vocab_only=True)
        about = (
            self.llama.metadata
        )  # llama.cpp rounds the context up, beyond the positions that the model was made with
        self.context = int(about[f"{about['general.architecture']}.context_length"])

    def prompt(self, turns: Sequence[dict[str, str]], tokens: int) -> Prompt:
        """As many of the last turns as leave room for an answer of ``tokens`` tokens, or for one of half of what the model reads at once.

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
            f"{self.path.name}: the question has {len(ids)} tokens with what stands around it, and the model reads {self.context} at once: "
            "ask a shorter one"
        )

    def answer(self, prompt: Prompt, tokens: int) -> Iterator[str]:
        """The answer to a conversation, piece by piece; greedy, so that the same question gets the same answer."""
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


def chat(
    domain: str, question: str | None, *, quant: str | None, tokens: int, as_json: bool
) -> None:
    """Answer one question, or talk until the input ends.

    Raises:
        ArtifactError: the model is not built.
        ConfigError: an unknown domain, or a type that the domain does not build.
        DataError: a question that is longer than what the model reads at once.
    """
    graph = load(find_project())
    model = Model(*_file(graph, domain, quant))
    if question is not None:
        started = time.monotonic()
        prompt = model.prompt([{"role": "user", "content": question}], tokens)
        _tell(prompt, tokens)
        pieces = []
        for piece in model.answer(prompt, tokens):
            pieces.append(piece)
            if not as_json:
                print(show_text(piece), end="", flush=True)
        if as_json:
            text = "".join(pieces)
            print_json(
                {
                    "model": str(model.path),
                    "question": question,
                    "answer": text,
                    "seconds": time.monotonic() - started,
                }
            )
        else:
            print()
        return
    _talk(model, tokens)


def _talk(model: Model, tokens: int) -> None:
    err.print(f"{model.path.name}; an empty line or Ctrl-D ends", style="dim")
    turns: list[dict[str, str]] = []
    while True:
        try:
            question = input("> ").strip()
        except EOFError:
            question = ""
        if not question:
            return
        asked = [*turns, {"role": "user", "content": question}]
        try:
            prompt = model.prompt(asked, tokens)
        except DataError as error:  # the talk goes on without this question
            err.print(str(error))
            continue
        _tell(prompt, tokens)
        said = []
        for piece in model.answer(prompt, tokens):
            said.append(piece)
            print(show_text(piece), end="", flush=True)
        print()
        turns = [*asked[prompt.left_out :], {"role": "assistant", "content": "".join(said)}]


def _tell(prompt: Prompt, tokens: int) -> None:
    """Say what does not fit into what the model reads at once."""
    if prompt.left_out:
        err.print(f"the first {prompt.left_out} turns no longer fit and are left out", style="dim")
    if prompt.room < tokens:
        err.print(f"there is room for {amount(prompt.room, 'token')} of an answer", style="dim")


def compare(
    one: str, other: str, questions: Sequence[str], *, count: int, tokens: int, as_json: bool
) -> None:
    """Put the same questions to two models and show the answers side by side.

    Raises:
        DataError: a question that is longer than what one of them reads at once.
    """
    graph = load(find_project())
    names = (one, other)
    models = [Model(*_named(graph, name)) for name in names]
    asked = list(questions) or _held_out(graph, names, count)
    rows = []
    for question in asked:
        turns = [{"role": "user", "content": question}]
        prompts = [model.prompt(turns, tokens) for model in models]
        said = [
            "".join(model.answer(prompt, tokens))
            for model, prompt in zip(models, prompts, strict=True)
        ]
        rows.append([question, *(text.strip() for text in said)])
    if as_json:
        print_json([dict(zip(("question", *names), row, strict=True)) for row in rows])
        return
    shown = table("", "question", *names)
    for number, row in enumerate(rows, 1):
        shown.add_row(str(number), *row, end_section=True)
        shown.add_row("")
    out.print(shown)


def _held_out(graph: Graph, names: Sequence[str], count: int) -> list[str]:
    """Questions that neither model has seen."""
    domain = next((name.partition(":")[0] for name in names if not name.startswith("base:")), None)
    if domain is None:
        raise ConfigError("two bases share no held-out questions; ask with --ask")
    path = graph.root / graph.step("dataset", domain).place.folder / "test.jsonl"
    if not path.exists():
        raise ArtifactError(f"{path}: not built yet; run `meetara-build build {domain}`")
    records = [parse_json(line) for line in path.read_text(encoding="utf-8").splitlines()[:count]]
    return [
        next(turn["content"] for turn in record["messages"] if turn["role"] == "user")
        for record in records
    ]


def _named(graph: Graph, name: str) -> tuple[Path, str | None]:
    word, _, rest = name.partition(":")
    if word != "base":
        return _file(graph, word, rest or None)
    step = graph.step("gguf", f"base/{rest}")
    return graph.root / step.place.folder / f"{rest}-F16.gguf", None


def _file(graph: Graph, domain: str, quant: str | None) -> tuple[Path, str | None]:
    """A domain's GGUF file and system prompt; its last type where none is named."""
    wanted(graph, [domain])
    step = graph.step("gguf", domain)
    kinds = list_types(step.recipe)
    if quant is not None and quant not in kinds:
        raise ConfigError(f"{domain} has no {quant} file{nearest(quant, kinds)}")
    path = graph.root / step.place.folder / f"{domain}-{quant or kinds[-1]}.gguf"
    return path, step.recipe["system_prompt"]
