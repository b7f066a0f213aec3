"""A token opens what it was made for, and only its digest is kept."""

import pytest
import sqlalchemy as sa

from meetara_build.cli.advice import PERSON, POLICY
from meetara_build.context import tables
from meetara_build.context.lessons import RUNNER
from meetara_build.context.store import Store
from meetara_build.context.tokens import create, holder, list_tokens, revoke
from meetara_build.errors import ContextError
from meetara_build.rounds.track_record import WITHDRAWN


def test_a_token_is_its_holders(store: Store) -> None:
    writer, reader = create(store, "ci", writes=True), create(store, "desk", writes=False)
    assert holder(store, writer) == ("ci", ("read", "write"))
    assert holder(store, reader) == ("desk", ("read",))


def test_what_is_no_token_is_nobodys(store: Store) -> None:
    made = create(store, "ci", writes=True)
    for wrong in ("", made[:-1], made.upper(), "mtb_", "' OR 1=1 --", "\ud800", "x" * 100_000):
        assert holder(store, wrong) is None


def test_a_revoked_token_opens_nothing(store: Store) -> None:
    made = create(store, "ci", writes=True)
    revoke(store, "ci")
    assert holder(store, made) is None
    with pytest.raises(ContextError, match="there is no token 'ci'"):
        revoke(store, "ci")


def test_no_token_can_be_read_out_of_the_database(store: Store) -> None:
    made = create(store, "ci", writes=True)
    with store.reading() as connection:
        rows = connection.execute(sa.select(tables.token)).all()
    assert made not in str(rows)
    assert made.removeprefix("mtb_") not in str(rows)
    assert [row["name"] for row in list_tokens(store)] == ["ci"]


@pytest.mark.parametrize("name", ["", "two words", "../up", "x" * 65, "-x", "näme"])
def test_a_name_that_is_none_is_refused(store: Store, name: str) -> None:
    with pytest.raises(ContextError, match="use letters, digits"):
        create(store, name, writes=True)


@pytest.mark.parametrize("name", [PERSON, POLICY, WITHDRAWN, RUNNER])
def test_nobody_gets_a_token_to_speak_as_meetara_build_itself(store: Store, name: str) -> None:
    with pytest.raises(ContextError, match=f"token name '{name}': meetara-build itself speaks as"):
        create(store, name, writes=True)


def test_a_name_is_given_once(store: Store) -> None:
    create(store, "ci", writes=True)
    with pytest.raises(ContextError, match="there is a token 'ci' already"):
        create(store, "ci", writes=False)
