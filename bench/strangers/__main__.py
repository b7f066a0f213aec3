"""Run the campaign, print a line a case, and keep the result as data."""

import sys
import tempfile
import time
from pathlib import Path

from bench import machine
from bench.result_files import keep_result
from bench.strangers import (  # noqa: F401  which hold the cases
    hostile_agents,
    hostile_context,
    hostile_files,
    hostile_store,
    public_bases,
    public_builds,
    public_data,
)
from bench.strangers.campaign import CASES, Case, Place, Wrong, expect_success


def build_project(folder: Path) -> Path:
    """The project that cases copy, built once."""
    place = Place(folder, folder)
    project = place.project("built")
    expect_success(place.run(project, "build"))
    return project


def try_case(case: Case, folder: Path, built: Path) -> dict[str, object]:
    """What came of one case."""
    started = time.monotonic()
    try:
        case.check(Place(folder, built))
        seen = ""
    except Wrong as wrong:
        seen = str(wrong)
    except Exception as fault:
        seen = f"{type(fault).__name__}: {fault}"[-2000:]
    seconds = round(time.monotonic() - started, 1)
    right = not seen
    print(
        f"{case.number:5} {'right' if right else 'WRONG':6} {seconds:6.1f} s  {case.title}",
        flush=True,
    )
    if seen:
        print(f"      {seen}", flush=True)
    return {
        "number": case.number,
        "case": case.title,
        "right": right,
        "seconds": seconds,
        **({"seen": seen} if seen else {}),
    }


def main() -> int:
    """Run all cases, or those whose numbers are given; only a whole run is kept."""
    wanted = sys.argv[1:]
    cases = [case for case in CASES if not wanted or case.number in wanted]
    print(machine.describe())
    with tempfile.TemporaryDirectory(prefix="strangers-") as scratch:
        folder = Path(scratch)
        built = build_project(folder)
        outcomes = []
        for number, case in enumerate(cases):
            own = folder / f"case{number}"
            own.mkdir()
            outcomes.append(try_case(case, own, built))
    wrong = sum(not outcome["right"] for outcome in outcomes)
    print(f"{len(outcomes)} inputs, {len(outcomes) - wrong} right, {wrong} wrong")
    if not wanted:
        right = len(outcomes) - wrong
        keep_result("strangers", {"count": len(outcomes), "right": right, "cases": outcomes})
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
