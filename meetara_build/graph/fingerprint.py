"""What a stage's result depends on besides its input artifacts, as one string.

sha256 over the recipe slice, the syntax trees of the stage's code and of the package modules it
reaches, the versions of the libraries that code imports, and the digests of raw sources. Comments,
formatting, docstrings and mtimes are not in it.
"""

import ast
import contextlib
import hashlib
import sys
from collections.abc import Iterator, Mapping
from functools import cache
from importlib import metadata
from pathlib import Path

from meetara_build.store.manifest import MadeFrom, digest_json

PACKAGE = Path(__file__).parents[1]
AGENTS = (f"{PACKAGE.name}.agents.", f"{PACKAGE.name}.toolbox.")
UNDECIDING = frozenset({"psutil", "pydantic", "rich"})
"""Libraries that only measure, print, or hold a recipe, which is hashed: their version cannot
change a byte of a result."""

COMPANIONS = {
    "transformers": ("tokenizers", "safetensors"),
    "peft": ("accelerate",),
    "llama_cpp": ("gguf",),
}
"""Libraries that decide bytes from behind another's interface."""


def fingerprint(stage: str, parts: MadeFrom) -> str:
    """The fingerprint of a stage run that is made from these parts."""
    return digest_json([stage, parts])


@cache
def code_digests(stage: str) -> dict[str, str]:
    """sha256 (shortened) of the syntax tree of each module that a stage reaches within this
    package."""
    return {
        name.removeprefix(f"{PACKAGE.name}."): _tree_digest(path)[:16]
        for name, path in sorted(_find_reached(stage).items())
    }


@cache
def library_versions(stage: str) -> dict[str, str]:
    """Versions of Python and of the third-party libraries that a stage's code imports."""
    modules = {
        name.partition(".")[0]
        for path in _find_reached(stage).values()
        for name in _imports(path, path == _init(path))
    }
    modules -= sys.stdlib_module_names | {PACKAGE.name} | UNDECIDING
    modules |= {companion for module in modules for companion in COMPANIONS.get(module, ())}
    found = dict(version for module in sorted(modules) if (version := _version(module)))
    return {"python": ".".join(map(str, sys.version_info[:2])), **found}


@cache
def _version(module: str) -> tuple[str, str] | None:
    """Distribution and version that a module comes from; most distributions are called like their
    module."""
    with contextlib.suppress(metadata.PackageNotFoundError):
        return module, metadata.version(module)
    for distribution in _providers().get(module, ()):
        return distribution, metadata.version(distribution)
    return None


@cache
def _providers() -> Mapping[str, list[str]]:
    """Distributions by module; reading what every installed distribution holds takes a second."""
    return metadata.packages_distributions()


def agent_digests(plugin: Path) -> dict[str, str]:
    """The same of the modules below ``agents`` and ``toolbox`` that an agent's file imports: when
    it watches, they decide what it does.

    What an agent is shown between builds (``snapshot``) is not for those that watch.
    """
    try:
        tree = ast.parse(plugin.read_text(encoding="utf-8"))
    except (SyntaxError, ValueError):  # whoever runs it says so
        return {}
    waiting = [
        node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module
    ]
    found: dict[str, Path] = {}
    while waiting:
        name = waiting.pop()
        path = _file(name)
        if (
            path is None
            or name in found
            or not name.startswith(AGENTS)
            or name == f"{PACKAGE.name}.agents.snapshot"
        ):
            continue
        found[name] = path
        waiting += _imports(path, path == _init(path))
    return {
        name.removeprefix(f"{PACKAGE.name}."): _tree_digest(path)[:16]
        for name, path in sorted(found.items())
    }


@cache
def _find_reached(stage: str) -> dict[str, Path]:
    """Package modules that a stage's module imports, directly or through others, and the packages
    they lie in.

    Error classes decide no bytes.
    """
    found: dict[str, Path] = {}
    waiting = [f"{PACKAGE.name}.stages.{stage}"]
    while waiting:
        name = waiting.pop()
        path = _file(name)
        if path is None or name in found or name == f"{PACKAGE.name}.errors":
            continue
        found[name] = path
        waiting += [
            target
            for target in _imports(path, path == _init(path))
            if target.startswith(PACKAGE.name)
        ]
        waiting += [name.rpartition(".")[0]] if "." in name else []
    return found


def file_of(module: str) -> str:
    """The file of a module that ``code_digests`` names, as seen from the folder that the package
    lies in."""
    name = module if module == PACKAGE.name else f"{PACKAGE.name}.{module}"
    path = _file(name) or PACKAGE.parent.joinpath(*name.split(".")).with_suffix(".py")
    return str(path.relative_to(PACKAGE.parent))


def _file(module: str) -> Path | None:
    path = PACKAGE.parent.joinpath(*module.split("."))
    if path.is_dir():
        return path / "__init__.py"
    return path.with_suffix(".py") if path.with_suffix(".py").exists() else None


def _init(path: Path) -> Path:
    return path.with_name("__init__.py")


@cache
def _tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


@cache
def _imports(path: Path, is_package: bool) -> list[str]:
    """Absolute names that a file imports, at any depth; ``from a import b`` counts as both ``a``
    and ``a.b``."""
    return sorted(set(_import_names(path, is_package)))


def _import_names(path: Path, is_package: bool) -> Iterator[str]:
    here = list(path.relative_to(PACKAGE.parent).with_suffix("").parts)
    here = here[:-1] if is_package else here
    for node in ast.walk(_tree(path)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = here[: len(here) - node.level + is_package] if node.level else []
            origin = ".".join([*above, *([node.module] if node.module else [])])
            yield origin
            yield from (f"{origin}.{alias.name}" for alias in node.names)


@cache
def _tree_digest(path: Path) -> str:
    """sha256 of a file's syntax tree, docstrings left out."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            node.body = [part for part in node.body if not _is_text(part)]
    return hashlib.sha256(ast.dump(tree).encode()).hexdigest()


def _is_text(node: ast.stmt) -> bool:
    return (
        isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
    )
