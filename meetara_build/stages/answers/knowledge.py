"""What the answers of a domain may say: gathered once, for all its cases."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import NamedTuple

from meetara_build.stages.answers.calls import Calls
from meetara_build.stages.answers.copies import CopyIndex
from meetara_build.stages.answers.facts import ADDRESS, PHONE, Fact, Reader, shorten_address
from meetara_build.stages.answers.helpers import Helpers
from meetara_build.stages.answers.topic import Background
from meetara_build.stages.recipes.safety import SafetyLists


class Said(NamedTuple):
    """A training record: what was asked, with all earlier turns, and what was answered."""

    prompt: str
    answer: str
    language: str


@dataclass(frozen=True)
class Language:
    """A language's lists, what they allow to name, and what reads texts by them; ``has_lists`` is
    false where there are none.

    An emergency number is known in the languages of its region alone: "911 पर कॉल करें" helps nobody.
    """

    lists: SafetyLists
    reader: Reader
    calls: Calls
    helpers: Helpers
    reviewed: frozenset[Fact]
    has_lists: bool

    @classmethod
    def of(cls, lists: SafetyLists | None) -> "Language":
        """From a language's lists; without any it is read by signs alone."""
        given = lists or SafetyLists()
        numbers = (number for region in given.emergency.values() for number in region)
        reviewed = {Fact(PHONE, number) for number in numbers}
        reviewed |= {Fact(ADDRESS, shorten_address(site)) for site in given.sites}
        return cls(
            given,
            Reader(given),
            Calls(given),
            Helpers(given),
            frozenset(reviewed),
            lists is not None,
        )

    def gather(self, text: str) -> set[Fact]:
        """The facts of a text that is trusted, numbers that it tells to call among them."""
        called = {Fact(PHONE, call.number) for call in self.calls.find_calls(text)}
        return {found.fact for found in self.reader.find_facts(text)} | called


@dataclass(frozen=True)
class Knowledge:
    """Facts that answers may name, what they may not copy, and how texts are read.

    Attributes:
        facts: of the training records and the system prompt, in any language; those of reviewed
            lists are their language's.
        languages: by code.
        languages_expected: those of the domain, for short answers whose language is unsure.
        copies: finds whole training answers.
        backgrounds: texts of other domains, by language.
    """

    facts: frozenset[Fact] = frozenset()
    languages: Mapping[str, Language] = field(default_factory=dict)
    languages_expected: tuple[str, ...] = ()
    copies: CopyIndex = field(default_factory=CopyIndex)
    backgrounds: Mapping[str, Background] = field(default_factory=dict)

    def language(self, code: str) -> Language:
        """How texts of a language are read."""
        return self.languages.get(code) or _bare_language()

    def background(self, code: str) -> Background:
        """Texts of other domains in a language; an empty one where there are none."""
        return self.backgrounds.get(code) or Background()

    def with_facts(self, facts: Iterable[Fact]) -> "Knowledge":
        """The same, and some facts more."""
        return replace(self, facts=self.facts | frozenset(facts))


def gather_knowledge(
    records: Iterable[Said],
    lists: Mapping[str, SafetyLists],
    system_prompt: str | None = None,
    languages: Iterable[str] = (),
    background: Iterable[Said] = (),
) -> Knowledge:
    """What a domain's answers may say.

    ``records`` are those of the training side alone: what is held out must not vouch for what a
    model says of another prompt. ``lists`` are by language; ``background`` are records of many
    domains (the pinned sample), without which no answer is found off its topic. The order of
    neither matters.
    """
    read = {code: Language.of(one) for code, one in lists.items()}
    facts: set[Fact] = set()
    answers = []
    for record in records:
        language = read.get(record.language) or _bare_language()
        facts |= language.gather(record.prompt) | language.gather(record.answer)
        answers.append(record.answer)
    if system_prompt:
        for language in [*read.values(), _bare_language()]:
            facts |= language.gather(system_prompt)
    texts: dict[str, list[tuple[str, str]]] = {}
    for record in background:
        texts.setdefault(record.language, []).append((record.prompt, record.answer))
    backgrounds = {code: Background.of(one) for code, one in texts.items()}
    return Knowledge(frozenset(facts), read, tuple(languages), CopyIndex.of(answers), backgrounds)


@lru_cache(maxsize=1)
def _bare_language() -> Language:
    return Language.of(None)
