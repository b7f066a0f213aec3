"""Text in one form, and patterns of words in any script.

``\\b`` of ``re`` does not serve: to it the vowel signs of Devanagari are no letters.
"""

import re
import unicodedata
from collections.abc import Iterable
from functools import lru_cache

LETTER = r"\w\u0300-\u036f\u0900-\u0903\u093a-\u094f\u0951-\u0957\u0962\u0963"
"""What words are made of, for use in ``[ ]``: letters, digits and marks that go with them."""
WORD = re.compile(f"[{LETTER}]+(?:'[{LETTER}]+)?")
SAME = str.maketrans({"’": "'", "‘": "'", "\u00a0": " ", "\u202f": " ", "‑": "-", "‐": "-"})


def normalise(text: str) -> str:
    """One form of Unicode (NFC), ASCII digits, plain apostrophes, hyphens and spaces.

    What is normalised already stays as it is.
    """
    one = unicodedata.normalize("NFC", text).translate(SAME)
    return "".join(
        str(unicodedata.digit(sign)) if not sign.isascii() and sign.isdecimal() else sign
        for sign in one
    )


def list_words(text: str) -> list[str]:
    """The words of a text, in small letters."""
    return WORD.findall(normalise(text).lower())


def alternate(phrases: Iterable[str]) -> str:
    """A pattern of any of some phrases, the longest first; ``*`` stands for any letters there; what
    matches nothing where there are none."""
    found = sorted({normalise(phrase) for phrase in phrases}, key=lambda one: (-len(one), one))
    return "|".join(map(_pattern_of, found)) or r"(?!)"


def _pattern_of(phrase: str) -> str:
    any_letters = f"[{LETTER}]*"
    inner = r"\s+".join(re.escape(part) for part in phrase.strip("*").split())
    before, after = phrase.startswith("*"), phrase.endswith("*")
    return f"{any_letters if before else ''}{inner}{any_letters if after else ''}"


@lru_cache(maxsize=256)
def compile_words(phrases: tuple[str, ...]) -> re.Pattern[str]:
    """Any of some phrases as whole words, in letters of any case; a number not within another."""
    return re.compile(
        f"(?<![{LETTER}])(?<!\\d[.,])(?:{alternate(phrases)})(?![{LETTER}])(?![.,]\\d)",
        re.IGNORECASE,
    )
