"""Where set-up keeps what it made."""

import os
from pathlib import Path


def cache_folder() -> Path:
    """The user's cache: a compiled wheel of llama.cpp, and the log of the last set-up. Deleting it
    costs time alone."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "meetara-build"
