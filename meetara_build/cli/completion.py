"""What a shell may complete a word to.

Only names of files below conf/ are looked at, and what the agents proposed: nothing is composed or imported that takes long. Outside
a project, or in a broken one, there is nothing to offer, and nothing is said.
"""

import contextlib
import re
from collections.abc import Sequence

from meetara_build.config.conf_files import list_group
from meetara_build.project import find_project, located

WORD = r"[\w./:@-]+"
"""What every shell takes for one word; a file with another name is no domain."""


def complete_domains(incomplete: str) -> list[str]:
    """Domains of the project around."""
    return _starting(incomplete, _names("domain"))


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
    """What `explain` explains and `verify` proves: domains, and bases as ``base/NAME``."""
    return _starting(incomplete, [*_names("domain"), *(f"base/{one}" for one in _names("base"))])


def complete_proposals(incomplete: str) -> list[str]:
    """Ids of what the agents proposed last and no one has answered."""
    with contextlib.suppress(Exception):
        from meetara_build.config.yaml_files import read_yaml
        from meetara_build.rounds.inbox import REJECTED, TAKEN, kept

        project = find_project()
        root = located(project, read_yaml(project / "conf" / "build.yaml")["root"])
        open_ones = [
            one for one in kept(root)["verdicts"] if one["status"] not in (TAKEN, REJECTED)
        ]
        return _starting(incomplete, [one["id"] for one in open_ones])
    return []


def _names(group: str) -> list[str]:
    """The files of a group of conf/, which are the names that it knows."""
    with contextlib.suppress(Exception):
        return list(list_group(find_project() / "conf", group))
    return []


def _starting(incomplete: str, names: Sequence[str]) -> list[str]:
    return [name for name in names if name.startswith(incomplete) and re.fullmatch(WORD, name)]
