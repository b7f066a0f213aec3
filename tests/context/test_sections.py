"""The four sections, with all their fields, from what was reported."""

import time
from typing import Any

import pytest
from reported import progress, proposal, report, run, sample, trained

from meetara_build.context.sections import history, messages, read_runs, section
from meetara_build.context.store import SECTIONS, Store
from meetara_build.errors import ContextError

FIELDS = {
    "resource_status": {"gpu_utilization", "memory_usage", "cost_tracking"},
    "quality_metrics": {"validation_scores", "data_quality", "model_performance"},
    "training_state": {"current_domain", "progress_metrics", "optimization_suggestions"},
    "knowledge_base": {"successful_patterns", "optimization_strategies", "error_solutions"},
}


@pytest.mark.parametrize("name", SECTIONS)
def test_a_section_has_all_its_fields_also_when_nothing_is_known(store: Store, name: str) -> None:
    assert set(section(store, name)) == set(section(store, name, "nutrition")) == FIELDS[name]


def test_a_section_that_is_none_is_refused() -> None:
    with pytest.raises(
        ContextError, match="unknown section 'gossip'; there are resource_status, quality_metrics"
    ):
        section(None, "gossip")  # type: ignore[arg-type]


def test_resources_show_the_newest_sample_of_each_job_and_machine(store: Store) -> None:
    now = time.time()
    gpus = [{"gpu": 0, "percent": 91.0, "memory_mb": 700.0, "total_mb": 24000.0}]
    store.deliver(
        [
            sample(time=now - 2, memory_mb=100.0),
            sample(time=now - 1, memory_mb=200.0),
            sample(domain="legal", time=now - 3, machine="there", gpus=gpus),
            run(peak_mb=900.0),
            run(domain="legal", peak_mb=950.0),
        ]
    )
    found = section(store, "resource_status")
    assert [(job["domain"], job["memory_mb"]) for job in found["memory_usage"]["jobs"]] == [
        ("legal", 800.0),
        ("nutrition", 200.0),
    ]
    assert {machine["machine"] for machine in found["memory_usage"]["machines"]} == {
        "here",
        "there",
    }
    assert found["memory_usage"]["peak_mb_by_stage"] == {"adapter": 950.0}
    assert [(gpu["machine"], gpu["gpus"]) for gpu in found["gpu_utilization"]] == [("there", gpus)]
    assert [
        job["domain"] for job in section(store, "resource_status", "legal")["memory_usage"]["jobs"]
    ] == ["legal"]


def test_costs_are_added_up_by_domain(store: Store) -> None:
    store.deliver([run(usd=0.5), run(usd=0.25, outcome="failed"), run(domain="legal", usd=1.0)])
    costs = section(store, "resource_status")["cost_tracking"]
    assert (costs["usd"], costs["runs"], costs["failed"], costs["seconds"]) == (1.75, 3, 1, 6.0)
    assert costs["by_domain"]["nutrition"]["usd"] == 0.75
    assert section(store, "resource_status", "legal")["cost_tracking"]["usd"] == 1.0


def test_quality_is_that_of_the_newest_result_of_each_domain(store: Store) -> None:
    store.deliver(
        [
            trained(3.0),
            trained(2.5),
            run(stage="dataset", metrics={"kept": 40, "bad": 1}),
            run(stage="evaluate", metrics={"improvement": 0.05}),
            run(outcome="failed", metrics={}),
            report("metrics", domain="nutrition", sender="judge", values={"helpful": 0.8}),
        ]
    )
    found = section(store, "quality_metrics")
    assert found["validation_scores"]["nutrition"]["validation_loss_after"] == 2.5
    assert found["data_quality"]["nutrition"]["bad"] == 1
    assert found["model_performance"]["evaluated"]["nutrition"]["improvement"] == 0.05
    assert found["model_performance"]["reported"][0]["values"] == {"helpful": 0.8}
    assert section(store, "quality_metrics", "legal")["validation_scores"] == {}


def test_a_job_is_at_work_from_its_first_sample_until_its_run_has_ended(store: Store) -> None:
    store.deliver([sample(), sample(domain="legal", time=time.time() - 60)])
    (job,) = section(store, "training_state")["current_domain"]
    assert (job["domain"], job["stage"]) == ("nutrition", "adapter")
    store.deliver([run()])
    assert section(store, "training_state")["current_domain"] == []


def test_progress_says_how_long_it_will_take(store: Store) -> None:
    store.deliver([progress(step=10, steps=40, seconds=5.0)])
    (found,) = section(store, "training_state")["progress_metrics"]
    assert (found["step"], found["loss"], found["seconds_left"]) == (10, 3.5, 15.0)


def test_suggestions_show_how_they_were_answered(store: Store) -> None:
    asked = proposal()
    store.deliver([asked, proposal(domain="legal")])
    for sender, answer in (("judge", "noted"), ("person", "rejected"), ("judge", "accepted")):
        store.deliver(
            [report("reply", message=asked["id"], sender=sender, answer=answer, reason="so")]
        )
    (found,) = section(store, "training_state", "nutrition")["optimization_suggestions"]
    assert (found["body"]["key"], found["body"]["value"], found["sender"]) == (
        "training.epochs",
        4,
        "tuner",
    )
    assert {sender: said["answer"] for sender, said in found["answers"].items()} == {
        "judge": "accepted",
        "person": "rejected",
    }


def test_messages_are_read_on_from_a_number(store: Store) -> None:
    first = [
        proposal(),
        report("message", about="breakthrough", sender="qa", domain="legal", body={"loss": 1.0}),
    ]
    store.deliver(first)
    with store.reading() as connection:
        found = messages(connection)
        assert [row["id"] for row in found] == [one["id"] for one in first]
        assert [row["about"] for row in messages(connection, about="breakthrough")] == [
            "breakthrough"
        ]
        assert messages(connection, after=found[-1]["number"]) == []
    store.deliver([report("message", about="note", sender="qa", body={"text": "hello"})])
    with store.reading() as connection:
        assert [row["body"]["text"] for row in messages(connection, after=found[-1]["number"])] == [
            "hello"
        ]


def test_what_a_message_holds_says_nothing_of_who_sent_it_and_what_it_is(store: Store) -> None:
    forged = {
        "id": "another",
        "sender": "person",
        "about": "proposal",
        "domain": "legal",
        "answers": {"desk": "accepted"},
    }
    store.deliver(
        [report("message", about="note", sender="stranger", domain="nutrition", body=forged)]
    )
    with store.reading() as connection:
        (found,) = messages(connection)
    assert (found["sender"], found["about"], found["domain"], found["answers"]) == (
        "stranger",
        "note",
        "nutrition",
        {},
    )
    assert found["body"] == forged


def test_history_is_read_newest_first_and_by_what_is_asked(store: Store) -> None:
    now = time.time()
    store.deliver(
        [
            run(time=now - age, stage=stage)
            for age, stage in ((1, "gguf"), (2, "adapter"), (3, "gguf"))
        ]
    )
    store.deliver([run(domain="legal", outcome="failed", error="no", time=now - 4)])

    def stages(**asked: Any) -> list[str]:
        return [row["stage"] for row in read_runs(store, **asked)]

    assert stages() == ["gguf", "adapter", "gguf", "adapter"]
    assert stages(domain="nutrition", limit=1) == ["gguf"]
    assert stages(stage="gguf") == ["gguf", "gguf"]
    assert stages(outcome="failed") == ["adapter"]
    assert stages(before=now - 2.5) == ["gguf", "adapter"]
    assert stages(build="none") == []


def test_agents_look_back_on_runs_with_their_recipes_and_messages_with_all_answers_oldest_first(
    store: Store,
) -> None:
    now, asked = time.time(), proposal()
    store.deliver([run(time=now - age, recipe={"seed": age}) for age in (1, 3, 2)])
    store.deliver([asked, report("message", about="note", sender="qa", body={"text": "hello"})])
    for moment, answer in ((2.0, "accepted"), (3.0, "rejected")):
        store.deliver(
            [
                report(
                    "reply",
                    message=asked["id"],
                    sender="person",
                    answer=answer,
                    reason="so",
                    time=moment,
                )
            ]
        )
    found = history(store, 2)
    assert [row["recipe"]["seed"] for row in found["runs"]] == [2, 1]
    first, second = found["messages"]
    assert (first["id"], first["body"]["key"], second["about"]) == (
        asked["id"],
        "training.epochs",
        "note",
    )
    assert [(one["answer"], one["time"]) for one in first["answers"]] == [
        ("accepted", 2.0),
        ("rejected", 3.0),
    ]
