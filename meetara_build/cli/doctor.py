"""Check the installation, and say how to mend it."""

import os
import shutil
import sys
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

import psutil
import typer

from meetara_build.cli.options import Json
from meetara_build.cli.output import out, print_json, style_line, table
from meetara_build.engine.planning import project_graph
from meetara_build.errors import MeetaraError
from meetara_build.project import find_project
from meetara_build.setup.check import LLAMA_CPP_PYTHON, cache_fault, llama_fault


class Check(NamedTuple):
    """One line of the doctor's: what was looked at, what was found, and what to do where that is
    wrong."""

    name: str
    found: str
    mend: str | None


def doctor(as_json: Json = False) -> None:
    """Print the state of the installation.

    Raises:
        Exit: with 1, where something is wrong.
    """
    checks = [
        _python(),
        *_versions(),
        _llama(),
        *_packages(),
        *_project(),
        _caches(),
        _memory(),
        _disk(),
    ]
    well = all(check.mend is None for check in checks)
    if as_json:
        print_json({"well": well, "checks": [check._asdict() for check in checks]})
    else:
        _print_checks(checks)
    if not well:
        raise typer.Exit(1)


def _print_checks(checks: Sequence[Check]) -> None:
    shown = table("", "", "")
    for check in checks:
        shown.add_row(
            style_line(("ok", "green") if check.mend is None else ("no", "red")),
            check.name,
            check.found,
        )
        if check.mend:
            shown.add_row("", "", f"→ {check.mend}")
    out.print(shown)


def _python() -> Check:
    fit = sys.version_info >= (3, 11)
    return Check(
        "Python",
        sys.version.split()[0],
        None if fit else "install Python 3.11 or newer, and meetara-build into it",
    )


def _versions() -> list[Check]:
    checks = []
    for name in ("torch", "transformers", "peft", "snakemake", "hydra-core"):
        try:
            checks.append(Check(name, metadata.version(name), None))
        except metadata.PackageNotFoundError:
            checks.append(
                Check(
                    name,
                    "missing",
                    "install meetara-build again: `pip install --force-reinstall meetara-build`",
                )
            )
    return checks


def _llama() -> Check:
    fault = llama_fault()
    return Check(
        "llama.cpp",
        fault or f"{LLAMA_CPP_PYTHON}, converter and gguf from one source",
        "run `meetara-build setup`" if fault else None,
    )


def _packages() -> list[Check]:
    """The bases that are files of packages, of the project around."""
    from meetara_build.cli.setup import list_packaged_bases
    from meetara_build.setup.originals import package_file

    try:
        wanted = list_packaged_bases(find_project() / "conf")
    except MeetaraError:
        return []  # the check of the project says why
    kept = {one.asked_by.stem: package_file(one.package, one.file).exists() for one in wanted}
    return [
        Check(
            f"base {one.asked_by.stem}",
            one.package,
            None if kept[one.asked_by.stem] else "run `meetara-build setup`",
        )
        for one in wanted
    ]


def _project() -> list[Check]:
    try:
        graph = project_graph()
    except MeetaraError as error:
        return [Check("project", str(error).splitlines()[0], "mend the file it names")]
    return [Check("configuration", f"{len(graph.domains)} domains, {len(graph.steps)} steps", None)]


def _caches() -> Check:
    fault = cache_fault()
    mend = (
        "set HOME or XDG_CACHE_HOME to a folder of yours: `build` does without, `snakemake` does "
        "not"
    )
    return Check("caches", fault or "can be written", mend if fault else None)


def _memory() -> Check:
    free = psutil.virtual_memory().available / 1e9
    return Check(
        "memory",
        f"{free:.1f} GB free, {os.cpu_count()} cores",
        None if free > 2 else "free memory: a build needs 2 GB",
    )


def _disk() -> Check:
    free = shutil.disk_usage(Path.cwd()).free / 1e9
    return Check(
        "disk",
        f"{free:.0f} GB free",
        None if free > 3 else "free disk space: a domain of the default base needs 0.6 GB",
    )
