"""A real training of a real project with agents that watch it: what they ask for happens, and none
of them can end it."""

import json
from pathlib import Path
from typing import Any

import pytest
from projects import override

from meetara_build.context.outbox import parcels
from meetara_build.engine.stage_run import run
from meetara_build.graph import load
from meetara_build.hosting import observers
from meetara_build.store.manifest import digest_file, read_manifest

OBSERVE = (
    "from meetara_build.agents import Action, hookimpl\n@hookimpl\ndef observe(progress):\n    "
)
SLOWER = f"{OBSERVE}return Action.LOWER_LEARNING_RATE if progress.step == 3 else None"


def watch(project: Path, **sources: str) -> None:
    """Have these agents watch the training of nutrition."""
    for name, source in sources.items():
        (project / "plugins" / f"{name}.py").write_text(source)
    override(project, "nutrition", {"training.observers": list(sources)})


def train(project: Path) -> tuple[dict[str, Any], str]:
    """Run the training; its report, and the digest of the weights."""
    graph = load(project)
    run(graph, graph.step("adapter", "nutrition"), cold=True, debug=True)
    folder = project / "artifacts" / "nutrition" / "adapter"
    return json.loads((folder / "training.json").read_text()), digest_file(
        folder / "adapter_model.safetensors"
    )


def test_what_an_agent_asks_for_happens_and_is_part_of_the_result(project: Path) -> None:
    watch(project, watcher=SLOWER)
    report, first = train(project)
    assert report["actions"] == [[3, "lower_learning_rate"]]
    manifest = read_manifest(project / "artifacts" / "nutrition" / "adapter" / "manifest.json")
    assert manifest.metrics["actions"] == 1
    assert "records.jsonl" in manifest.files
    assert "observer/watcher" in manifest.made_from["sources"]
    watch(project, watcher=f"{OBSERVE}return None")
    left_alone, second = train(project)
    assert left_alone["actions"] == []
    assert report["curve"][2] == left_alone["curve"][2]
    assert report["curve"][3][3] == left_alone["curve"][3][3] / 2
    assert second != first, "another agent is another training"


def test_agents_at_fault_are_reported_and_change_nothing(
    project: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    watch(project, watcher=SLOWER)
    _, expected = train(project)
    monkeypatch.setattr(observers.Observers.__init__, "__defaults__", (1.0,))
    watch(
        project,
        watcher=SLOWER,
        gone=f"{OBSERVE}raise SystemExit",
        nonsense=f"{OBSERVE}return 7",
        stuck=f"{OBSERVE}import time; time.sleep(99)",
    )
    capfd.readouterr()
    _, got = train(project)
    assert got == expected
    said = capfd.readouterr().err
    assert "nutrition/adapter: observer 'stuck' gave no answer within 1 s and was stopped" in said
    assert said.count("; training goes on without it") == 3
    notes = [report for parcel in parcels(project / "artifacts") for report in parcel.reports]
    notes = [report for report in notes if report["kind"] == "message"]
    assert sorted(report["sender"] for report in notes) == ["gone", "nonsense", "stuck"]
    assert {(report["about"], report["domain"], report["body"]["stage"]) for report in notes} == {
        ("note", "nutrition", "adapter")
    }
