"""run: rounds of advice and builds, which end when nothing promises more than it costs, and never
end worse."""

import json
from pathlib import Path
from typing import Any

import pytest
from projects import edit, override

from meetara_build.agents import Context, Proposal
from meetara_build.cli.run import find_worthwhile
from meetara_build.config.overlay import read_overlay
from meetara_build.rounds.asking import Advice
from meetara_build.rounds.ranking import WINS, Verdict

HEAD = """
from meetara_build.agents import Proposal, hookimpl

@hookimpl
def propose(context):
    domain = context.domains["nutrition"]
    """


@pytest.fixture
def own(project: Path) -> Path:
    """A built project whose one agent, written by the test, may do what it likes."""
    for path in (project / "plugins").glob("*.py"):
        path.unlink()
    edit(project / "conf" / "build.yaml", "agents.policy", {"default": "accept"})
    edit(project / "conf" / "build.yaml", "agents.minutes_a_percent", 100)
    return project


def agent(project: Path, body: str) -> None:
    (project / "plugins").mkdir(exist_ok=True)
    (project / "plugins" / "mine.py").write_text(HEAD + body)


def ran(command: Any, project: Path, *words: str) -> dict[str, Any]:
    done = command(project, "run", "nutrition", "--json", *words)
    assert done.returncode == 0, done.stderr
    said: dict[str, Any] = json.loads(done.stdout)
    return said


def test_what_helps_is_kept(own: Path, command: Any) -> None:
    agent(own, "yield Proposal('nutrition', 'training.epochs', 3, 'longer', (), 0.02, 0.9)")
    said = ran(command, own, "--rounds", "3")
    assert [len(one["taken"]) for one in said["rounds"]] == [
        1
    ]  # then it is so already, and nothing is left to do
    assert said["rounds"][0]["withdrawn"] == []
    assert [one.key for one in read_overlay(own / "conf", "nutrition")] == ["training.epochs"]
    [record] = json.loads(command(own, "agents", "--json").stdout)["agents"].values()
    assert (record["measured"], record["helped"]) == (1, 1)
    assert record["actual_gain"] > 0
    assert command(own, "plan", "nutrition", "--detailed-exitcode").returncode == 0


def test_what_makes_it_worse_is_taken_back_and_not_tried_again(own: Path, command: Any) -> None:
    agent(
        own,
        "yield Proposal('nutrition', 'training.learning_rate', 0.0005, 'slower', (), 0.02, 0.9)",
    )
    said = ran(command, own, "--rounds", "2")
    assert [len(one["withdrawn"]) for one in said["rounds"]] == [1]
    assert read_overlay(own / "conf", "nutrition") == []
    assert "the loss rose by" in command(own, "propose", "nutrition").stdout
    assert command(own, "plan", "nutrition", "--detailed-exitcode").returncode == 0


def test_a_failure_is_what_the_agents_are_asked_about_next(own: Path, command: Any) -> None:
    edit(own / "conf" / "build.yaml", "training.clip_norm", 1.0)
    override(own, "nutrition", {"lora.targets": ["no_such_layer"]})
    body = (
        "failed = [run for run in context.runs_of('nutrition', 'adapter', None) if run.outcome == 'failed']\n"
        "    if failed and 'lora.targets' in failed[-1].error:\n"
        "        yield Proposal('nutrition', 'lora.targets', 'all-linear', 'no layer of that name')"
    )
    agent(own, body)
    said = ran(command, own, "--rounds", "2")
    assert len(said["rounds"][0]["taken"]) == 1
    [record] = json.loads(command(own, "agents", "--json").stdout)["agents"].values()
    assert (record["measured"], record["helped"]) == (1, 1)


def test_a_failure_that_no_agent_mends_is_the_end(own: Path, command: Any) -> None:
    override(own, "nutrition", {"lora.targets": ["no_such_layer"]})
    agent(own, "return []")
    done = command(own, "run", "nutrition", "--rounds", "2")
    assert done.returncode == 1
    assert "lora.targets" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_model_that_is_held_back_is_what_the_agents_are_asked_about_next(
    own: Path, command: Any
) -> None:
    """It is no failed job, and nothing of it is worked out again, but what came of it is not good
    enough."""
    override(own, "nutrition", {"evaluation.max_loss": 1.5})
    body = (
        "failed = [run for run in context.runs_of('nutrition', 'package', None) if run.outcome == 'failed']\n"
        "    if failed and failed[-1].code == 'gate-loss' and 'evaluation.max_loss' in failed[-1].error:\n"
        "        yield Proposal('nutrition', 'evaluation.max_loss', 11.0, 'too much asked')"
    )
    agent(own, body)
    said = ran(command, own, "--rounds", "2")
    assert len(said["rounds"][0]["taken"]) == 1
    assert (own / "artifacts" / "nutrition" / "package" / "Modelfile").exists()


def test_a_model_that_stays_held_back_is_the_end(own: Path, command: Any) -> None:
    override(own, "nutrition", {"evaluation.max_loss": 0.5})
    agent(own, "return []")
    done = command(own, "run", "nutrition", "--rounds", "2")
    assert done.returncode == 1
    assert "1 domain up to date: 1 stage run" in done.stdout
    assert "(evaluation.max_loss)" in done.stderr
    assert done.stderr.rstrip().endswith("[build-held-back]")


def test_a_promise_smaller_than_its_cost_is_not_taken(own: Path, command: Any) -> None:
    edit(own / "conf" / "build.yaml", "agents.minutes_a_percent", 0)
    agent(own, "yield Proposal('nutrition', 'training.epochs', 3, 'longer', (), 0.02, 0.9)")
    assert ran(command, own, "--rounds", "1")["rounds"] == []


def test_what_an_agent_proposes_for_a_domain_is_worth_its_cost_together() -> None:
    """Any of them alone promises less than its minute."""
    verdicts = [
        Verdict("id", name, Proposal("nutrition", key, 4, "?"), WINS, "", worth=0.06, minutes=1.0)
        for name, key in (
            ("longer", "training.epochs"),
            ("longer", "training.max_steps"),
            ("other", "lora.rank"),
        )
    ]
    advice = Advice(verdicts, [], {}, {}, {}, Context({}, policy={"minutes_a_percent": 10}))
    assert [one.agent for one in find_worthwhile(advice)] == ["longer", "longer"]


def test_no_round_begins_beyond_the_budget(own: Path, command: Any) -> None:
    agent(own, "yield Proposal('nutrition', 'training.epochs', 3, 'longer', (), 0.02, 0.9)")
    assert ran(command, own, "--rounds", "1", "--minutes", "0")["rounds"] == []
    assert read_overlay(own / "conf", "nutrition") == []


def test_what_has_to_be_asked_is_left_where_nobody_can_be_asked(own: Path, command: Any) -> None:
    edit(own / "conf" / "build.yaml", "agents.policy", {"default": "ask"})
    agent(own, "yield Proposal('nutrition', 'training.epochs', 3, 'longer', (), 0.02, 0.9)")
    assert ran(command, own, "--rounds", "1")["rounds"] == []
    assert len(json.loads(command(own, "plan", "--json").stdout)["proposals"]) == 1
