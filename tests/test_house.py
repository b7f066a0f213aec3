"""The house is in order: a newcomer finds every stage by its one word, new things are files in
conf/, layers hold."""

import ast
import inspect
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest
from projects import REPOSITORY, mini_base, override, read_yaml, small_project, write_yaml

from meetara_build.engine.rules import Rules
from meetara_build.graph import load
from meetara_build.graph.stages import NAMES as STAGES
from meetara_build.graph.stages import STAGE
from meetara_build.plan import RUN, plan
from meetara_build.stages.types import Metrics

PACKAGE = REPOSITORY / "meetara_build"
TRAINER = PACKAGE / "tuning" / "trainer.py"
"""Trains as the adapter stage does, in a process of its own."""
HEAVY = ("torch", "transformers", "peft", "llama_cpp")
SCRIPT = Path(sys.executable).with_name("lint-imports")


def sources(*folders: str) -> list[Path]:
    found = [path for folder in folders for path in sorted((REPOSITORY / folder).rglob("*.py"))]
    return [path for path in found if "project" not in path.relative_to(REPOSITORY).parts]


def named(path: Path) -> str:
    return str(path.relative_to(REPOSITORY))


# A stage is found by its one word


def test_there_is_one_list_of_stages() -> None:
    files = {
        path.stem
        for path in (PACKAGE / "stages").iterdir()
        if path.stem
        not in (
            "__init__",
            "__pycache__",
            "types",
            "recipes",
            "losses",
            "sample",
            "held_out",
            "text_similarity",
            "answers",
            "answer_lines",
            "asking",
            "report_table",
        )
    }
    assert files == set(STAGES)


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_has_its_rule_its_module_and_its_tests(stage: str) -> None:
    rules = REPOSITORY / "rules" / f"{stage}.smk"
    assert re.search(rf'^rule {stage}|BUILD\.\w+\("{stage}"\)', rules.read_text(), re.MULTILINE)
    assert list((REPOSITORY / "tests" / "stages").rglob(f"test_{stage}*.py"))
    run = import_module(f"meetara_build.stages.{stage}").run
    assert list(inspect.signature(run).parameters)[:3] == ["recipe", "inputs", "output"]
    assert all(
        extra.default is None for extra in list(inspect.signature(run).parameters.values())[3:]
    )
    assert inspect.signature(run).parameters["recipe"].annotation is STAGE[stage].load_model()
    assert inspect.signature(run).return_annotation == Metrics
    assert run.__doc__


def test_there_is_no_rule_file_without_a_stage() -> None:
    assert {path.stem for path in (REPOSITORY / "rules").glob("*.smk")} == {"common", *STAGES}


def test_tests_mirror_the_package() -> None:
    for path in sorted(PACKAGE.iterdir()):
        if path.suffix == ".py" and not path.stem.startswith("__"):
            assert (REPOSITORY / "tests" / f"test_{path.stem}.py").exists(), named(path)
        elif path.is_dir() and path.name not in ("__pycache__", "project"):
            assert list((REPOSITORY / "tests" / path.name).rglob("test_*.py")), named(path)


# Rules name files; they do not think


@pytest.mark.parametrize(
    "path",
    [REPOSITORY / "Snakefile", *sorted((REPOSITORY / "rules").glob("*.smk"))],
    ids=lambda path: path.name,
)
def test_no_rule_file_holds_logic(path: Path) -> None:
    text = path.read_text()
    assert not re.findall(
        r"^\s*(?:def|class|while|try|with|return)\b|\blambda\b", text, re.MULTILINE
    )
    assert not re.findall(r"^\s*(?:run|script|notebook|wrapper):", text, re.MULTILINE), (
        "jobs are started by `shell:`"
    )
    imports = re.findall(r"^\s*(?:import|from)\b.*", text, re.MULTILINE)
    allowed = {
        "common.smk": ["from meetara_build.engine.rules import Rules"],
        "Snakefile": ["from snakemake.utils import min_version"],
    }
    assert imports == allowed.get(path.name, [])
    assert len(text.splitlines()) <= 80


@pytest.mark.parametrize(
    "path", sorted((REPOSITORY / "rules").glob("*.smk")), ids=lambda path: path.name
)
def test_a_rule_file_begins_with_what_it_is_for(path: Path) -> None:
    assert re.match(r"# .+[.]\n", path.read_text())


# Small files that say what they do


def public(tree: ast.Module) -> Iterator[tuple[ast.FunctionDef | ast.ClassDef, str]]:
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
            yield node, node.name
            for inner in node.body if isinstance(node, ast.ClassDef) else []:
                if isinstance(inner, ast.FunctionDef) and not inner.name.startswith("_"):
                    yield inner, f"{node.name}.{inner.name}"


def test_everything_public_says_what_it_is_for() -> None:
    silent = []
    for path in sources("meetara_build"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        if tree.body and not ast.get_docstring(tree):
            silent.append(named(path))
        silent += [
            f"{named(path)}: {name}" for node, name in public(tree) if not ast.get_docstring(node)
        ]
    assert silent == []


# Layers


@pytest.fixture(scope="module")
def copied(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package and its import contracts, to break."""
    folder = tmp_path_factory.mktemp("layers")
    shutil.copytree(
        PACKAGE, folder / "meetara_build", ignore=shutil.ignore_patterns("__pycache__", "project")
    )
    shutil.copy(REPOSITORY / "pyproject.toml", folder)
    return folder


def lint_imports(folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [SCRIPT, "--no-cache"], cwd=folder, capture_output=True, text=True, check=False
    )


def test_the_import_contracts_hold(copied: Path) -> None:
    done = lint_imports(copied)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(
    ("file", "line"),
    [
        ("stages/merge.py", "import typer"),
        ("stages/dataset/clean.py", "from meetara_build.config.resolve import Configuration"),
        ("training/loop.py", "import snakemake"),
        ("plan/__init__.py", "from meetara_build.engine import warm"),
        ("graph/__init__.py", "import hydra"),
    ],
)
def test_the_import_contracts_bite(copied: Path, file: str, line: str) -> None:
    path = copied / "meetara_build" / file
    text = path.read_text(encoding="utf-8")
    path.write_text(f"{text}\n\ndef late() -> None:\n    {line}\n", encoding="utf-8")
    try:
        assert lint_imports(copied).returncode == 1
    finally:
        path.write_text(text, encoding="utf-8")


def at_module_level(tree: ast.Module) -> Iterator[str]:
    """What is imported when a module is: everything outside functions, and not for type checkers
    alone."""
    waiting: list[ast.AST] = list(tree.body)
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield (node.module or "").partition(".")[0]
        elif isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            waiting += node.orelse
        elif not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            waiting += ast.iter_child_nodes(node)


def test_heavy_libraries_are_imported_by_stages_and_training_only() -> None:
    hasty = []
    for path in sources("meetara_build"):
        inside = (
            path.relative_to(PACKAGE).parts[0] in ("stages", "training", "llama_cpp")
            or path == TRAINER
        )
        tree = ast.parse(path.read_text(encoding="utf-8"))
        if not inside and (found := set(HEAVY) & set(at_module_level(tree))):
            hasty.append(f"{named(path)}: {', '.join(sorted(found))}")
    assert hasty == []


@pytest.mark.parametrize("words", [["--help"], ["plan", "--help"], ["--version"]])
def test_help_imports_no_heavy_library(words: list[str]) -> None:
    code = (
        f"import sys; sys.argv = ['meetara-build', *{words!r}]\n"
        "from meetara_build.__main__ import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        f"print('imported:', *{{{', '.join(map(repr, (*HEAVY, 'snakemake', 'hydra', 'pandas', 'sklearn', 'optuna')))}}} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1].split() == ["imported:"]


# Private names of libraries, each library's in one module that says why and with which version it
# was tried

ADAPTERS = {
    "llama_cpp/header.py": "llama-cpp-python",
    "mcp/older_clients.py": "mcp",
    "stages/gguf/vocabulary.py": "llama-cpp-python",
    "training/kernels/torch_internals.py": "torch",
    "training/targets.py": "PEFT",
    "training/transformers_internals.py": "transformers",
}
PUBLIC = {"_asdict", "_replace", "_fields", "_make", "_exit"}
"""Of named tuples, and of ``os``."""


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.endswith("__")


def names_of_its_own(tree: ast.Module) -> Iterator[str]:
    """What a module defines or sets: who uses these is at home."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield node.attr
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id


def private_names(text: str) -> list[str]:
    """Private names of others that a module uses or imports."""
    tree = ast.parse(text)
    own, found = {*PUBLIC, *names_of_its_own(tree)}, []
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            found += [node.attr] if is_private(node.attr) and node.attr not in own else []
        elif isinstance(node, ast.Import | ast.ImportFrom):
            names = [alias.name for alias in node.names] + [getattr(node, "module", None) or ""]
            found += [name for name in names if any(map(is_private, name.split(".")))]
    return found


def test_private_names_of_libraries_are_used_in_their_one_module_only() -> None:
    found = {
        path
        for path in (*sources("meetara_build"), *sources("plugins"))
        if private_names(path.read_text(encoding="utf-8"))
    }
    assert {str(path.relative_to(PACKAGE)) for path in found} == set(ADAPTERS)


@pytest.mark.parametrize(("file", "library"), ADAPTERS.items())
def test_a_module_that_uses_private_names_says_with_which_version_it_was_tried(
    file: str, library: str
) -> None:
    said = ast.get_docstring(ast.parse((PACKAGE / file).read_text(encoding="utf-8"))) or ""
    tried = re.search(rf"tried with .*{library}\s+([\d.]+\d)", said, re.DOTALL)
    assert tried
    name = library.lower().replace("-", "_")
    constraints = (REPOSITORY / "constraints.txt").read_text(encoding="utf-8")
    assert re.search(rf"^{name}=={re.escape(tried[1])}\b", constraints, re.MULTILINE)


@pytest.mark.parametrize(
    "line", ["model.config._attn", "from uvicorn._types import App", "from a.b import _c"]
)
def test_a_private_name_is_seen(line: str) -> None:
    assert private_names(line)
    assert not private_names("def f(self): self._own = run._asdict(); return self._own")


# Agents

PLUGINS = sorted((REPOSITORY / "plugins").glob("*.py"))
AGENTS = {
    *(
        "training_conductor",
        "gpu_optimizer",
        "quality_assurance",
        "data_generation",
        "gguf_creation",
    ),
    *("knowledge_transfer", "cross_domain", "tuner", "llm_advisor"),
}


def test_the_agents_that_come_with_it_are_there() -> None:
    assert {path.stem for path in PLUGINS} == AGENTS


@pytest.mark.parametrize("path", PLUGINS, ids=lambda path: path.stem)
def test_an_agent_uses_nothing_that_a_third_party_s_could_not(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    assert ast.get_docstring(tree)
    own = {
        name
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in (
            [node.module or ""]
            if isinstance(node, ast.ImportFrom)
            else [alias.name for alias in node.names]
        )
        if name.partition(".")[0] in ("meetara_build", "plugins")
    }
    assert all(re.match(r"meetara_build\.(agents$|toolbox\b)", name) for name in own), own
    assert not {"random", "time", "datetime", "socket", "subprocess"} & set(
        at_module_level(tree)
    ), "propose is pure"
    assert (REPOSITORY / "tests" / "plugins" / f"test_{path.stem}.py").exists()


# A new thing is a new file in conf/


def test_a_new_domain_machine_base_and_quant_type_are_files_in_conf_and_no_python(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = small_project(tmp_path / "project", ["nutrition", "programming"])
    conf = project / "conf"
    write_yaml(
        conf / "base" / "wider.yaml", {**mini_base(["nutrition"]), "description": "Another size"}
    )
    write_yaml(
        conf / "hardware" / "workbench.yaml",
        {**read_yaml(conf / "hardware" / "t4.yaml"), "threads": 3},
    )
    shutil.copy(conf / "domain" / "nutrition.jsonl", conf / "domain" / "beekeeping.jsonl")
    write_yaml(
        conf / "domain" / "beekeeping.yaml",
        {
            **read_yaml(conf / "domain" / "nutrition.yaml"),
            "category": "own",
            "sources": [{"path": "beekeeping.jsonl"}],
            "quants": ["F16", "IQ4_XS"],
        },
    )
    chosen = {"base": "wider", "hardware": "workbench", "evaluation.max_kl.IQ4_XS": 0.3}
    override(project, "beekeeping", chosen)
    graph = load(project)
    assert "beekeeping" in graph.domains
    adapter = graph.step("adapter", "beekeeping")
    assert adapter.inputs["base"].target == "base/wider"
    assert (adapter.threads, adapter.gpus, adapter.recipe["precision"]) == (
        3,
        1,
        read_yaml(conf / "hardware" / "t4.yaml")["precision"],
    )
    assert graph.step("package", "beekeeping").recipe["max_kl"]["IQ4_XS"] == 0.3
    assert {item.step.name for item in plan(graph, ["beekeeping"]).items if item.action == RUN} >= {
        "beekeeping/gguf",
        "base/wider/base",
    }
    monkeypatch.chdir(project)
    files = {
        name: {Path(file).name for file in one.outputs}
        for one in Rules({}).variants("gguf")
        for name in one.targets
    }
    assert "{domain}-IQ4_XS.gguf" in files["beekeeping"]
    assert "{domain}-IQ4_XS.gguf" not in files["nutrition"]
    shown = subprocess.run(
        [sys.executable, "-m", "snakemake", "beekeeping", "-n", "--quiet", "rules", "--cores", "1"],
        cwd=project,
        capture_output=True,
        text=True,
        check=False,
    )
    assert shown.returncode == 0, shown.stderr


def test_no_module_names_a_domain_or_a_machine() -> None:
    """What a person adds in conf/ cannot be a special case of the code."""
    names = {
        path.stem
        for folder in ("domain", "hardware", "base")
        for path in (REPOSITORY / "conf" / folder).glob("*.yaml")
    }
    names -= {
        "cpu",
        "planning",
        "writing",
        "programming",
        "operations",
        "engineering",
        "communication",
    }  # plain words too
    found = []
    for path in sources("meetara_build"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and node.value in names:
                found.append(f"{named(path)}:{node.lineno}: {node.value}")
    assert found == []


def test_continuous_integration_runs_the_readme_s_two_commands_in_its_order() -> None:
    asked = re.findall(r"^make \w+", (REPOSITORY / "README.md").read_text(), re.MULTILINE)[:2]
    assert asked == ["make demo", "make test"]
    assert re.findall(r"^make \w+", (REPOSITORY / ".ci" / "run").read_text(), re.MULTILINE) == asked
    for command in asked:
        assert re.search(
            rf"^{command.removeprefix('make ')}:",
            (REPOSITORY / "Makefile").read_text(),
            re.MULTILINE,
        )


def test_what_a_build_leaves_is_no_module_of_ours(tmp_path: Path) -> None:
    """`make test` after `make demo`: the folder artifacts/ is beside tests/artifacts.py."""
    for name in ("pyproject.toml", "tests", "bench"):
        (tmp_path / name).symlink_to(REPOSITORY / name)
    (tmp_path / "artifacts" / "nutrition").mkdir(parents=True)
    words = [
        Path(sys.executable).with_name("ruff"),
        "check",
        "--no-cache",
        "tests/store/test_manifest.py",
        "tests/store/test_store_content.py",
    ]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_every_dependency_is_bounded() -> None:
    """`pip install` of the wheel gets what the tool was proved with, or newer; torch without a
    bound brings gigabytes."""
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    pinned = dict(
        line.split("==") for line in (REPOSITORY / "constraints.txt").read_text().splitlines()
    )
    known = {name.lower().replace("_", "-"): version for name, version in pinned.items()}
    extras = project["optional-dependencies"]
    asked = [text for extra in extras if extra != "test" for text in extras[extra]]
    for text in [*project["dependencies"], *asked]:
        name, bound, version = re.fullmatch(r"([\w-]+)(?:\[\w+\])?(==|>=)([\d.]+)", text).groups()  # type: ignore[union-attr]
        proved = known[name.lower()]
        assert proved == version if bound == "==" else (proved + ".").startswith(version + "."), (
            text
        )


def test_every_library_that_the_package_imports_is_among_its_dependencies() -> None:
    from importlib.metadata import packages_distributions

    text = (REPOSITORY / "pyproject.toml").read_text(encoding="utf-8")
    project = tomllib.loads(text)["project"]
    extras = {**project["optional-dependencies"], "test": []}
    names = [*project["dependencies"], *(text for extra in extras.values() for text in extra)]
    declared = {re.split(r"[\[=>]", name)[0].lower().replace("_", "-") for name in names}
    with_llama = {
        "llama-cpp-python",
        "gguf",
        "llama-cpp-scripts",
    }  # `meetara-build setup` takes them from one source
    providers = packages_distributions()
    imported = {
        node.module if isinstance(node, ast.ImportFrom) else alias.name
        for path in (REPOSITORY / "meetara_build").rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Import | ast.ImportFrom)
        for alias in node.names
        if not getattr(node, "level", 0)
    }
    roots = (
        {str(name).partition(".")[0] for name in imported}
        - sys.stdlib_module_names
        - {"meetara_build"}
    )
    missing = {
        root
        for root in roots
        if not {name.lower().replace("_", "-") for name in providers.get(root, [root])}
        & (declared | with_llama)
    }
    assert not missing
