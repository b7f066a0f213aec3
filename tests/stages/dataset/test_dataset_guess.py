"""Which columns a stranger's file most probably means."""

import json

import pyarrow
import pyarrow.parquet
import pytest
from made_sources import pairs, sentence

from meetara_build.errors import DataError
from meetara_build.stages.dataset.guess import Guess, guess

LONG = [(record["prompt"], record["response"]) for record in pairs(60)]


def guessed(write, records, name="a.jsonl"):
    return guess(write(records, name)).source["columns"]


def test_common_names_win(write):
    records = [
        {"answer": a, "url": "https://x.org/1", "question": q, "topic": "sleep"} for q, a in LONG
    ]
    assert guessed(write, records) == {"prompt": "question", "response": "answer", "topic": "topic"}


def test_labels_are_the_answer_where_only_one_column_is_free_text(write):
    lines = "".join(f"{q},label_{n % 7}\n" for n, (q, _) in enumerate(LONG))
    path = write("text,category\n" + lines, "bank.csv")
    assert guess(path).source == {
        "format": "csv",
        "columns": {"prompt": "text", "response": "category"},
    }


def test_of_two_free_texts_the_longer_is_the_answer(write):
    records = [
        {"uid": f"x{n}", "zzz": a, "yyy": q, "when": "2024-01-02"} for n, (q, a) in enumerate(LONG)
    ]
    assert guessed(write, records) == {"prompt": "yyy", "response": "zzz"}


def test_one_known_name_leaves_the_other_to_content(write):
    assert guessed(
        write, [{"question": q, "remark": a, "page": n} for n, (q, a) in enumerate(LONG)]
    ) == {
        "prompt": "question",
        "response": "remark",
    }


def test_description_and_command(write):
    records = [
        {
            "description": sentence(n, 6),
            "command": f"ls {n} -x",
            "page": f"p{n}",
            "platform": "osx",
            "language": "en",
        }
        for n in range(60)
    ]
    columns = guessed(write, records)
    assert columns == {"prompt": "description", "response": "command", "language": "language"}


def test_texts_inside_lists_are_reached_by_a_path_that_the_stage_reads(write, prepared):
    records = [
        {
            "id": f"s_{n}",
            "name": f"n_{n}",
            "instruction": q,
            "instances": [{"input": f"case {n}", "output": a}],
        }
        for n, (q, a) in enumerate(LONG)
    ]
    columns = guessed(write, records)
    assert columns == {
        "prompt": "instruction",
        "response": "instances.0.output",
        "input": "instances.0.input",
    }
    assert len(prepared(records, source={"columns": columns}).train) > 30


def test_chat_messages(write):
    turns = [{"role": "user", "content": "x"}, {"role": "assistant", "content": "y"}]
    assert guessed(write, [{"messages": turns, "id": n} for n in range(20)]) == {
        "messages": "messages"
    }


def test_parquet(tmp_path):
    path = tmp_path / "a.parquet"
    pyarrow.parquet.write_table(
        pyarrow.Table.from_pylist([{"q": q, "solution": a} for q, a in LONG]), path
    )
    assert guess(path).source == {
        "format": "parquet",
        "columns": {"prompt": "q", "response": "solution"},
    }


def test_what_holds_no_questions_is_refused_with_its_columns(write):
    lines = "".join(f"lambda,{n},0.{n},2024-01-{n:02}\n" for n in range(1, 28))
    with pytest.raises(DataError) as error:
        guess(write("provider,gpu,price,as_of\n" + lines, "prices.csv"))
    assert "prices.csv: cannot tell which columns hold the question and the answer" in str(
        error.value
    )
    assert "'provider', 'gpu', 'price', 'as_of'" in str(error.value)


def test_a_file_of_which_most_lines_cannot_be_read_is_refused(write):
    commas = ",\n".join(json.dumps({"prompt": q, "response": a}) for q, a in LONG)
    for content in ("hello\nworld\n", commas):
        with pytest.raises(
            DataError,
            match=r"a.jsonl: line 1 is not JSON: .*: most of it cannot be read .* is it jsonl\?",
        ):
            guess(write(content, "a.jsonl"))


# What is not a question and an answer, and what the file holds besides


def user(text):
    return {"role": "user", "content": text}


def assistant(text):
    return {"role": "assistant", "content": text}


def test_of_preferences_the_chosen_answer_is_taken_and_the_rejected_is_named(write):
    records = [{"prompt": q, "chosen": a, "rejected": f"{a} {a} and worse"} for q, a in LONG]
    found = guess(write(records, "a.jsonl"))
    assert found.source["columns"] == {"prompt": "prompt", "response": "chosen"}
    assert found.notes == [
        "column 'rejected' is not learnt: it holds the answers that were found worse"
    ]


@pytest.mark.parametrize(
    "worse", ["rejected_response", "incorrect_answers", "distractor1", "response_rejected"]
)
def test_answers_that_are_called_wrong_are_never_taken(write, worse):
    records = [{"question": q, "best_one": a, worse: f"{a} {a}"} for q, a in LONG]
    assert guessed(write, records) == {"prompt": "question", "response": "best_one"}


def test_of_two_conversations_the_chosen_one_is_taken(write):
    records = [
        {
            "chosen": f"\n\nHuman: {q}\n\nAssistant: {a}",
            "rejected": f"\n\nHuman: {q}\n\nAssistant: no",
        }
        for q, a in LONG
    ]
    assert guessed(write, records) == {"messages": "chosen"}


def test_prompt_and_completion_as_messages_are_taken_whole(write):
    records = [{"prompt": [user("x"), user(q)], "completion": [assistant(a)]} for q, a in LONG]
    assert guessed(write, records) == {"prompt": "prompt", "response": "completion"}


def test_labels_of_good_and_bad_are_told(write):
    records = [{"prompt": q, "completion": a, "label": n % 2 == 0} for n, (q, a) in enumerate(LONG)]
    found = guess(write(records, "a.jsonl"))
    assert found.source["columns"] == {"prompt": "prompt", "response": "completion"}
    assert found.notes == [
        "records whose 'label' is false are left out: their answers are labelled as bad"
    ]


@pytest.mark.parametrize("form", ["list", "data"])
def test_the_records_of_a_json_document_are_all_taken(write, form):
    records = [{"question": q, "answer": a} for q, a in LONG]
    path = write(
        json.dumps(records if form == "list" else {"version": "1", "data": records}), "a.json"
    )
    assert guess(path).source == {
        "format": "jsonl",
        "columns": {"prompt": "question", "response": "answer"},
    }


def squad():
    questions = [
        {"question": q, "id": f"{n}", "answers": [{"text": a}]} for n, (q, a) in enumerate(LONG[:3])
    ]
    articles = [
        {"title": q, "paragraphs": [{"context": sentence(n, 40), "qas": questions}] * 2}
        for n, (q, _) in enumerate(LONG)
    ]
    return {"version": "1.1", "data": articles}


def test_a_guess_that_reaches_one_entry_of_a_list_is_none_and_the_mend_is_named(write):
    with pytest.raises(DataError) as error:
        guess(write(json.dumps(squad()), "squad.json"))
    assert str(error.value) == (
        "squad.json: 'paragraphs' holds up to 2 entries a record, of which 'paragraphs.0.qas.0.question' (prompt) is one: "
        'write a record for each, e.g. `jq -c \'.. | objects | select(has("paragraphs")) | . + .paragraphs[] | . + .qas[] '
        "| del(.paragraphs, .qas)' squad.json > records.jsonl`; if one of them is enough, say which with `--prompt COLUMN "
        "--response COLUMN`"
    )


def test_a_given_path_to_one_entry_of_a_list_is_taken_with_a_note(write):
    records = [{"task": q, "cases": [{"out": a}, {"out": a}]} for q, a in LONG]
    found = guess(write(records, "a.jsonl"), {"prompt": "task", "response": "cases.0.out"})
    assert found.source["columns"] == {"prompt": "task", "response": "cases.0.out"}
    assert found.notes == [
        "'cases' holds up to 2 entries a record: response is only one of them, 'cases.0.out'"
    ]


def test_a_file_of_one_record_is_no_data_set(write):
    with pytest.raises(
        DataError,
        match=r"a.json: holds one record, with 'question', 'answer': write one record a line",
    ):
        guess(
            write(
                json.dumps({"question": [q for q, _ in LONG], "answer": [a for _, a in LONG]}),
                "a.json",
            )
        )


def test_a_long_column_that_the_answer_may_depend_on_is_told(write):
    records = [
        {"question": q, "answer": a, "bill": sentence(f"b{n}", 60)} for n, (q, a) in enumerate(LONG)
    ]
    found = guess(write(records, "a.jsonl"))
    assert found.notes == [
        "column 'bill' (texts of about 60 words) is not used: where answers depend on it, map it to `input` under `columns:` "
        "in the domain's file"
    ]
    choices = guess(
        write([{"question": q, "answer": 1, "choices": [a, q]} for q, a in LONG], "a.jsonl")
    )
    assert choices.notes[0].startswith("column 'choices' (lists of texts) is not used")


def test_of_three_columns_of_text_without_a_known_name_none_is_guessed(write):
    records = [{"xxx": q, "yyy": a, "zzz": sentence(f"z{n}", 50)} for n, (q, a) in enumerate(LONG)]
    with pytest.raises(DataError) as error:
        guess(write(records, "a.jsonl"))
    assert (
        "texts stand in 'xxx' (about 9 words), 'yyy' (about 15 words), 'zzz' (about 50 words)"
        in str(error.value)
    )
    assert str(error.value).endswith("say which with `--prompt COLUMN --response COLUMN`")


@pytest.mark.parametrize("answer", [lambda n: n, lambda n: n / 7, lambda n: f"${n},895"])
def test_numbers_and_amounts_are_answers_where_their_column_is_called_so(write, prepared, answer):
    records = [{"question": q, "answer": answer(n)} for n, (q, _) in enumerate(LONG)]
    columns = guessed(write, records)
    assert columns == {"prompt": "question", "response": "answer"}
    assert prepared(records, source={"columns": columns}).bad == 0


def test_amounts_beside_a_question_are_its_answers(write):
    columns = guessed(
        write,
        [{"question": q, "due": f"€{n}.50", "when": "2024-01-02"} for n, (q, _) in enumerate(LONG)],
    )
    assert columns == {"prompt": "question", "response": "due"}


def test_topics_are_the_topic(write):
    records = [{"question": q, "answer": a, "topics": ["sleep", "food"]} for q, a in LONG]
    assert guessed(write, records) == {
        "prompt": "question",
        "response": "answer",
        "topic": "topics",
    }


def test_given_columns_need_no_guess(write):
    path = write([{"a": n, "b": n * 7, "topic": "sums"} for n in range(20)], "a.jsonl")
    assert guess(path, {"prompt": "a", "response": "b"}) == Guess(
        {"format": "jsonl", "columns": {"prompt": "a", "response": "b", "topic": "topic"}}, []
    )
    with pytest.raises(
        DataError,
        match=r"a.jsonl: no column 'c' \(mapped to response\): there are 'a', 'b', 'topic'",
    ):
        guess(path, {"prompt": "a", "response": "c"})


def test_one_given_column_leaves_the_other_to_the_guess(write):
    records = [{"xxx": q, "yyy": a, "zzz": "x"} for q, a in LONG]
    assert guess(write(records, "a.jsonl"), {"prompt": "xxx"}).source["columns"] == {
        "prompt": "xxx",
        "response": "yyy",
    }


def test_a_format_may_be_given_where_the_name_says_none(write):
    path = write("question,answer\n" + "".join(f"{q},{a}\n" for q, a in LONG), "a.txt")
    assert guess(path, form="csv").source["columns"] == {"prompt": "question", "response": "answer"}
    with pytest.raises(
        DataError,
        match=r"^a.txt: cannot tell its format: give it an ending .* or say it with `--format`",
    ):
        guess(path)


def test_a_windows_file_gets_the_command_that_converts_it(write):
    content = "".join(
        json.dumps({"question": "año", "answer": a}, ensure_ascii=False) + "\n" for _, a in LONG
    )
    with pytest.raises(
        DataError, match=r"saved by a Windows program: convert it, e.g. `iconv -f WINDOWS-1252"
    ):
        guess(write(content.encode("latin-1"), "a.jsonl"))
