"""docs/reference is what the schema and the command line are; it says what every key and every
option means."""

import re
import subprocess
import sys

import pytest
import typer
from projects import REPOSITORY

from meetara_build.cli.app import app

FOLDER = REPOSITORY / "docs" / "reference"


def test_the_pages_are_what_the_schema_and_the_commands_say() -> None:
    script = REPOSITORY / "scripts" / "reference.py"
    done = subprocess.run(
        [sys.executable, str(script), "--check"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("page", ["configuration.md", "commands.md"])
def test_everything_says_what_it_means(page: str) -> None:
    rows = re.findall(r"^\| `.*$", (FOLDER / page).read_text(encoding="utf-8"), re.M)
    assert len(rows) > 50
    place = {"configuration.md": 4, "commands.md": 3}[page]
    silent = [row for row in rows if not re.split(r"(?<!\\)\|", row)[place].strip()]
    assert silent == []


def test_every_command_is_there() -> None:
    text = (FOLDER / "commands.md").read_text(encoding="utf-8")
    waiting = [("meetara-build", typer.main.get_command(app))]
    while waiting:
        words, command = waiting.pop()
        inner = (
            {name: command.load(name) for name in command.commands}
            if hasattr(command, "load")
            else getattr(command, "commands", {})
        )
        waiting += [(f"{words} {name}", each) for name, each in inner.items()]
        assert inner or f"\n## {words}\n" in text, words
