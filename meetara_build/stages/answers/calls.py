"""Numbers that a text tells somebody to call, whatever they look like: "call 504, 786, 311", "dial
9-1-1", "nine one one"."""

import re
from collections.abc import Iterable, Iterator
from functools import cached_property
from typing import NamedTuple

from meetara_build.stages.answers.facts import read_digits
from meetara_build.stages.answers.numbers import read_number
from meetara_build.stages.answers.words import LETTER, alternate, normalise
from meetara_build.stages.recipes.safety import SafetyLists

FIGURES = r"\+?\d{1,15}(?:[ .()-]{1,2}\d{1,15}){0,14}"
MOST_DIGITS, MOST_NUMBERS = 14, 12
"""That are said one by one, and numbers of one list, beyond the first: so that a text that loops is read
in no time."""
SHORT = r"\d(?:-?\d){2,3}"
"""A short number, as emergency numbers are: several to choose from, and nothing that they count, are
numbers to call, whatever stands before them."""
MOST_BETWEEN = 12
"""Words between the word that tells to call and the number."""
LEAST_DIGITS, LEAST_APART = 2, 3
"""Of a number right after that word, and of one with words between."""
NO_NUMBER = r"(?!\s?(?:%|°|€|\$|£|:\d|[.,]\d|[-–]\s?\d|(?:st|nd|rd|th|am|pm|mg|ml|g|kg|cm|mm|m)\b))"


class Call(NamedTuple):
    """The digits of a number that is to be called, the words that say it, and where they begin in
    the normalised text."""

    number: str
    words: str
    at: int


class Calls:
    """Finds the numbers to call in texts of a language."""

    def __init__(self, lists: SafetyLists) -> None:
        self.lists = lists

    def find_calls(self, text: str) -> list[Call]:
        """Every number that a text tells somebody to call, in its order, each once a place."""
        text = normalise(text)
        found = {call.at: call for pattern in self._patterns for call in self._read(pattern, text)}
        return [found[at] for at in sorted(found)]

    @cached_property
    def _item(self) -> str:
        words = alternate([*self.lists.numbers, *self.lists.repeats])
        said = f"(?:{words})(?:[ -]{{1,2}}(?:{words})){{1,{MOST_DIGITS}}}"
        return (
            rf"(?:(?<![\w.,])(?:{FIGURES})(?![{LETTER}])|(?<![{LETTER}])(?:{said})(?![{LETTER}]))"
        )

    @cached_property
    def _items(self) -> str:
        """Numbers of a list: 112, 911 or 999."""
        no_count = rf"(?!\s+(?:{alternate(self.lists.counted)})(?![{LETTER}]))"
        one = f"(?:{self._item}){NO_NUMBER}{no_count}"
        word = f"(?:{alternate(self.lists.between)})"
        before = rf"(?:(?:{alternate(self.lists.call_joins)})\s+)?"
        joins = rf"(?:\s*[,/;]\s*(?:{word}\s+)?|\s+{word}\s+){before}"
        return f"(?P<items>{one}(?:{joins}{one}){{0,{MOST_NUMBERS}}})"

    @cached_property
    def _patterns(self) -> list[re.Pattern[str]]:
        lists = self.lists
        if not lists.call:
            return []
        call, joins, named = map(
            _whole_word, (lists.call, lists.call_joins, lists.emergency_number)
        )
        word = r"(?:[^\s\d.!?;:।]+\s+)"
        patterns = [
            rf"(?P<direct>){named}[\s:=,(]+{word}{{0,3}}?{self._items}",
            self._choice(joins),
        ]
        if lists.call_follows:
            patterns.append(rf"(?P<direct>){self._items}(?:\s+{joins}){{0,4}}\s+{call}")
        else:
            patterns.append(rf"(?P<direct>){call}[\s:(]+{self._items}")
            patterns.append(rf"{call},?\s+{word}{{0,{MOST_BETWEEN}}}?{joins}[\s:]+{self._items}")
        return [re.compile(pattern, re.IGNORECASE) for pattern in patterns]

    def _choice(self, joins: str) -> str:
        """Short numbers to choose from, in figures or digit by digit: "and 112, 911 or 999."."""
        digits = alternate(word for word, worth in self.lists.numbers.items() if worth in range(10))
        said = rf"(?<![{LETTER}])(?:{digits})(?:[ -](?:{digits})){{2,3}}(?![{LETTER}])"
        one = rf"(?:(?<![\w.,$€£₹]){SHORT}(?![\w%°]|[.,]\d)|{said})"
        choice = alternate(self.lists.choice)
        joins_two = rf"(?:\s*,\s*(?:(?:{choice})\s+)?|\s+(?:{choice})\s+)"
        goes_on = rf"\s+(?:{alternate(self.lists.between)})\s+(?!\d)"
        end = rf"\s*[.;:!?)।]|\s*$|{goes_on}" + (rf"|\s+{joins}" if self.lists.call_follows else "")
        return rf"(?P<items>{one}(?:{joins_two}{one}){{1,{MOST_NUMBERS}}})(?={end})"

    def _read(self, pattern: re.Pattern[str], text: str) -> Iterator[Call]:
        least = LEAST_DIGITS if "direct" in pattern.groupindex else LEAST_APART
        for match in pattern.finditer(text):
            for one in re.finditer(self._item, match["items"], re.IGNORECASE):
                at = match.start("items") + one.start()
                for number in self._numbers(one[0]):
                    if len(number) >= least:
                        yield Call(number, one[0], at)

    def _numbers(self, item: str) -> list[str]:
        """The digits of one item; figures with spaces between are one number where they are as long
        as one, or each a digit."""
        if re.search(r"\d", item):
            groups = re.findall(r"\d+", item)
            whole = read_digits(item)
            if len(whole) >= 7 or " " not in item or all(len(group) == 1 for group in groups):
                return [whole]
            return groups
        return [self._read_said(item)]

    def _read_said(self, item: str) -> str:
        """Digits that are said: nine one one, triple nine, nine eleven, ciento doce."""
        known = {word.lower(): worth for word, worth in self.lists.numbers.items()}
        times, digits, values = 1, "", []
        for word in re.split(r"[\s-]+", item.lower()):
            if word in self.lists.repeats:
                times = self.lists.repeats[word]
            elif word in known:
                values.append(known[word])
                digits += str(int(known[word])) * times
                times = 1
        if any(value >= 100 for value in values):
            worth = read_number(item, self.lists)
            return str(int(worth)) if worth is not None else ""
        tens_and_one = len(values) == 2 and values[0] in range(20, 100, 10) and values[1] < 10
        return "" if tens_and_one or len(digits) < LEAST_APART else digits


def _whole_word(words: Iterable[str]) -> str:
    return rf"(?<![{LETTER}])(?:{alternate(words)})(?![{LETTER}])"
