"""agents, propose, accept and reject: what a person sees of the agents, and what becomes of it."""

import json
from pathlib import Path
from typing import Any

import pytest
from projects import edit, override, read_yaml

from meetara_build.config.overlay import read_overlay
from meetara_build.store.manifest import digest_file

LONGER = """
from meetara_build.agents import Proposal, hookimpl

@hookimpl
def propose(context):
    for name, domain in context.domains.items():
        run = context.current(name, "adapter")
        if run and domain.config["training.epochs"] < 3:
            evidence = [f"run {run.id[:8]}: validation loss {run.metrics['validation_loss_after']:.3f}"]
            yield Proposal(name, "training.epochs", 3, "the last step was the best", evidence, 0.02, 0.8)
            yield Proposal(name, "seed", 3, "a lucky number")

@hookimpl
def insights(context):
    return [f"{len(context.runs)} runs so far"]
"""
"""The agent of the README, more or less."""


@pytest.fixture
def own(project: Path) -> Path:
    """A built project with one agent."""
    for path in (project / "plugins").glob("*.py"):
        path.unlink()
    (project / "plugins").mkdir(exist_ok=True)
    (project / "plugins" / "longer.py").write_text(LONGER)
    return project


def proposals(command: Any, project: Path) -> list[dict[str, Any]]:
    done = command(project, "plan", "--json")
    assert done.returncode == 0, done.stderr
    found: list[dict[str, Any]] = json.loads(done.stdout)["proposals"]
    return found


def test_what_agents_propose_is_in_the_plan_and_does_nothing_until_someone_takes_it(
    own: Path, command: Any
) -> None:
    assert proposals(command, own) == []
    done = command(own, "propose")
    assert done.returncode == 0, done.stderr
    assert "nutrition training.epochs: 2 → 3  (longer)" in done.stdout
    assert (
        "refused  nutrition seed: 3 (longer): 'seed' is not among agents.may_change" in done.stdout
    )
    assert "longer: 20 runs so far" in done.stdout or "runs so far" in done.stdout
    found = proposals(command, own)
    assert {(one["proposal"]["domain"], one["proposal"]["key"]) for one in found} == {
        (name, "training.epochs") for name in ("nutrition", "programming", "storytelling")
    }
    assert command(own, "plan", "--detailed-exitcode").returncode == 0

    wanted = next(one for one in found if one["proposal"]["domain"] == "nutrition")
    assert command(own, "accept", wanted["id"][:6]).returncode == 0
    [taken] = read_overlay(own / "conf", "nutrition")
    assert (taken.key, taken.value, taken.agent, taken.expected_gain) == (
        "training.epochs",
        3,
        "longer",
        0.02,
    )
    planned = command(own, "plan").stdout
    assert "conf/overlay/nutrition.yaml:3 training.epochs: 2 → 3" in planned
    assert "base 2 → overlay 3, by longer: the last step was the best" in planned
    assert len(proposals(command, own)) == 2

    other = next(one for one in found if one["proposal"]["domain"] == "programming")
    assert command(own, "reject", other["id"], "--reason", "long enough").returncode == 0
    again = command(own, "propose").stdout
    assert "programming training.epochs: 3 (longer): it was rejected before: long enough" in again
    assert [one["proposal"]["domain"] for one in proposals(command, own)] == ["storytelling"]

    agents = json.loads(command(own, "agents", "--json").stdout)["agents"]
    assert agents["longer"]["hooks"] == ["propose", "insights"]
    assert (
        agents["longer"]["proposed"],
        agents["longer"]["accepted"],
        agents["longer"]["rejected"],
    ) == (3, 1, 1)


def test_what_agents_see_is_told_where_it_is_asked_for_and_not_after_a_build(
    own: Path, command: Any
) -> None:
    (own / "plugins" / "broken.py").write_text("raise ValueError('not today')")
    override(own, "nutrition", {"training.epochs": 1})
    done = command(own, "build", "nutrition")
    assert done.returncode == 0, done.stderr
    assert "runs so far" not in done.stdout
    assert "broken" not in done.stdout
    asked = command(own, "propose").stdout
    assert "runs so far" in asked
    assert "broken: ValueError: not today" in asked


def test_a_build_ends_well_where_no_agent_can_be_asked(own: Path, command: Any) -> None:
    edit(own / "conf" / "build.yaml", "agents.external", {"longer": {"command": ["true"]}})
    override(own, "nutrition", {"training.epochs": 1})
    done = command(own, "build", "nutrition")
    assert done.returncode == 0, done.stderr
    asked = command(own, "propose")
    assert asked.returncode == 1
    assert "conf/build.yaml: agents.external: 'longer' is the name of a plugin too" in asked.stderr


def test_two_that_do_not_go_together_are_refused_before_either_is_written(
    own: Path, command: Any
) -> None:
    one = "yield Proposal({!r}, 'training.warm_start', '{}@{}', 'alike')"
    digest = digest_file(own / "artifacts" / "nutrition" / "adapter" / "adapter_model.safetensors")
    pairs = (("nutrition", "programming"), ("programming", "nutrition"))
    for number, (domain, other) in enumerate(pairs):
        agent = LONGER.partition("    for name")[0] + f"    {one.format(domain, other, digest)}\n"
        (own / "plugins" / f"agent{number}.py").write_text(agent)
    assert command(own, "propose").returncode == 0
    found = [
        one["id"]
        for one in proposals(command, own)
        if one["proposal"]["key"] == "training.warm_start"
    ]
    done = command(own, "accept", *found)
    assert done.returncode == 1
    assert "circle" in done.stderr
    assert not read_overlay(own / "conf", "nutrition") and not read_overlay(
        own / "conf", "programming"
    )


def test_what_policy_accepts_is_taken_at_once(own: Path, command: Any) -> None:
    edit(own / "conf" / "build.yaml", "agents.policy.longer", "accept")
    done = command(own, "propose", "nutrition", "--json")
    said = json.loads(done.stdout)
    assert [
        one["taken"] for one in said["proposals"] if one["proposal"]["key"] == "training.epochs"
    ] == [True]
    assert [one.key for one in read_overlay(own / "conf", "nutrition")] == ["training.epochs"]
    assert read_overlay(own / "conf", "programming") == []


def test_without_its_overlay_a_build_is_as_if_there_were_no_agents(own: Path, command: Any) -> None:
    command(own, "propose")
    command(own, "accept", "--all")
    assert command(own, "plan", "--detailed-exitcode").returncode == 2
    for path in (own / "conf" / "overlay").iterdir():
        path.unlink()
    assert command(own, "plan", "--detailed-exitcode").returncode == 0


@pytest.mark.parametrize("words", [["accept", "feed"], ["reject", "feed"], ["accept"]])
def test_an_unknown_id_is_named(own: Path, command: Any, words: list[str]) -> None:
    done = command(own, *words)
    assert done.returncode == 1
    assert "feed" in done.stderr or "--all" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_refused_proposal_cannot_be_taken(own: Path, command: Any) -> None:
    said = json.loads(command(own, "propose", "nutrition", "--json").stdout)
    refused = next(one for one in said["proposals"] if one["status"] == "refused")
    done = command(own, "accept", refused["id"])
    assert done.returncode == 1
    assert "cannot be taken: 'seed' is not among agents.may_change" in done.stderr


def test_a_broken_agent_is_named_and_no_command_fails(own: Path, command: Any) -> None:
    (own / "plugins" / "broken.py").write_text("def propose(context:\n")
    done = command(own, "propose")
    assert done.returncode == 0
    assert "broken: SyntaxError" in done.stdout
    assert "nutrition training.epochs: 2 → 3" in done.stdout
    assert "broken: SyntaxError" in command(own, "agents").stdout
    assert command(own, "plan").returncode == 0


def test_plan_says_when_an_agent_changed_since_it_was_asked(own: Path, command: Any) -> None:
    command(own, "propose")
    assert "changed since" not in command(own, "plan").stdout
    (own / "plugins" / "newer.py").write_text(LONGER)
    assert (
        "Changed since the agents were asked: newer; `meetara-build propose`"
        in command(own, "plan").stdout
    )


def test_a_wrong_policy_is_refused_with_the_line(own: Path, command: Any) -> None:
    edit(own / "conf" / "build.yaml", "agents.policy.default", "perhaps")
    done = command(own, "propose")
    assert done.returncode == 1
    assert "agents.policy.default: should be 'accept', 'ask' or 'never'" in done.stderr
    assert read_yaml(own / "conf" / "build.yaml")["agents"]["policy"]["default"] == "perhaps"
