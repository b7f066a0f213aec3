"""Have Ollama's own parser and template write the prompts of our Modelfiles, for the tests.

Usage: ``.venv/bin/python scripts/ollama_prompts.py CLONE``, with a clone of Ollama and Go. Needed
where what a Modelfile says changes, or a newer Ollama is to be tried; it writes
tests/ollama_prompts.json.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from chat_templates import FAMILIES  # noqa: E402
from ollama import RECORD, as_said, write_modelfiles  # noqa: E402

from meetara_build.errors import ProofError  # noqa: E402

PROGRAM = ROOT / "scripts" / "ollama_prompts.go"


def main(clone: Path) -> None:
    """Write the record."""
    found: dict[str, str] = {}
    for family in FAMILIES:
        with tempfile.TemporaryDirectory() as scratch:
            try:
                found |= write_modelfiles(family, Path(scratch))
            except ProofError:
                continue  # no Modelfile is written for it
    asked = [
        {"modelfile": text, "conversations": as_said(name.partition(",")[0])}
        for name, text in found.items()
    ]
    made = json.loads(run_program(clone, json.dumps(asked)))
    commit = subprocess.run(
        ["git", "-C", str(clone), "rev-parse", "HEAD"], capture_output=True, text=True, check=True
    )
    files = {
        name: {"modelfile": text, **answer}
        for (name, text), answer in zip(found.items(), made, strict=True)
    }
    written = {"ollama": commit.stdout.strip(), "files": files}
    RECORD.write_text(json.dumps(written, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


def run_program(clone: Path, asked: str) -> str:
    """What the Go program prints, compiled within the clone, whose packages it uses."""
    with tempfile.TemporaryDirectory(dir=clone) as folder:
        program = Path(folder) / "main.go"
        program.write_bytes(PROGRAM.read_bytes())
        done = subprocess.run(
            ["go", "run", str(program)],
            cwd=clone,
            input=asked,
            capture_output=True,
            text=True,
            check=False,
        )
    if done.returncode:
        raise SystemExit(done.stderr)
    return done.stdout


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve())
