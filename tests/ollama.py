"""What Ollama makes of our Modelfiles, as its own code writes it: conversations, and the record of
the prompts in ollama_prompts.json, which scripts/ollama_prompts.py writes anew."""

import json
import tempfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

from chat_templates import FAMILIES, save_tokenizer
from gguf_builds import fresh, recipe
from small_models import make_model

from meetara_build.stages import gguf
from meetara_build.stages.package.modelfile import modelfile

RECORD = Path(__file__).with_name("ollama_prompts.json")
PROMPT = "You are a dietitian."
GIVEN = "Zwei Zeilen:\n- सलाह 🙂"
"""A system text that whoever asks gives."""
ODD_PROMPTS = {
    "quotes": '"Begin" with """so""".\nThen\n"""A docstring."""\nor \'this\' "',
    "template": "Write {{ .Prompt }} and {{- if .System -}} {%x%} as they are, and \\n too {",
    "unprintable": "Dites\u00a0: \u00ab\u202foui\u202f\u00bb, \U0001f468\u200d\U0001f33e, नमस्\u200dते\u3000.",
    "ends": "\n  A line between empty ones.\n\n",
}
"""System prompts of a domain that are hard to write into a Modelfile."""
TALKS = (
    ("Hello?",),
    ("Hello?", "Good day.", "And now?"),
    (
        'Is "this" {{ .Content }}?\n\n- a list\n\tand a tab',
        'A \\n, a \\" and a {% if %}.\nMore: \u00a0\u200d.',
        "نیم‌فاصله, 你好, naïve, 👩🏽‍⚕️",
        "``` {{ end }} ```",
        '"""Why?"""',
    ),
)
WITH_ENDS = (" Hello?\n", "\nGood day. ", "And now? \n\n")
"""A talk whose texts begin and end with spaces."""
SAY_A_SPACE = {"spaced", "phi2", "falcon"}
"""Families whose models themselves say a space before an answer."""


def talk(*texts: str, system: str | None = None) -> list[dict[str, str]]:
    """A question, an answer, a question …"""
    roles = [
        {"role": ("user", "assistant")[at % 2], "content": text} for at, text in enumerate(texts)
    ]
    return [{"role": "system", "content": system}, *roles] if system else roles


CONVERSATIONS = [
    talk(*texts, system=system) for texts in (*TALKS, WITH_ENDS) for system in (None, GIVEN)
]


def as_said(family: str) -> list[list[dict[str, str]]]:
    """The conversations with answers as a model of the family says them."""
    before = " " if family in SAY_A_SPACE else ""
    return [
        [
            {**turn, "content": before + turn["content"]} if turn["role"] == "assistant" else turn
            for turn in messages
        ]
        for messages in CONVERSATIONS
    ]


def make_file(family: str, folder: Path) -> Path:
    """A GGUF file of a small random model that speaks the family's template, beside its tokenizer
    in ``folder``."""
    save_tokenizer(FAMILIES[family], folder)
    make_model(folder, hidden_size=64, intermediate_size=64, num_hidden_layers=1)
    gguf.run(recipe(), {"base": folder}, fresh(folder / "out"))
    return folder / "out" / "nutrition-F16.gguf"


@cache
def small_file(family: str) -> Path:
    """Such a file, made once for all tests of a process."""
    return make_file(family, Path(_scratch().name) / family)


@cache
def _scratch() -> "tempfile.TemporaryDirectory[str]":
    """A folder that goes with the process."""
    return tempfile.TemporaryDirectory(prefix="meetara-")


def list_prompts(family: str) -> dict[str, str | None]:
    """The system prompts that are tried with a family, by name."""
    more = ODD_PROMPTS if family in ("chatml", "llama3", "gemma") else {}
    return {"given": PROMPT, "none": None, **more}


def write_modelfiles(family: str, folder: Path) -> Iterator[tuple[str, str]]:
    """The names and texts of a family's Modelfiles."""
    file = make_file(family, folder)
    for name, prompt in list_prompts(family).items():
        yield f"{family}, {name}", modelfile(prompt, "x.gguf", folder, file)


@cache
def read_record() -> dict[str, Any]:
    """What Ollama made of each Modelfile."""
    return dict(json.loads(RECORD.read_text(encoding="utf-8")))
