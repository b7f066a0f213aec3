"""Faults of an answer's form: it is cut off, goes round in circles, or is much too short or long."""

import re

from meetara_build.stages.answers.words import WORD, list_words, normalise

FINISHED = re.compile(r"[.!?।॥…](?:[\"'»”)\]*_`\s]|:\w+:)*$|[\"»”)\]}`|]\s*$|```\s*$")
"""How a text ends that is at its end: a sentence's sign, a closed quotation, bracket or code."""
SHORTEST, LONGEST = 1 / 4, 3.0
"""Words of an answer for each of its reference."""
FEW_WORDS = 12
"""Of a reference: a shorter one may well be answered at greater length."""

LONGEST_PERIOD = 30
"""Words of a phrase that is said over and over."""
IN_CIRCLES, IN_CIRCLES_COUNTING = 10, 24
"""Words that a phrase fills by being said three times at least, one after the other; where only its
numbers change (1 mg, 2 mg, 3 mg) it takes more to be no list."""
LONG_RUN = 9
"""Words that nobody says twice in one answer of prose."""
RUN, FEWEST_RUNS, REPEATED = 4, 24, 0.35
"""Of the runs of so many words, at least so many in all, which share may have been said before."""


def is_finished(text: str, reference: str) -> bool:
    """Whether a text ends where a sentence, quotation, bracket or piece of code does; where there is
    a reference that ends with none of them (a heading, a formula), any end will do."""
    if text.count("```") % 2:
        return False
    return bool(FINISHED.search(text)) or bool(reference and not FINISHED.search(reference))


def find_loop(text: str) -> tuple[str, int] | None:
    """Words that are said over and over, and where they begin in the normalised text; None where
    there are none."""
    text = normalise(text)
    places = [match.span() for match in WORD.finditer(text)]
    words = [text[start:end].lower() for start, end in places]
    found = _find_circle(words, IN_CIRCLES) or _find_circle(
        [re.sub(r"\d+", "#", word) for word in words], IN_CIRCLES_COUNTING
    )
    found = found or _find_long_run(words) or _find_repeats(words)
    if found is None:
        return None
    first, last = found
    return text[places[first][0] : places[last][1]], places[first][0]


def _find_circle(words: list[str], least: int) -> tuple[int, int] | None:
    """A phrase of some words that is said three times in a row, five times where it is one word."""
    for period in range(1, min(LONGEST_PERIOD, len(words) // 3) + 1):
        run = 0
        for at in range(period, len(words)):
            run = run + 1 if words[at] == words[at - period] else 0
            times = 4 if period == 1 else 2
            if run >= times * period and run + period >= min(least, 3 * period + least // 2):
                return at - run - period + 1, at - run
    return None


def _find_long_run(words: list[str]) -> tuple[int, int] | None:
    seen: dict[tuple[str, ...], int] = {}
    for at in range(len(words) - LONG_RUN + 1):
        run = tuple(words[at : at + LONG_RUN])
        if at - seen.setdefault(run, at) >= LONG_RUN:
            return at, at + LONG_RUN - 1
    return None


def _find_repeats(words: list[str]) -> tuple[int, int] | None:
    runs = [tuple(words[at : at + RUN]) for at in range(len(words) - RUN + 1)]
    if len(runs) < FEWEST_RUNS or 1 - len(set(runs)) / len(runs) <= REPEATED:
        return None
    most = max(runs, key=runs.count)
    first = runs.index(most)
    return first, first + RUN - 1


def measure_length(answer: str, reference: str) -> float | None:
    """Words of an answer for each of its reference; None where the reference has too few to say."""
    wanted = len(list_words(reference))
    return len(list_words(answer)) / wanted if wanted >= FEW_WORDS else None
