"""Texts are alike by their words."""

import pytest

from meetara_build.stages.text_similarity import likeness

TEXTS = {
    "one": "bread and butter",
    "two": "bread and jam",
    "three": "violins, cellos",
    "four": "bread and butter",
}


def test_texts_are_alike_by_their_words() -> None:
    found = likeness(TEXTS)
    assert found["one"]["four"] == pytest.approx(1)
    assert 0 < found["one"]["two"] < 1
    assert found["one"]["three"] == 0
    assert found["one"]["two"] == found["two"]["one"]


def test_words_that_nearly_all_have_tell_nothing() -> None:
    found = likeness({name: f"{name} common" for name in ("first", "second", "third", "fourth")})
    assert found["first"]["second"] == 0


def test_texts_that_are_all_the_same_are_alike() -> None:
    found = likeness(dict.fromkeys("abcde", "protein and rest"))
    assert {cosine for row in found.values() for cosine in row.values()} == {1.0}


@pytest.mark.parametrize("texts", [{}, {"a": ""}, {"a": "? !", "b": "? !"}])
def test_texts_without_words_are_like_nothing(texts: dict[str, str]) -> None:
    assert likeness(texts) == {name: dict.fromkeys(texts, 0.0) for name in texts}
