"""Which held-out prompts files are asked, between which answers they choose, and what is said of
it."""

from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from small_models import train_tokenizer
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from meetara_build.errors import ArtifactError
from meetara_build.stages.asking import (
    Questions,
    choose_questions,
    describe_answers,
    find_interval,
    find_last_answer,
    measure_choices,
    take_answers,
)
from meetara_build.stages.held_out import HeldOut
from meetara_build.stages.recipes.answers import AnswersRecipe
from meetara_build.training.chat import Encoded, encode, render

Record = dict[str, Any]


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> PreTrainedTokenizerBase:
    folder = tmp_path_factory.mktemp("tokenizer")
    train_tokenizer(folder)
    return AutoTokenizer.from_pretrained(folder)


def recipe(**changes: Any) -> AnswersRecipe:
    given: dict[str, Any] = {"prompts": None, "tokens": 8, "choice_tokens": 6, **changes}
    return AnswersRecipe(**given)


def user(text: str) -> dict[str, Any]:
    return {"role": "user", "content": text}


def assistant(text: str, **more: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": text, **more}


def record(name: str, *turns: Mapping[str, Any], language: str = "en") -> Record:
    """A held-out record; of one question and answer, both with its name, where no turns are
    given."""
    said = turns or (user(f"Question {name}?"), assistant(f"{name} is the answer."))
    return {"id": name, "language": language, "topic": None, "messages": [*said]}


def hold_out(
    tokenizer: PreTrainedTokenizerBase, records: Sequence[Record], context: int = 512
) -> HeldOut:
    whole = [encode(tokenizer, one["messages"]) for one in records]
    return HeldOut([*records], whole, whole, {}, context, tokenizer)


def list_asked(questions: Questions) -> list[str]:
    return [one.record["id"] for one in questions.asked]


# Which prompts


@given(records=st.integers(1, 20), prompts=st.integers(1, 25))
def test_so_many_are_asked_and_spread_evenly_over_all(records: int, prompts: int) -> None:
    text = Encoded([1, 2, 3, 4], [False, False, True, True])
    held_out = HeldOut(
        [record(str(at)) for at in range(records)], [text], [text] * records, {}, 512, None
    )  # type: ignore[arg-type]
    chosen = [int(name) for name in list_asked(choose_questions(recipe(prompts=prompts), held_out))]
    assert len(chosen) == min(records, prompts)
    gaps = [after - before for before, after in zip(chosen, [*chosen[1:], records], strict=True)]
    assert chosen[0] == 0
    assert min(gaps) > 0
    assert max(gaps) - min(gaps) <= 1


@pytest.mark.parametrize(("prompts", "count"), [(None, 7), (7, 7), (100, 7), (3, 3), (0, 0)])
def test_null_asks_all_and_zero_nothing(
    tokenizer: PreTrainedTokenizerBase, prompts: int | None, count: int
) -> None:
    held_out = hold_out(tokenizer, [record(name) for name in "abcdefg"])
    found = choose_questions(recipe(prompts=prompts), held_out)
    assert len(found.asked) == count
    assert found.passed_over == 0


def test_a_prompt_that_leaves_no_room_for_an_answer_is_passed_over_and_counted(
    tokenizer: PreTrainedTokenizerBase,
) -> None:
    long = record("long", user("A very long question. " * 20), assistant("No."))
    held_out = hold_out(tokenizer, [record("a"), long, record("b")], context=60)
    found = choose_questions(recipe(prompts=2), held_out)
    assert list_asked(found) == ["a", "b"]
    assert found.passed_over == 1


@pytest.mark.parametrize("key", ["tokens", "choice_tokens"])
def test_a_base_that_has_no_room_for_any_answer_is_asked_nothing(
    tokenizer: PreTrainedTokenizerBase, key: str
) -> None:
    held_out = hold_out(tokenizer, [record(name) for name in "abcde"], context=64)
    assert choose_questions(recipe(**{key: 64}), held_out) == ([], 5)


# What is asked


def test_what_is_asked_is_written_as_the_base_s_template_writes_it(
    tokenizer: PreTrainedTokenizerBase,
) -> None:
    [asked] = choose_questions(recipe(), hold_out(tokenizer, [record("a")])).asked
    wanted = render(tokenizer, [user("Question a?")], ask=True)
    assert tokenizer.decode(asked.question.prompt) == wanted


def test_of_several_turns_the_last_question_is_asked_after_all_that_was_said_before(
    tokenizer: PreTrainedTokenizerBase,
) -> None:
    before = [user("One?"), assistant("First."), user("Two?")]
    held_out = hold_out(tokenizer, [record("a", *before, assistant("Second."))])
    [asked] = choose_questions(recipe(), held_out).asked
    assert tokenizer.decode(asked.question.prompt) == render(tokenizer, before, ask=True)
    [line] = describe_answers([asked], {"base": [{"text": "Well."}]})
    assert line["prompt"] == "One?\n\nFirst.\n\nTwo?"
    assert line["reference"] == "Second."


def test_an_answer_that_is_not_learnt_is_not_asked_for(tokenizer: PreTrainedTokenizerBase) -> None:
    first = [user("One?"), assistant("First.")]
    rest = [user("Two?"), assistant("I cannot say.", learn=False)]
    [asked] = choose_questions(recipe(), hold_out(tokenizer, [record("a", *first, *rest)])).asked
    assert tokenizer.decode(asked.question.prompt) == render(tokenizer, first[:1], ask=True)
    [line] = describe_answers([asked], {"base": [{"text": "Well."}]})
    assert (line["prompt"], line["reference"]) == ("One?", "First.")


def test_the_system_s_words_are_read_and_are_no_question(
    tokenizer: PreTrainedTokenizerBase,
) -> None:
    turns = [{"role": "system", "content": "Be brief."}, user("One?"), assistant("First.")]
    [asked] = choose_questions(recipe(), hold_out(tokenizer, [record("a", *turns)])).asked
    assert "Be brief." in tokenizer.decode(asked.question.prompt)
    [line] = describe_answers([asked], {"base": [{"text": "Well."}]})
    assert line["prompt"] == "One?"


@given(st.lists(st.booleans(), min_size=1, max_size=30))
def test_the_last_answer_is_the_last_run_of_what_is_learnt(mask: list[bool]) -> None:
    start, end = find_last_answer(Encoded([*range(len(mask))], mask))
    assert all(mask[start:end])
    assert not any(mask[end:])
    assert (start == 0) or not mask[start - 1]
    assert (start == end) == (not any(mask))


# Between which answers


def first_words(tokenizer: PreTrainedTokenizerBase, one: Record) -> list[int]:
    text = encode(tokenizer, one["messages"])
    start, end = find_last_answer(text)
    return text.ids[start:end][:6]


def test_the_right_answer_stands_before_three_others_of_the_same_language(
    tokenizer: PreTrainedTokenizerBase,
) -> None:
    records = [
        record(name, language=language)
        for name, language in zip(
            "abcdefghij", ["en", "es", "en", "es", "en", "en", "es", "en", "es", "es"], strict=True
        )
    ]
    by_language = {"en": "acefh", "es": "bdgij"}
    words = {one["id"]: first_words(tokenizer, one) for one in records}
    for asked in choose_questions(recipe(), hold_out(tokenizer, records)).asked:
        own = asked.record["id"]
        choices = [
            next(name for name in words if words[name] == one) for one in asked.question.choices
        ]
        assert choices[0] == own
        assert len(set(choices)) == 4
        assert set(choices) <= set(by_language[asked.record["language"]])


def test_answers_that_begin_alike_are_no_choice(tokenizer: PreTrainedTokenizerBase) -> None:
    alike = [
        record(name, user(f"{name}?"), assistant("Yes, of course it is.")) for name in "abcdef"
    ]
    others = [record(name) for name in "uvw"]
    for asked in choose_questions(recipe(), hold_out(tokenizer, [*alike, *others])).asked:
        assert len({tuple(one) for one in asked.question.choices}) == 4


@pytest.mark.parametrize("languages", [["en"], ["en", "en", "en"], ["en", "es", "en", "es", "en"]])
def test_there_is_no_choice_where_the_language_has_too_few_answers(
    tokenizer: PreTrainedTokenizerBase, languages: list[str]
) -> None:
    records = [
        record(name, language=language) for name, language in zip("abcde", languages, strict=False)
    ]
    for asked in choose_questions(recipe(), hold_out(tokenizer, records)).asked:
        assert asked.question.choices == []


def test_a_choice_has_so_many_tokens(tokenizer: PreTrainedTokenizerBase) -> None:
    held_out = hold_out(tokenizer, [record(name) for name in "abcd"])
    for asked in choose_questions(recipe(choice_tokens=2), held_out).asked:
        assert {len(one) for one in asked.question.choices} == {2}


# What is said of it


def test_a_line_has_the_record_and_the_answer_of_each_file_by_its_name(
    tokenizer: PreTrainedTokenizerBase,
) -> None:
    records = [{**record("a"), "topic": "drinks"}, record("b", language="es")]
    asked = choose_questions(recipe(), hold_out(tokenizer, records)).asked
    said = {name: [{"text": f"{name} {at}"} for at in range(2)] for name in ("base", "F16")}
    assert describe_answers(asked, said) == [
        {
            "id": name,
            "topic": topic,
            "language": language,
            "prompt": f"Question {name}?",
            "reference": f"{name} is the answer.",
            "answers": {"base": {"text": f"base {at}"}, "F16": {"text": f"F16 {at}"}},
        }
        for at, (name, topic, language) in enumerate([("a", "drinks", "en"), ("b", None, "es")])
    ]


def test_the_base_s_answers_are_taken_where_they_are_to_these_questions_and_else_refused(
    tokenizer: PreTrainedTokenizerBase,
) -> None:
    asked = choose_questions(recipe(), hold_out(tokenizer, [record(name) for name in "abc"])).asked
    said = [{"text": name} for name in "abc"]
    lines = describe_answers(asked, {"base": said})
    assert take_answers(lines, asked, "baseline/answers.jsonl") == said
    for others in (lines[:2], lines[::-1], []):
        with pytest.raises(
            ArtifactError, match=r"^baseline/answers.jsonl: the base was asked other questions"
        ):
            take_answers(others, asked, "baseline/answers.jsonl")


def test_the_right_answer_is_found_where_it_is_likelier_than_every_other() -> None:
    said = [{"nats": nats} for nats in ([1.0, 2, 3, 4], [1.0, 1.0, 3, 4], [2.0, 1, 3, 4], [])]
    found = measure_choices(said)
    assert found is not None
    assert found["choices"] == 3  # the last had none
    assert found["accuracy"] == pytest.approx(1 / 3, abs=1e-4)
    assert found["low"] < found["accuracy"] < found["high"]


def test_a_likelihood_that_is_no_number_is_never_right() -> None:
    found = measure_choices([{"nats": [float("nan"), 1.0, 2.0, 3.0]}])
    assert found is not None
    assert found["accuracy"] == 0


@pytest.mark.parametrize("said", [[], [{"nats": []}]])
def test_without_a_choice_there_is_no_accuracy(said: list[dict[str, Any]]) -> None:
    assert measure_choices(said) is None


@pytest.mark.parametrize(
    ("right", "count", "low", "high"),
    [  # of statsmodels' proportion_confint(…, method="wilson")
        (0, 10, 0.0, 0.2775),
        (5, 10, 0.2366, 0.7634),
        (8, 10, 0.4902, 0.9433),
        (1, 4, 0.0456, 0.6994),
        (4, 4, 0.5101, 1.0),
        (81, 263, 0.2553, 0.3662),
    ],
)
def test_the_interval_is_wilson_s(right: int, count: int, low: float, high: float) -> None:
    assert find_interval(right, count) == pytest.approx((low, high), abs=2e-4)


@given(st.integers(1, 500).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_the_interval_holds_the_share_and_is_narrower_of_more(given: tuple[int, int]) -> None:
    right, count = given
    low, high = find_interval(right, count)
    assert 0 <= low <= right / count + 1e-9
    assert right / count - 1e-9 <= high <= 1
    assert find_interval(count - right, count) == pytest.approx((1 - high, 1 - low))
    more = find_interval(10 * right, 10 * count)
    assert more[1] - more[0] < high - low
