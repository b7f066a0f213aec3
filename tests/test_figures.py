"""Figures are rendered from what benchmarks kept, each with machine, date and commit; a bound that
is missed says so."""

import re
import subprocess

import pytest
from projects import REPOSITORY

from bench import figures, result_files
from bench.figure_rows import SECTIONS, Bound, Figure, Formatter

ROWS = [row for section in SECTIONS for row in section.rows]
RESULTS = sorted(path.stem for path in result_files.FOLDER.iterdir())


def test_the_page_is_what_the_results_say() -> None:
    assert figures.PAGE.read_text(encoding="utf-8") == figures.render(), (
        f"docs/figures.md is stale; run `{figures.COMMAND}`"
    )


@pytest.mark.parametrize("name", RESULTS)
def test_a_result_says_where_when_and_of_what_it_is(name: str) -> None:
    result = result_files.read_result(name)
    assert result["machine"]
    assert re.fullmatch(r"\d{4}-\d\d-\d\d", result["date"])
    assert re.fullmatch(r"[0-9a-f]{7,40}\+?", result["commit"])


@pytest.mark.parametrize("name", RESULTS)
def test_its_commit_is_in_the_history(name: str) -> None:
    commit = result_files.read_result(name)["commit"].removesuffix("+")
    words = ["git", "-C", str(REPOSITORY), "merge-base", "--is-ancestor", commit, "HEAD"]
    if (
        subprocess.run(
            [*words[:3], "rev-parse", "--is-shallow-repository"],
            capture_output=True,
            text=True,
            check=False,
        ).stdout.strip()
        != "false"
    ):
        pytest.skip("no whole history here")
    assert subprocess.run(words, check=False).returncode == 0


def test_every_result_is_shown() -> None:
    assert {row.result for row in ROWS} | {"answers_read"} == set(RESULTS)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.what[:40])
def test_the_command_of_a_row_writes_its_result(row: Figure) -> None:
    [module] = re.findall(r"^python (?:-m (bench[\w.]*)|bench/(\w+)\.py)", row.command)
    name = module[0] or f"bench.{module[1]}"
    path = (REPOSITORY / name.replace(".", "/")).with_suffix(".py")
    path = path if path.exists() else path.with_suffix("") / "__main__.py"
    family = row.result.rstrip("0123456789").removesuffix("_")
    text = path.read_text(encoding="utf-8")
    written = re.findall(r"""keep_result\(\s*f?"(\w+)""", text)
    assert any(word.rstrip("_") in (row.result, family) for word in written) or (
        row.result.startswith("own_data_") and "own_data_" in written
    )


def test_a_bound_that_is_missed_is_said_and_which() -> None:
    two = (Bound("a", 2, "2"), Bound("b", 5, "5", at_least=True))
    assert [bound.is_kept({"a": 3, "b": 5}) for bound in two] == [False, True]
    assert not Bound("a", 2, "2").is_kept({"a": float("nan")})
    assert [str(bound) for bound in two] == ["at most 2", "at least 5"]
    assert str(Bound("lost", 0, "none")) == "none"


def test_a_missed_row_stays_visible() -> None:
    [row] = [row for row in ROWS if row.result == "build" and "outside" in row.measured]
    assert figures.MISSED in figures.render_row(row)
    kept = row._replace(bounds=(Bound("outside_share", 0.9, "90%"),))
    assert figures.MISSED not in figures.render_row(kept)
    both = row._replace(bounds=(*kept.bounds, *row.bounds))
    assert f"{figures.MISSED} (at most 20%)" in figures.render_row(both)


def test_seconds_are_shown_in_minutes_and_bytes_in_megabytes() -> None:
    shown = Formatter().vformat("{a:.1min}, {b:.0MB}, {c:.1%}", (), {"a": 90, "b": 2e6, "c": 0.5})
    assert shown == "1.5 min, 2 MB, 50.0%"


def test_answers_are_as_they_were_measured() -> None:
    page = figures.PAGE.read_text(encoding="utf-8")
    measured = result_files.read_result("real_base")["domains"]
    readings = result_files.read_result("answers_read")["readings"]
    assert len(readings) == 10
    for domain in readings:
        first = measured[domain]["answers"][0]
        assert f"| {first['prompt']} | {' '.join(first['answer'].split())} |" in page


def test_a_kept_result_has_its_stamp(monkeypatch: pytest.MonkeyPatch, tmp_path: object) -> None:
    monkeypatch.setattr(result_files, "FOLDER", tmp_path)
    result_files.keep_result("mine", {"seconds": 3})
    assert {"machine", "date", "commit", "load", "seconds"} == set(result_files.read_result("mine"))
