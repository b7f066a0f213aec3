"""Put the same questions to two models."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from meetara_build.cli.completion import complete_models
from meetara_build.cli.models import Model, find_model
from meetara_build.cli.options import Json
from meetara_build.cli.output import out, print_json, table
from meetara_build.errors import ArtifactError, ConfigError
from meetara_build.graph import Graph, load
from meetara_build.outside import parse_json
from meetara_build.project import find_project

Name = Annotated[
    str,
    typer.Argument(help="DOMAIN or DOMAIN:QUANT or base:NAME.", autocompletion=complete_models),
]


def compare(
    one: Name,
    other: Name,
    questions: Annotated[
        list[str] | None, typer.Option("--ask", help="A question; held-out ones if not given.")
    ] = None,
    count: Annotated[int, typer.Option(min=1, help="How many held-out questions.")] = 3,
    tokens: Annotated[int, typer.Option(min=1, help="Longest answer, in tokens.")] = 80,
    as_json: Json = False,
) -> None:
    """Put the same questions to two models and show the answers side by side.

    Raises:
        DataError: a question that is longer than what one of them reads at once.
    """
    graph = load(find_project())
    names = (one, other)
    models = [Model(*_find_named(graph, name)) for name in names]
    asked = questions or _read_questions(graph, names, count)
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


def _read_questions(graph: Graph, names: Sequence[str], count: int) -> list[str]:
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


def _find_named(graph: Graph, name: str) -> tuple[Path, str | None, Path | None]:
    word, _, rest = name.partition(":")
    if word != "base":
        return find_model(graph, word, rest or None)
    step = graph.step("gguf", f"base/{rest}")
    return graph.root / step.place.folder / f"{rest}-F16.gguf", None, None
