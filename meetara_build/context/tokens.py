"""Bearer tokens for the server: who may read, who may also write. Only their SHA-256 is kept."""

import hashlib
import secrets
import time
from typing import Any, NamedTuple

import sqlalchemy as sa
from pydantic import TypeAdapter, ValidationError

from meetara_build.context.reports import Sender
from meetara_build.context.store import Store
from meetara_build.context.tables import token
from meetara_build.errors import ContextError

READ, WRITE = "read", "write"
OWN_NAMES = ("person", "policy", "measured", "run", "stage_run", "local")
"""As whom meetara-build itself answers and reports: nobody else speaks as these."""
PREFIX = "mtb_"
"""So that a scanner for secrets knows one when it sees it."""


class Holder(NamedTuple):
    """Whose token it is, and what it lets them do."""

    name: str
    scopes: tuple[str, ...]


def create(store: Store, name: str, *, writes: bool) -> str:
    """A new token, shown this once.

    Raises:
        ContextError: the name is taken, meetara-build's own, or no name.
    """
    try:
        TypeAdapter(Sender).validate_python(name)
    except ValidationError:
        raise ContextError(
            f"token name {name!r}: use letters, digits and _ . @ -, at most 64"
        ) from None
    if name in OWN_NAMES:
        raise ContextError(
            f"token name '{name}': meetara-build itself speaks as {', '.join(OWN_NAMES)}; take "
            "another"
        )
    made = PREFIX + secrets.token_urlsafe(32)
    row = {"name": name, "digest": _digest(made), "writes": writes, "created": time.time()}
    with store.writing() as connection:
        if connection.execute(sa.select(token.c.name).where(token.c.name == name)).first():
            raise ContextError(
                f"there is a token '{name}' already; `meetara-build context token revoke {name}`, "
                "or take another name"
            )
        connection.execute(sa.insert(token).values(row))
    return made


def revoke(store: Store, name: str) -> None:
    """Have a token open nothing any more.

    Raises:
        ContextError: there is none of this name.
    """
    with store.writing() as connection:
        if not connection.execute(sa.delete(token).where(token.c.name == name)).rowcount:
            raise ContextError(
                f"there is no token '{name}'; `meetara-build context token list` names them"
            )


def list_tokens(store: Store) -> list[dict[str, Any]]:
    """All tokens, without anything that would open a door."""
    with store.reading() as connection:
        rows = connection.execute(
            sa.select(token.c.name, token.c.writes, token.c.created).order_by(token.c.name)
        )
        return [dict(row) for row in rows.mappings()]


def holder(store: Store, given: str) -> Holder | None:
    """Whose token this is; None if it is nobody's."""
    with store.reading() as connection:
        row = connection.execute(
            sa.select(token.c.name, token.c.writes).where(token.c.digest == _digest(given))
        ).first()
    return None if row is None else Holder(row.name, (READ, WRITE) if row.writes else (READ,))


def _digest(given: str) -> str:
    """A token is 256 random bits: one pass of a fast hash is enough, and comparing digests tells
    nothing of it."""
    return hashlib.sha256(given.encode("utf-8", "surrogatepass")).hexdigest()
