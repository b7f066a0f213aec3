"""init, add-domain and profiles install: what a person does once."""

import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from meetara_build.cli.output import out, print_json
from meetara_build.config.resolve import check_name
from meetara_build.config.schema import Domain, check
from meetara_build.config.yaml_files import render_yaml
from meetara_build.errors import ConfigError, DataError, nearest
from meetara_build.graph.stages import refuse_reserved
from meetara_build.outside import quote_command, show_line
from meetara_build.project import find_project
from meetara_build.store.digests import state

FORMATS = ("jsonl", "csv", "parquet")
PARTS = ("conf", "rules", "plugins", "Snakefile")
IGNORED = ".meetara/\n.snakemake/\nartifacts/\n"


def init(folder: Path) -> None:
    """Copy configuration, rules and plugins into a new folder.

    Raises:
        ConfigError: the folder holds something already.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ConfigError(f"{folder}: is there already and not empty; name a new folder")
    try:
        _copy(origin(), folder)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)  # half a project would be refused by the next try
        raise
    out.print(
        f"{folder} is ready:\n  {quote_command('cd', folder)}\n  meetara-build setup\n  meetara-build plan nutrition\n"
        "  meetara-build build nutrition",
    )


def _copy(origin: Path, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for part in PARTS:
        if (origin / part).is_dir():
            shutil.copytree(
                origin / part,
                folder / part,
                ignore=shutil.ignore_patterns("__pycache__", ".gitkeep"),
            )
        elif (origin / part).exists():
            shutil.copyfile(origin / part, folder / part)
    (folder / "conf" / "overlay").mkdir(exist_ok=True)
    (folder / ".gitignore").write_text(IGNORED)


def origin() -> Path:
    """Where a project's files lie: inside the installed package, or in the checkout around it."""
    package = Path(__file__).parent.parent
    return package / "project" if (package / "project").is_dir() else package.parent


def add_domain(
    name: str,
    source: Path,
    *,
    description: str | None,
    category: str,
    columns: Mapping[str, str],
    form: str | None,
    as_json: bool,
) -> None:
    """Write ``conf/domain/NAME.yaml`` for a data file, and show what will be learnt of it.

    What is not given, columns and format, is guessed. The file is written last, so that nothing is left by a command that fails.

    Raises:
        ConfigError: the name is not allowed or taken, or there is no such format.
        DataError: the file is missing, or no question and answer can be found in it.
    """
    from meetara_build.cli.new_data import look_at
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
    found = guess(source, columns, form)
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
    text = f"# Added from {show_line(source.name)}.\n{render_yaml(content, str(path))}"
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


def install_profiles(*, quiet: bool = False) -> None:
    """Link every profile to Snakemake's folder for the user's profiles.

    Raises:
        ConfigError: a profile of the user's own has the same name.
    """
    project = find_project()
    above = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "snakemake"
    above.mkdir(parents=True, exist_ok=True)
    for folder in sorted((project / "conf" / "profile").iterdir()):
        link = above / folder.name
        if link.exists() and not link.is_symlink():
            raise ConfigError(
                f"{link}: a profile of yours has this name; rename it, or use "
                f"`{quote_command('--profile', f'conf/profile/{folder.name}')}`"
            )
        link.unlink(missing_ok=True)
        link.symlink_to(folder.resolve())
        if not quiet:
            out.print(f"{link} → {folder.relative_to(project)}")
