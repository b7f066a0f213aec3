"""What front ends are given: Modelfiles and cards that name the bundle's files, and a preset for
llama-server."""

import re
from collections.abc import Iterable

from meetara_build.stages.bundle.members import CARD, MODELFILE, Member

PRESET = "llama-server.ini"
NAMES_FILES = ("FROM ", "ADAPTER ")
"""How the lines of a Modelfile begin that name files."""
OPENED = re.compile(
    r"`llama-cli -m \S+ --lora [^`]+`|[Oo]pen `\S+` in llama\.cpp or LM Studio(?=\.)"
)
"""What a card says of how to use a domain where it names files: an adapter's, or a whole model's."""


def move_modelfile(member: Member) -> str:
    """A domain's Modelfile, with the bundle's files in it: those it names are its first lines."""
    lines = (member.package / MODELFILE).read_text(encoding="utf-8").splitlines(keepends=True)
    rest = next(at for at, line in enumerate(lines) if not line.startswith(NAMES_FILES))
    return f"FROM ../../{member.model}\nADAPTER ../../{member.adapter}\n" + "".join(lines[rest:])


def move_card(member: Member) -> str:
    """A domain's model card, with the bundle's files where it says how to use them."""
    opened = f"`llama-cli -m ../../{member.model} --lora ../../{member.adapter}`"
    if member.recipe.files == "both":
        opened += (
            " with llama.cpp, as the adapter that it is here; the figures below are those of whole "
            "models, merged with it and then quantized"
        )
    text = (member.package / CARD).read_text(encoding="utf-8")
    return OPENED.sub(lambda _: opened, text, count=1)


def write_preset(members: Iterable[Member]) -> str:
    """The models of llama-server's router: each domain by its name, in the form that llama.cpp's
    ``--models-preset`` reads."""
    models = [f"[{one.name}]\nmodel = {one.model}\nlora = {one.adapter}\n" for one in members]
    return "\n".join(
        [
            "; Start it in this folder: llama-server --models-preset llama-server.ini\n"
            '; A request names its domain: {"model": "NAME", "messages": …}\n'
            "version = 1\n",
            *models,
        ]
    )
