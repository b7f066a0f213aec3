"""init, add-domain and profiles install: what a person does once."""

import os
import re
import shlex
import shutil
from pathlib import Path
from typing import Any

import yaml

from meetara_build.errors import ConfigError, DataError
from meetara_build.faces.output import out, print_json
from meetara_build.graph import find_project
from meetara_build.resolve import RESERVED
from meetara_build.schema import Domain, check

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
        f"{folder} is ready:\n  cd {shlex.quote(str(folder))}\n  meetara-build setup\n  meetara-build plan nutrition\n"
        "  meetara-build build nutrition",
        markup=False,
    )


def _copy(origin: Path, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for part in PARTS:
        if (origin / part).is_dir():
            shutil.copytree(origin / part, folder / part, ignore=shutil.ignore_patterns("__pycache__", ".gitkeep"))
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
    prompt: str | None,
    response: str | None,
    as_json: bool,
) -> None:
    """Write ``conf/domain/NAME.yaml`` for a data file, its columns guessed unless they are given.

    Raises:
        ConfigError: the name is not allowed or taken.
        DataError: the file is missing, or no question and answer can be found in it.
    """
    from meetara_build.stages.dataset.guess import guess

    project = find_project()
    path = project / "conf" / "domain" / f"{name}.yaml"
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name) or name in RESERVED:
        raise ConfigError(
            f"'{name}' cannot name a domain; use lower-case letters, digits and _, such as 'my_domain', and none of "
            f"{', '.join(RESERVED)}"
        )
    if path.exists():
        raise ConfigError(f"{path}: this domain is there already; edit it, or choose another name")
    if not source.exists():
        raise DataError(f"{source}: no such file; name a JSONL, CSV or Parquet file")
    given = {field: column for field, column in (("prompt", prompt), ("response", response)) if column}
    found = guess(source, given).source
    columns = found["columns"]
    content = _content(
        path, source, found["format"], columns, description or f"Questions and answers of {source.name}", category
    )
    check(Domain, content, path)
    text = f"# Added from {source.name}.\n" + yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=120)
    path.write_text(text, encoding="utf-8")
    if as_json:
        print_json({"file": str(path), "domain": content})
        return
    mapped = ", ".join(f"{column} → {field}" for field, column in columns.items()) or "as they are"
    out.print(
        f"{path.relative_to(project)} written; columns: {mapped}\nNext: meetara-build data check {name}, "
        f"meetara-build build {name}", markup=False,
    )  # fmt: skip


def _content(
    path: Path, source: Path, form: str, columns: dict[str, str], description: str, category: str
) -> dict[str, Any]:
    written = os.path.relpath(source.resolve(), path.parent.resolve())
    place: dict[str, Any] = {"hub": written} if form == "hub" else {"path": written, "format": form}
    if columns:
        place["columns"] = columns
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
                f"{link}: a profile of yours has this name; rename it, or use `--profile conf/profile/{folder.name}`"
            )
        link.unlink(missing_ok=True)
        link.symlink_to(folder.resolve())
        if not quiet:
            out.print(f"{link} → {folder.relative_to(project)}", markup=False)
