"""A mistyped word is answered with the known one it is nearest to."""

from meetara_build.nearest import nearest


def test_the_nearest_word_is_offered_and_else_what_is_known() -> None:
    assert nearest("nutritoin", ["sleep", "nutrition"]) == "; did you mean 'nutrition'?"
    assert nearest("xyz", ["sleep", "nutrition"]) == "; known: nutrition, sleep"
    assert nearest("xyz", [f"d{number:02}" for number in range(40)]).endswith("d29 …")
