"""Which GGUF files make up a domain, and where they lie, seen from its package."""

from typing import NamedTuple

from meetara_build.stages.recipes.package import PackageRecipe


class File(NamedTuple):
    """A GGUF file: the input whose folder it is in, and that folder as the package sees it."""

    input: str
    folder: str
    name: str

    @property
    def seen(self) -> str:
        """Its path, seen from the package."""
        return f"{self.folder}/{self.name}"


class Use(NamedTuple):
    """What a front end loads: a model, and the adapter on it where the model is the base's."""

    model: File
    adapter: File | None = None


def list_files(recipe: PackageRecipe) -> list[File]:
    """The files: what else lies in their folders was left behind, and nobody proved it."""
    kinds = sorted({"F16", *recipe.quants})
    found = [_find_model(recipe, kind) for kind in kinds]
    return [*found, *([] if recipe.files == "merged" else [_find_adapter(recipe)])]


def find_default(recipe: PackageRecipe) -> Use:
    """What the Modelfile names: the last of the domain's types, by custom the smallest."""
    model = _find_model(recipe, recipe.quants[-1])
    return Use(model, _find_adapter(recipe) if recipe.files == "lora" else None)


def _find_model(recipe: PackageRecipe, kind: str) -> File:
    if recipe.files != "lora":
        return File("gguf", "../gguf", f"{recipe.domain}-{kind}.gguf")
    name = f"{recipe.base}-{kind}.gguf"
    if kind == "F16":
        return File("base_gguf", f"../../base/{recipe.base}/gguf", name)
    return File("quantized", f"../../base/{recipe.base}/quantized", name)


def _find_adapter(recipe: PackageRecipe) -> File:
    return File("gguf", "../gguf", f"{recipe.domain}-lora.gguf")
