"""Orders of domains, and how long a build takes in each."""

import random
from dataclasses import replace
from pathlib import Path

import pytest

from meetara_build.agents import Context, Domain, Run
from meetara_build.toolbox.makespan import (
    CHAIN,
    Job,
    estimate_seconds,
    length,
    longest_first,
    lower_bound,
    makespan,
    usual,
)


def chains(*seconds: float) -> dict[str, list[Job]]:
    """Domains ``a``, ``b``, … of one training each."""
    return {chr(ord("a") + at): [Job("adapter", one)] for at, one in enumerate(seconds)}


def test_jobs_side_by_side_take_as_long_as_the_last() -> None:
    assert makespan(chains(1, 2, 3), {}, 1) == 6
    assert makespan(chains(1, 2, 3), {}, 2) == 4
    assert makespan(chains(1, 2, 3), {}, 3) == 3
    assert makespan({}, {}, 2) == 0


def test_a_higher_priority_goes_first() -> None:
    assert makespan(chains(1, 2, 3), {"c": 1}, 2) == 3


def test_a_chain_is_no_shorter_than_its_jobs() -> None:
    jobs = {"a": [Job("dataset", 1), Job("adapter", 2)], "b": [Job("dataset", 1)]}
    assert makespan(jobs, {}, 8) == lower_bound(jobs, 8) == length(jobs["a"]) == 3


def test_between_equals_the_given_order_decides() -> None:
    assert makespan(chains(1, 2, 3), {}, 2, ties=["c", "b", "a"]) == 3
    assert 3 <= usual(chains(1, 2, 3), {}, 2) <= 4
    assert usual(chains(1, 2, 3), {"c": 2, "b": 1}, 2) == 3


def test_what_ends_a_domain_goes_before_the_next_begins() -> None:
    jobs = {"a": [Job("gguf", 5)], "b": [Job("adapter", 1), Job("gguf", 1)]}
    assert (
        makespan({name: jobs[name][:1] for name in jobs} | {"c": [Job("dataset", 5)]}, {}, 1) == 11
    )
    assert makespan({"b": jobs["b"], "c": [Job("adapter", 5)]}, {}, 2) == 5


def test_threads_and_gpus_are_not_used_twice() -> None:
    two = {name: [Job("adapter", 3, threads=2)] for name in "ab"}
    assert makespan(two, {}, 2) == 6
    assert makespan(two, {}, 4) == 3
    trained = {name: [Job("adapter", 3, gpus=1)] for name in "ab"}
    assert makespan(trained, {}, 8, gpus=1) == 6
    assert makespan(trained, {}, 8, gpus=2) == 3


def test_a_job_that_wants_more_than_there_is_gets_all() -> None:
    assert makespan({"a": [Job("adapter", 3, threads=16, gpus=4)]}, {}, 2, gpus=1) == 3


@pytest.mark.parametrize("slots", [2, 3, 8])
@pytest.mark.parametrize("seed", range(5))
def test_longest_first_is_within_graham_s_bound_and_never_worse_than_any_order(
    slots: int, seed: int
) -> None:
    chance = random.Random(seed)
    jobs = {
        f"d{at}": [
            Job("adapter", chance.lognormvariate(0, 1)),
            Job("gguf", chance.lognormvariate(-1, 1)),
        ]
        for at in range(40)
    }
    took = usual(jobs, longest_first(jobs, slots), slots)
    assert took <= 1.02 * usual(jobs, {}, slots)
    assert lower_bound(jobs, slots) <= took + 1e-9
    assert took <= 4 / 3 * lower_bound(jobs, slots)


def test_only_as_many_domains_as_will_do_get_a_priority() -> None:
    assert longest_first(chains(1, 1, 1, 1, 4), 2) == {"e": 1}
    assert longest_first(chains(1, 1, 1, 1), 2) == {}


def test_given_priorities_stay() -> None:
    found = longest_first(chains(1, 1, 1, 1, 4), 2, given={"a": 5})
    assert "a" not in found
    assert found == {"e": 1}


def built(domain: str, stage: str, seconds: float, time: float) -> Run:
    """A run of a step."""
    return Run(
        id=f"{domain}{stage}{time}",
        time=time,
        domain=domain,
        stage=stage,
        build="b",
        machine="m",
        hardware="cpu",
        outcome="built",
        seconds=seconds,
        cpu_seconds=seconds,
        peak_mb=1.0,
        size=1,
        fingerprint="f",
        key="k",
        usd=0.0,
        recipe={"threads": 2},
    )


def domain(folder: Path, name: str, size: int) -> Domain:
    """A domain with a file of so many bytes."""
    (folder / name).write_text("x" * size)
    return Domain(
        name=name,
        category="own",
        description="",
        topics=[],
        languages=[],
        config={},
        model={},
        machine={"threads": 1},
        locked=[],
        decisions=[],
        folder=folder / "artifacts" / name,
        sources=[folder / name],
        decided={},
    )


def test_steps_take_as_long_as_the_last_time_and_others_by_the_size_of_their_sources(
    tmp_path: Path,
) -> None:
    domains = {"a": domain(tmp_path, "a", 100), "b": domain(tmp_path, "b", 300)}
    runs = [built("a", stage, 1.0, 1.0) for stage in CHAIN] + [built("a", "adapter", 9.0, 2.0)]
    found, measured = estimate_seconds(Context(domains, runs))
    assert measured == {"a"}
    assert [(job.stage, job.seconds) for job in found["a"]] == [
        (stage, 9.0 if stage == "adapter" else 1.0) for stage in CHAIN
    ]
    assert found["a"][1].threads == 2
    assert [job.seconds for job in found["b"]] == [
        pytest.approx(3 * job.seconds) for job in found["a"]
    ]


def test_trainings_that_share_a_trainer_take_a_thread_each_and_no_gpu(tmp_path: Path) -> None:
    machine = {"threads": 8, "device": "cuda"}
    for slots, expected in ((1, (8, 1)), (4, (1, 0))):
        shared = replace(domain(tmp_path, "a", 100), machine={**machine, "slots": slots})
        (job,) = [
            job
            for job in estimate_seconds(Context({"a": shared}))[0]["a"]
            if job.stage == "adapter"
        ]
        assert (job.threads, job.gpus) == expected


def test_before_anything_is_built_the_larger_takes_longer(tmp_path: Path) -> None:
    found, measured = estimate_seconds(
        Context({"a": domain(tmp_path, "a", 100), "b": domain(tmp_path, "b", 300)})
    )
    assert measured == set()
    assert length(found["b"]) == pytest.approx(3 * length(found["a"]))
    assert length(found["a"]) > 0
