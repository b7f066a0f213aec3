"""A file is read the same however it was saved; what is no text is refused with what to do about
it."""

import csv
import gzip
import io
import json
import zipfile
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from made_sources import csv_text, everything, pairs

from meetara_build.errors import DataError
from meetara_build.stages.dataset.records import Fault
from meetara_build.stages.dataset.sources import read_source
from meetara_build.stages.recipes.preparation import SourceRecipe

GOOD = pairs(40)
EXPECTED = [(record["prompt"], record["response"]) for record in GOOD]


def read(path: Path, **more):
    return read_source(SourceRecipe(name=path.name, **more), path)


def values(path: Path):
    reading = read(path)
    assert reading.faults == []
    return [row.values for row in reading.rows]


def table(records, delimiter=",", **how):
    text = io.StringIO(newline="")
    writer = csv.writer(text, delimiter=delimiter, **how)
    writer.writerow(records[0])
    writer.writerows(record.values() for record in records)
    return text.getvalue()


def dump(records, **how):
    return json.dumps(records, ensure_ascii=False, **how)


def lines(records):
    return "".join(dump(record) + "\n" for record in records)


FORMS = {
    "a.jsonl": lines,
    "objects over many lines.json": lambda r: "\n".join(dump(record, indent=2) for record in r),
    "list.json": dump,
    "indented list.json": lambda r: dump(r, indent=2),
    "list of an object a line.json": lambda r: "[\n" + ",\n".join(map(dump, r)) + "\n]\n",
    "data.json": lambda r: dump({"version": "1", "data": r}),
    "indented data.json": lambda r: dump({"version": "1", "data": r, "notes": ["x"]}, indent=1),
    "data of an object a line.json": lambda r: '{"data": [\n' + ",\n".join(map(dump, r)) + "\n]}\n",
    "a.csv": table,
    "all quoted.csv": lambda r: table(r, quoting=csv.QUOTE_ALL),
    "semicolons.csv": lambda r: table(r, ";"),
    "sep.csv": lambda r: "sep=;\r\n" + table(r, ";"),
    "sep by bar.csv": lambda r: '"sep=|"\n' + table(r, "|"),
    "a.tsv": lambda r: table(r, "\t"),
    "all quoted.tsv": lambda r: table(r, "\t", quoting=csv.QUOTE_ALL),
}
PLAIN = st.text(
    st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"]), min_size=1, max_size=12
)
TEXT = st.one_of(
    PLAIN,
    st.sampled_from(['He said "no", then; left', 'a "b"', "two\nlines", "x, y; z", "Ünïcödé 🍎"]),
)
RECORDS = st.lists(
    st.builds(lambda q, a: {"prompt": q, "response": a}, TEXT, TEXT), min_size=2, max_size=6
)


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(records=RECORDS)
def test_the_same_records_are_the_same_rows_in_every_form(tmp_path, records):
    for name, write in FORMS.items():
        for suffix, pack in (("", bytes), (".gz", gzip.compress)):
            path = tmp_path / f"{name}{suffix}"
            path.write_bytes(pack(write(records).encode()))
            assert values(path) == records, name
    path = tmp_path / "a.parquet"
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(records), path)
    assert values(path) == records


@pytest.mark.parametrize(
    "encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"]
)
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_encodings_and_line_ends_make_no_difference(write, encoding, end):
    records = [*GOOD[:3], {"prompt": "¿qué? 🍎", "response": "naïve"}]
    for name, text in (
        ("a.csv", table(records)),
        ("a.jsonl", lines(records)),
        ("a.json", dump(records, indent=1)),
    ):
        content = "".join(line + end for line in text.splitlines()).encode(encoding)
        assert values(write(content, name)) == records, name


def test_a_line_break_in_a_cell_of_an_old_macs_file_is_one_in_the_text(write):
    path = write('prompt,response\rwho,"one\rtwo"\rwhat,three\r', "a.csv")
    assert [row["response"] for row in values(path)] == ["one\ntwo", "three"]


def test_utf16_that_is_cut_short_is_refused(write):
    with pytest.raises(DataError, match=r"^a.csv: is UTF-16 that cannot be read"):
        read(write("prompt,answer\n".encode("utf-16")[:-1], "a.csv"))


def test_gzip_that_is_cut_short_is_refused(write):
    packed = gzip.compress(lines(GOOD).encode())
    with pytest.raises(
        DataError, match=r"^a.jsonl.gz: is gzip that cannot be unpacked: .*: fetch the file again"
    ):
        read(write(packed[:-100], "a.jsonl.gz"))


def workbook() -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as file:
        file.writestr("[Content_Types].xml", "<x/>")
        file.writestr("xl/workbook.xml", "<x/>")
    return content.getvalue()


def archive() -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as file:
        file.writestr("a.jsonl", "{}")
    return content.getvalue()


@pytest.mark.parametrize("name", ["a.jsonl", "a.csv", "a.parquet", "a.unknown"])
@pytest.mark.parametrize(
    ("content", "advice"),
    [
        (workbook(), "is an Excel workbook: save the sheet as CSV"),
        (archive(), "is a zip archive: unpack it"),
        (
            b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1 an old one",
            "is an old Excel or Word file: save it as CSV",
        ),
        (b"BZh91AY", "is packed by bzip2: unpack it"),
        (b"\xfd7zXZ\x00\x00", "is packed by xz: unpack it"),
        (b"SQLite format 3\x00", "is an SQLite database: export a table"),
    ],
)
def test_what_is_no_text_is_named_and_gets_its_own_advice(write, name, content, advice):
    with pytest.raises(DataError) as error:
        read(write(content, name))
    assert str(error.value).startswith(f"{name}: {advice}")
    assert "iconv" not in str(error.value)


def test_parquet_under_another_name_and_packed_parquet_are_named(write, tmp_path):
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(GOOD), tmp_path / "a.parquet")
    content = (tmp_path / "a.parquet").read_bytes()
    with pytest.raises(DataError, match=r"^a.jsonl: is Parquet: give the file the ending .parquet"):
        read(write(content, "a.jsonl"))
    with pytest.raises(
        DataError,
        match=r"^b.parquet.gz: is packed by gzip, which only text files may be: unpack it",
    ):
        read(write(gzip.compress(content), "b.parquet.gz"))


def test_a_windows_file_gets_the_command_that_converts_it_also_when_it_is_packed(prepared, write):
    path = write(gzip.compress("prompt,response\naño,mañana\n".encode("latin-1")), "my data.csv.gz")
    with pytest.raises(DataError) as error:
        prepared(path)
    assert (
        "`gunzip -c 'my data.csv.gz' | iconv -f WINDOWS-1252 -t UTF-8 > 'utf8-my data.csv'`"
        in str(error.value)
    )


# JSON documents


def place(reading):
    return [(fault.line, fault.column, fault.problem) for fault in reading.faults]


def test_a_bad_record_of_a_list_is_named_by_the_line_on_which_it_begins(write):
    text = (
        '[\n {"prompt": "a",\n  "response": "b"},\n "x",\n {"prompt": "c",\n  "response": "d"}\n]\n'
    )
    reading = read(write(text, "a.json"))
    assert place(reading) == [(4, None, "is text, not an object")]
    assert [row.line for row in reading.rows] == [2, 5]


def test_a_bad_record_of_a_list_on_one_line_is_named_by_its_number(write):
    reading = read(
        write(
            '{"data": [{"prompt": "a"}, {"prompt": "b", "prompt": "c"}, {"prompt": "d"}]}', "a.json"
        )
    )
    assert place(reading) == [(2, "prompt", "the key 'prompt' stands twice")]
    assert [row.line for row in reading.rows] == [1, 3]


def test_a_document_that_is_broken_is_refused_with_the_place(write):
    text = '[\n {"prompt": "a", "response": "b"}\n {"prompt": "c", "response": "d"}\n]\n'
    with pytest.raises(
        DataError, match=r"^a.json: line 3: is not JSON: Expecting ',' or ']' at character 2: mend"
    ):
        read(write(text, "a.json"))


@pytest.mark.parametrize("deep", ["[" * 100_000, '[{"a": ' + "[" * 100_000])
def test_a_list_without_bottom_is_refused(write, deep):
    with pytest.raises(
        DataError, match=r"^a.json: line 1: is not JSON: a value that cannot be read at character"
    ):
        read(write(deep, "a.json"))


def test_an_object_without_bottom_is_a_fault(write):
    reading = read(write('{"data": ' * 100_000, "a.json"))
    assert [fault.problem for fault in reading.faults] == ["is JSON that cannot be read"]


def test_a_byte_that_is_not_utf8_costs_a_list_one_record(write):
    content = (
        dump([*GOOD[:2], {"prompt": "XX", "response": "b"}], indent=1)
        .encode()
        .replace(b"XX", b"a\xf1o")
    )
    reading = read(write(content, "a.json"))
    assert [fault.problem for fault in reading.faults] == ["is not UTF-8 (byte 0xf1)"]
    assert len(reading.rows) == 2


def test_several_lists_of_records_in_one_document_are_refused_by_name(write):
    with pytest.raises(
        DataError,
        match=r"a.json: holds several lists of records: 'train' \(2\), 'test' \(1\): write",
    ):
        read(write(dump({"train": GOOD[:2], "test": GOOD[:1]}), "a.json"))


def test_one_conversation_alone_is_one_record_not_a_list_of_turns(write):
    record = {
        "messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}],
        "tools": [{"x": 1}],
    }
    assert values(write(dump(record, indent=1), "a.json")) == [record]


def test_conversations_below_a_key_of_that_name_are_records(write):
    turns = [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]
    records = [{"id": n, "messages": turns} for n in range(3)]
    assert values(write(dump({"conversations": records}), "a.json")) == records


def test_an_empty_list_holds_no_records(write):
    for text in ("[]", '{"data": []}'):
        with pytest.raises(DataError, match=r"a.json: holds no records"):
            read(write(text, "a.json"))


@pytest.mark.parametrize("column", ["response", "inner"])
def test_a_key_that_stands_twice_is_a_fault_that_names_it(write, column):
    twice = {
        "response": '{"prompt": "a", "response": "b", "response": "c"}',
        "inner": '{"x": [{"inner": 1, "inner": 1}]}',
    }
    reading = read(write(lines(GOOD[:2]) + twice[column] + "\n", "a.jsonl"))
    assert place(reading) == [(3, column, f"the key '{column}' stands twice")]


def test_a_number_keeps_the_digits_it_was_written_with(prepared, write):
    text = (
        lines(GOOD)
        + '{"prompt": "What does it cost?", "response": 3.10}\n{"prompt": "How many?", "response": 12}\n'
    )
    found = everything(prepared(write(text)))
    assert [found[f"nutrition.jsonl:{line}"].response for line in (41, 42)] == ["3.10", "12"]


# CSV and TSV


def test_quotes_between_tabs_are_text(write):
    text = (
        'prompt\tresponse\nWho?\t"A\nWhat is "it"?\tb\n"Hamlet" is by whom?\tC"\nWhere?\t"here"\n'
    )
    assert [tuple(row.values()) for row in values(write(text, "a.tsv"))] == [
        ("Who?", '"A'),
        ('What is "it"?', "b"),
        ('"Hamlet" is by whom?', 'C"'),
        ("Where?", '"here"'),
    ]


def test_quotes_between_tabs_are_csvs_where_the_file_shows_it(write):
    text = 'prompt\tresponse\nWho?\t"He said ""no"""\nWhat?\t"two\nlines"\n'
    assert [row["response"] for row in values(write(text, "a.tsv"))] == [
        'He said "no"',
        "two\nlines",
    ]


def test_a_bad_record_does_not_change_what_quotes_mean(write):
    lines = [f'"What is {n}?"\t"two\nlines"' for n in range(5)]
    reading = read(
        write("prompt\tresponse\n" + "\n".join([*lines, "a\tb\tc", "d\te"]) + "\n", "a.tsv")
    )
    assert place(reading) == [
        (12, None, "has 3 cells where the header has 2 (a tab outside quotes?)")
    ]
    assert [row.values["response"] for row in reading.rows] == ["two\nlines"] * 5 + ["e"]


def test_a_tsv_with_commas_in_its_header_is_split_at_tabs(write):
    assert values(write("prompt, or so\tresponse, if any, at all\na\tb\n", "a.tsv")) == [
        {"prompt, or so": "a", "response, if any, at all": "b"}
    ]


def test_records_that_a_stray_quote_runs_together_are_a_fault_and_not_one_answer(write):
    text = csv_text(GOOD[:3], 'Who?,"A', "What?,b", 'Where?,C"', "When?,d")
    reading = read(write(text, "a.csv"))
    assert place(reading) == [
        (5, None, 'opens a quote that closes on line 7, over lines that are records: write " as ""')
    ]
    assert [row.line for row in reading.rows] == [2, 3, 4, 6, 7, 8]


def test_answers_of_several_lines_with_commas_stay_whole(write):
    answers = [
        "Eat oats, nuts.\nDrink water, tea.",
        "one, two\nthree",
        "def f(a):\n    return g(a, b)",
    ]
    records = [{"prompt": f"q{n}", "response": answer} for n, answer in enumerate(answers)]
    assert values(write(table(records), "a.csv")) == records


# Parquet


def test_maps_in_parquet_are_objects(prepared, tmp_path):
    turn = pyarrow.map_(pyarrow.string(), pyarrow.string())
    chats = [
        [[("role", "user"), ("content", prompt)], [("role", "assistant"), ("content", response)]]
        for prompt, response in EXPECTED
    ]
    path = tmp_path / "a.parquet"
    chats_column = pyarrow.array(chats, pyarrow.list_(turn))
    pyarrow.parquet.write_table(pyarrow.table({"messages": chats_column}), path)
    found = everything(prepared(path))
    assert sorted((record.prompt, record.response) for record in found.values()) == sorted(EXPECTED)


def test_a_map_with_a_key_twice_costs_one_row(tmp_path):
    maps = pyarrow.array(
        [[("a", "x")], [("a", "x"), ("a", "y")], []],
        pyarrow.map_(pyarrow.string(), pyarrow.string()),
    )
    path = tmp_path / "a.parquet"
    pyarrow.parquet.write_table(pyarrow.table({"m": maps}), path)
    reading = read(path)
    assert reading.faults == [Fault("a.parquet", 2, None, "holds a map with one key twice")]
    assert [row.values for row in reading.rows] == [{"m": {"a": "x"}}, {"m": {}}]


def test_text_that_parquet_holds_as_bytes_is_text(tmp_path):
    path = tmp_path / "a.parquet"
    cells = pyarrow.array([b"na\xc3\xafve", b"\xff\x00"], pyarrow.binary())
    inner = pyarrow.array([[b"x"], [b"y"]], pyarrow.list_(pyarrow.binary()))
    pyarrow.parquet.write_table(pyarrow.table({"prompt": cells, "inner": inner}), path)
    assert [row.values for row in read(path).rows] == [
        {"prompt": "naïve", "inner": ["x"]},
        {"prompt": b"\xff\x00", "inner": ["y"]},
    ]


def test_two_parquet_columns_of_one_name_are_refused(tmp_path):
    path = tmp_path / "a.parquet"
    column = pyarrow.array(["x"])
    pyarrow.parquet.write_table(
        pyarrow.Table.from_arrays([column] * 3, ["question", "answer", "answer"]), path
    )
    with pytest.raises(
        DataError, match=r"^a.parquet: two columns are called 'answer': rename one of them"
    ):
        read(path)
