"""A fingerprint changes with what decides a stage's bytes, and with nothing else."""

import ast
import copy
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from projects import REPOSITORY

from meetara_build.graph import fingerprint
from meetara_build.graph.stages import NAMES as STAGES

SLOW = settings(deadline=None, max_examples=5, phases=[Phase.explicit, Phase.generate])
CACHED = [value for value in vars(fingerprint).values() if hasattr(value, "cache_clear")]


def forget() -> None:
    for function in CACHED:
        function.cache_clear()


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A copy of the package to edit, which the module under test takes for its own."""
    folder = tmp_path_factory.mktemp("code") / "meetara_build"
    ignored = shutil.ignore_patterns("__pycache__", "project")
    shutil.copytree(REPOSITORY / "meetara_build", folder, ignore=ignored)
    patch = pytest.MonkeyPatch()
    patch.setattr(fingerprint, "PACKAGE", folder)
    forget()
    yield folder
    patch.undo()
    forget()


def digests() -> dict[str, dict[str, str]]:
    forget()
    return {stage: fingerprint.code_digests(stage) for stage in STAGES}


@pytest.fixture(scope="module")
def before(package: Path) -> dict[str, dict[str, str]]:
    """Every stage's code digests as the package is."""
    return digests()


def after(changes: dict[Path, str]) -> dict[str, dict[str, str]]:
    """Every stage's code digests with other texts in some files, which are put back."""
    texts = {path: path.read_text(encoding="utf-8") for path in changes}
    for path, text in changes.items():
        path.write_text(text, encoding="utf-8")
    try:
        return digests()
    finally:
        for path, text in texts.items():
            path.write_text(text, encoding="utf-8")


def file_of(package: Path, module: str) -> Path:
    path = package if module == "meetara_build" else package.joinpath(*module.split("."))
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


MODULES = sorted({module for stage in STAGES for module in fingerprint.code_digests(stage)})


def commented(text: str) -> str:
    """A comment at the end of every line of code that can take one, and an empty line before each
    definition."""
    lines = []
    inside = {
        line
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Constant | ast.JoinedStr)
        for line in range(node.lineno, node.end_lineno or 0)
    }
    for number, line in enumerate(text.splitlines(), 1):
        if line.startswith(("def ", "class ")) and lines[-1:] != ["@cache"]:
            lines.append("")
        lines.append(line if number in inside or line.endswith("\\") else f"{line}  # a comment")
    return "\n".join(lines) + "\n"


def redocumented(text: str) -> str:
    """Another docstring for everything that has one."""
    tree = ast.parse(text)
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)
            and ast.get_docstring(node) is not None
        ):
            node.body[0] = ast.Expr(ast.Constant("Said in other words."))
    return ast.unparse(ast.fix_missing_locations(tree))


@pytest.mark.parametrize(
    "change", [commented, lambda text: ast.unparse(ast.parse(text)), redocumented]
)
def test_comments_formatting_and_docstrings_change_no_digest(
    package: Path, before: dict[str, dict[str, str]], change: Callable[[str], str]
) -> None:
    files = {
        path: path.read_text(encoding="utf-8")
        for path in (file_of(package, module) for module in MODULES)
    }
    changes = {path: change(text) for path, text in files.items()}
    assert all(changes[path] != text for path, text in files.items() if len(text) > 200)
    assert after(changes) == before


def test_a_touched_file_changes_no_digest(package: Path, before: dict[str, dict[str, str]]) -> None:
    for path in package.rglob("*.py"):
        os.utime(path, (0, 0))
    assert digests() == before


class _Other(ast.NodeTransformer):
    """Changes the nth number or comparison of a file: the smallest edits of code that there are."""

    def __init__(self, wanted: int) -> None:
        self.left = wanted

    def visit_Constant(self, node: ast.Constant) -> ast.AST:
        if isinstance(node.value, int | float):
            self.left -= 1
            if self.left == 0:
                return ast.copy_location(
                    ast.Constant(
                        (not node.value) if isinstance(node.value, bool) else node.value + 1
                    ),
                    node,
                )
        return node


@SLOW
@given(data=st.data())
def test_the_smallest_edit_of_code_changes_the_digest_of_every_stage_that_reaches_it_and_of_no_other(
    package: Path, before: dict[str, dict[str, str]], data: st.DataObject
) -> None:
    numbers = {
        module: sum(
            isinstance(node, ast.Constant) and isinstance(node.value, int | float)
            for node in ast.walk(ast.parse(file_of(package, module).read_text(encoding="utf-8")))
        )
        for module in MODULES
    }
    module = data.draw(st.sampled_from([module for module in MODULES if numbers[module]]))
    which = data.draw(st.integers(1, numbers[module]))
    path = file_of(package, module)
    found = after(
        {path: ast.unparse(_Other(which).visit(ast.parse(path.read_text(encoding="utf-8"))))}
    )
    for stage in STAGES:
        changed = {name for name in before[stage] if before[stage][name] != found[stage].get(name)}
        assert changed == ({module} if module in before[stage] else set())


def test_a_stage_s_code_is_all_that_it_imports_also_within_functions(
    package: Path, before: dict[str, dict[str, str]]
) -> None:
    reached = before
    assert "stages.gguf.convert" in reached["gguf"]
    assert "training.chat" in reached["package"], "through stages.package.modelfile"
    assert "stages.dataset.duplicates" in reached["corpus"], "through stages.dataset"
    assert not any(module.startswith(("training.loop", "llama")) for module in reached["dataset"])
    (package / "stages" / "extra.py").write_text("LIMIT = 3\n", encoding="utf-8")
    lazy = "\n\ndef late():\n    from meetara_build.stages.extra import LIMIT\n    return LIMIT\n"
    path = package / "stages" / "merge.py"
    assert "stages.extra" in after({path: path.read_text(encoding="utf-8") + lazy})["merge"]


def test_what_only_faces_and_engine_do_is_in_no_stage() -> None:
    for stage in STAGES:
        above = [
            name
            for name in fingerprint.code_digests(stage)
            if name.partition(".")[0]
            in ("cli", "mcp", "serving", "engine", "plan", "graph", "config", "store")
            # A bundle's files are links, as the store makes them.
            and not (stage == "bundle" and name.startswith("store"))
        ]
        assert above == []


@pytest.mark.parametrize(
    ("stage", "library"),
    [
        ("adapter", "torch"),
        ("adapter", "peft"),
        ("adapter", "transformers"),
        ("dataset", "pandas"),
        ("gguf", "torch"),
        ("base", "tokenizers"),
        ("merge", "safetensors"),
        ("evaluate", "llama_cpp_python"),
        ("gguf", "gguf"),
    ],
)
def test_libraries_that_decide_bytes_are_counted_by_version(stage: str, library: str) -> None:
    assert fingerprint.library_versions(stage)[library]


def test_libraries_that_only_measure_or_print_are_not_counted() -> None:
    for stage in STAGES:
        assert not {"psutil", "rich"} & set(fingerprint.library_versions(stage))


PARTS: dict[str, Any] = {
    "recipe": {
        "domain": "nutrition",
        "seed": 17,
        "training": {"epochs": 3, "learning_rate": 2e-4},
        "targets": ["a", "b"],
    },
    "code": {"stages.adapter": "0123", "training.loop": "4567"},
    "libraries": {"torch": "2.13.0", "peft": "0.21"},
    "sources": {"source_0": "a" * 64, "source_1": "b" * 64},
}
STEPS = [
    ("recipe", "seed"),
    ("recipe", "training", "epochs"),
    ("recipe", "targets", 1),
    ("code", "training.loop"),
    ("libraries", "torch"),
    ("sources", "source_0"),
    ("sources", "source_1"),
]


@pytest.mark.parametrize("path", STEPS)
def test_each_part_of_what_a_result_is_made_from_changes_the_fingerprint(
    path: tuple[Any, ...],
) -> None:
    changed = copy.deepcopy(PARTS)
    place = changed
    for part in path[:-1]:
        place = place[part]
    place[path[-1]] = "another"
    assert fingerprint.fingerprint("adapter", changed) != fingerprint.fingerprint("adapter", PARTS)


def test_the_stage_s_name_is_part_of_the_fingerprint() -> None:
    assert fingerprint.fingerprint("adapter", PARTS) != fingerprint.fingerprint("merge", PARTS)


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=10,
)


def turned(value: Any) -> Any:
    """The same value with the keys of every mapping in the opposite order."""
    if isinstance(value, dict):
        return {key: turned(value[key]) for key in reversed(list(value))}
    return [turned(item) for item in value] if isinstance(value, list) else value


@given(st.dictionaries(st.text(max_size=5), JSON, max_size=5))
def test_the_order_of_keys_never_changes_the_fingerprint(recipe: dict[str, Any]) -> None:
    parts = {**PARTS, "recipe": recipe}
    assert fingerprint.fingerprint("adapter", turned(parts)) == fingerprint.fingerprint(
        "adapter", parts
    )


@given(st.dictionaries(st.text(max_size=5), JSON, min_size=1, max_size=5), JSON, st.data())
def test_every_key_of_a_recipe_changes_the_fingerprint(
    recipe: dict[str, Any], value: Any, data: st.DataObject
) -> None:
    key = data.draw(st.sampled_from(sorted(recipe)))
    changed = {**recipe, key: value}
    same = fingerprint.digest_json(recipe) == fingerprint.digest_json(changed)
    one, other = ({**PARTS, "recipe": given} for given in (recipe, changed))
    assert (
        fingerprint.fingerprint("adapter", one) == fingerprint.fingerprint("adapter", other)
    ) == same
    if repr(turned(turned(recipe[key]))) == repr(value):
        assert same
    elif recipe[key] != value:
        assert not same


def test_what_decides_an_observer_s_actions_is_known(tmp_path: Path) -> None:
    """Its file is a source of the training; the modules for agents that it imports are code of
    it."""
    agent = tmp_path / "own.py"
    agent.write_text(
        "import numpy\nfrom meetara_build.agents import hookimpl\nfrom meetara_build.toolbox.divergence import diverges\n"
    )
    assert set(fingerprint.agent_digests(agent)) == {
        "toolbox.divergence",
        "toolbox.forecast",
    }
    agent.write_text("from meetara_build.agents import hookimpl\n")
    assert fingerprint.agent_digests(agent) == {}
    agent.write_text("def (")
    assert fingerprint.agent_digests(agent) == {}
