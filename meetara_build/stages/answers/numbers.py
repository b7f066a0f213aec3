"""Numbers as people write them, in figures and in words, and what they are worth."""

import re
from fractions import Fraction

from meetara_build.stages.answers.words import LETTER, alternate
from meetara_build.stages.recipes.safety import SafetyLists

FIGURES = r"\d{1,3}(?: \d{3}){2,}(?!\d)|\d{1,3} 0\d\d(?!\d)|\d+\s?[½¼¾]|[½¼¾]|\d+/\d+(?![\d/])|\d+(?:[.,]\d+)*"
"""1,000; 1.5; 1,00,000; 10 000 000; 1/2; 1½."""
MOST_WORDS = 6
"""Of one number, beyond its first: models that loop say thousands, and each is looked at from every
place."""
PARTS = {"½": Fraction(1, 2), "¼": Fraction(1, 4), "¾": Fraction(3, 4)}


def number_pattern(lists: SafetyLists) -> str:
    """A pattern of a number in figures, or in the words of a language."""
    words = alternate(lists.numbers)
    said = f"(?<![{LETTER}])(?:{words})(?:[ -](?:{words})){{0,{MOST_WORDS}}}(?![{LETTER}])"
    return f"(?:(?<![{LETTER}.,/])(?:{FIGURES})|{said})"


def read_number(text: str, lists: SafetyLists | None = None) -> Fraction | None:
    """What a number is worth; None for what is none.

    A comma before three digits parts thousands, a point does where the language has it so
    (``decimal_comma``); several alike do in any case, and of both kinds the last is the decimal
    sign.
    """
    lists = lists or SafetyLists()
    text = text.strip().lower()
    if text and text[-1] in PARTS:
        before = text[:-1].strip()
        return (read_number(before, lists) or Fraction(0)) + PARTS[text[-1]]
    if re.fullmatch(r"\d+/\d+", text):
        above, below = text.split("/")
        return Fraction(int(above), int(below)) if int(below) else None
    if re.fullmatch(r"[\d., ]+", text):
        return _read_figures(text.replace(" ", ""), lists.decimal_comma)
    return _read_words(text, lists)


def _read_figures(text: str, decimal_comma: bool) -> Fraction | None:
    signs = [sign for sign in text if sign in ".,"]
    if len(set(signs)) == 2:
        last = max(text.rfind("."), text.rfind(","))
        whole, part = re.sub(r"\D", "", text[:last]), text[last + 1 :]
    elif len(signs) > 1 or (signs and _parts_thousands(text, signs[0], decimal_comma)):
        whole, part = re.sub(r"\D", "", text), ""
    else:
        whole, _, part = text.replace(",", ".").partition(".")
    try:
        return Fraction(f"{whole or '0'}.{part or '0'}")
    except ValueError:
        return None


def _parts_thousands(text: str, sign: str, decimal_comma: bool) -> bool:
    before, _, after = text.partition(sign)
    right = len(after) == 3 and 1 <= len(before) <= 3 and not before.startswith("0")
    return right and (sign == "," or decimal_comma)


def _read_words(text: str, lists: SafetyLists) -> Fraction | None:
    known = {word.lower(): Fraction(str(worth)) for word, worth in lists.numbers.items()}
    total, current = Fraction(0), Fraction(0)
    words = [word for word in re.split(r"[\s-]+", text) if word]
    if not words or any(word not in known for word in words):
        return None
    for word in words:
        worth = known[word]
        if worth >= 1000:
            total, current = total + (current or 1) * worth, Fraction(0)
        elif worth == 100:
            current = (current or 1) * worth
        else:
            current += worth
    return total + current


def show_number(worth: Fraction) -> str:
    """The one form in which numbers are compared: 1000, 0.5, 0.333333; never with an exponent."""
    if worth.denominator == 1:
        return str(worth.numerator)
    return f"{float(worth):.6f}".rstrip("0").rstrip(".")
