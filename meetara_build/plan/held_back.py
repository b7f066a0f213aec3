"""Domains that are built, and whose models do not reach what their domains ask: no package is made
of them until something changes."""

from typing import NamedTuple

from meetara_build.errors import ArtifactError, add_code
from meetara_build.graph import Graph
from meetara_build.plan import FRESH, RESTORE, Plan
from meetara_build.store.manifest import read_manifest

PACKAGE = "package"


class HeldBack(NamedTuple):
    """A domain, and why its models are held back: an error's code, and its message."""

    domain: str
    code: str
    message: str

    def line(self) -> str:
        """The first reason."""
        return add_code(self.message.splitlines()[1].strip(), self.code)

    def text(self) -> str:
        """All reasons, with the answers that caused them, and what would help."""
        return add_code(self.message, self.code)


def find_held_back(graph: Graph, domain: str) -> HeldBack | None:
    """Why a domain's models are held back, by the package that is there, whatever has changed since;
    None where they are not, or nothing is packaged yet."""
    try:
        manifest = read_manifest(graph.root / graph.step(PACKAGE, domain).place.manifest)
    except ArtifactError:
        return None
    refusal = manifest.held_back
    return None if refusal is None else HeldBack(domain, refusal["code"], refusal["message"])


def list_held_back(made: Plan) -> list[HeldBack]:
    """The domains of a plan whose packages are as they will be, and say that their models are held
    back."""
    found = []
    for item in made.items:
        if item.step.stage == PACKAGE and item.action in (FRESH, RESTORE):
            refusal = made.manifests[PACKAGE, item.step.target].held_back
            if refusal is not None:
                found.append(HeldBack(item.step.target, refusal["code"], refusal["message"]))
    return found
