"""Projects on ``tiny``, the base that a build makes itself: for figures of the bookkeeping, and of
many trainings."""

import contextlib
import io
from pathlib import Path

from meetara_build.cli.init import init


def tiny_project(folder: Path) -> Path:
    """A new project as ``meetara-build init`` makes it, but on the base ``tiny``."""
    with contextlib.redirect_stdout(io.StringIO()):
        init(folder)
    path = folder / "conf" / "build.yaml"
    path.write_text(
        path.read_text(encoding="utf-8").replace("- base: smollm2_135m", "- base: tiny"),
        encoding="utf-8",
    )
    return folder
