"""Finds what builds have finished, and has it served: at the start, and again whenever a package
changes."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from meetara_build.errors import ArtifactError, DataError
from meetara_build.outside import parse_json
from meetara_build.serving.built import Built, Refused, read_built
from meetara_build.serving.router import Encode, Lessons, Router
from meetara_build.stages.sample import read_sample
from meetara_build.store.manifest import MANIFEST

TRAIN = "train.jsonl"
State = tuple[int, int, int] | None
"""How a file looks: it is replaced whole, never written into."""


class Place(NamedTuple):
    """Where a domain's package and its dataset lie."""

    package: Path
    dataset: Path


class Watch:
    """The packages of some domains, as they were when they were last read."""

    def __init__(self, root: Path, places: Mapping[str, Place], sample: Path | None) -> None:
        self.root, self.places, self.sample = root, places, sample
        self.found: dict[str, Built | Refused] = {}
        self._seen: dict[str, State] = {}

    def look(self) -> bool:
        """Read the packages that have changed; whether any says something else than before.

        A package that is gone, or in the middle of being replaced, says what it said before, until
        a new one is whole.
        """
        changed = False
        for domain, place in self.places.items():
            state = _state(place.package / MANIFEST)
            if domain in self.found and (state is None or state == self._seen[domain]):
                continue
            try:
                found = read_built(self.root, place.package)
            except ArtifactError as error:
                if domain in self.found:
                    continue  # it is looked at again
                found = Refused(domain, error.code, str(error))
            changed = changed or self.found.get(domain) != found
            self.found[domain], self._seen[domain] = found, state
        return changed

    def make_router(self, encode: Encode | None) -> Router:
        """A router over what the domains were trained on, those that are held back among them:
        their questions are no other domain's."""
        lessons = [
            read_lessons(found, self.places[domain].dataset)
            for domain, found in self.found.items()
            if isinstance(found, Built) or found.held_back
        ]
        own = {prompt for lesson in lessons for prompt in lesson.prompts}
        strangers = [prompt for prompt in self._read_sample() if prompt not in own]
        return Router(lessons, strangers, encode)

    def _read_sample(self) -> Sequence[str]:
        """Questions of all shipped domains, of which those that are not served are strangers."""
        try:
            return (
                [] if self.sample is None else [t[0]["content"] for t in read_sample(self.sample)]
            )
        except (OSError, DataError):
            return []


def read_lessons(found: Built | Refused, dataset: Path) -> Lessons:
    """What a domain was trained on; nothing where its records are not there any more."""
    prompts, answers = list[str](), list[str]()
    path = dataset / TRAIN
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    system = ""
    for line in lines:
        said: dict[str, list[str]] = {"system": [], "user": [], "assistant": []}
        for turn in parse_json(line)["messages"]:
            said[turn["role"]].append(turn["content"])
        system = " ".join(said["system"]) or system
        prompts.append(" ".join(said["user"]))
        answers.append(" ".join(said["assistant"]))
    about = found.description if isinstance(found, Built) else ""
    return Lessons(
        found.domain, f"{found.domain.replace('_', ' ')} {about} {system}", prompts, answers
    )


def _state(path: Path) -> State:
    try:
        seen = path.stat()
    except OSError:
        return None
    return (seen.st_ino, seen.st_size, seen.st_mtime_ns)
