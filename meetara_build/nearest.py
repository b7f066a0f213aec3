"""The known word that a mistyped one is nearest to."""

from collections.abc import Sequence


def nearest(word: str, known: Sequence[str]) -> str:
    """``; did you mean 'x'?`` or the known words, for the end of a message."""
    from difflib import get_close_matches

    close = get_close_matches(word, known, n=1, cutoff=0.6)
    if close:
        return f"; did you mean '{close[0]}'?"
    shown = sorted(known)
    return f"; known: {', '.join(shown[:30])}{' …' if len(shown) > 30 else ''}"
