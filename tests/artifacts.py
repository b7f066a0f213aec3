"""Small artifacts made by hand: folders of files, their manifests, and what hypothesis fills them
with."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st

from meetara_build.store.manifest import PARTS, Manifest, describe, digest_json

NAMES = st.from_regex(r"[a-z]{1,4}(/[a-z]{1,4})?\.(json|jsonl|gguf)", fullmatch=True)
FILES = st.dictionaries(NAMES, st.binary(max_size=50), min_size=1, max_size=5)
QUICK = settings(deadline=None, max_examples=40)


def fill(folder: Path, files: Mapping[str, bytes]) -> Path:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


def manifest_of(folder: Path, **fields: Any) -> Manifest:
    made_from = {part: {} for part in PARTS} | {"recipe": {"a": 1}}
    parts = {"inputs": {"base": "0" * 64}, "metrics": {"loss": 1.5}, **fields}
    return Manifest(
        "dataset",
        "nutrition",
        digest_json(["dataset", made_from]),
        made_from,
        files=describe(folder),
        **parts,
    )


def contents(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }
