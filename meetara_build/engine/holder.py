"""Which base a job trains, and so from which process it is forked: one that holds that base loaded
and laid out, itself forked from the warm one."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from meetara_build.store.manifest import MANIFEST, digest_file


class Base(NamedTuple):
    """A base as a process holds it: its folder, a digest of its manifest, and the precision."""

    folder: str
    digest: str
    precision: str

    @property
    def name(self) -> str:
        """What two projects that have the same base share."""
        return f"{self.digest}-{self.precision}"


def find_base(request: Mapping[str, Any]) -> Base | None:
    """The base that a job's process is to inherit; None where it loads its own or needs none.

    A GPU cannot be used in a forked process, a trainer with slots has a base of its own, and DoRA
    reads the values of the base's weights, which a held base no longer has beside their copies.
    """
    given = request.get("holds")
    if not given:
        return None
    recipe, folder = request["recipe"], Path(request["inputs"][given])
    manifest = folder / MANIFEST
    elsewhere = recipe["device"] != "cpu" or recipe["slots"] > 1
    if elsewhere or recipe["lora"]["dora"] or not manifest.is_file():
        return None
    return Base(str(folder), digest_file(manifest), recipe["precision"])


def hold(base: Base) -> None:
    """Load the base and lay it out in this process.

    Raises:
        TrainingError: the folder holds no base that can be used.
    """
    from meetara_build.training.held import hold_base
    from meetara_build.training.precision import DTYPES

    hold_base(Path(base.folder), DTYPES[base.precision])
