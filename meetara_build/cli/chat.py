"""Talk to a domain's model through llama.cpp."""

import time
from typing import Annotated

import typer

from meetara_build.cli.models import Model, Prompt, find_model
from meetara_build.cli.options import Domain, Json
from meetara_build.cli.output import amount, err, print_json
from meetara_build.errors import DataError
from meetara_build.graph import load
from meetara_build.outside import show_text
from meetara_build.plan.held_back import find_held_back
from meetara_build.project import find_project


def chat(
    domain: Domain,
    question: Annotated[
        str | None, typer.Argument(help="Ask this and end; without it, talk.")
    ] = None,
    quant: Annotated[
        str | None, typer.Option(help="Which GGUF file; the smallest if not given.")
    ] = None,
    tokens: Annotated[int, typer.Option(min=1, help="Longest answer, in tokens.")] = 200,
    as_json: Json = False,
) -> None:
    """Answer one question, or talk until the input ends.

    Raises:
        ArtifactError: the model is not built.
        ConfigError: an unknown domain, or a type that the domain does not build.
        DataError: a question that is longer than what the model reads at once.
    """
    graph = load(find_project())
    model = Model(*find_model(graph, domain, quant))
    if (refused := find_held_back(graph, domain)) is not None:
        err.print(f"{domain} is held back: {refused.line()}", style="red", markup=False)
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
