"""The error tree is as its docstring draws it, and every fault a person meets is in it."""

import ast
import inspect
import re

import pytest
from projects import REPOSITORY

from meetara_build import errors
from meetara_build.errors import nearest

CLASSES = {
    name: value
    for name, value in vars(errors).items()
    if inspect.isclass(value) and value.__module__ == errors.__name__
}


def test_the_docstring_draws_every_class_and_no_other() -> None:
    drawn = re.findall(r"^ *[├└│─ ]*(\w+Error) {2,}(.+)$", errors.__doc__ or "", re.MULTILINE)
    assert [name for name, _ in drawn] == list(CLASSES)


@pytest.mark.parametrize("name", CLASSES)
def test_every_error_is_one_that_a_person_can_mend(name: str) -> None:
    assert issubclass(CLASSES[name], errors.MeetaraError)
    assert CLASSES[name].__doc__


def test_the_tree_says_the_same_as_the_classes() -> None:
    drawn = dict(re.findall(r"(\w+Error) {2,}(.+)$", errors.__doc__ or "", re.MULTILINE))
    for name, kind in CLASSES.items():
        if kind is not errors.MeetaraError:
            assert kind.__doc__ == f"{drawn[name][0].upper()}{drawn[name][1:]}."


def test_every_raised_error_carries_a_message() -> None:
    """`BuildError("")` alone is allowed: its reason was printed by the job itself."""
    silent = []
    for path in sorted((REPOSITORY / "meetara_build").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not (isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call | ast.Name)):
                continue
            called = node.exc.func if isinstance(node.exc, ast.Call) else node.exc
            if isinstance(called, ast.Name) and called.id in CLASSES:
                arguments = node.exc.args if isinstance(node.exc, ast.Call) else []
                if not arguments and called.id != "BuildError":
                    silent.append(f"{path.relative_to(REPOSITORY)}:{node.lineno}")
    assert not silent


def test_the_nearest_word_is_offered_and_else_what_is_known() -> None:
    assert nearest("nutritoin", ["sleep", "nutrition"]) == "; did you mean 'nutrition'?"
    assert nearest("xyz", ["sleep", "nutrition"]) == "; known: nutrition, sleep"
    assert nearest("xyz", [f"d{number:02}" for number in range(40)]).endswith("d29 …")
