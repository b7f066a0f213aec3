"""An index by which a question finds its domain without the records: TF-IDF over domains (Salton
and Buckley 1988).

``router.json``::

    format    1
    pattern   what a word is: a regular expression, over the question in lower case
    words     by word its weight: ln((1 + domains) / domains with the word)
    domains   by domain, the weights of its words: a vector of length 1

A question's words weigh ``(1 + ln(times)) × words[word]``; its likeness to a domain is the sum of
the products of both weights over their words, divided by the length of the question's vector.
"""

import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

ROUTER = "router.json"
FORMAT = 1
PATTERN = r"[^\s!-/:-@\[-`{-~¡-¿‐-‧।॥]+"
"""Words are parted by spaces and punctuation alone, so that marks of vowels stay in them; read alike
by Python and JavaScript."""
TEXTS, KEPT = 2_000, 200
"""Of each domain at most: texts, and words."""

Weights = dict[str, float]


def make_router(texts: Mapping[str, Iterable[str]]) -> dict[str, Any]:
    """The index of some domains; ``texts`` are each one's, of which the first says what it is
    about, and weighs as much as all others together."""
    counted = {name: _count(given) for name, given in texts.items()}
    spread = Counter(word for found in counted.values() for word in set().union(*found))
    idf = {word: math.log((1 + len(counted)) / times) for word, times in spread.items()}
    domains = {name: _describe(found, idf) for name, found in counted.items()}
    kept = {word for weights in domains.values() for word in weights}
    return {
        "format": FORMAT,
        "pattern": PATTERN,
        "words": {word: round(idf[word], 4) for word in sorted(kept)},
        "domains": domains,
    }


def _count(texts: Iterable[str]) -> list[Counter[str]]:
    """The words of each text."""
    found = []
    for text in texts:
        found.append(Counter(re.findall(PATTERN, text.lower())))
        if len(found) > TEXTS:
            break
    return found


def _describe(texts: list[Counter[str]], idf: Mapping[str, float]) -> Weights:
    """A domain's vector: of what it is about, and of its records; the heaviest words of both."""
    about, *records = [_weigh(words, idf) for words in texts]
    total: Counter[str] = Counter()
    for record in records:
        total.update(record)
    whole = Counter(_shorten(total))
    whole.update(about)
    heaviest = sorted(whole.items(), key=lambda one: (-one[1], one[0]))[:KEPT]
    return {word: round(weight, 4) for word, weight in sorted(_shorten(dict(heaviest)).items())}


def _weigh(words: Mapping[str, int], idf: Mapping[str, float]) -> Weights:
    return _shorten({word: (1 + math.log(times)) * idf[word] for word, times in words.items()})


def _shorten(weights: Mapping[str, float]) -> Weights:
    """The same direction, of length 1."""
    length = math.sqrt(math.fsum(one * one for one in weights.values())) or 1.0
    return {word: one / length for word, one in weights.items()}
