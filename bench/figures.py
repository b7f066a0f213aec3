"""Render docs/figures.md from what benchmarks kept: ``python -m bench.figures``; ``--check`` only
compares."""

import argparse
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

from bench.figure_rows import SECTIONS, Figure, Formatter, Section
from bench.result_files import read_result

PAGE = Path(__file__).parents[1] / "docs" / "figures.md"
COMMAND = "python -m bench.figures"
WIDTH = 100
MISSED = "**missed**"

HEAD = f"""# Figures

Made by `{COMMAND}` from [bench/results](../bench/results): change nothing here by hand.
Every figure is a command, and none is a timed test. A row says when it was measured and of which
commit (a + where files differed from it). Its file names the machine and what else ran there, which
was nearly always something. Seconds are too long then, CPU-seconds somewhat; ratios, losses and
memory are hardly touched. A bound that is not kept says so.

What was measured before there were such files was moved into them as the README had it, with the
commit that stated it.
"""


def render_row(figure: Figure) -> str:
    """A line of the table."""
    result = read_result(figure.result)
    what, measured = (
        Formatter().vformat(text, (), result) for text in (figure.what, figure.measured)
    )
    missed = [bound for bound in figure.bounds if not bound.is_kept(result)]
    if missed:
        measured += f": {MISSED}"
        measured += f" ({'; '.join(map(str, missed))})" if len(figure.bounds) > 1 else ""
    of = f"{result['date']}, {result['commit']}"
    bounds = "; ".join(map(str, figure.bounds))
    return f"| {what} | {bounds} | {measured} | `{figure.command}` | {of} |"


def wrap(text: str) -> str:
    """A paragraph, its lines broken, and an empty line after it."""
    return textwrap.fill(text, WIDTH, break_on_hyphens=False, break_long_words=False) + "\n"


def render_section(section: Section) -> Iterator[str]:
    """A heading, a table and its notes."""
    yield f"## {section.title}\n"
    yield "| figure | bound | measured | command | of |"
    yield "|---|---|---|---|---|"
    yield from map(render_row, section.rows)
    yield ""
    if section.notes:
        yield wrap(Formatter().vformat(section.notes, (), read_result(section.result)))


def render_answers() -> Iterator[str]:
    """What the smallest files of ten domains say, as it came, and how people read it."""
    measured, read = read_result("real_base")["domains"], read_result("answers_read")
    yield "## Ten answers\n"
    yield wrap(
        "What the smallest files (Q4_K_M) of ten domains say to the first question that was held "
        "out, as it came, greedily. All are in "
        "[bench/results/real_base.json](../bench/results/real_base.json)."
    )
    yield "| domain | question | answer | read by us as |"
    yield "|---|---|---|---|"
    for domain, reading in read["readings"].items():
        first = measured[domain]["answers"][0]
        yield f"| {domain} | {first['prompt']} | {' '.join(first['answer'].split())} | {reading} |"
    worst = measured[read["worst"]["domain"]]["answers"][read["worst"]["number"]]
    yield ""
    yield wrap(
        f'The worst of all is in `{read["worst"]["domain"]}`: to "{worst["prompt"]}" it says '
        f'"{worst["answer"]}"'
    )
    yield wrap(
        "All passed every gate: held-out loss proves tokens, not answers. A model of this size "
        "learns a domain's tone and form from forty records, and not its facts. **Let nobody rely "
        "on one in a domain whose `safety` is `strict`.** For work that matters take a larger base "
        "and many more records, and read the answers."
    )


def render() -> str:
    """The whole page."""
    lines = [HEAD]
    for section in SECTIONS:
        lines += render_section(section)
    return "\n".join([*lines, *render_answers()])


def main() -> int:
    """Write the page, or with ``--check`` say whether it is stale."""
    words = argparse.ArgumentParser(description=__doc__)
    words.add_argument("--check", action="store_true", help="write nothing; 1 if it is stale")
    if not words.parse_args().check:
        PAGE.write_text(render(), encoding="utf-8")
        return 0
    if PAGE.exists() and PAGE.read_text(encoding="utf-8") == render():
        return 0
    print(f"{PAGE} is stale; run `{COMMAND}`", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
