"""Records of every common form become the same conversations."""

import json

import pyarrow
import pyarrow.parquet
import pytest
from made_sources import everything, pairs, sentence

from meetara_build.errors import DataError
from meetara_build.stages.dataset.columns import recognise

GOOD = pairs(40)


def said(found):
    return sorted((record.prompt, record.response) for record in everything(found).values())


EXPECTED = sorted((record["prompt"], record["response"]) for record in GOOD)


def chat(record, who="role", what="content", user="user", assistant="assistant"):
    return [{who: user, what: record["prompt"]}, {who: assistant, what: record["response"]}]


FORMS = {
    "question and answer": lambda r: {"question": r["prompt"], "answer": r["response"]},
    "query and completion": lambda r: {"Query": r["prompt"], "Completion": r["response"]},
    "input and output": lambda r: {"input": r["prompt"], "output": r["response"]},
    "Alpaca without input": lambda r: {
        "instruction": r["prompt"],
        "input": "",
        "output": r["response"],
    },
    "chat messages": lambda r: {"messages": chat(r)},
    "ShareGPT": lambda r: {"conversations": chat(r, "from", "value", "human", "gpt")},
    "chat as JSON text": lambda r: {"messages": json.dumps(chat(r))},
}


@pytest.mark.parametrize("form", FORMS)
def test_common_forms_need_no_mapping(prepared, form):
    assert said(prepared([FORMS[form](record) for record in GOOD])) == EXPECTED


def test_chat_messages_in_parquet(tmp_path, prepared):
    path = tmp_path / "chat.parquet"
    pyarrow.parquet.write_table(
        pyarrow.Table.from_pylist([{"messages": chat(record)} for record in GOOD]), path
    )
    assert said(prepared(path)) == EXPECTED


def test_an_alpaca_input_follows_its_instruction(prepared):
    found = prepared(
        [{"instruction": r["prompt"], "input": "2 + 2", "output": r["response"]} for r in GOOD]
    )
    assert everything(found)["nutrition.jsonl:1"].prompt == f"{GOOD[0]['prompt']}\n\n2 + 2"


def test_any_columns_can_be_mapped_also_inside_lists(prepared):
    records = [
        {"id": n, "task": r["prompt"], "cases": [{"out": r["response"]}]}
        for n, r in enumerate(GOOD)
    ]
    found = prepared(
        records, source={"columns": {"prompt": "task", "response": "cases.0.out", "topic": "id"}}
    )
    assert said(found) == EXPECTED
    assert everything(found)["nutrition.jsonl:3"].topic == "2"


def test_the_domains_system_prompt_goes_before_records_that_have_none(prepared):
    records = [*GOOD[:20], *({**record, "system": "Be brief."} for record in GOOD[20:])]
    found = everything(prepared(records, system_prompt="You know food."))
    assert found["nutrition.jsonl:1"].messages[0] == {"role": "system", "content": "You know food."}
    assert found["nutrition.jsonl:21"].messages[0] == {"role": "system", "content": "Be brief."}


def test_topics_and_several_turns_are_kept(prepared):
    turns = [
        *chat(GOOD[0]),
        {"role": "user", "content": sentence("again")},
        {"role": "assistant", "content": "Yes."},
    ]
    found = everything(prepared([{"messages": turns, "topic": "sleep"}, *GOOD]))
    record = found["nutrition.jsonl:1"]
    assert [message["role"] for message in record.messages] == [
        "user",
        "assistant",
        "user",
        "assistant",
    ]
    assert record.topic == "sleep"


@pytest.mark.parametrize(
    ("turns", "column", "problem"),
    [
        ("hello", "messages", "is text, not a list of turns"),
        ({"role": "user"}, "messages", "is an object, not a list of turns"),
        ([], "messages", "is empty: no turns"),
        (["hello"], "messages[0]", "is text, not a turn"),
        ([{"content": "x"}], "messages[0].role", "has no role"),
        (
            [{"role": "tool", "content": "x"}],
            "messages[0].role",
            "is no role: use system, user or assistant",
        ),
        ([{"role": "user", "content": "x"}], "messages", "has no answer: nothing to learn from"),
        (
            [{"from": "gpt", "value": "x"}],
            "messages",
            "begins with the assistant's turn, not the user's",
        ),
        (
            [
                {"role": "user", "content": "x"},
                {"role": "user", "content": "y"},
                {"role": "assistant", "content": "z"},
            ],
            "messages",
            "has two turns of the user in a row (turns 1 and 2)",
        ),
        (
            [
                {"role": "user", "content": "x"},
                {"role": "assistant", "content": "y"},
                {"role": "user", "content": "z"},
            ],
            "messages",
            "ends with the user's turn: its answer is missing",
        ),
        (
            [{"role": "user", "content": "x"}, {"role": "assistant", "content": None}],
            "messages[1].content",
            "is null",
        ),
        (
            [
                {"role": "user", "content": [{"type": "text"}]},
                {"role": "assistant", "content": "x"},
            ],
            "messages[0].content[0].text",
            "is null, not text",
        ),
    ],
)
def test_a_conversation_that_cannot_teach_is_a_fault(prepared, turns, column, problem):
    found = prepared([*({"messages": chat(record)} for record in GOOD), {"messages": turns}])
    assert [(fault.line, fault.column, fault.problem) for fault in found.faults] == [
        (41, column, problem)
    ]


def test_input_is_the_question_only_where_nothing_else_is():
    assert recognise(["input", "output"]) == {"prompt": "input", "response": "output"}
    assert recognise(["instruction", "input", "output"])["input"] == "input"
    assert recognise(["Question", "answer", "context"]) == {
        "prompt": "Question",
        "response": "answer",
        "input": "context",
    }


def test_half_a_mapping_is_refused(prepared):
    with pytest.raises(DataError, match="`response` is not mapped: map both"):
        prepared(GOOD, source={"columns": {"prompt": "prompt"}})
