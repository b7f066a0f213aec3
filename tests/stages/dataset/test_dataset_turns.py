"""What a source says of its turns is heeded: what is learnt, what is not, and what no text can
teach."""

import json

import pyarrow
import pyarrow.parquet
import pytest
from made_sources import everything, pairs

from meetara_build.errors import DataError

GOOD = pairs(40)
Q, A = GOOD[0]["prompt"], GOOD[0]["response"]
EXPECTED = sorted((record["prompt"], record["response"]) for record in GOOD)


def user(text):
    return {"role": "user", "content": text}


def assistant(text, **more):
    return {"role": "assistant", "content": text, **more}


def spoken(record, answer):
    return f"\n\nHuman: {record['prompt']}\n\nAssistant: {answer}"


def said(found):
    return sorted((record.prompt, record.response) for record in everything(found).values())


def first(found):
    return everything(found)["nutrition.jsonl:1"].messages


PREFERENCES = {
    "texts": lambda r: {
        "prompt": r["prompt"],
        "chosen": r["response"],
        "rejected": "A longer answer that is bad.",
    },
    "answers as messages": lambda r: {
        "prompt": [user(r["prompt"])],
        "chosen": [assistant(r["response"])],
        "rejected": [assistant("bad")],
    },
    "whole conversations beside the prompt": lambda r: {
        "prompt": r["prompt"],
        "chosen": [user(r["prompt"]), assistant(r["response"])],
        "rejected": [user(r["prompt"]), assistant("bad")],
    },
    "whole conversations alone": lambda r: {
        "chosen": [user(r["prompt"]), assistant(r["response"])],
        "rejected": [user(r["prompt"]), assistant("bad")],
        "score_chosen": 0.5,
    },
    "Human and Assistant": lambda r: {
        "chosen": spoken(r, r["response"]),
        "rejected": spoken(r, "bad"),
    },
    "Human and Assistant in the prompt": lambda r: {
        "prompt": spoken(r, "").rstrip(),
        "chosen": f" {r['response']}",
        "rejected": " bad",
    },
    "ShareGPT with a chosen turn": lambda r: {
        "conversations": [{"from": "human", "value": r["prompt"]}],
        "chosen": {"from": "gpt", "value": r["response"]},
        "rejected": {"from": "gpt", "value": "bad"},
    },
    "OpenAI's": lambda r: {
        "input": {"messages": [user(r["prompt"])], "tools": []},
        "preferred_output": [assistant(r["response"])],
        "non_preferred_output": [assistant("bad")],
    },
    "messages as JSON text": lambda r: {
        "prompt": json.dumps([user(r["prompt"])]),
        "chosen": json.dumps([assistant(r["response"])]),
        "rejected": "bad",
    },
}


@pytest.mark.parametrize("form", PREFERENCES)
def test_of_preferences_the_chosen_answer_is_learnt_and_the_rejected_never(prepared, form):
    assert said(prepared([PREFERENCES[form](record) for record in GOOD])) == EXPECTED


def test_prompt_and_completion_as_messages_are_turns_of_their_roles(prepared):
    records = [
        {
            "prompt": [{"role": "system", "content": "Be kind."}, user(r["prompt"])],
            "completion": [assistant(r["response"])],
        }
        for r in GOOD
    ]
    found = prepared(records)
    assert said(found) == EXPECTED
    assert first(found) == [{"role": "system", "content": "Be kind."}, user(Q), assistant(A)]


def test_answers_within_a_prompt_of_messages_are_not_learnt(prepared):
    records = [
        {"prompt": [user(Q), assistant(A), user("And then?")], "response": [assistant("Rest.")]},
        *GOOD[1:],
    ]
    assert first(prepared(records)) == [
        user(Q),
        assistant(A, learn=False),
        user("And then?"),
        assistant("Rest."),
    ]


@pytest.mark.parametrize("label", [False, "False"])
def test_a_record_whose_label_says_bad_is_left_out_with_that_reason(prepared, label):
    records = [
        *({**r, "label": True} for r in GOOD),
        {"prompt": "Who?", "response": "Nobody knows.", "label": label},
    ]
    found = prepared(records)
    assert said(found) == EXPECTED
    assert [(drop.source, drop.reason) for drop in found.drops] == [
        ("nutrition.jsonl:41", "labelled as bad")
    ]
    assert (found.bad, found.faults) == (0, [])


def test_a_label_that_is_the_answer_is_no_verdict(prepared):
    records = [
        {"text": r["prompt"], "label": "false" if n % 2 else "true"} for n, r in enumerate(GOOD)
    ]
    found = prepared(records, source={"columns": {"prompt": "text", "response": "label"}})
    assert found.drops == []


def test_a_source_of_bad_answers_alone_is_refused_with_the_reason(prepared):
    with pytest.raises(
        DataError, match=r"none of its 40 records is to be learnt \(labelled as bad\): add records"
    ):
        prepared([{**r, "label": False} for r in GOOD])


@pytest.mark.parametrize(
    "switch",
    [{"weight": 0}, {"weight": 0.0}, {"train": False}, {"training": "false"}, {"loss": False}],
)
def test_a_turn_that_is_switched_off_is_kept_but_not_learnt(prepared, switch):
    chat = [
        user(Q),
        assistant("A draft.", **switch),
        user("Better?"),
        assistant(A, **dict.fromkeys(switch, 1)),
    ]
    found = prepared([{"messages": chat}, *GOOD[1:]])
    assert first(found) == [
        user(Q),
        assistant("A draft.", learn=False),
        user("Better?"),
        assistant(A),
    ]


def test_a_record_of_which_no_answer_is_learnt_is_left_out_with_that_reason(prepared):
    found = prepared([{"messages": [user("Who?"), assistant("Me.", weight=0)]}, *GOOD])
    assert [(drop.source, drop.reason) for drop in found.drops] == [
        ("nutrition.jsonl:1", "nothing to learn")
    ]
    assert said(found) == EXPECTED


def test_parts_of_text_are_one_text(prepared):
    parts = [{"type": "text", "text": Q}, {"type": "text", "text": "Please."}]
    chat = [user(parts), assistant([{"type": "output_text", "text": A}])]
    assert first(prepared([{"messages": chat}, *GOOD[1:]])) == [user(f"{Q}\nPlease."), assistant(A)]


CALL = {"id": "1", "type": "function", "function": {"name": "look", "arguments": "{}"}}
PICTURE = [
    {"type": "text", "text": "What is it?"},
    {"type": "image_url", "image_url": {"url": "x.png"}},
]


@pytest.mark.parametrize(
    ("record", "column", "problem"),
    [
        (
            {"messages": [user("q"), assistant("Let me look.", tool_calls=[CALL])]},
            "messages[1].tool_calls",
            "is for tools",
        ),
        (
            {"messages": [user("q"), assistant("", function_call={"name": "f"})]},
            "messages[1].function_call",
            "is for tools",
        ),
        ({"messages": [user("q"), assistant("a")], "tools": [CALL]}, "tools", "is for tools"),
        (
            {"messages": [user("q"), assistant("a")], "tools": json.dumps([CALL])},
            "tools",
            "is for tools",
        ),
        (
            {"messages": [user("q"), {"role": "tool", "content": "x"}]},
            "messages[1].role",
            "is no role",
        ),
        (
            {"messages": [user(PICTURE), assistant("a")]},
            "messages[0].content[1]",
            "is a part of type 'image_url'",
        ),
        (
            {"messages": [user("q"), assistant("a")], "image": "coco/1.jpg"},
            "image",
            "names pictures",
        ),
        (
            {"messages": [user("q"), assistant("a")], "images": ["1.jpg"]},
            "images",
            "names pictures",
        ),
        ({"messages": [user("q"), assistant("a")], "audios": ["1.wav"]}, "audios", "names sound"),
        (
            {"messages": [user("<image>\nWhat?"), assistant("a")]},
            "messages[0].content",
            "holds <image>",
        ),
        ({"prompt": "What is this? <image>", "response": "a"}, "prompt", "holds <image>"),
    ],
)
def test_what_no_text_can_teach_is_a_fault_by_line_and_column(prepared, record, column, problem):
    found = prepared([*GOOD, record])
    [fault] = found.faults
    assert (fault.line, fault.column) == (41, column)
    assert fault.problem.startswith(problem)
    assert said(found) == EXPECTED


@pytest.mark.parametrize(
    "more",
    [
        {"tools": "hammer, saw"},
        {"tools": ["hammer", "saw"]},
        {"tools": []},
        {"tools": None},
        {"image": ""},
        {"images": []},
        {"image": None},
        {"image": float("nan")},
        {"image": False},
        {"function_call": "none"},
    ],
)
def test_columns_that_hold_no_calls_and_no_pictures_cost_nothing(prepared, more):
    assert said(prepared([{**record, **more} for record in GOOD])) == EXPECTED


def test_a_question_about_a_tag_is_text(prepared):
    record = {
        "prompt": "How do I use the <image> tag in SVG?",
        "response": "<image>\nhref is the address.",
    }
    assert len(everything(prepared([*GOOD, record]))) == 41


def test_an_answer_that_is_json_is_text(prepared):
    answers = [
        '{"role": "admin", "from": "Berlin"}',
        '[{"from": "Berlin", "to": "Paris"}]',
        "[1, 2]",
    ]
    found = prepared(
        [*GOOD, *({"prompt": f"Which {n}?", "response": a} for n, a in enumerate(answers))]
    )
    assert [everything(found)[f"nutrition.jsonl:{n}"].response for n in (41, 42, 43)] == answers


def test_turns_of_parquet_that_lack_a_key_hold_null_there(prepared, tmp_path):
    chats = [
        {
            "messages": [
                {**user(r["prompt"]), "weight": None, "tool_calls": None},
                assistant(r["response"], weight=1),
            ]
        }
        for r in GOOD
    ]
    path = tmp_path / "a.parquet"
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(chats), path)
    assert said(prepared(path)) == EXPECTED


def test_alpacas_history_goes_before_the_question(prepared):
    records = [
        {**GOOD[0], "history": [["And before?", "Nothing."]]},
        *({**r, "history": []} for r in GOOD[1:]),
    ]
    assert first(prepared(records)) == [
        user("And before?"),
        assistant("Nothing."),
        user(Q),
        assistant(A),
    ]


# Cells that need not be there


@pytest.mark.parametrize("empty", [float("nan"), None, "", "  ", []])
def test_optional_cells_that_are_empty_cost_no_record(prepared, empty):
    records = [
        {"instruction": r["prompt"], "output": r["response"], "input": empty, "category": empty}
        for r in GOOD
    ]
    found = prepared([{**record, "system": empty, "language": empty} for record in records])
    assert said(found) == EXPECTED
    assert {record.topic for record in everything(found).values()} == {None}


def test_of_several_topics_the_first_is_the_records(prepared):
    topics = [["sleep", "food"], [None, "food"], [], {"a": 1}, 7, True]
    found = everything(
        prepared([{**r, "topics": topic} for r, topic in zip(GOOD, topics * 7, strict=False)])
    )
    assert [found[f"nutrition.jsonl:{n}"].topic for n in range(1, 7)] == [
        "sleep",
        "food",
        None,
        None,
        "7",
        None,
    ]
