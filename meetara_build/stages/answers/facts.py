"""Facts that can do harm when they are made up, found in a text in one form each: phone numbers,
doses, amounts of money, addresses of the web and of mail, and statutes.

Each kind is a pattern that a person can read. The words of a language come from its reviewed lists,
signs (mg, $, §) are the same everywhere. "5 ml" and "5ml" are one fact, and so are "1 g" and
"1,000 mg".
"""

import re
from collections.abc import Iterator
from fractions import Fraction
from functools import cached_property
from typing import NamedTuple

from meetara_build.stages.answers.numbers import number_pattern, read_number, show_number
from meetara_build.stages.answers.words import LETTER, alternate, normalise
from meetara_build.stages.recipes.safety import SafetyLists

PHONE, DOSE, AMOUNT, ADDRESS, STATUTE = "phone", "dose", "amount", "address", "statute"

SIGNS = {
    "mg": "mg",
    "mcg": "mcg",
    "µg": "mcg",
    "μg": "mcg",
    "ug": "mcg",
    "g": "g",
    "ml": "ml",
    "mL": "ml",
    "cl": "cl",
    "dl": "dl",
    "dL": "dl",
    "l": "l",
    "L": "l",
    "IU": "IU",
    "UI": "IU",
    "kcal": "kcal",
    "mmol": "mmol",
    "mEq": "mEq",
}
"""Signs of units, in exactly these letters: 5G is no dose."""
SCALES = {
    "g": ("mg", Fraction(1000)),
    "mcg": ("mg", Fraction(1, 1000)),
    "cl": ("ml", Fraction(10)),
    "dl": ("ml", Fraction(100)),
    "l": ("ml", Fraction(1000)),
}
"""Units that are others, so many times."""
CURRENCIES = {"$": "USD", "€": "EUR", "£": "GBP", "₹": "INR", "¥": "JPY"}
CODES = ("USD", "EUR", "GBP", "INR", "MXN", "ARS", "COP", "CAD", "AUD", "CHF")
TIMES = {"k": 10**3, "m": 10**6, "bn": 10**9, "lakh": 10**5, "crore": 10**7}
"""After a number: how many times it is meant."""

SEPARATED = re.compile(
    r"(?<![\w.,/:-])(?:\+\d{1,3}[ .-]?)?(?:\(\d{1,5}\)[ .-]?)?\d{1,5}(?:[ .-]\d{2,5}){1,5}(?![\w/:]|[.,-]\d)"
    r"|(?<![\w.,/:-])(?:\+\d|0)\d{6,14}(?!\w|[.,]\d)"
)
"""A phone number: groups of digits, or digits in one piece that begin with + or 0."""
THOUSANDS = re.compile(r"\d{1,3}(?: \d{3})+")
DATE = re.compile(r"(?:19|20)\d\d[-.]\d\d?(?:[-.]\d\d?)?|\d\d?[-.]\d\d?[-.](?:19|20)?\d\d")
YEARS = re.compile(r"(?:1[5-9]|20)\d\d-(?:1[5-9]|20)?\d\d")

ENDINGS = "com|org|net|edu|gov|mil|int|info|io|ai|app|dev|co|uk|eu|ca|au|de|fr|mx|ar|cl|pe|nz|ie|za"
MAIL = re.compile(r"[\w.+-]+@[\w-]+(?:\.[\w-]+)+")
SITE = re.compile(
    rf"(?:https?://|www\.)[^\s<>\"')\]]+|(?<![\w@./-])(?:[A-Za-z0-9-]+\.)+(?:{ENDINGS})(?:\.[a-z]{{2}})?(?:/[^\s<>\"')\]]*)?(?![\w(])"
)
LEADING = ("the", "under", "in", "a", "an", "your", "this", "that", "by", "see", "and", "if")
"""Capital words that begin a sentence and no statute's name."""


class Fact(NamedTuple):
    """A fact in the form in which facts are compared; ``unit`` of a dose or an amount."""

    kind: str
    value: str
    unit: str = ""


class Found(NamedTuple):
    """A fact, the words of the text that say it, and where they begin in it once normalised."""

    fact: Fact
    words: str
    at: int

    @property
    def place(self) -> tuple[int, int]:
        """Where the words begin, and where they end."""
        return self.at, self.at + len(self.words)


class Reader:
    """Finds facts in texts of a language."""

    def __init__(self, lists: SafetyLists) -> None:
        self.lists = lists

    def find_facts(self, text: str) -> list[Found]:
        """All facts of a text, in its order."""
        text = normalise(text)
        found = [
            *self._find_doses(text),
            *self._find_amounts(text),
            *_find_addresses(text),
            *self._find_statutes(text),
        ]
        taken = [one.place for one in found]
        found += [one for one in _find_phones(text) if not _is_within(one.place, taken)]
        return sorted(set(found), key=lambda one: (one.at, one.fact))

    def find_numbers(self, text: str) -> set[str]:
        """What every number of a text is worth."""
        pattern = re.compile(self._number, re.IGNORECASE)
        read = (read_number(one[0], self.lists) for one in pattern.finditer(normalise(text)))
        return {show_number(worth) for worth in read if worth is not None}

    @cached_property
    def _number(self) -> str:
        return number_pattern(self.lists)

    @cached_property
    def _several(self) -> str:
        """Numbers of a range or a choice: 150 to 200, 5, 10 or 15."""
        joins = rf"\s*[-–—/,]\s*|\s+(?:{alternate(self.lists.between)})\s+|\s*,\s*(?:{alternate(self.lists.between)})\s+"
        return f"(?P<numbers>{self._number}(?:(?:{joins})(?:{self._number})){{0,3}})"

    @cached_property
    def _dose(self) -> re.Pattern[str]:
        names = [name for words in self.lists.units.values() for name in words]
        between = rf"(?:(?:{alternate(self.lists.between)})\s+)?"
        signs = "|".join(sorted(map(re.escape, SIGNS), key=len, reverse=True))
        return re.compile(
            rf"(?i:{self._several})(?:[\s-]?(?P<sign>{signs})(?!['{LETTER}])|[\s-]+{between}(?i:(?P<name>{alternate(names)}))(?![{LETTER}]))"
        )

    @cached_property
    def _names(self) -> list[tuple[re.Pattern[str], str]]:
        return [
            (re.compile(alternate(words), re.IGNORECASE), unit)
            for unit, words in self.lists.units.items()
        ]

    def _find_doses(self, text: str) -> Iterator[Found]:
        for match in self._dose.finditer(text):
            unit = SIGNS.get(match["sign"] or "") or next(
                (unit for pattern, unit in self._names if pattern.fullmatch(match["name"] or "")),
                "",
            )
            unit, scale = SCALES.get(unit, (unit, Fraction(1)))
            for worth in self._read_several(match["numbers"]):
                fact = Fact(DOSE, show_number(worth * scale), unit)
                yield Found(fact, match[0], match.start())

    def _read_several(self, text: str) -> Iterator[Fraction]:
        for one in re.finditer(self._number, text, re.IGNORECASE):
            worth = read_number(one[0], self.lists)
            if worth is not None:
                yield worth

    @cached_property
    def _amounts(self) -> tuple[re.Pattern[str], re.Pattern[str]]:
        large = [word for word, worth in self.lists.numbers.items() if worth >= 1000]
        times = rf"(?:\s?(?P<times>(?:{'|'.join(TIMES)}|{alternate(large)}))(?![{LETTER}]))?"
        signs = "".join(map(re.escape, CURRENCIES))
        names = alternate(name for words in self.lists.money.values() for name in words)
        range_ = rf"(?P<numbers>(?:{self._number})(?:\s?[-–—]\s?(?:{self._number}))?)"
        before = rf"(?:US|A|C)?(?P<sign>[{signs}])\s?{range_}{times}"
        named = rf"(?P<name>{'|'.join(CODES)}|{names})(?![{LETTER}])"
        after = rf"(?<![{signs}]){self._several}{times}\s?(?:(?P<sign>[{signs}])|{named})"
        return re.compile(before, re.IGNORECASE), re.compile(after, re.IGNORECASE)

    def _find_amounts(self, text: str) -> Iterator[Found]:
        before, after = self._amounts
        matches = list(before.finditer(text))
        rest = before.sub(lambda match: " " * len(match[0]), text)
        matches += after.finditer(rest)
        for match in matches:
            name = (match.groupdict().get("name") or "").lower()
            currency = CURRENCIES.get(match["sign"] or "") or next(
                (
                    code
                    for code, words in self.lists.money.items()
                    if name in [word.lower() for word in words]
                ),
                name.upper(),
            )
            said = (match["times"] or "").lower()
            times = Fraction(TIMES[said]) if said in TIMES else read_number(said, self.lists)
            for worth in self._read_several(match["numbers"]):
                value = show_number(worth * (times or 1))
                yield Found(Fact(AMOUNT, value, currency), match[0], match.start())

    @cached_property
    def _law(self) -> re.Pattern[str]:
        words = rf"(?:(?<![{LETTER}])(?:{alternate(self.lists.law)})(?:\s+|(?<=\.))|§+\s?)"
        between = r"(?:\((?:EU|EC|EEC|UE|CE)\)\s*)?(?:n(?:o|º|\.º)?\.?\s*)?"
        return re.compile(
            rf"{words}{between}(?P<number>\d+[a-z]?(?:[./-]\d+)*(?:\(\w{{1,3}}\))*)(?![{LETTER}]|\s?%)",
            re.IGNORECASE,
        )

    @cached_property
    def _act(self) -> re.Pattern[str]:
        words = alternate(self.lists.acts)
        if any(word[:1].isupper() for word in self.lists.acts):
            before = r"[A-Z][\w'-]+\s+(?:(?:[A-Z][\w'-]+|of|and|the|on|for|to|in)\s+){0,7}?"
        else:
            before = rf"[{LETTER}]+\s+"
        return re.compile(
            rf"(?<![{LETTER}])(?P<act>{before}(?:{words}))(?![{LETTER}])(?:,?\s+(?:of\s+)?(?P<year>(?:1[6-9]|20)\d\d))?"
        )

    def _find_statutes(self, text: str) -> Iterator[Found]:
        for match in self._law.finditer(text):
            yield Found(Fact(STATUTE, match["number"].lower()), match[0].strip(), match.start())
        for match in self._act.finditer(text) if self.lists.acts else ():
            words = match["act"].lower().split()
            while len(words) > 1 and words[0] in LEADING:
                words = words[1:]
            if len(words) > 1:
                name = " ".join([*words, *([match["year"]] if match["year"] else [])])
                yield Found(Fact(STATUTE, name), match[0], match.start())


def read_digits(text: str) -> str:
    """A phone number in the form in which such are compared: its digits alone."""
    return re.sub(r"\D", "", text)


def is_same_number(one: str, other: str) -> bool:
    """Whether two phone numbers are one, with or without the country before it."""
    shorter, longer = sorted((one.lstrip("0") or "0", other.lstrip("0") or "0"), key=len)
    return one == other or (len(shorter) >= 7 and longer.endswith(shorter))


def _find_phones(text: str) -> Iterator[Found]:
    for match in SEPARATED.finditer(text):
        digits = read_digits(match[0])
        if (
            7 <= len(digits) <= 15
            and not DATE.fullmatch(match[0])
            and not THOUSANDS.fullmatch(match[0])
            and not YEARS.fullmatch(match[0])
        ):
            yield Found(Fact(PHONE, digits), match[0], match.start())


def _find_addresses(text: str) -> Iterator[Found]:
    for match in MAIL.finditer(text):
        yield Found(Fact(ADDRESS, match[0].lower().rstrip(".")), match[0], match.start())
    for match in SITE.finditer(text):
        words = match[0].rstrip(".,;:!?")
        yield Found(Fact(ADDRESS, shorten_address(words)), words, match.start())


def shorten_address(address: str) -> str:
    """An address without what does not tell two apart: https://www.who.int/ is who.int."""
    return re.sub(r"^(?:https?://)?(?:www\.)?", "", address.lower()).rstrip("/.")


def _is_within(place: tuple[int, int], taken: list[tuple[int, int]]) -> bool:
    return any(start < place[1] and place[0] < end for start, end in taken)
