"""Every kind of source gives the same records; every kind of damage is named with its place."""

import json
import re
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest
from made_sources import csv_text, everything, pairs, recipe, sentence

from meetara_build.errors import DataError
from meetara_build.stages.dataset import prepare

GOOD = pairs(40)


def said(found):
    return sorted((record.prompt, record.response) for record in everything(found).values())


EXPECTED = sorted((record["prompt"], record["response"]) for record in GOOD)


def test_jsonl_csv_parquet_and_a_data_set_folder_give_the_same_records(tmp_path, write, prepared):
    import datasets

    parquet = tmp_path / "nutrition.parquet"
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(GOOD), parquet)
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "train.jsonl").write_text("".join(json.dumps(record) + "\n" for record in GOOD))
    saved = tmp_path / "saved"
    datasets.Dataset.from_list(GOOD).save_to_disk(str(saved))
    by_split = tmp_path / "by_split"
    datasets.DatasetDict({"train": datasets.Dataset.from_list(GOOD)}).save_to_disk(str(by_split))

    jsonl = prepared(GOOD)
    for source in (write(csv_text(GOOD), "nutrition.csv"), parquet, folder, saved, by_split):
        found = prepared(source)
        assert said(found) == EXPECTED, source.name
        # The split goes by content, so the format changes nothing about it.
        assert [record.id for record in found.test] == [record.id for record in jsonl.test]


def test_a_folder_without_the_split_says_which_ones_it_has(tmp_path, prepared):
    import datasets

    folder = tmp_path / "by_split"
    datasets.DatasetDict({"dev": datasets.Dataset.from_list(GOOD)}).save_to_disk(str(folder))
    with pytest.raises(DataError, match="by_split: has no split 'train', only dev"):
        prepared(folder)


def test_semicolons_tabs_crlf_and_a_byte_order_mark_are_read(write, prepared):
    for delimiter, name in ((";", "a.csv"), ("\t", "a.tsv")):
        assert said(prepared(write(csv_text(GOOD).replace(",", delimiter), name))) == EXPECTED
    assert (
        said(prepared(write(b"\xef\xbb\xbf" + csv_text(GOOD, newline="\r\n").encode(), "b.csv")))
        == EXPECTED
    )
    lines = "\r\n".join(json.dumps(record) for record in GOOD)
    assert said(prepared(write(b"\xef\xbb\xbf" + lines.encode()))) == EXPECTED


def test_a_csv_record_is_named_by_the_physical_line_it_starts_on(write, prepared):
    quoted = f'"{sentence("q")}\n\nmore",{sentence("r")}'
    found = prepared(
        write(csv_text(GOOD, quoted, f"{sentence('s')},", quoted.replace("more", "other")), "a.csv")
    )
    # header 1, records 2–41, the quoted one 42–44, so the empty answer stands on 45.
    assert [(fault.line, fault.column, fault.problem) for fault in found.faults] == [
        (45, "response", "is empty")
    ]
    assert "a.csv:42" in everything(found)


def test_limit_reads_that_many_records(prepared):
    assert sum(prepared(GOOD, source={"limit": 30}).read.values()) == 30


@pytest.mark.parametrize(
    ("line", "problem", "column"),
    [
        (b'{"prompt": "who", "response": ', "is not JSON", None),
        (b"[1, 2]", "is a list, not an object", None),
        (
            '{"prompt": "año", "response": "año"}'.encode("latin-1"),
            r"is not UTF-8 \(byte 14 of the line\)",
            None,
        ),
        (b'{"prompt": "a\x00b", "response": "x"}', "holds a NUL byte", None),
        (b'{"prompt": "a\\u0000b", "response": "x"}', "holds a NUL character", "prompt"),
        (b'{"prompt": "a\\ud83d", "response": "x"}', "holds half a surrogate pair", "prompt"),
        (b'{"prompt": "who", "response": ""}', "is empty", "response"),
        (b'{"prompt": "who", "response": " \\u200b\\n "}', "is empty", "response"),
        (b'{"prompt": "who", "response": null}', "is null", "response"),
        (b'{"prompt": "who", "response": true}', "is true or false, not text", "response"),
        (b'{"prompt": "who", "response": ["x"]}', "is a list, not text", "response"),
        (b'{"prompt": {"text": "who"}, "response": "x"}', "is an object, not text", "prompt"),
        (b'{"prompt": "who"}', "is missing", "response"),
        (b'{"prompt": "who", "response": ' + b"[" * 100_000, "cannot be read|is not JSON", None),
        (b'{"prompt": "who", "response": ' + b"9" * 5000 + b"}", "cannot be read", None),
    ],
)
def test_a_bad_line_is_a_fault_and_the_rest_is_kept(write, prepared, line, problem, column):
    lines = [json.dumps(record).encode() for record in GOOD]
    found = prepared(write(b"\n".join([*lines[:5], line, b"", *lines[5:]])))
    assert said(found) == EXPECTED
    [fault] = found.faults
    assert (fault.source, fault.line, fault.column) == ("nutrition.jsonl", 6, column)

    assert re.search(problem, fault.problem)
    assert found.bad == 1
    assert found.read == {"nutrition.jsonl": 41}


@pytest.mark.parametrize(
    ("line", "problem", "column"),
    [
        (
            b"one,two,three",
            r"has 3 cells where the header has 2 \(a comma outside quotes\?\)",
            None,
        ),
        (b"one", "has 1 cells where the header has 2", None),
        (b'"one,two', "opens a quote that is never closed", None),
        (b'"one"x,two', "is not CSV", None),
        (b"a\xf1o,two", r"is not UTF-8 \(byte 0xf1\)", "prompt"),
        (b"a\x00b,two", "holds a NUL character", "prompt"),
        (b"one,  ", "is empty", "response"),
    ],
)
def test_a_bad_csv_record_costs_no_other_record(write, prepared, line, problem, column):

    head, *lines = csv_text(GOOD).encode().splitlines()
    found = prepared(write(b"\n".join([head, *lines[:5], line, *lines[5:]]), "a.csv"))
    assert said(found) == EXPECTED
    [fault] = found.faults
    assert (fault.line, fault.column) == (7, column)
    assert re.search(problem, fault.problem)


@pytest.mark.parametrize(
    ("content", "name", "message"),
    [
        ("", "a.jsonl", "a.jsonl: holds no records"),
        ("\n\n", "a.jsonl", "a.jsonl: holds no records"),
        ("prompt,response\n", "a.csv", "a.csv: holds no records"),
        ("", "a.csv", "a.csv: holds no records"),
        (
            "prompt,response\naño,mañana\n".encode("latin-1"),
            "a.csv",
            "`iconv -f WINDOWS-1252 -t UTF-8 a.csv",
        ),
        ("prompt,prompt\na,b\n", "a.csv", "line 1: two columns are called 'prompt'"),
        (b"PAR1 no parquet", "a.parquet", "a.parquet: cannot be read as Parquet"),
        ("x", "a.txt", "cannot tell its format from '.txt': set `format:`"),
        ("frage,antwort,id\na,b,1\n", "a.csv", "there are 'frage', 'antwort', 'id': map them"),
    ],
)
def test_a_file_that_cannot_be_used_is_refused(write, prepared, content, name, message):
    with pytest.raises(DataError) as error:
        prepared(write(content, name))
    assert message in str(error.value)


def test_a_missing_file_is_refused_by_its_name(tmp_path, prepared):
    with pytest.raises(DataError, match=r"^gone.jsonl: no such file or folder"):
        prepared(tmp_path / "gone.jsonl")


def test_a_mapped_column_that_is_not_there_is_one_error_with_the_nearest_name(write, prepared):
    source = {"columns": {"prompt": "prompt", "response": "respnse"}}
    with pytest.raises(DataError) as error:
        prepared(write(csv_text(GOOD), "a.csv"), source=source)
    assert str(error.value) == (
        "a.csv: no column 'respnse' (mapped to response): there are 'prompt', 'response'; did you mean 'response'?: "
        "mend `columns.response` in the domain's file"
    )


def test_a_hub_id_that_cannot_be_loaded_is_named(monkeypatch):
    import datasets

    def offline(*_, **__):
        raise ConnectionError("no route to the hub")

    monkeypatch.setattr(datasets, "load_dataset", offline)
    with pytest.raises(
        DataError, match="hub data set owner/data: split 'train' cannot be loaded: no route"
    ):
        prepare(recipe(["data"], source={"format": "hub", "hub": "owner/data"}), {})


def test_two_sources_are_one_domain(write):
    paths = [write(GOOD[:20]), write(csv_text(GOOD[20:]), "more.csv")]
    found = prepare(
        recipe([path.name for path in paths]), {f"source_{n}": path for n, path in enumerate(paths)}
    )
    assert said(found) == EXPECTED
    assert found.read == {"nutrition.jsonl": 20, "more.csv": 20}
    sources = [record.source for record in found.train]
    assert sources == sorted(
        sources, key=lambda where: (where.startswith("more"), int(where.rpartition(":")[2]))
    )


def test_the_same_name_as_the_user_wrote_it_stands_in_every_source(write, prepared):
    path: Path = write(GOOD)
    found = prepare(recipe(["data/nutrition.jsonl"]), {"source_0": path})
    assert found.train[0].source.startswith("data/nutrition.jsonl:")
