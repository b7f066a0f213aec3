"""A round of advice on a real project: what agents say is checked, weighed and kept, and none can
spoil it for the rest."""

import hashlib
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from projects import edit, small_project

from meetara_build.agents.proposal import Proposal
from meetara_build.config.resolve import Configuration
from meetara_build.context.local import Local
from meetara_build.context.places import open_context
from meetara_build.context.tables import message
from meetara_build.errors import ConfigError
from meetara_build.graph import load
from meetara_build.rounds.asking import Advice, announce, ask, decision, proposal_id
from meetara_build.rounds.gathering import gather

AGENT = """
from meetara_build.agents import Proposal, hookimpl

@hookimpl
def propose(context):
    {body}
"""


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    project = small_project(
        tmp_path_factory.mktemp("asking") / "project", ["nutrition", "programming"]
    )
    shutil.rmtree(project / "plugins", ignore_errors=True)
    edit(project / "conf" / "build.yaml", "agents.seconds", 10)
    load(project)
    return project


@pytest.fixture
def own(template: Path, tmp_path: Path) -> Path:
    """A project of the test's own, with nothing built and no agents."""
    return Path(shutil.copytree(template, tmp_path / "project"))


def agent(project: Path, name: str, body: str) -> None:
    path = project / "plugins" / f"{name}.py"
    path.parent.mkdir(exist_ok=True)
    path.write_text(AGENT.format(body=body))


def asked(project: Path, *domains: str, messages: list[dict[str, Any]] | None = None) -> Advice:
    graph, configuration = load(project), Configuration(project)
    shared = open_context(graph.root, graph.context)
    shared.deliver(messages or [])
    try:
        advice = ask(
            project, graph.root, configuration, gather(graph, configuration, shared), domains
        )
        announce(shared, advice)
        return advice
    finally:
        shared.close()


@pytest.fixture
def one_good(own: Path) -> Path:
    agent(
        own,
        "good",
        "yield Proposal('nutrition', 'training.epochs', 4, 'it helps', ['run 1'], 0.02, 0.8)",
    )
    return own


def statuses(advice: Advice) -> dict[tuple[str, str], str]:
    return {(one.agent, one.proposal.key): one.status for one in advice.verdicts}


def test_without_agents_nothing_is_proposed(own: Path) -> None:
    advice = asked(own)
    assert (advice.verdicts, advice.faults, advice.withdrawals) == ([], {}, [])


def test_a_proposal_comes_through_with_what_it_would_change(one_good: Path) -> None:
    [one] = asked(one_good).verdicts
    assert (one.agent, one.status, one.now, one.proposal.value) == ("good", "wins", 2, 4)
    assert decision(one).model_dump(exclude_defaults=True) == {
        "key": "training.epochs",
        "value": 4,
        "agent": "good",
        "reason": "it helps",
        "evidence": ["run 1"],
        "expected_gain": 0.02,
        "confidence": 0.8,
    }


def test_the_same_context_gives_the_same_advice(one_good: Path) -> None:
    assert asked(one_good).verdicts == asked(one_good).verdicts


def test_only_the_domains_asked_for_are_looked_at(one_good: Path) -> None:
    assert asked(one_good, "programming").verdicts == []
    assert len(asked(one_good, "nutrition").verdicts) == 1


@pytest.mark.parametrize(
    ("body", "fault"),
    [
        ("raise RuntimeError('boom')", "boom"),
        ("while True: pass", "stopped"),
        ("import os; os._exit(3)", "ended"),
        ("return 'text'", "list"),
        ("return [1, 2]", "int"),
        ("return [Proposal('nutrition', 'training.epochs', float('nan'), 'x')]", ""),
        ("return [Proposal('nutrition', 'Not A Key', 1, 'x')]", "key"),
        ("return [Proposal('nutrition', 'training.epochs', 4, '')]", "reason"),
        ("return [Proposal('nutrition', 'training.epochs', 4, 'x', confidence=7)]", "confidence"),
        (
            "return [Proposal('nutrition', 'training.epochs', n, 'x') for n in range(10000)]",
            "more than",
        ),
    ],
)
def test_an_agent_at_fault_is_named_and_the_others_are_heard(
    one_good: Path, body: str, fault: str
) -> None:
    edit(one_good / "conf" / "build.yaml", "agents.seconds", 3)
    agent(one_good, "bad", body)
    advice = asked(one_good)
    assert statuses(advice) == {("good", "training.epochs"): "wins"}
    assert fault in advice.faults["bad"]
    assert "\n" not in advice.faults["bad"].strip()


@pytest.mark.parametrize(
    ("key", "value", "why"),
    [
        ("training.epochs", -3, "greater than 0"),
        ("training.epochs", "four", "integer"),
        ("training.epoch", 4, "did you mean 'training.epochs'"),
        ("training.joint", ["nutrition"], "is the domain itself"),
        ("training.joint", ["astrology"], "is no domain of this build"),
        ("training.observers", ["nobody"], "there is no agent 'nobody'"),
        ("training.warm_start", "programming@" + "0" * 64, "the store has no adapter"),
        ("domain.quants", ["Q4_KM"], "did you mean 'Q4_K_M'"),
        ("gguf.tensor_types", {"ffn(": "Q6_K"}, "no regular expression"),
        (
            "gguf.tensor_types",
            {"(a+)+$": "Q8_0"},
            "may take for ever to search for; repeat no group",
        ),
        ("gguf.tensor_types", {".*" * 200 + "x": "Q8_0"}, "repeat at most 4 times"),
        ("lora.targets", ["../x"], "should be 'all-linear' or names of modules"),
        ("lora.targets", [], "should be 'all-linear' or names of modules"),
        ("base", "tinny", "not among agents.may_change"),
        ("seed", 3, "not among agents.may_change"),
        ("data.drop", ["xyz"], "pattern"),
    ],
)
def test_what_the_configuration_would_refuse_is_refused_with_the_reason(
    own: Path, key: str, value: Any, why: str
) -> None:
    agent(
        own,
        "liar",
        f"yield Proposal('nutrition', {key!r}, {value!r}, 'trust me', expected_gain=0.4, confidence=1.0)",
    )
    [one] = asked(own).verdicts
    assert one.status == "refused"
    assert why in one.why


def test_locked_keys_stay(own: Path) -> None:
    edit(own / "conf" / "domain" / "nutrition.yaml", "locked", ["training"])
    agent(own, "liar", "yield Proposal('nutrition', 'training.epochs', 4, 'trust me')")
    [one] = asked(own).verdicts
    assert (one.status, one.why) == ("refused", "'training.epochs' is locked")


def test_of_two_for_the_same_key_one_wins_and_both_are_shown(one_good: Path) -> None:
    agent(
        one_good,
        "timid",
        "yield Proposal('nutrition', 'training.epochs', 3, 'perhaps', (), 0.02, 0.1)",
    )
    winner, other = asked(one_good).verdicts
    assert (winner.agent, other.agent, other.status) == ("good", "timid", "outvoted")


WARM = "yield Proposal({!r}, 'training.warm_start', '{}@{}', '?', [], {}, 0.8)"


@pytest.fixture
def pin(own: Path) -> str:
    """The digest of weights of rank 16 in the project's store."""
    header = json.dumps(
        {"a.lora_A.weight": {"dtype": "F32", "shape": [16, 1], "data_offsets": [0, 64]}}
    ).encode()
    weights = len(header).to_bytes(8, "little") + header + bytes(64)
    digest = hashlib.sha256(weights).hexdigest()
    blob = own / "artifacts" / "store" / "blobs" / digest[:2] / digest
    blob.parent.mkdir(parents=True)
    blob.write_bytes(weights)
    return digest


def test_a_rank_and_an_adapter_of_another_one_are_not_had_together(own: Path, pin: str) -> None:
    agent(own, "rank", "yield Proposal('nutrition', 'lora.rank', 8, '?', [], 0.03, 0.8)")
    agent(own, "warm", WARM.format("nutrition", "programming", pin, 0.02))
    verdicts = {one.agent: one for one in asked(own).verdicts}
    assert {name: one.status for name, one in verdicts.items()} == {"rank": "wins", "warm": "later"}
    assert "does not go with another that is worth more" in verdicts["warm"].why
    assert "that adapter of programming has rank 16, and lora.rank is 8" in verdicts["warm"].why


def test_warm_starts_in_a_circle_are_not_had_together(own: Path, pin: str) -> None:
    agent(own, "there", WARM.format("nutrition", "programming", pin, 0.02))
    agent(own, "back", WARM.format("programming", "nutrition", pin, 0.01))
    verdicts = {one.agent: one for one in asked(own).verdicts}
    assert {name: one.status for name, one in verdicts.items()} == {
        "there": "wins",
        "back": "later",
    }
    assert "circle" in verdicts["back"].why


def test_an_agent_that_policy_shuts_out_is_not_asked(one_good: Path) -> None:
    edit(one_good / "conf" / "build.yaml", "agents.policy.good", "never")
    assert asked(one_good).verdicts == []


def test_what_was_proposed_over_mcp_is_weighed_with_the_rest(own: Path) -> None:
    body = {
        "key": "training.epochs",
        "value": 3,
        "reason": "seen elsewhere",
        "expected_gain": 0.01,
        "confidence": 0.5,
    }
    [one] = asked(own, messages=[told(body=body)]).verdicts
    assert (one.id, one.agent, one.status) == ("m1", "desk", "wins")


def told(id: str = "m1", sender: str = "desk", **fields: Any) -> dict[str, Any]:
    """A proposal as others leave it in the shared context."""
    body = {"key": "training.epochs", "value": 3, "reason": "seen elsewhere"}
    return {
        "kind": "message",
        "id": id,
        "time": 1.0,
        "about": "proposal",
        "sender": sender,
        "domain": "nutrition",
        "body": body,
        **fields,
    }


def test_one_message_that_cannot_be_read_is_passed_over_and_named_and_the_others_count(
    one_good: Path,
) -> None:
    asked(one_good, messages=[told(), told("m2", "poisoner"), told("m3", "careless")])
    graph = load(one_good)
    shared = open_context(graph.root, graph.context)
    assert isinstance(shared, Local)
    with shared.store.writing() as connection:  # as nothing that is checked could leave them
        connection.execute(sa.update(message).where(message.c.id == "m2").values(domain=None))
        connection.execute(sa.update(message).where(message.c.id == "m3").values(body={}))
    shared.close()
    advice = asked(one_good)
    assert {one.agent for one in advice.verdicts} == {"good", "desk"}
    assert (
        advice.faults["poisoner"]
        == "message m2 is no proposal and is passed over (it names no domain)"
    )
    assert (
        "message m3 is no proposal and is passed over (key: Field required"
        in advice.faults["careless"]
    )


def test_a_file_that_cannot_name_an_agent_is_named_and_the_others_are_heard(one_good: Path) -> None:
    agent(one_good, "my agent", "yield Proposal('nutrition', 'training.epochs', 3, 'so')")
    advice = asked(one_good)
    assert statuses(advice) == {("good", "training.epochs"): "wins"}
    assert "plugins/my agent.py: an agent's name is of letters" in advice.faults["my agent"]


@pytest.mark.parametrize(
    ("proposal", "fault"),
    [
        ("Proposal('nutrition', 'domain.x', 'v' * 60_000, 'r' * 8_000)", "at most 64000 are taken"),
        ("Proposal('No\x1b[2JName', 'training.epochs', 3, 'so')", "holds the control character"),
        (
            "Proposal('nutrition', 'training.epochs', __import__('functools').reduce(lambda v, _: [v], range(400), 1), 'so')",
            "is nested too deep; at most 50",
        ),
    ],
)
def test_what_the_shared_context_would_not_take_is_its_agents_fault_alone(
    one_good: Path, proposal: str, fault: str
) -> None:
    agent(one_good, "bad", f"yield {proposal}")
    advice = asked(one_good)
    assert statuses(advice) == {("good", "training.epochs"): "wins"}
    assert fault in advice.faults["bad"]


def test_what_the_shared_context_refuses_of_one_agent_is_told_and_the_others_are_heard(
    one_good: Path,
) -> None:
    agent(one_good, "other", "yield Proposal('programming', 'training.epochs', 3, 'so')")
    graph = load(one_good)
    shared = open_context(graph.root, graph.context)
    advice = asked(one_good)
    names = {"good": "no name", "other": "other"}
    advice = replace(
        advice,
        verdicts=[
            replace(one, id=f"new-{one.agent}", agent=names[one.agent]) for one in advice.verdicts
        ],
    )
    faults = announce(shared, advice)
    heard = {
        message["sender"]
        for message in shared.history(100)["messages"]
        if message["id"].startswith("new-")
    }
    shared.close()
    assert heard == {"other"}
    assert "what it proposes is not taken: report 1 (message): sender: String" in faults["no name"]


def test_proposals_of_an_agent_that_is_gone_count_no_more_and_those_of_outsiders_do(
    one_good: Path,
) -> None:
    assert statuses(asked(one_good, messages=[told(domain="programming")])) == {
        ("good", "training.epochs"): "wins",
        ("desk", "training.epochs"): "wins",
    }
    (one_good / "plugins" / "good.py").unlink()
    assert {one.agent for one in asked(one_good).verdicts} == {"desk"}


def test_what_a_token_announced_for_an_agent_that_is_here_counts_once(one_good: Path) -> None:
    [first] = asked(one_good).verdicts
    graph = load(one_good)
    shared = open_context(graph.root, graph.context)
    assert isinstance(shared, Local)
    with shared.store.writing() as connection:
        connection.execute(sa.update(message).values(sender="laptop"))
    shared.close()
    assert [(one.agent, one.id) for one in asked(one_good).verdicts] == [("good", first.id)]


def test_a_plugin_and_an_external_agent_of_one_name_are_refused(one_good: Path) -> None:
    edit(one_good / "conf" / "build.yaml", "agents.external", {"good": {"command": ["true"]}})
    with pytest.raises(ConfigError, match="'good' is the name of a plugin too; rename it"):
        asked(one_good)


def test_a_proposal_has_the_same_id_whenever_it_is_made() -> None:
    one = Proposal("nutrition", "training.epochs", 4, "it helps")
    assert proposal_id("a", one) == proposal_id(
        "a", Proposal("nutrition", "training.epochs", 4, "other words")
    )
    assert proposal_id("a", one) != proposal_id("b", one)
    assert proposal_id("a", one) != proposal_id(
        "a", Proposal("nutrition", "training.epochs", 5, "it helps")
    )
