"""Inputs that strangers and rough treatment brought, each with its right outcome:
``python -m bench.strangers [NUMBER…]``.

The numbers are those of the table in ``tests/faults.csv``: H1 to H26 are hostile inputs, rows 1 to
35 are rebuilt from public reports of users of other tools. Every case works on a small project of
its own, with the command line a person uses.
"""

import sys
from pathlib import Path

TESTS = Path(__file__).parents[2] / "tests"
sys.path[:0] = [
    str(TESTS),
    str(TESTS / "mcp"),
]  # for the small projects, models and servers that tests use too
