"""Every fault that strangers found has its number, what is right instead, and a test that states
it: ``faults.csv``.

S and B are of a review of the code, F and the rows of public reports, H of rough treatment, D of
other bases and data.
"""

import csv
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
NUMBERS = {"S": 5, "B": 17, "F": 15, "H": 26, "D": 17}
ROWS = list(csv.DictReader((TESTS / "faults.csv").open(encoding="utf-8", newline="")))


@pytest.mark.parametrize(("letter", "count"), NUMBERS.items())
def test_no_number_is_left_out(letter: str, count: int) -> None:
    assert {f"{letter}{number}" for number in range(1, count + 1)} <= {
        row["number"] for row in ROWS
    }


def test_every_test_that_is_named_is_there() -> None:
    for row in ROWS:
        path, _, name = row["test"].partition("::")
        if path == "-":
            assert row["what is right"].startswith("- "), (
                f"{row['number']}: says why it is not mended"
            )
            continue
        text = (TESTS.parent / path).read_text(encoding="utf-8")
        assert not name or f"def {name}(" in text, row["test"]
