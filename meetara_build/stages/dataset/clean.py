"""Text as it was meant: mojibake mended, Unicode in one form, its language named."""

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

# Texts of fewer letters (counted in UTF-8 bytes, so that a Chinese character weighs more than a Latin one) are too
# short to ask py3langid which of all languages they are in.
SHORT = 40
PLAIN = re.compile(r"[\n\t -~]*")  # ASCII that ftfy would leave alone, at a tenth of the time
LOOK_AT = 300  # characters of each side that decide the language

# The languages with most speakers and most data. Out of all 140 that py3langid knows, English commands and recipes
# come out as Esperanto, Latin or Wallon now and then.
COMMON = {
    "ar", "bn", "bg", "ca", "cs", "da", "de", "el", "en", "es", "et", "fa", "fi", "fr", "gu", "he", "hi", "hr",
    "hu", "id", "it", "ja", "kn", "ko", "lt", "lv", "ml", "mr", "ms", "nl", "no", "pa", "pl", "pt", "ro", "ru",
    "sk", "sl", "sr", "sv", "sw", "ta", "te", "th", "tl", "tr", "uk", "ur", "vi", "zh",
}  # fmt: skip


def mend(text: str) -> str:
    """ftfy and Unicode NFC, without the changes that are matters of taste or break text that is right.

    Left alone: curly quotes, HTML entities (an answer may be about them), the full-width punctuation of Chinese and
    Japanese. A text with NUL or half a surrogate pair comes back as it is, for the check to refuse.
    """
    if "\0" in text or not encodable(text):
        return text
    if PLAIN.fullmatch(text):
        return text.strip()
    return str(_ftfy().fix_text(text, _settings())).strip()


def encodable(text: str) -> bool:
    """False where the text holds half a surrogate pair, as a broken ``\\ud83d`` escape in JSON does."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def language_of(prompt: str, response: str, stated: str | None, fallback: str, expected: Sequence[str]) -> str:
    """ISO 639-1 code: what the source states for the record, else py3langid.

    A long text is looked up among the common languages; a short one only among those the domain expects, and takes
    the ``fallback`` where that leaves no choice or py3langid is unsure.
    """
    if stated and (code := re.fullmatch(r"([A-Za-z]{2,3})([-_].*)?", stated.strip())):
        return code[1].lower()
    text = f"{prompt[:LOOK_AT]}\n{response[:LOOK_AT]}"
    letters = len("".join(filter(str.isalpha, text)).encode())
    if letters >= SHORT:
        return _ask(text, tuple(sorted({*COMMON, *expected, fallback})), fallback)
    choice = tuple(sorted({*expected, fallback}))
    return _ask(text, choice, fallback) if letters and len(choice) > 1 else fallback


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
    return _ftfy().TextFixerConfig(
        unescape_html=False,
        uncurl_quotes=False,
        fix_latin_ligatures=False,
        fix_character_width=False,
        normalization="NFC",
        explain=False,
    )
