"""What a message tells a person to do can be done: every key it names is in the schema, every
command on the command line."""

import ast
import re
from collections.abc import Iterator
from functools import cache
from typing import Any, get_args

import pytest
import typer.main
from projects import REPOSITORY

from meetara_build.cli.app import app
from meetara_build.cli.stage import parser
from meetara_build.config.schema import (
    Base,
    Build,
    Decision,
    Domain,
    Hardware,
    Overlay,
    Provider,
    Safety,
    Shape,
    Source,
)
from meetara_build.graph.stages import NAMES as STAGES

VALUE = "\0"
"""Stands where a message has a value."""
ROOTS: list[type[Shape]] = [
    Build,
    Domain,
    Base,
    Hardware,
    Provider,
    Safety,
    Overlay,
    Decision,
    Source,
]
FILES = "cpp|csv|db|gguf|html|jinja|json|jsonl|lock|log|md|py|safetensors|smk|sqlite|tar|txt|yaml"
COMMAND: Any = typer.main.get_command(app)
NO_KEYS = (
    "e.g",
    "tokenizer.model",
    "self_attn.q_proj",
    "sys.path",
    "sys.argv",
    "sys.stdin.buffer",
    "meetara_build.hosting.supervisor",
)
"""What looks like a dotted key: a word, a file of SentencePiece, a module of a model, an agent's
first line of Python."""

Message = tuple[str, str]
"""File and line, and the text."""


# Messages


def text_of(node: ast.AST) -> str | None:
    """A string, its values left open; None for anything else."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(text_of(part) or VALUE for part in node.values)
    return None


def messages_of(source: str, name: str) -> Iterator[Message]:
    """Every text of some words that is no docstring."""
    tree = ast.parse(source)
    passed = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    passed |= {
        id(part)
        for node in ast.walk(tree)
        if isinstance(node, ast.JoinedStr)
        for part in node.values
    }
    for node in ast.walk(tree):
        text = None if id(node) in passed else text_of(node)
        if text and " " in text.strip() and not text.startswith("SELECT"):
            yield f"{name}:{getattr(node, 'lineno', 0)}", text


def all_messages() -> list[Message]:
    paths = [*(REPOSITORY / "meetara_build").rglob("*.py"), *(REPOSITORY / "plugins").glob("*.py")]
    return [
        message
        for path in sorted(paths)
        if "migrations" not in path.parts
        for message in messages_of(
            path.read_text(encoding="utf-8"), str(path.relative_to(REPOSITORY))
        )
    ]


# Keys


def shapes_in(annotation: Any) -> Iterator[type[Shape]]:
    if isinstance(annotation, type) and issubclass(annotation, Shape):
        yield annotation
    for inner in get_args(annotation):
        yield from shapes_in(inner)


def is_below(shape: type[Shape], parts: list[str]) -> bool:
    first, *rest = parts
    if first == VALUE:
        return any(is_below(shape, [name, *rest]) for name in shape.model_fields)
    if first not in shape.model_fields:
        return False
    annotation = shape.model_fields[first].annotation
    if not rest:
        return True
    if "dict" in str(annotation):  # any name may stand below a mapping
        rest = rest[1:]
    return not rest or any(is_below(inner, rest) for inner in shapes_in(annotation))


def is_key(dotted: str) -> bool:
    """Whether a key in full stands in a file below conf/, also as an override names it."""
    parts = re.sub(r"^(domain|overrides)\.", "", dotted).split(".")
    if parts[0] == "base" and len(parts) > 1:
        return is_below(Base, parts[1:])
    if VALUE in parts[0]:
        return any(parts[-1] in shape.model_fields for shape in every_shape())
    return any(is_below(root, parts) for root in ROOTS)


def every_shape() -> set[type[Shape]]:
    found: set[type[Shape]] = set()
    waiting = list(ROOTS)
    while waiting:
        shape = waiting.pop()
        if shape not in found:
            found.add(shape)
            waiting += [
                inner
                for field in shape.model_fields.values()
                for inner in shapes_in(field.annotation)
            ]
    return found


def nested() -> set[str]:
    """The keys that mean nothing without what they stand below."""
    top = {name for root in ROOTS for name in root.model_fields}
    return {name for shape in every_shape() for name in shape.model_fields} - top


def wrong_keys(text: str) -> list[str]:
    """Keys of no file below conf/, and keys that are not written in full."""
    names = rf"[a-z{VALUE}][\w{VALUE}]*"
    dotted = re.findall(
        rf"(?<![\w./\\{{{VALUE}-])({names}(?:\.(?:{names}|[A-Z]+))+)(?![\w/(])", text
    )
    dotted = [
        re.sub(rf"\.{VALUE}+$", "", word)
        for word in dotted
        if not re.search(rf"\.({FILES})$", word)
    ]
    wrong = [word for word in dotted if "." in word and word not in NO_KEYS and not is_key(word)]
    words = re.findall(
        r"(?<![\w.\\-])(?:`(\w+)`|([a-z]+(?:_[a-z]+)+))(?![\w.(=]| in config\.json)", text
    )
    bare = [ticked or plain for ticked, plain in words]
    return wrong + [
        word for word in bare if word in nested() and word not in (*STAGES, *COMMAND.commands)
    ]


# Commands


@cache
def commands_of(command: Any) -> dict[str, Any]:
    """The commands of a group by their names; none of a command."""
    if hasattr(command, "load"):
        return {name: command.load(name) for name in command.commands}
    return getattr(command, "commands", {})


def options_of(command: Any) -> set[str]:
    if command.name == "stage":
        return {option for action in parser()._actions for option in action.option_strings}
    return {
        "--help",
        *(
            option
            for parameter in command.params
            for option in (*parameter.opts, *parameter.secondary_opts)
        ),
    }


def takes_words(command: Any) -> bool:
    return command.name == "stage" or any(
        parameter.param_type_name == "argument" for parameter in command.params
    )


LLAMA_CPP = {"--models-preset", "--lora"}
"""Options of llama.cpp's programs, which a bundle is used with."""


def every_option() -> set[str]:
    found, waiting = set(), [COMMAND]
    while waiting:
        command = waiting.pop()
        found |= options_of(command)
        waiting += commands_of(command).values()
    return found


def wrong_command(words: list[str]) -> str | None:
    """What is wrong with the words after ``meetara-build``."""
    command, before = COMMAND, ""
    for word in words:
        if word.startswith("--"):
            option = word.partition("=")[0]
            if option not in options_of(command) | options_of(COMMAND):
                return f"{command.name} {option}"
        elif commands_of(command) and VALUE not in word:
            if word not in commands_of(command):
                return word
            command = commands_of(command)[word]
        elif not takes_words(command) and not before.startswith("--"):
            return f"{command.name} {word}"
        before = word
    return None


def wrong_commands(text: str) -> list[str]:
    """Commands and options that nobody can type; `make` is one of a checkout's, which most who read
    a message have not."""
    wrong: list[str | None] = []
    for code in re.findall(r"`([^`\n]+)`", text):
        first, *rest = code.split()
        if first == "make":
            wrong.append(code)
        elif first == "meetara-build" or first in COMMAND.commands:
            wrong.append(wrong_command(rest if first == "meetara-build" else [first, *rest]))
    plain = re.sub(r"`[^`\n]+`", "", text)
    said = re.findall(
        r"(?:^ *|Next: |run |, )meetara-build ((?:data )?[a-z-]+)", plain, re.MULTILINE
    )
    wrong += [wrong_command(words.split()) for words in said]
    wrong += [
        option
        for option in re.findall(r"(?<![\w-])--[a-z][a-z-]*", plain)
        if option not in every_option() | LLAMA_CPP
    ]
    return [word for word in wrong if word]


# What is found

GOOD_KEYS = [
    "raise data.max_tokens, or leave conf/build.yaml as it is",
    f"{VALUE}: evaluation.max_kl.{VALUE} is missing; agents.external.NAME.seconds, agents.policy.llm_advisor too",
    f"answers.bounds.{VALUE}.calls, answers.bounds.{VALUE}.{VALUE}",
    "domain.quants, base.quants, overrides.lora.rank, sources.columns.prompt and `columns.prompt`, `quants`, `system_prompt`",
    "tokenizer.json, train.jsonl, llama.cpp and e.g. vocab_size in config.json are no keys",
    f"max_tokens=4 is code, and so is trainer.run(context), self_attn.q_proj, and a sentence's end.{VALUE}{VALUE}",
]
BAD_KEYS = [
    ("add it to base.epochs", ["base.epochs"]),
    ("raise evaluate.context.", ["evaluate.context"]),
    ("look at max_tokens", ["max_tokens"]),
    ("raise `max_bad_share` to leave them out", ["max_bad_share"]),
    ("give it more `seconds` there", ["seconds"]),
    (f"gguf.quants: {VALUE}", ["gguf.quants"]),
    (f"answers.{VALUE}.loose", [f"answers.{VALUE}.loose"]),
    ("set merge.logits_bound and data.max_token", ["merge.logits_bound", "data.max_token"]),
    ("agents.external.NAME.minutes", ["agents.external.NAME.minutes"]),
]
GOOD_COMMANDS = [
    f"run `meetara-build verify --repair {VALUE}`, or `verify --repair`, or give --all",
    "`meetara-build context token create NAME`, then `meetara-build plan --out FILE --debug`",
    f"Next: meetara-build data check {VALUE}, meetara-build build {VALUE}",
    "`pip install --force-reinstall meetara-build`; make room, and make a new plan",
    "see `meetara-build stage --help`, `snakemake --profile conf/profile/local`; install meetara-build again, and meetara-build into it",
]
BAD_COMMANDS = [
    ("run `meetara-build setup llama` or `meetara-build repair`", ["setup llama", "repair"]),
    ("`meetara-build verify --mend`", ["verify --mend"]),
    ("`meetara-build context token make NAME`", ["make"]),
    ("`propose --everything`, or --al", ["propose --everything", "--al"]),
    ("run `make demo`", ["make demo"]),
    ("Next: meetara-build data chek NAME", ["chek"]),
]


@pytest.mark.parametrize("text", GOOD_KEYS)
def test_keys_that_exist_pass(text: str) -> None:
    assert wrong_keys(text) == []


@pytest.mark.parametrize(("text", "wrong"), BAD_KEYS)
def test_keys_that_do_not_or_are_not_written_in_full_are_found(text: str, wrong: list[str]) -> None:
    assert wrong_keys(text) == wrong


@pytest.mark.parametrize("text", GOOD_COMMANDS)
def test_commands_that_can_be_typed_pass(text: str) -> None:
    assert wrong_commands(text) == []


@pytest.mark.parametrize(("text", "wrong"), BAD_COMMANDS)
def test_commands_that_cannot_are_found(text: str, wrong: list[str]) -> None:
    assert wrong_commands(text) == wrong


def test_messages_are_found_with_their_values_left_open_and_without_docstrings() -> None:
    source = '''
def f(bound):
    """A docstring of words."""
    raise ConfigError(f"raise data.{bound} or " "two {x}", note("say so"))
'''
    assert [text for _, text in messages_of(source, "f.py")] == [
        f"raise data.{VALUE} or two {{x}}",
        "say so",
    ]


# The package's own


def test_every_message_of_the_package_and_its_plugins_names_what_exists() -> None:
    messages = all_messages()
    assert len(messages) > 500
    wrong = [
        f"{where}: {word}"
        for where, text in messages
        for word in (*wrong_keys(text), *wrong_commands(text))
    ]
    assert wrong == []
