"""context token: who may use the server."""

import json
import re
from pathlib import Path
from typing import Any


def test_tokens_are_made_listed_and_revoked(project: Path, command: Any) -> None:
    made = json.loads(
        command(project, "context", "token", "create", "desk", "--read-only", "--json").stdout
    )
    assert made["token"].startswith("mtb_")
    assert made["writes"] is False
    assert "desk  read  " in command(project, "context", "token", "list").stdout
    assert [
        row["name"]
        for row in json.loads(command(project, "context", "token", "list", "--json").stdout)
    ] == ["desk"]
    command(project, "context", "token", "revoke", "desk")
    assert "no tokens; make one with" in command(project, "context", "token", "list").stdout


def test_a_token_is_all_that_a_shell_catches_of_its_making(project: Path, command: Any) -> None:
    made = command(project, "context", "token", "create", "desk")
    assert re.fullmatch(r"mtb_[\w-]+\n", made.stdout)
    assert "The token of 'desk', to read and write; it is not kept, so note it now" in made.stderr
