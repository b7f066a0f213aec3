"""The licence of a bundle's base, which goes with its files."""

from pathlib import Path

from meetara_build.stages.recipes.bundle import BundleRecipe

LICENCE = "LICENSE-base"
TEXTS = Path(__file__).parent / "licences"
"""The texts of licences that ask for a copy beside the files and are the same for everybody, by
their names on hubs."""


def write_licence(recipe: BundleRecipe) -> str:
    """What the base is licensed under: the text itself where it is one of ours to give."""
    file = recipe.base_file
    where = recipe.base_origin if file is None else file.hub_id or file.package or file.file
    text = TEXTS / f"{recipe.licence}.txt"
    said = (
        f"The base {recipe.base} ({where}) is licensed under {recipe.licence}. Its files here were "
        "converted to GGUF and quantized; the adapters were trained on it.\n"
    )
    if text.parent == TEXTS and text.is_file():
        return f"{said}\n{text.read_text(encoding='utf-8')}"
    return f"{said}\nThe licence's text is not part of this bundle: take it from where the base is from.\n"
