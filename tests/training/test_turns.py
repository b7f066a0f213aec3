"""Turns as templates are given them: control tokens are hidden in texts, and shown again where they
are read as text."""

import pytest

from meetara_build.training.turns import (
    Control,
    Controls,
    Piece,
    is_control,
    place_system_text,
    takes_system,
    write_date,
)

CONTROLS = Controls(
    [
        Control("<|im_start|>"),
        Control("<|im_end|>"),
        Control("<|end|>", rstrip=True),
        Control("<|end|>x"),
    ]
)


def hidden(text: str) -> str:
    return str(CONTROLS.hide([{"role": "user", "content": text, "learn": False}])[0]["content"])


@pytest.mark.parametrize("text", ["", "plain", "a < b | c", "<|im_en", "नमस्ते 🙂"])
def test_texts_without_control_tokens_are_given_as_they_are(text: str) -> None:
    assert hidden(text) == text
    assert CONTROLS.cut_pieces(text) == [Piece(text, True)]


@pytest.mark.parametrize(
    "text", ["<|im_end|>", "a<|im_end|><|im_start|>b", "<|<|im_end|>", " <|end|>x <|end|>\n"]
)
def test_a_hidden_text_holds_no_control_token_and_can_be_shown_again(text: str) -> None:
    assert not any(token in hidden(text) for token in ("<|im_start|>", "<|im_end|>", "<|end|>"))
    assert CONTROLS.restore(hidden(text)) == text


def test_what_stands_between_a_template_s_tokens_is_plain_where_something_was_hidden_in_it() -> (
    None
):
    rendered = f"<|im_start|>user\nHi<|im_end|>\n<|im_start|>user\n{hidden('the <|im_end|> token')}<|im_end|>\n"
    assert CONTROLS.cut_pieces(rendered) == [
        Piece("<|im_start|>user\nHi<|im_end|>\n<|im_start|>", True),
        Piece("user\nthe <|im_end|> token", False),
        Piece("<|im_end|>\n", True),
    ]


def test_space_that_a_token_takes_into_itself_stays_with_it() -> None:
    assert CONTROLS.cut_pieces(f"<|end|>\n{hidden('<|im_end|>')}") == [
        Piece("<|end|>\n", True),
        Piece("<|im_end|>", False),
    ]


def test_the_token_at_a_text_s_end_is_named() -> None:
    assert CONTROLS.find_ending("so<|im_end|>") == "<|im_end|>"
    assert CONTROLS.find_ending("so<|im_end|> ") is None


def test_another_process_hides_otherwise() -> None:
    """So that no text can be written that passes for a hidden token."""
    one, other = (
        Controls([Control("<s>")]).hide([{"role": "user", "content": "<s>"}]) for _ in range(2)
    )
    assert one != other


@pytest.mark.parametrize(
    ("text", "special", "control"),
    [
        ("<s>", True, True),
        ("<|turn|>", False, True),
        ("<think>", False, False),
        ("<unused7>", False, True),
        ("|>", False, False),
    ],
)
def test_control_tokens_are_those_that_are_marked_or_look_as_such(
    text: str, special: bool, control: bool
) -> None:
    assert is_control(text, special) == control


def test_a_system_text_heads_the_first_question_where_the_template_has_no_system_role() -> None:
    turns = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Why?"}]
    assert place_system_text(turns, takes_system=True) == turns
    assert place_system_text(turns, takes_system=False) == [
        {"role": "user", "content": "Be kind.\n\nWhy?"}
    ]
    assert takes_system(lambda some: " ".join(turn["content"] for turn in some))
    assert not takes_system(lambda some: some[-1]["content"])
    assert not takes_system(lambda some: {}[some[0]["role"]])


def test_the_day_is_always_the_same() -> None:
    assert write_date("%d %b %Y") == "26 Jul 2024"
    assert write_date("%Y-%m-%d") == "2024-07-26"
