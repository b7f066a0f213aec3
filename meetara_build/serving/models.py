"""What is in memory: bases, each once, and the adapters of the domains on them."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from meetara_build.errors import (
    ArtifactError,
    MeetaraError,
    NotServedError,
    RequestError,
    TooLongTalkError,
    nearest,
)
from meetara_build.llama_cpp.answering import Adapter, Answering
from meetara_build.outside import first_line
from meetara_build.serving.built import Built, Proved, Refused, choose_types, refuse

CONTEXT = 4096
"""Tokens of a conversation and its answer at most: what bounds the memory of the attention cache."""
LETTERS_A_TOKEN = 64
"""No text has more characters a token than this, but for white space: what is longer is not even
cut into tokens, which takes seconds for a megabyte."""
AUTO, BASE = "auto", "base:"
"""The model that is chosen by what is asked; and how the names of bases begin."""


class Base(NamedTuple):
    """A base in memory."""

    name: str
    file: Proved
    answering: Answering


class Domain(NamedTuple):
    """A domain in memory: its adapter is on its base's model."""

    built: Built
    base: Base
    adapter: Adapter


class Asked(NamedTuple):
    """What answers a request: the tokens of its conversation, the base that reads them, and the
    adapter, if it is not the base itself."""

    prompt: list[int]
    base: Base
    adapter: Adapter | None

    @property
    def room(self) -> int:
        """Tokens that an answer may have."""
        return self.base.answering.length - len(self.prompt)


class Models:
    """The domains that are served, by name, and those that are not, with the reason.

    One thread alone calls ``update``, ``read`` and what it returns; all may look at ``domains``,
    ``bases`` and ``refused``, which are replaced whole.
    """

    def __init__(self, threads: int) -> None:
        self.threads = threads
        self.domains: Mapping[str, Domain] = {}
        self.bases: Mapping[str, Base] = {}
        self.refused: Mapping[str, Refused] = {}

    def update(self, found: Sequence[Built | Refused]) -> list[str]:
        """Serve what was found, and what was served before where the new one cannot be had: the
        messages of what went wrong.

        A base or adapter that is in memory stays there, and what nobody uses any more is freed.
        """
        faults = list[str]()
        built = [one for one in found if isinstance(one, Built)]
        refused = {one.domain: one for one in found if isinstance(one, Refused)}
        types, domains = choose_types(built), dict[str, Domain]()
        bases = {base.file.sha256: base for base in self._list_bases()}
        for one in built:
            try:
                domains[one.domain] = self._take(one, one.bases[types[one.base]], bases)
            except MeetaraError as error:
                faults.append(str(error))
                if one.domain in self.domains:
                    domains[one.domain] = self.domains[one.domain]
                else:
                    refused[one.domain] = Refused(one.domain, error.code, str(error))
        before = self.domains
        self.domains, self.refused = domains, refused
        self.bases = {domain.base.name: domain.base for domain in domains.values()} or self.bases
        self._free(before, bases)
        return faults

    def find(self, name: str) -> str:
        """The name, if something is served under it.

        Raises:
            HeldBackError: a domain that is held back.
            NotServedError: nothing is.
        """
        if name in self.domains or (
            name.removeprefix(BASE) in self.bases and name.startswith(BASE)
        ):
            return name
        if name in self.refused:
            raise refuse(self.refused[name])
        known = [AUTO, *(f"{BASE}{base}" for base in self.bases), *self.domains, *self.refused]
        raise NotServedError(f"unknown model '{name[:100]}'{nearest(name[:100], known)}")

    def read(self, name: str, turns: Sequence[Mapping[str, str]]) -> Asked:
        """A conversation as the model of this name reads it: the domain's system prompt stands
        before what the request says as system.

        Raises:
            HeldBackError, NotServedError: see ``find``; it may have changed since.
            RequestError: the base's template does not take such turns.
            TooLongTalkError: there is no room for an answer.
        """
        domain = self.domains.get(self.find(name))
        base = domain.base if domain else self.bases[name.removeprefix(BASE)]
        own = domain.built.system_prompt if domain else None
        told = [text for text in (own, *_texts(turns, "system")) if text]
        system = [{"role": "system", "content": "\n\n".join(told)}] if told else []
        talk = [*system, *(turn for turn in turns if turn["role"] != "system")]
        length = base.answering.length
        letters = sum(len(turn["content"]) for turn in talk)
        if letters > LETTERS_A_TOKEN * length:
            raise TooLongTalkError(
                f"the conversation has {letters:,} characters, and {base.name} reads {length:,} "
                "tokens at once: leave out its first turns"
            )
        try:
            prompt = base.answering.model.prompt(talk)
        except Exception as error:  # templates raise whatever Jinja function they like
            raise RequestError(
                f"messages: the chat template of {base.name} does not take them "
                f"({first_line(error)}); let user and assistant take turns, user first"
            ) from None
        if len(prompt) >= length:
            raise TooLongTalkError(
                f"the conversation has {len(prompt):,} tokens with what stands around it, and "
                f"{base.name} reads {length:,} at once, its answer included: leave out its first "
                "turns"
            )
        return Asked(prompt, base, domain.adapter if domain else None)

    def close(self) -> None:
        """Give all memory back."""
        for base in self._list_bases():
            base.answering.close()
        self.domains, self.bases = {}, {}

    def _list_bases(self) -> list[Base]:
        """All that are in memory: a domain that waits for its next build may stand on an older
        one."""
        found = [*self.bases.values(), *(domain.base for domain in self.domains.values())]
        return list({id(base.answering): base for base in found}.values())

    def _take(self, built: Built, file: Proved, bases: dict[str, Base]) -> Domain:
        """A domain in memory; ``bases`` are those that are there, by the sha256 of their files."""
        before = self.domains.get(built.domain)
        if file.sha256 not in bases:
            file.check()
            answering = Answering(file.path, CONTEXT, threads=self.threads)
            bases[file.sha256] = Base(built.base, file, answering)
        base = bases[file.sha256]
        if (
            before is not None
            and before.base is base
            and before.built.adapter.sha256 == built.adapter.sha256
        ):
            return Domain(built, base, before.adapter)
        state = _look(built.adapter.path)
        built.adapter.check()
        adapter = base.answering.load(built.adapter.path)
        if _look(built.adapter.path) != state:
            base.answering.forget(adapter)
            raise ArtifactError(f"{built.adapter.path}: a build replaced it while it was loaded")
        return Domain(built, base, adapter)

    def _free(self, before: Mapping[str, Domain], bases: Mapping[str, Base]) -> None:
        used = {id(base.answering) for base in self._list_bases()}
        for base in bases.values():
            if id(base.answering) not in used:
                base.answering.close()
        for name, old in before.items():
            now = self.domains.get(name)
            replaced = now is None or now.adapter is not old.adapter
            if replaced and id(old.base.answering) in used:
                old.base.answering.forget(old.adapter)


def _texts(turns: Sequence[Mapping[str, str]], role: str) -> list[str]:
    return [turn["content"] for turn in turns if turn["role"] == role]


def _look(path: Path) -> tuple[int, int, int]:
    try:
        state = path.stat()
    except OSError:
        return (0, 0, 0)
    return (state.st_ino, state.st_size, state.st_mtime_ns)
