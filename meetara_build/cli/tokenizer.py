"""The tokenizer that records are measured with before anything is built: the base's own, wherever
it lies already."""

import contextlib
import tempfile
from pathlib import Path
from typing import Any

from meetara_build.errors import MeetaraError
from meetara_build.graph import Graph, Step
from meetara_build.project import CACHE
from meetara_build.setup.originals import Original, find_kept_file
from meetara_build.store.manifest import digest_json, read_manifest


def find_tokenizer(graph: Graph, base: Step) -> Any:
    """The tokenizer of a base: of what is built, or else of the folder or GGUF file that it comes
    from; None where none is here."""
    from meetara_build.stages.dataset.tokens import load_tokenizer

    try:
        if _is_built(graph, base):
            return load_tokenizer(graph.root / base.place.folder)
        if "folder" in base.sources:
            return load_tokenizer(Path(base.sources["folder"]))
        file = _original(base)
        return None if file is None else _of_file(graph, base.recipe["name"], file)
    except MeetaraError:  # the base stage says what is wrong with it
        return None


def not_measured(base: str) -> str:
    """What to say where there is no tokenizer."""
    return (
        f"base {base} is not here yet, so no lengths were measured: `meetara-build build` drops "
        "records that are shorter than data.min_tokens or longer than data.max_tokens"
    )


def _is_built(graph: Graph, base: Step) -> bool:
    try:
        return read_manifest(graph.root / base.place.manifest).fingerprint == base.fingerprint
    except MeetaraError:
        return False


def _original(base: Step) -> Path | None:
    origin = base.recipe["gguf"]
    return find_kept_file(Original(**origin), base.sources) if origin else None


def _of_file(graph: Graph, name: str, file: Path) -> Any:
    """The tokenizer of a GGUF file, kept for the next time: to read it out of the file takes
    seconds."""
    from meetara_build.stages.dataset.tokens import load_tokenizer

    state = file.stat()
    kept = (
        graph.project
        / CACHE
        / "tokenizers"
        / digest_json([file.name, state.st_size, state.st_mtime_ns])[:16]
    )
    if kept.is_dir():
        return load_tokenizer(kept)
    from meetara_build.stages.base.from_gguf import read_tokenizer

    tokenizer = read_tokenizer(name, file)
    _keep(tokenizer, kept)
    return tokenizer


def _keep(tokenizer: Any, folder: Path) -> None:
    with contextlib.suppress(
        OSError
    ):  # a project that cannot be written, or another process was first
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent) as made:
            tokenizer.save_pretrained(Path(made) / "new")
            (Path(made) / "new").rename(folder)
