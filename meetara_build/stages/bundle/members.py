"""The domains of a bundle: those that are in it, and those that are held back."""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from meetara_build.outside import parse_json
from meetara_build.stages.answer_lines import VERDICT
from meetara_build.stages.recipes.bundle import BundleRecipe, MemberRecipe, find_default
from meetara_build.stages.types import HELD_BACK, Inputs

MODELFILE, CARD = "Modelfile", "README.md"
REASON = re.compile(r" {2}(\S.*)")
"""A line of a refusal that is a reason; answers are quoted deeper below it."""


class Member(NamedTuple):
    """A domain in a bundle. ``model`` and ``adapter`` are files as the bundle names them; ``gguf``,
    ``package`` and ``dataset`` the folders that it is taken from."""

    name: str
    recipe: MemberRecipe
    quant: str
    model: str
    adapter: str
    gguf: Path
    package: Path
    dataset: Path

    @property
    def folder(self) -> str:
        """Where its Modelfile and card are."""
        return f"domains/{self.name}"

    @property
    def has_modelfile(self) -> bool:
        """Whether Ollama can be told its base's chat template; else the card says why not."""
        return (self.package / MODELFILE).exists()

    def read_texts(self) -> Iterator[str]:
        """What it is about, and then each training record: question and answer."""
        about = self.recipe
        yield " ".join((self.name.replace("_", " "), about.description, about.category))
        with (self.dataset / "train.jsonl").open(encoding="utf-8") as lines:
            for line in lines:
                turns = parse_json(line)["messages"]
                yield " ".join(one["content"] for one in turns if one["role"] != "system")


class Left(NamedTuple):
    """A domain that is held back: an error's code, and the reasons without the answers that were
    found wrong, which nobody is to be handed."""

    name: str
    code: str
    reasons: list[str]

    @classmethod
    def read(cls, name: str, refusal: Mapping[str, str]) -> "Left":
        """From the verdict on it."""
        lines = refusal["message"].splitlines()
        reasons = [found[1] for line in lines if (found := REASON.fullmatch(line))]
        return cls(name, refusal["code"], reasons or lines[:1])


def read_members(recipe: BundleRecipe, inputs: Inputs) -> tuple[list[Member], list[Left]]:
    """The domains that are packaged, and those that are held back; each sorted by name."""
    members, left = [], []
    for name in recipe.members:
        package, about = inputs[f"{name}/package"], recipe.domains[name]
        refusal = parse_json((package / VERDICT).read_text(encoding="utf-8"))[HELD_BACK]
        if refusal is not None:
            left.append(Left.read(name, refusal))
            continue
        quant = find_default(recipe.quants, about.quants)
        assert quant is not None, "the graph refuses a bundle whose types a domain has none of"
        members.append(
            Member(
                name,
                about,
                quant,
                name_base_file(recipe, quant),
                f"adapters/{name}-lora.gguf",
                inputs[f"{name}/gguf"],
                package,
                inputs[f"{name}/dataset"],
            )
        )
    return members, left


def name_base_file(recipe: BundleRecipe, quant: str) -> str:
    """A file of the base, as the bundle names it."""
    return f"base/{recipe.base}-{quant}.gguf"
