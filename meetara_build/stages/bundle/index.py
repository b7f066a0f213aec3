"""What a bundle says of itself: an index for programs, and a page for people."""

from collections.abc import Iterable, Mapping
from typing import Any

from meetara_build.stages.bundle.licence import LICENCE
from meetara_build.stages.bundle.members import CARD, MODELFILE, Left, Member, name_base_file
from meetara_build.stages.bundle.router import ROUTER
from meetara_build.stages.bundle.use import PRESET
from meetara_build.stages.recipes.bundle import BundleRecipe

INDEX = "index.json"
FORMAT = 1

Files = Mapping[str, Mapping[str, Any]]
"""Size in bytes and sha256 of each large file, by its name in the bundle."""


def make_index(
    recipe: BundleRecipe, members: Iterable[Member], left: Iterable[Left], files: Files
) -> dict[str, Any]:
    """The index: base, domains, and those that are held back; every path is seen from the
    bundle."""
    return {
        "format": FORMAT,
        "name": recipe.name,
        "description": recipe.description,
        "base": {
            "name": recipe.base,
            "licence": recipe.licence,
            "licence_file": LICENCE,
            "files": {
                quant: {"file": name, **files[name]}
                for quant in recipe.quants
                for name in [name_base_file(recipe, quant)]
            },
        },
        "domains": {one.name: _describe(one, files) for one in members},
        "held_back": {one.name: {"code": one.code, "reasons": one.reasons} for one in left},
        "server": PRESET,
        "router": ROUTER,
    }


def _describe(member: Member, files: Files) -> dict[str, Any]:
    about = member.recipe
    return {
        "category": about.category,
        "description": about.description,
        "languages": about.languages,
        "system_prompt": about.system_prompt,
        "quant": member.quant,
        "model": member.model,
        "adapter": {"file": member.adapter, **files[member.adapter]},
        "judged_as": "merged" if about.files == "both" else "adapter",
        "modelfile": f"{member.folder}/{MODELFILE}" if member.has_modelfile else None,
        "card": f"{member.folder}/{CARD}",
    }


def make_readme(
    recipe: BundleRecipe, members: Iterable[Member], left: Iterable[Left], files: Files
) -> str:
    """The page: what is in the bundle, and how to use it."""
    listed = [*members]
    told = next((one for one in listed if one.has_modelfile), None)
    ollama = f"ollama create {told.name} -f {told.folder}/{MODELFILE}\n" if told else ""
    first, size = listed[0], sum(one["size"] for one in files.values())
    rows = [
        f"| [{one.name}]({one.folder}/{CARD}) | {one.recipe.category} | {one.recipe.description} |"
        for one in listed
    ]
    held = "".join(f"- {one.name}: {'; '.join(one.reasons)}\n" for one in left)
    count = "1 domain as an adapter" if len(listed) == 1 else f"{len(listed)} domains as adapters"
    return (
        f"# {recipe.name}\n\n{recipe.description}: {count} on `{recipe.base}` "
        f"({', '.join(recipe.quants)}), {size / 1e6:.0f} MB.\n\n"
        "| domain | category | about |\n|---|---|---|\n" + "\n".join(rows) + "\n\n"
        "## Use\n\nIn this folder:\n\n"
        f"```\nllama-server --models-preset {PRESET}\n"
        f"llama-cli -m {first.model} --lora {first.adapter}\n"
        f"{ollama}meetara-build verify .\n```\n\n"
        "llama-server then has a model of each domain's name. `index.json` lists files and "
        f"digests; `{ROUTER}` finds the domain of a question. The base's licence is in "
        f"[{LICENCE}]({LICENCE}).\n" + (f"\n## Held back\n\nNot in it:\n\n{held}" if held else "")
    )
