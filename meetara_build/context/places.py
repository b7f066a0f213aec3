"""Where the context is: in a file below the root, in PostgreSQL, or behind a server on another
machine."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from meetara_build.errors import ContextError

if TYPE_CHECKING:
    from meetara_build.context.delivery import Context

URL, TOKEN = "MEETARA_CONTEXT", "MEETARA_TOKEN"
"""Environment variables: a URL instead of build.yaml's, with its password where it has one; and the
token of a server."""
FILE = "context.db"


def url_of(root: Path, settings: Mapping[str, Any]) -> str:
    """The context's URL; ``settings`` is ``context:`` of build.yaml."""
    return os.environ.get(URL) or settings["url"] or f"sqlite:///{root / FILE}"


def is_elsewhere(settings: Mapping[str, Any]) -> bool:
    """Whether others wait for what is reported here: then it is delivered at once, not when someone
    here looks."""
    return not (os.environ.get(URL) or settings["url"] or "sqlite:").startswith("sqlite:")


def is_served(url: str) -> bool:
    """Whether a server is at a URL, not a database."""
    return url.startswith(("http://", "https://"))


def open_context(root: Path, settings: Mapping[str, Any]) -> "Context":
    """The context of a root.

    Raises:
        ContextError: it cannot be reached, is damaged, or was made by newer code.
    """
    url = url_of(root, settings)
    if is_served(url):
        from meetara_build.context.remote import Remote

        return Remote(url, os.environ.get(TOKEN))
    from meetara_build.context.local import Local
    from meetara_build.context.store import Retention

    return Local(url, Retention(settings["keep_samples_days"], settings["keep_days"]))


def open_local(root: Path, settings: Mapping[str, Any]) -> Any:
    """The context, where it is a database.

    Raises:
        ContextError: it is behind a server, or cannot be opened.
    """
    if is_served(url_of(root, settings)):
        raise ContextError(
            f"the context is at {url_of(root, settings)}: do this on that server's machine"
        )
    return open_context(root, settings)
