"""bundle: a base once, with the adapters of many domains on it, in one folder that can be taken
along.

The large files are further names of the bytes that the base and the domains have already.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from meetara_build.errors import GateError
from meetara_build.stages.bundle.index import INDEX, make_index, make_readme
from meetara_build.stages.bundle.licence import LICENCE, write_licence
from meetara_build.stages.bundle.members import (
    CARD,
    MODELFILE,
    Member,
    name_base_file,
    read_members,
)
from meetara_build.stages.bundle.router import ROUTER, make_router
from meetara_build.stages.bundle.use import PRESET, move_card, move_modelfile, write_preset
from meetara_build.stages.recipes.bundle import BundleRecipe
from meetara_build.stages.types import Inputs, Metrics
from meetara_build.store.content import share

SUMS = "SHA256SUMS"


def run(recipe: BundleRecipe, inputs: Inputs, output: Path) -> Metrics:
    """Write ``base/`` (the base's files), ``adapters/``, ``domains/DOMAIN/`` (Modelfile and card),
    ``index.json``, ``README.md``, ``llama-server.ini``, ``router.json``, ``LICENSE-base``, and
    ``SHA256SUMS`` of them all.

    Inputs: ``base_gguf`` and ``quantized``, the folders of the base's files; of each domain
    ``DOMAIN/gguf``, ``DOMAIN/package`` and ``DOMAIN/dataset``. A domain that is held back is left
    out, and the index says so.

    Raises:
        GateError: every domain is held back.
    """
    members, left = read_members(recipe, inputs)
    if not members:
        raise GateError(
            f"bundle {recipe.name}: no domain is left, for {', '.join(one.name for one in left)} "
            "are held back; `meetara-build status` says why"
        )
    large = _list_large(recipe, inputs, members)
    _place(recipe.name, large, output)
    files = {name: _describe(output / name) for name in large}
    texts = {
        ROUTER: _as_json(make_router({one.name: one.read_texts() for one in members})),
        INDEX: _as_json(make_index(recipe, members, left, files)),
        CARD: make_readme(recipe, members, left, files),
        PRESET: write_preset(members),
        LICENCE: write_licence(recipe),
        **{
            f"{one.folder}/{MODELFILE}": move_modelfile(one) for one in members if one.has_modelfile
        },
        **{f"{one.folder}/{CARD}": move_card(one) for one in members},
    }
    for name, text in texts.items():
        (output / name).parent.mkdir(parents=True, exist_ok=True)
        (output / name).write_text(text, encoding="utf-8")
    digests = {name: one["sha256"] for name, one in files.items()}
    digests |= {name: hashlib.sha256(text.encode()).hexdigest() for name, text in texts.items()}
    lines = [f"{digest}  {name}\n" for name, digest in sorted(digests.items())]
    (output / SUMS).write_text("".join(lines), encoding="utf-8")
    return {
        "domains": len(members),
        "held_back_domains": {one.name: one.code for one in left},
        "bytes": sum(one["size"] for one in files.values()),
    }


def _list_large(recipe: BundleRecipe, inputs: Inputs, members: list[Member]) -> dict[str, Path]:
    """The GGUF files by their names in the bundle, and where they are."""
    names = {quant: name_base_file(recipe, quant) for quant in recipe.quants}
    of_base = {
        name: inputs["base_gguf" if quant == "F16" else "quantized"] / Path(name).name
        for quant, name in names.items()
    }
    return of_base | {one.adapter: one.gguf / Path(one.adapter).name for one in members}


def _place(bundle: str, large: Mapping[str, Path], output: Path) -> None:
    """Give the files their names in the bundle; say so where that takes room on the disk."""
    copied = []
    for name, source in large.items():
        (output / name).parent.mkdir(exist_ok=True)
        if not share(source, output / name):
            copied.append(source.stat().st_size)
    if copied:
        print(
            f"bundle {bundle}: {len(copied)} of {len(large)} files are copies, "
            f"{sum(copied) / 1e6:.0f} MB more on the disk: the file system made no links"
        )


def _describe(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return {"size": path.stat().st_size, "sha256": digest}


def _as_json(value: Mapping[str, Any]) -> str:
    return json.dumps(value, indent=1, ensure_ascii=False) + "\n"
