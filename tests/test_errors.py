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


DRAWN = re.findall(
    r"^ *[├└│─ ]*(\w+Error) {2,}([a-z-]+) {2,}(.+)$", errors.__doc__ or "", re.MULTILINE
)
"""Each class in the docstring's tree, its code and its meaning."""


def test_the_docstring_draws_every_class_and_no_other_with_its_code() -> None:
    assert [(name, code) for name, code, _ in DRAWN] == [
        (name, kind.code) for name, kind in CLASSES.items()
    ]


def test_every_class_has_a_code_of_its_own_so_that_no_program_reads_the_words() -> None:
    codes = [vars(kind)["code"] for kind in CLASSES.values()]
    assert len({*codes, errors.UNEXPECTED}) == len(codes) + 1
    assert all(re.fullmatch(r"[a-z]+(-[a-z]+)*", code) for code in codes)


def test_a_finer_code_begins_with_that_of_its_kind() -> None:
    """But for a report's, which whoever reports knows by its own name."""
    for kind in CLASSES.values():
        above = kind.__mro__[1]
        if above not in (Exception, errors.MeetaraError) and kind is not errors.ReportError:
            assert kind.code.startswith(f"{above.code}-")


def test_people_see_the_code_after_the_message() -> None:
    assert (
        errors.add_code("a.jsonl: 2 records are bad", "data") == "a.jsonl: 2 records are bad [data]"
    )


@pytest.mark.parametrize("name", CLASSES)
def test_every_error_is_one_that_a_person_can_mend(name: str) -> None:
    assert issubclass(CLASSES[name], errors.MeetaraError)
    assert CLASSES[name].__doc__


def test_the_tree_says_the_same_as_the_classes() -> None:
    for name, _, meaning in DRAWN:
        assert CLASSES[name].__doc__ == f"{meaning[0].upper()}{meaning[1:]}."


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
