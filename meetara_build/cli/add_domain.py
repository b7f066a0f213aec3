"""Add a domain from a data file, its columns guessed.

What is learnt of the file is shown.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from meetara_build.cli.options import Json
from meetara_build.cli.output import out, print_json
from meetara_build.config.yaml_files import escape_interpolations, render_yaml
from meetara_build.errors import ConfigError, DataError, nearest
from meetara_build.graph.stages import refuse_reserved
from meetara_build.outside import show_line
from meetara_build.project import find_project
from meetara_build.store.digests import state

FORMATS = ("jsonl", "csv", "parquet")


def add_domain(
    name: Annotated[str, typer.Argument(help="Lower-case letters, digits and _.")],
    source: Annotated[
        Path,
        typer.Option("--from", help="A JSONL, CSV or Parquet file, or a saved data set's folder."),
    ],
    description: Annotated[
        str | None, typer.Option(help="What the domain answers, for the model card.")
    ] = None,
    category: Annotated[str, typer.Option(help="Groups domains.")] = "own",
    prompt: Annotated[
        str | None, typer.Option(help="The column of the questions, if the guess is wrong.")
    ] = None,
    response: Annotated[
        str | None, typer.Option(help="The column of the answers, if the guess is wrong.")
    ] = None,
    form: Annotated[
        str | None,
        typer.Option(
            "--format", help="jsonl, csv or parquet, where the file's name does not say it."
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Write ``conf/domain/NAME.yaml`` for a data file, and show what will be learnt of it.

    What is not given, columns and format, is guessed. The file is written last, so that nothing is
    left by a command that fails.

    Raises:
        ConfigError: the name is not allowed or taken, or there is no such format.
        DataError: the file is missing, or no question and answer can be found in it.
    """
    from meetara_build.cli.new_data import look_at
    from meetara_build.config.resolve import check_name
    from meetara_build.config.schema import Domain, check
    from meetara_build.stages.dataset.guess import guess

    project = find_project()
    path = project / "conf" / "domain" / f"{name}.yaml"
    check_name("domain", name)
    refuse_reserved(name)
    _refuse_endless(source)
    if path.exists():
        raise ConfigError(f"{path}: this domain is there already; edit it, or choose another name")
    if not source.exists():
        raise DataError(f"{source}: no such file; name a JSONL, CSV or Parquet file")
    if form is not None and form not in FORMATS:
        raise ConfigError(
            f"--format: unknown format '{form}'{nearest(form, FORMATS)}; use {', '.join(FORMATS)}"
        )
    given = (("prompt", prompt), ("response", response))
    found = guess(source, {field: column for field, column in given if column}, form)
    content = _content(
        path,
        source,
        found.source,
        description or f"Questions and answers of {source.name}",
        category,
    )
    check(Domain, content, path)
    looked = look_at(project, name, content, source)
    content["languages"] = looked.languages
    text = f"# Added from {show_line(source.name)}.\n{render_yaml(escape_interpolations(content), str(path))}"
    if as_json:
        print_json(
            {
                "file": str(path),
                "domain": content,
                "notes": [*found.notes, *looked.notes()],
                **looked.as_json(),
            }
        )
        path.write_text(text, encoding="utf-8")
        return
    mapped = (
        ", ".join(f"{column} → {field}" for field, column in found.source["columns"].items())
        or "as they are"
    )
    for line in [f"columns: {mapped}", *found.notes, *looked.lines()]:
        out.print(line)
    path.write_text(text, encoding="utf-8")
    out.print(f"{path.relative_to(project)} written")
    out.print(f"Next: meetara-build data check {name}, meetara-build build {name}")


def _refuse_endless(source: Path) -> None:
    try:
        state(source)
    except FileNotFoundError:
        return
    except OSError as error:
        raise DataError(
            f"{error.filename}: {error.strerror}; name a JSONL, CSV or Parquet file"
        ) from None


def _content(
    path: Path, source: Path, found: Mapping[str, Any], description: str, category: str
) -> dict[str, Any]:
    written = os.path.relpath(source.resolve(), path.parent.resolve())
    reading = {
        key: value for key, value in found.items() if value and (key, value) != ("format", "hub")
    }
    place = {"hub" if found["format"] == "hub" else "path": written, **reading}
    return {
        "category": category,
        "description": description,
        "topics": [],
        "languages": ["en"],
        "safety": "standard",
        "sources": [place],
        "evaluation": {"beat_base_by": 0.0},
        "quants": ["F16", "Q8_0", "Q4_K_M"],
    }
