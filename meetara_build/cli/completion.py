"""What a shell may complete a word to.

Only names of files below conf/ are looked at, and what the agents proposed: nothing is composed or
imported that takes long. Outside a project, or in a broken one, there is nothing to offer, and
nothing is said.
"""

import contextlib
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import typer

from meetara_build.config.conf_files import list_group
from meetara_build.project import find_project, locate

WORD = r"[\w./:@=-]+"
"""What every shell takes for one word; a file with another name is no domain."""

CHOICES = ("base", "hardware")
"""Groups of conf/ of which the command line may choose another file."""


def complete_domains(incomplete: str) -> list[str]:
    """Domains of the project around."""
    return _starting(incomplete, _names("domain"))


def complete_built(incomplete: str) -> list[str]:
    """What is built by name: domains, and bundles as ``bundle/NAME``."""
    return _starting(incomplete, [*_names("domain"), *_list_bundles()])


def complete_overrides(context: typer.Context, incomplete: str) -> list[str]:
    """Keys of conf/build.yaml as they are set there, to be edited: ``training.epochs=2``; and the
    names of a base or a machine.

    bash takes ``hardware=a10`` for three words and zsh for one.
    """
    if group := _chosen(context):
        return _starting(incomplete, _names(group))
    group, equals, _ = incomplete.partition("=")
    if equals and group in CHOICES:
        return _starting(incomplete, [f"{group}={name}" for name in _names(group)])
    return _starting(incomplete, [*(f"{group}=" for group in CHOICES), *_keys()])


def complete_words(context: typer.Context, incomplete: str) -> list[str]:
    """What `plan` and `build` take: domains and bundles, and what is to be other for them, once a letter says
    what."""
    if _chosen(context):
        return complete_overrides(context, incomplete)
    keys = complete_overrides(context, incomplete) if incomplete else []
    return [*complete_built(incomplete), *keys]


def complete_profiles(incomplete: str) -> list[str]:
    """Snakemake profiles of the project around."""
    from meetara_build.engine.profiles import profile_names

    with contextlib.suppress(Exception):
        return _starting(incomplete, profile_names(find_project()))
    return []


def complete_models(incomplete: str) -> list[str]:
    """What `compare` compares: domains, and bases as ``base:NAME``."""
    return _starting(incomplete, [*_names("domain"), *(f"base:{one}" for one in _names("base"))])


def complete_targets(incomplete: str) -> list[str]:
    """What `explain` explains and `verify` proves: domains, bases as ``base/NAME`` and bundles as
    ``bundle/NAME``."""
    bases = [f"base/{one}" for one in _names("base")]
    return _starting(incomplete, [*_names("domain"), *bases, *_list_bundles()])


def complete_proposals(incomplete: str) -> list[str]:
    """Ids of what the agents proposed last and no one has answered."""
    with contextlib.suppress(Exception):
        from meetara_build.config.yaml_files import read_yaml
        from meetara_build.rounds.inbox import REJECTED, TAKEN, read_inbox

        project = find_project()
        root = locate(project, read_yaml(project / "conf" / "build.yaml")["root"])
        open_ones = [
            one for one in read_inbox(root)["verdicts"] if one["status"] not in (TAKEN, REJECTED)
        ]
        return _starting(incomplete, [one["id"] for one in open_ones])
    return []


def _chosen(context: typer.Context) -> str | None:
    """The group whose name stands before the word, with or without the ``=`` that bash parts from
    it."""
    words = [word for value in context.params.values() if isinstance(value, list) for word in value]
    before = words[-2:] if words[-1:] == ["="] else words[-1:]
    return before[0] if before and before[0] in CHOICES else None


def _keys() -> list[str]:
    """``key=value`` for what stands in conf/build.yaml, lists and what it builds left out."""
    with contextlib.suppress(Exception):
        from meetara_build.config.yaml_files import read_yaml

        return list(_list_overrides(read_yaml(find_project() / "conf" / "build.yaml")))
    return []


def _list_overrides(content: Mapping[str, Any], above: str = "") -> Iterator[str]:
    for key, value in content.items():
        if isinstance(value, dict):
            yield from _list_overrides(value, f"{above}{key}.")
        elif not isinstance(value, list) and (above or key not in ("domains", "root", "store")):
            yield f"{above}{key}={'null' if value is None else str(value).lower() if isinstance(value, bool) else value}"


def _list_bundles() -> list[str]:
    return [f"bundle/{one}" for one in _names("bundle")]


def _names(group: str) -> list[str]:
    """The files of a group of conf/, which are the names that it knows."""
    with contextlib.suppress(Exception):
        return list(list_group(find_project() / "conf", group))
    return []


def _starting(incomplete: str, names: Sequence[str]) -> list[str]:
    return [name for name in names if name.startswith(incomplete) and re.fullmatch(WORD, name)]
