"""Bad records: all at once, by file, line and column; the good ones stay until too many are bad."""

import pytest
from made_sources import pairs, recipe

from meetara_build.errors import DataError
from meetara_build.stages.dataset import Fault, prepare, read_all
from meetara_build.stages.dataset.check import table

BAD = [
    {"prompt": "", "response": "x"},
    {"prompt": "who", "response": True},
    {"prompt": None, "response": ""},
    {"prompt": "who"},
    {"prompt": ["who"], "response": float("nan")},
]


def test_every_fault_of_every_source_is_in_one_table(write):
    paths = [write([*pairs(3), *BAD]), write([*BAD[:1], *pairs(2)], "more.jsonl")]
    with pytest.raises(DataError) as error:
        prepare(
            recipe([path.name for path in paths]),
            {f"source_{n}": path for n, path in enumerate(paths)},
        )
    assert str(error.value).splitlines() == [
        "nutrition.jsonl: 5 of 8 records are bad; more.jsonl: 1 of 3 records are bad (data.max_bad_share allows 5%)",
        "File             Line  Column    What is wrong               Found",
        "nutrition.jsonl  4     prompt    is empty",
        "nutrition.jsonl  5     response  is true or false, not text  true",
        "nutrition.jsonl  6     prompt    is null",
        "nutrition.jsonl  6     response  is empty",
        "nutrition.jsonl  7     response  is missing",
        'nutrition.jsonl  8     prompt    is a list, not text         ["who"]',
        "nutrition.jsonl  8     response  is null",
        "more.jsonl       1     prompt    is empty",
        "Mend these lines, or raise `data.max_bad_share` to leave them out",
    ]


def test_a_record_with_two_faults_is_one_bad_record(prepared):
    found = prepared([*pairs(40), BAD[2]])
    assert (found.bad, len(found.faults)) == (1, 2)


@pytest.mark.parametrize(("good", "usable"), [(19, True), (18, False)])
def test_one_bad_record_in_twenty_is_the_most_that_five_percent_allow(prepared, good, usable):
    records = [*pairs(good), BAD[0]]
    if usable:
        assert prepared(records).bad == 1
    else:
        with pytest.raises(DataError, match="1 of 19 records are bad"):
            prepared(records)


def test_the_share_counts_for_each_source_so_that_a_small_one_cannot_vanish(write):
    paths = [write(pairs(100)), write(BAD[:2], "more.jsonl")]
    with pytest.raises(DataError, match=r"^more.jsonl: 2 of 2 records are bad"):
        prepare(
            recipe([path.name for path in paths]),
            {f"source_{n}": path for n, path in enumerate(paths)},
        )


def test_reading_lists_faults_without_refusing(write):
    path = write([*pairs(2), *BAD])
    (read,) = read_all(recipe([path.name]), {"source_0": path})
    faults = read.faults
    assert faults[1].as_json() == {
        "source": "nutrition.jsonl",
        "line": 4,
        "column": "response",
        "problem": "is true or false, not text",
        "found": "true",
    }
    assert len(faults) == 7


def test_a_long_table_is_cut_and_says_so():
    lines = table(
        [Fault("a.jsonl", n, "prompt", "is empty") for n in range(60)], limit=50
    ).splitlines()
    assert len(lines) == 52
    assert lines[-1] == "… and 10 more"
