"""Text as it was meant: garbled text mended, Unicode in one form, its language named."""

import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

# Texts of fewer letters (counted in UTF-8 bytes, so that a Chinese character weighs more than a
# Latin one) are too short to ask py3langid which of all languages they are in.
SHORT = 40
ENCODINGS = re.compile(
    r"mojibake|\butf|latin-?1|iso-?8859|windows-?12|cp-?12|unicode|encod|decod|charset",
    re.IGNORECASE,
)
CARRIAGES = re.compile(r"\r+\n")
ABOUT_TEXT = re.compile(
    r"mojibake|\butf|latin-?1|iso-?8859|windows-?12|cp-?12|65001|unicode|ascii|encod|decod|charset|code ?page|garbled|gibberish|iconv|"
    r"\bbytes?\b|\bBOM\b|\b(characters?|symbols?|letters?)\b|\baccent|umlaut|apostrophe|instead of|\b(shows?|displays?|prints?)\b|"
    r"csv|excel|\bimport|\bexport|browser|terminal|database|html|json|xml|python|pandas|weird|strange|broken|turns? into|becomes?\b",
    re.IGNORECASE,
)
"""Words of those who ask why a text is garbled: what is garbled there has to stay so. Too many
rather than too few: a text that is left as it is can be told of, one that was right cannot be
brought back."""
QUOTED = re.compile(r"""(["'`«(])[^\s"'`»)]*[^\x00-\x7f][^\s"'`»)]*["'`»)]""")
"""A word beyond ASCII that is quoted, as a text does that speaks of it."""
LOOK_AT = 300  # characters of each side that decide the language

# The languages with most speakers and most data. Out of all 140 that py3langid knows, English
# commands and recipes come out as Esperanto, Latin or Wallon now and then.
COMMON = {
    "ar",
    "bn",
    "bg",
    "ca",
    "cs",
    "da",
    "de",
    "el",
    "en",
    "es",
    "et",
    "fa",
    "fi",
    "fr",
    "gu",
    "he",
    "hi",
    "hr",
    "hu",
    "id",
    "it",
    "ja",
    "kn",
    "ko",
    "lt",
    "lv",
    "ml",
    "mr",
    "ms",
    "nl",
    "no",
    "pa",
    "pl",
    "pt",
    "ro",
    "ru",
    "sk",
    "sl",
    "sr",
    "sv",
    "sw",
    "ta",
    "te",
    "th",
    "tl",
    "tr",
    "uk",
    "ur",
    "vi",
    "zh",
}


def mend(texts: Sequence[str]) -> list[tuple[str, list[str]]]:
    """The texts of one record as they were meant, each with what was changed in it.

    Mended are line ends, Unicode (to NFC), newlines before and after a text, and garbled text
    (UTF-8 read as something else: ``cafÃ©``) where the record is not about such text. Whatever else
    a text holds stays: indentation, which is part of an answer in code; escape characters, which
    are part of one about terminals; curly quotes, HTML entities, full-width punctuation. A text
    with NUL or half a surrogate pair comes back as it is, for the check to refuse.
    """
    garbled = _is_garbled(texts)
    return [_mend(text, garbled) for text in texts]


def _mend(text: str, garbled: bool) -> tuple[str, list[str]]:
    if "\0" in text or not encodable(text):
        return text, []
    steps: list[tuple[str, Callable[[str], str]]] = [
        ("garbled text", _ungarble if garbled and not text.isascii() else str),
        ("line ends", lambda old: CARRIAGES.sub("\n", old) if "\r" in old else old),
        ("Unicode form", lambda old: unicodedata.normalize("NFC", old)),
        ("newlines at the ends", lambda old: old.strip("\n")),
    ]
    changes = []
    for name, step in steps:
        mended = step(text)
        if mended != text:
            changes.append(name)
        text = mended
    return text, changes


def looks_garbled(text: str) -> bool:
    """Whether a text holds what UTF-8 looks like where it was read as something else, and says
    nothing of encodings."""
    return _is_garbled_text(text) and not ENCODINGS.search(text)


def _is_garbled_text(text: str) -> bool:
    return not text.isascii() and encodable(text) and bool(_ftfy().is_bad(text))


def _is_garbled(texts: Sequence[str]) -> bool:
    """Whether a record came garbled: its texts have no letter beyond ASCII that is right, and do
    not talk of garbled text."""
    beyond = [text for text in texts if not text.isascii()]
    if not beyond or not all(_is_garbled_text(text) and _ungarble(text) != text for text in beyond):
        return False
    return not any(ABOUT_TEXT.search(text) for text in texts) and not any(
        QUOTED.search(text) for text in beyond
    )


def _ungarble(text: str) -> str:
    return str(_ftfy().fix_encoding(text, _settings()))


def encodable(text: str) -> bool:
    """False where the text holds half a surrogate pair, as a broken ``\\ud83d`` escape in JSON
    does."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def language_of(
    prompt: str, response: str, stated: str | None, fallback: str, expected: Sequence[str]
) -> str:
    """ISO 639-1 code: what the source states for the record, else py3langid.

    A long text is looked up among the common languages; a short one only among those the domain
    expects, and takes the ``fallback`` where that leaves no choice or py3langid is unsure.
    """
    if stated and (code := re.fullmatch(r"([A-Za-z]{2,3})([-_].*)?", stated.strip())):
        return code[1].lower()
    text = f"{prompt[:LOOK_AT]}\n{response[:LOOK_AT]}"
    letters = len("".join(filter(str.isalpha, text)).encode())
    if letters >= SHORT:
        return _ask(text, tuple(sorted({*COMMON, *expected, fallback})), fallback)
    choice = tuple(sorted({*expected, fallback}))
    return _ask(text, choice, fallback) if letters and len(choice) > 1 else fallback


def languages_of(texts: Sequence[str]) -> list[str]:
    """The languages that at least a tenth of some texts are in, the most frequent first; English
    where none can be told.

    Short texts are looked at many together.
    """
    short = [text for text in texts if len(text.encode()) < 2 * SHORT]
    pieces = [(text[:LOOK_AT], 1) for text in texts if len(text.encode()) >= 2 * SHORT]
    pieces += [
        ("\n".join(short[at : at + 20]), len(short[at : at + 20]))
        for at in range(0, len(short), 20)
    ]
    found: Counter[str] = Counter()
    for text, weight in pieces:
        if code := _ask(text, tuple(sorted(COMMON)), ""):
            found[code] += weight
    return [code for code, count in found.most_common() if count >= 0.1 * found.total()] or ["en"]


def _ask(text: str, among: tuple[str, ...], fallback: str) -> str:
    code, confidence = _identifier(among).classify(text)
    return str(code) if confidence >= 0.5 else fallback


def warm() -> None:
    """Load py3langid's model (about half a CPU-second, once a process)."""
    _identifier(tuple(sorted(COMMON)))


@lru_cache(maxsize=16)
def _identifier(among: tuple[str, ...]) -> Any:
    from copy import copy

    whole = _model()
    known = [code for code in among if code in whole.labels]
    restricted = copy(whole)
    restricted.set_languages(known)
    return restricted


@lru_cache(maxsize=1)
def _model() -> Any:
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)


@lru_cache(maxsize=1)
def _ftfy() -> Any:
    import ftfy

    return ftfy


@lru_cache(maxsize=1)
def _settings() -> Any:
    # A text is garbled as a whole; one with right letters beside the garbled ones speaks of them,
    # more often than not.
    return _ftfy().TextFixerConfig(decode_inconsistent_utf8=False, explain=False)
