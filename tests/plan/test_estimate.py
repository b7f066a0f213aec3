"""What a plan will take: from earlier runs where there are any, scaled by how much there is to do,
and always as a range."""

import shutil
import statistics
from collections.abc import Iterable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from projects import edit, override, small_project

from meetara_build.graph import Graph, load
from meetara_build.plan import FRESH, MAYBE, RUN, Item, Plan, plan
from meetara_build.plan.estimate import (
    HISTORY,
    MODEL,
    RECENT,
    SIMILAR,
    Estimate,
    Estimator,
    fit,
    total,
)
from meetara_build.plan.workload import workload
from meetara_build.store import journal
from meetara_build.store.journal import Run

# The line through earlier runs

LINES = st.tuples(st.floats(0.0, 50.0), st.floats(0.001, 10.0))
WORKS = st.lists(st.integers(1, 19), min_size=7, max_size=15, unique=True)


def on_line(start: float, rate: float, works: Iterable[int]) -> list[tuple[float, float]]:
    return [(float(work), start + rate * work) for work in works]


@given(LINES, WORKS)
def test_a_line_is_found_again(line: tuple[float, float], works: list[int]) -> None:
    assert fit(on_line(*line, works)) == pytest.approx(line, rel=1e-6, abs=1e-6)


@given(LINES, WORKS, st.data())
def test_one_run_beside_other_work_does_not_matter(
    line: tuple[float, float], works: list[int], data: st.DataObject
) -> None:
    points = on_line(*line, works)
    at = data.draw(st.integers(0, len(points) - 1))
    points[at] = (points[at][0], points[at][1] * data.draw(st.floats(2, 100)))
    assert fit(points) == pytest.approx(line, rel=1e-6, abs=1e-6)


@given(st.lists(st.tuples(st.floats(1.0, 1e6), st.floats(0.001, 1e6)), min_size=1, max_size=12))
def test_no_line_starts_or_goes_below_zero(points: list[tuple[float, float]]) -> None:
    start, rate = fit(points)
    assert start >= -1e-6 * max(seconds for _, seconds in points)
    assert rate >= 0


def test_where_all_had_as_much_to_do_time_grows_with_work() -> None:
    start, rate = fit([(100.0, 9.0), (100.0, 10.0), (101.0, 11.0)])
    assert start == 0
    assert rate == pytest.approx(0.1)


# One step


@pytest.fixture(scope="module")
def graph(tmp_path_factory: pytest.TempPathFactory) -> Graph:
    """Of a project in which nothing is built."""
    return load(small_project(tmp_path_factory.mktemp("estimates") / "project"))


@pytest.fixture(scope="module")
def everything(graph: Graph) -> Plan:
    """A plan to run all of it."""
    return plan(graph)


def item(made: Plan, step: str) -> Item:
    return next(item for item in made.items if item.step.name == step)


def ran(
    step: str,
    seconds: float,
    work: float,
    *,
    machine: str = "here",
    hardware: str = "cpu",
    outcome: str = "built",
    peak_mb: float = 500.0,
    size: int = 1000,
) -> Run:
    target, _, stage = step.rpartition("/")
    return Run(
        stage,
        target,
        "f" * 64,
        outcome,
        0.0,
        seconds,
        seconds,
        seconds,
        peak_mb,
        size,
        machine,
        work=work,
        hardware=hardware,
    )


def work_of(made: Plan, step: str) -> float:
    return workload(item(made, step).step, lambda name: None)


def of(graph: Graph, made: Plan, step: str, *runs: Run, probe: float | None = None) -> Estimate:
    return Estimator(graph, made, runs, "here", probe).of(item(made, step))


OWN, OTHER, THIRD = "nutrition/adapter", "programming/adapter", "storytelling/adapter"


def test_a_step_s_own_runs_come_before_those_of_others_and_those_before_a_model(
    graph: Graph, everything: Plan
) -> None:
    work = work_of(everything, OWN)
    own, others = ran(OWN, 7.0, work), [ran(OTHER, 70.0, work), ran(THIRD, 70.0, work)]
    first, second, last = (
        of(graph, everything, OWN, *runs) for runs in ([own, *others], others, [])
    )
    assert (first.seconds, first.source) == (7.0, HISTORY)
    assert (second.seconds, second.source) == (70.0, SIMILAR)
    assert last.source == MODEL


def test_a_run_is_scaled_by_how_much_there_was_to_do(graph: Graph, everything: Plan) -> None:
    work = work_of(everything, OWN)
    assert of(graph, everything, OWN, ran(OWN, 10.0, work / 1.2)).seconds == pytest.approx(12.0)
    much_less = of(graph, everything, OWN, ran(OWN, 10.0, work / 3))
    assert (much_less.seconds, much_less.source) == (pytest.approx(30.0), SIMILAR)


def test_other_domains_runs_are_read_as_a_line_over_their_work(
    graph: Graph, everything: Plan
) -> None:
    work = work_of(everything, OWN)
    runs = [ran(OTHER, 2.0 + 3.0 * times, times * work) for times in (0.5, 2.0, 4.0, 6.0)]
    found = of(graph, everything, OWN, *runs)
    assert (found.seconds, found.source) == (pytest.approx(5.0), SIMILAR)


def test_only_the_last_runs_count(graph: Graph, everything: Plan) -> None:
    work = work_of(everything, OWN)
    runs = [ran(OWN, 100.0, work, peak_mb=9000.0)] * 20 + [
        ran(OWN, 10.0, work, peak_mb=700.0)
    ] * RECENT
    found = of(graph, everything, OWN, *runs)
    assert (found.low, found.seconds, found.high, found.peak_mb) == (8.0, 10.0, 12.5, 700.0)


@pytest.mark.parametrize(
    "elsewhere",
    [{"machine": "another"}, {"hardware": "a100"}, {"outcome": "restored"}, {"outcome": "failed"}],
)
def test_what_was_not_worked_out_on_such_a_machine_here_is_no_measure(
    graph: Graph, everything: Plan, elsewhere: dict[str, str]
) -> None:
    runs = [
        ran(step, 1000.0, work_of(everything, OWN), **elsewhere) for step in (OWN, OTHER, THIRD)
    ]  # type: ignore[arg-type]
    assert of(graph, everything, OWN, *runs) == of(graph, everything, OWN)


def test_runs_of_an_older_history_that_has_no_work_in_it_are_left_out(
    graph: Graph, everything: Plan
) -> None:
    assert of(graph, everything, OWN, ran(OWN, 10.0, 0.0)).source == MODEL


def test_a_model_is_scaled_by_the_probe_of_this_machine(graph: Graph, everything: Plan) -> None:
    one, other = (of(graph, everything, OWN, probe=seconds) for seconds in (0.02, 0.06))
    assert other.seconds == pytest.approx(3 * one.seconds)
    assert (one.peak_mb, one.size) == (other.peak_mb, other.size)


@given(
    st.lists(
        st.tuples(st.sampled_from([OWN, OTHER, THIRD]), st.floats(0.01, 1e4), st.floats(0.2, 5.0)),
        max_size=10,
    )
)
def test_a_range_holds_its_middle(
    graph: Graph, everything: Plan, runs: list[tuple[str, float, float]]
) -> None:
    work = work_of(everything, OWN)
    found = of(
        graph, everything, OWN, *(ran(step, seconds, times * work) for step, seconds, times in runs)
    )
    assert 0 < found.low < found.seconds < found.high
    assert found.peak_mb > 0 and found.size > 0


def test_what_is_restored_takes_no_more_room_and_next_to_no_time(
    graph: Graph, everything: Plan
) -> None:
    restored = item(everything, OWN)._replace(action="RESTORE")
    found = Estimator(
        graph, everything, [ran(OWN, 100.0, work_of(everything, OWN))], "here", None
    ).of(restored)
    assert found.size == 0
    assert found.high < 1


# The whole plan


def each(made: Plan, seconds: float = 1.0, source: str = HISTORY) -> dict[str, Estimate]:
    """As much for every step: half at best, twice at worst."""
    return {
        item.step.name: Estimate(seconds / 2, seconds, 2 * seconds, 100.0, 1000.0, source)
        for item in made.to_do()
    }


def test_with_many_jobs_at_once_the_longest_chain_counts_and_with_one_all(
    graph: Graph, everything: Plan
) -> None:
    chain = ["corpus", "base", "dataset", "adapter", "merge", "gguf", "evaluate", "package"]
    chain.append("report")
    found = total(everything, each(everything), 100, None)
    assert (found.low, found.seconds, found.high) == (len(chain) / 2, len(chain), 2 * len(chain))
    assert total(everything, each(everything), 1, None).seconds == len(everything.items)
    estimates = each(everything)
    estimates["nutrition/merge"] = estimates["nutrition/merge"]._replace(seconds=50.0)
    assert total(everything, estimates, 100, None).seconds == len(chain) - 1 + 50


def test_a_job_of_two_threads_fills_two_places(everything: Plan) -> None:
    wide = [item._replace(step=item.step._replace(threads=2)) for item in everything.items]
    assert total(everything._replace(items=wide), each(everything), 2, None).seconds == len(
        everything.items
    )


def test_memory_is_that_of_the_largest_jobs_that_fit_side_by_side(everything: Plan) -> None:
    estimates = each(everything)
    estimates["nutrition/adapter"] = estimates["nutrition/adapter"]._replace(peak_mb=900.0)
    assert total(everything, estimates, 3, None).peak_mb == 1100.0


@pytest.fixture
def retrained(project: Path) -> Plan:
    """Three steps to run (one a temporary), three that may, in a project that is built."""
    override(project, "nutrition", {"training.epochs": 1})
    made = plan(load(project))
    assert (made.count(RUN), made.count(MAYBE), len(made.to_do())) == (3, 3, 6)
    return made


def test_what_may_run_is_only_in_the_upper_end(retrained: Plan) -> None:
    found = total(retrained, each(retrained), 1, None)
    assert (found.low, found.seconds, found.high) == (1.5, 3.0, 12.0)


def test_temporaries_take_no_room_that_lasts_and_what_may_run_takes_it_at_most(
    retrained: Plan,
) -> None:
    found = total(retrained, each(retrained), 1, None)
    assert (found.size, found.size_high) == (2000.0, 5000.0)


def test_money_is_time_by_the_price_of_an_hour(retrained: Plan) -> None:
    found = total(retrained, each(retrained, 60.0), 1, 1.20)
    assert found.dollars == pytest.approx(180 / 3600 * 1.20)
    assert found.dollars_high == pytest.approx(720 / 3600 * 1.20)
    free = total(retrained, each(retrained), 1, None)
    assert (free.dollars, free.dollars_high) == (None, None)


def test_steps_are_counted_by_where_their_estimate_comes_from(retrained: Plan) -> None:
    estimates = each(retrained)
    estimates["nutrition/merge"] = estimates["nutrition/merge"]._replace(source=MODEL)
    assert total(retrained, estimates, 1, None).sources == {HISTORY: 5, MODEL: 1}


def test_nothing_to_do_takes_nothing(built_project: Path) -> None:
    found = total(plan(load(built_project)), {}, 2, 1.0)
    assert (found.low, found.high, found.peak_mb, found.size_high, found.dollars_high) == (
        0,
        0,
        0,
        0,
        0,
    )


# After a real build


def test_what_is_built_again_is_expected_to_take_what_it_took(project: Path) -> None:
    shutil.rmtree(project / "artifacts" / "store")
    edit(project / "conf" / "build.yaml", "seed", 3)
    edit(project / "conf" / "build.yaml", "data.max_bad_share", 0.5)
    graph = load(project)
    made = plan(graph)
    assert not made.count(FRESH)
    took: dict[str, list[Run]] = {}
    for run in journal.runs(graph.root):
        took.setdefault(f"{run.target}/{run.stage}", []).append(run)
    estimator = Estimator(graph, made, journal.runs(graph.root), journal.machine(), None)
    for found in made.to_do():
        estimate, runs = estimator.of(found), took[found.step.name]
        assert estimate.source == HISTORY, found.step.name
        assert estimate.seconds == pytest.approx(statistics.median(run.seconds for run in runs)), (
            found.step.name
        )
        assert estimate.peak_mb == statistics.median(run.peak_mb for run in runs)
        assert estimate.size == runs[-1].size
