"""Which columns a stranger's file most probably means."""

import pyarrow
import pyarrow.parquet
import pytest
from made_sources import pairs, sentence

from meetara_build.errors import DataError
from meetara_build.stages.dataset.guess import guess

LONG = [(record["prompt"], record["response"]) for record in pairs(60)]


def guessed(write, records, name="a.jsonl"):
    return guess(write(records, name)).source["columns"]


def test_common_names_win(write):
    records = [{"answer": a, "url": "https://x.org/1", "question": q, "topic": "sleep"} for q, a in LONG]
    assert guessed(write, records) == {"prompt": "question", "response": "answer", "topic": "topic"}


def test_labels_are_the_answer_where_only_one_column_is_free_text(write):
    lines = "".join(f"{q},label_{n % 7}\n" for n, (q, _) in enumerate(LONG))
    path = write("text,category\n" + lines, "bank.csv")
    assert guess(path).source == {"format": "csv", "columns": {"prompt": "text", "response": "category"}}


def test_of_two_free_texts_the_longer_is_the_answer(write):
    records = [{"uid": f"x{n}", "zzz": a, "yyy": q, "when": "2024-01-02"} for n, (q, a) in enumerate(LONG)]
    assert guessed(write, records) == {"prompt": "yyy", "response": "zzz"}


def test_one_known_name_leaves_the_other_to_content(write):
    assert guessed(write, [{"question": q, "remark": a, "page": n} for n, (q, a) in enumerate(LONG)]) == {
        "prompt": "question",
        "response": "remark",
    }


def test_description_and_command(write):
    records = [
        {"description": sentence(n, 6), "command": f"ls {n} -x", "page": f"p{n}", "platform": "osx", "language": "en"}
        for n in range(60)
    ]
    columns = guessed(write, records)
    assert columns == {"prompt": "description", "response": "command", "language": "language"}


def test_texts_inside_lists_are_reached_by_a_path_that_the_stage_reads(write, prepared):
    records = [
        {"id": f"s_{n}", "name": f"n_{n}", "instruction": q, "instances": [{"input": f"case {n}", "output": a}]}
        for n, (q, a) in enumerate(LONG)
    ]
    columns = guessed(write, records)
    assert columns == {"prompt": "instruction", "response": "instances.0.output", "input": "instances.0.input"}
    assert len(prepared(records, source={"columns": columns}).train) > 30


def test_chat_messages(write):
    turns = [{"role": "user", "content": "x"}, {"role": "assistant", "content": "y"}]
    assert guessed(write, [{"messages": turns, "id": n} for n in range(20)]) == {"messages": "messages"}


def test_parquet(tmp_path):
    path = tmp_path / "a.parquet"
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist([{"q": q, "solution": a} for q, a in LONG]), path)
    assert guess(path).source == {"format": "parquet", "columns": {"prompt": "q", "response": "solution"}}


def test_what_holds_no_questions_is_refused_with_its_columns(write):
    lines = "".join(f"lambda,{n},0.{n},2024-01-{n:02}\n" for n in range(1, 28))
    with pytest.raises(DataError) as error:
        guess(write("provider,gpu,price,as_of\n" + lines, "prices.csv"))
    assert "prices.csv: cannot tell which columns hold the question and the answer" in str(error.value)
    assert "'provider', 'gpu', 'price', 'as_of'" in str(error.value)


def test_a_file_of_which_no_line_can_be_read_is_refused(write):
    with pytest.raises(DataError, match=r"a.jsonl: line 1 is not JSON: .*: no line can be read; is it jsonl\?"):
        guess(write("hello\nworld\n", "a.jsonl"))
