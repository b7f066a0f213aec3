"""knowledge_transfer: what helped one domain is proposed to those like it, as long as the evidence
speaks for it."""

import contextlib
from pathlib import Path
from typing import Any

import pytest
from contexts import adapter, context, domain, load, training
from projects import override

from meetara_build.agents import Context, Proposal
from meetara_build.config.resolve import Configuration
from meetara_build.context.places import open_context
from meetara_build.graph import WARM_START
from meetara_build.graph import load as load_graph
from meetara_build.rounds.gathering import gather

agent = load("knowledge_transfer")

FOOD, CODE = (
    "bread butter vegetables fruit protein vitamins meals",
    "python function compiler loop variable debugger",
)
WARM = "training.warm_start"


@pytest.fixture
def kitchen(tmp_path: Path) -> Any:
    """A context of two domains about food and one about code; fields of each by name."""

    def make(runs: Any = (), messages: Any = (), **fields: dict[str, Any]) -> Context:
        words = {"nutrition": f"{FOOD} diet", "cooking": f"{FOOD} oven", "coding": CODE}
        several = [
            domain(tmp_path, name, text, **fields.get(name, {})) for name, text in words.items()
        ]
        return context(*several, runs=list(runs), messages=list(messages))

    return make


def of(found: list[Proposal], key: str) -> dict[str, Proposal]:
    return {one.domain: one for one in found if one.key == key}


def better(domain: str, before: float, after: float, **config: Any) -> list[Any]:
    """A domain's training as it comes, and one with other values."""
    return [
        training(domain, before),
        training(domain, after, {key.replace("__", "."): one for key, one in config.items()}),
    ]


# Warm starts


def test_a_new_domain_begins_from_the_most_similar_adapter_pinned_by_its_digest(
    kitchen: Any, tmp_path: Path
) -> None:
    pinned = adapter(tmp_path, "nutrition", "b" * 64)
    adapter(tmp_path, "coding", "c" * 64)
    run = training("nutrition", 5.0)
    found = agent.propose(kitchen([run], nutrition={"decided": {"adapter": run.key}}))
    proposal = of(found, WARM)["cooking"]
    assert proposal.value == pinned
    assert f"run {run.id}: validation loss 5.000" in proposal.evidence
    assert "begin from nutrition" in proposal.reason
    assert "coding" not in of(found, WARM)


@pytest.mark.parametrize(
    "change", [{"lora.rank": 8}, {"lora.targets": ["q_proj"]}, {"base": "large"}, {"lora.alpha": 8}]
)
def test_only_from_an_adapter_of_the_same_base_and_shape(
    kitchen: Any, tmp_path: Path, change: dict[str, Any]
) -> None:
    adapter(tmp_path, "nutrition")
    assert of(agent.propose(kitchen()), WARM)
    assert not of(agent.propose(kitchen(cooking={"config": change})), WARM)


def test_nobody_begins_over_others_from_itself(kitchen: Any, tmp_path: Path) -> None:
    for name in ("nutrition", "cooking"):
        adapter(tmp_path, name)
    assert len(of(agent.propose(kitchen()), WARM)) == 1
    taken = {"nutrition": {"config": {WARM: "cooking@" + "a" * 64}}}
    assert not of(agent.propose(kitchen(**taken)), WARM)


def test_a_domain_that_begins_from_another_keeps_its_shape(kitchen: Any, tmp_path: Path) -> None:
    adapter(tmp_path, "nutrition")
    runs = better("nutrition", 5.0, 4.0, lora__rank=8)
    assert "cooking" in of(agent.propose(kitchen(runs)), WARM)
    assert "cooking" not in of(agent.propose(kitchen(runs)), "lora.rank")


def test_the_find_similarity_which_warm_starts_are_tried_is_learnt(tmp_path: Path) -> None:
    """Those from near domains helped, those from far ones did not; then, none did."""

    def make(near: float, far: float) -> Context:
        domains = [domain(tmp_path, "teacher", FOOD), domain(tmp_path, "stranger", CODE)]
        runs = []
        for number in range(6):
            name, digest = f"pupil_{number}", ("a" if number < 3 else "b") * 64
            from_ = "teacher" if number < 3 else "stranger"
            text = (
                f"{FOOD} {'salad ' * number}"
                if number < 3
                else f"{FOOD} guitar piano compiler {'drum ' * number}"
            )
            domains.append(domain(tmp_path, name, text, {WARM: f"{from_}@{digest}"}))
            runs += [
                training(name, 5.0),
                training(name, near if number < 3 else far, {WARM: f"{from_}@{digest}"}),
            ]
        return context(*domains, runs=runs)

    learnt = agent.Knowledge(make(4.5, 5.5))
    threshold = agent.find_similarity(learnt)
    assert learnt.alike["pupil_3"]["stranger"] < threshold <= learnt.alike["pupil_0"]["teacher"]
    assert agent.find_similarity(agent.Knowledge(make(5.5, 5.5))) > 1
    assert any(
        "Warm starts: helped in 3 of 6 domains" in line for line in agent.insights(make(4.5, 5.5))
    )


def test_one_that_was_tried_is_not_tried_again(kitchen: Any, tmp_path: Path) -> None:
    adapter(tmp_path, "nutrition")
    runs = [training("cooking", 5.0), training("cooking", 5.2, {WARM: "nutrition@" + "a" * 64})]
    assert "cooking" not in of(agent.propose(kitchen(runs)), WARM)


# Settings


def test_the_settings_of_a_similar_domain_s_best_run_with_its_runs_as_evidence(
    kitchen: Any,
) -> None:
    runs = better("nutrition", 5.0, 4.0, training__learning_rate=4e-4)
    found = of(agent.propose(kitchen(runs)), "training.learning_rate")
    assert set(found) == {"cooking"}
    proposal = found["cooking"]
    assert (proposal.value, proposal.expected_gain) == (4e-4, pytest.approx(0.2))
    assert proposal.evidence[1:] == [
        f"run {runs[0].id}: validation loss 5.000",
        f"run {runs[1].id}: validation loss 4.000",
    ]
    assert "helped in 1 of 1 domain" in proposal.reason
    assert 0.5 < proposal.confidence < 1


def test_what_helped_together_shares_the_gain(kitchen: Any) -> None:
    runs = better("nutrition", 5.0, 4.0, training__learning_rate=4e-4, training__batch_tokens=2048)
    found = [one for one in agent.propose(kitchen(runs)) if one.domain == "cooking"]
    assert {one.key: one.expected_gain for one in found} == {
        "training.learning_rate": pytest.approx(0.1),
        "training.batch_tokens": pytest.approx(0.1),
    }


def test_not_what_made_things_worse_nor_what_came_from_other_data_nor_what_a_person_locked(
    kitchen: Any,
) -> None:
    key = "training.learning_rate"
    assert not of(
        agent.propose(kitchen(better("nutrition", 5.0, 5.5, training__learning_rate=4e-4))), key
    )
    first, second = better("nutrition", 5.0, 4.0, training__learning_rate=4e-4)
    other = type(second)(
        **{**second.__dict__, "inputs": {"base": "base-digest", "dataset": "another"}}
    )
    assert not of(agent.propose(kitchen([first, other])), key)
    assert of(agent.propose(kitchen([first, second])), key)
    assert not of(agent.propose(kitchen([first, second], cooking={"locked": ["training"]})), key)


def test_what_agents_have_decided_already_is_left_to_them(kitchen: Any) -> None:
    runs = better("nutrition", 5.0, 4.0, training__learning_rate=4e-4)
    decided = {"decisions": [{"key": "lora.rank", "value": 8}]}
    assert not of(agent.propose(kitchen(runs, cooking=decided)), "training.learning_rate")


def test_a_change_is_forgotten_once_it_has_failed_in_most_domains_that_tried_it(
    tmp_path: Path,
) -> None:
    def make(*gains: float) -> Context:
        domains = [
            domain(tmp_path, f"food_{number}", f"{FOOD} {'x' * number}")
            for number in range(len(gains) + 1)
        ]
        domains += [
            domain(tmp_path, f"code_{number}", f"{CODE} {'y' * number}") for number in range(3)
        ]
        runs = [
            run
            for number, gain in enumerate(gains)
            for run in better(f"food_{number}", 5.0, 5.0 - gain, training__batch_tokens=2048)
        ]
        return context(*domains, runs=runs)

    fresh = make(0.1, 0.1, 0.1, 0.1, -0.1)
    assert (
        "helped in 4 of 5 domains"
        in of(agent.propose(fresh), "training.batch_tokens")["food_5"].reason
    )
    assert "training.batch_tokens 1024 → 2048: helped in 4 of 5 domains: kept" in list(
        agent.insights(fresh)
    )
    worn = make(0.1, 0.1, 0.1, -0.1, -0.1)
    assert not of(agent.propose(worn), "training.batch_tokens")
    assert "training.batch_tokens 1024 → 2048: helped in 3 of 5 domains: forgotten" in list(
        agent.insights(worn)
    )


def test_what_the_knowledge_base_remembers_of_runs_that_are_gone_counts(kitchen: Any) -> None:
    runs = better("nutrition", 5.0, 4.0, training__batch_tokens=2048)
    seen = kitchen(runs)
    idea = agent.Idea("cooking", "training.batch_tokens", 1024, 2048)
    strategies = [
        {
            "change": "training.batch_tokens: 1024 → 2048",
            "helped": 2,
            "tried": 8,
            "mean_gain": -0.01,
        }
    ]
    sections = {"knowledge_base": {"optimization_strategies": strategies}}
    worn = context(*seen.domains.values(), runs=runs, sections=sections)
    assert agent.Knowledge(worn).chance(idea) == pytest.approx(0.3)
    assert of(agent.propose(seen), "training.batch_tokens")
    assert not of(agent.propose(worn), "training.batch_tokens")


# Breakthroughs


def test_a_breakthrough_is_offered_to_similar_domains(kitchen: Any) -> None:
    body = {
        "domain": "nutrition",
        "changes": {"training.weight_decay": 0.1},
        "gain": 0.2,
        "runs": ["r1", "r2"],
    }
    told = {
        "id": "m1",
        "about": "breakthrough",
        "sender": "core",
        "domain": "nutrition",
        "body": body,
        "answers": [],
    }
    found = of(agent.propose(kitchen(messages=[told])), "training.weight_decay")
    assert "cooking" in found and "nutrition" not in found
    assert (found["cooking"].value, found["cooking"].expected_gain) == (0.1, pytest.approx(0.1))
    assert "run r2" in found["cooking"].evidence
    locked = {"locked": ["training.weight_decay"]}
    assert "cooking" not in of(
        agent.propose(kitchen(messages=[told], cooking=locked)), "training.weight_decay"
    )


# Bases


def test_another_base_where_similar_domains_did_better_on_the_same_text(tmp_path: Path) -> None:
    domains = [domain(tmp_path, f"food_{number}", f"{FOOD} {'x' * number}") for number in range(4)]
    runs = []
    for number in range(3):
        name, here = f"food_{number}", {"dataset": f"food_{number}-digest"}
        first = training(name, 4.0, metrics={"completion_tokens": 3000})
        second = training(
            name, 6.0, metrics={"completion_tokens": 1500}, inputs={"base": "other", **here}
        )
        for run, base in ((first, "mini"), (second, "large")):
            runs += [run, type(run)(**{**run.__dict__, "stage": "gguf", "recipe": {"base": base}})]
    found = of(agent.propose(context(*domains, runs=runs)), "base")
    assert found["food_3"].value == "large"
    assert found["food_3"].expected_gain == pytest.approx(0.25)
    assert not of(agent.propose(context(*domains, runs=runs[:4])), "base")


# Chances


def test_the_chance_is_learnt_from_what_was_tried(tmp_path: Path) -> None:
    """From near domains warm starts help here, from far ones they do not."""
    domains, runs = [domain(tmp_path, "teacher", FOOD), domain(tmp_path, "stranger", CODE)], []
    for number in range(30):
        from_, digest = ("teacher", "a" * 64) if number % 2 else ("stranger", "b" * 64)
        name = f"pupil_{number}"
        domains.append(
            domain(tmp_path, name, f"{FOOD} {'x' * number}", {WARM: f"{from_}@{digest}"})
        )
        runs += [
            training(name, 5.0),
            training(name, 4.5 if number % 2 else 5.2, {WARM: f"{from_}@{digest}"}),
        ]
    domains.append(domain(tmp_path, "new", f"{FOOD} fresh"))
    domains += [domain(tmp_path, f"music_{number}", "guitar piano") for number in range(5)]
    knowledge = agent.Knowledge(context(*domains, runs=runs))
    near, far = (knowledge.chance(agent.Idea("new", WARM, None, digest * 64)) for digest in "ab")
    assert near > 0.7 > 0.3 > far


def test_with_little_evidence_the_chance_is_near_a_half(kitchen: Any) -> None:
    nothing = agent.Knowledge(kitchen())
    assert nothing.chance(agent.Idea("cooking", "training.batch_tokens", 1024, 2048)) == 0.5
    once = agent.Knowledge(kitchen(better("nutrition", 5.0, 4.0, training__batch_tokens=2048)))
    assert once.chance(agent.Idea("cooking", "training.batch_tokens", 1024, 2048)) == pytest.approx(
        2 / 3
    )


def test_domains_that_the_same_changes_helped_are_more_alike(kitchen: Any) -> None:
    keys = ["training__batch_tokens", "training__weight_decay", "lora__rank", "lora__dropout"]
    values = [6, 0.1, 8, 0.1]
    runs = [training(name, 5.0) for name in ("nutrition", "coding")]
    for key, value, after in zip(keys, values, (4.0, 5.5, 4.5, 5.2), strict=True):
        runs += [
            training(name, after, {key.replace("__", "."): value})
            for name in ("nutrition", "coding")
        ]
    before, after = agent.Knowledge(kitchen()).alike, agent.Knowledge(kitchen(runs)).alike
    assert after["nutrition"]["coding"] > before["nutrition"]["coding"]
    assert after["nutrition"]["cooking"] == before["nutrition"]["cooking"]


def test_the_same_context_gives_the_same_proposals(kitchen: Any, tmp_path: Path) -> None:
    adapter(tmp_path, "nutrition")
    runs = better("nutrition", 5.0, 4.0, training__learning_rate=4e-4)
    assert agent.propose(kitchen(runs)) == agent.propose(kitchen(runs)) != []


def test_an_empty_project_gets_no_proposal(kitchen: Any) -> None:
    assert agent.propose(kitchen()) == []
    assert list(agent.insights(kitchen())) == []


def test_in_a_built_project_what_it_pins_is_what_the_graph_takes(project: Path) -> None:
    graph = load_graph(project)
    with contextlib.closing(open_context(graph.root, graph.context)) as shared:
        seen = gather(graph, Configuration(project), shared)
    found = of(agent.propose(seen), WARM)
    assert 0 < len(found) < len(graph.domains)  # somebody has to begin
    for name, proposal in found.items():
        override(project, name, {WARM: proposal.value})
    begun = load_graph(project)
    for name, proposal in found.items():
        assert (
            begun.step("adapter", name)
            .sources[WARM_START]
            .endswith(proposal.value.partition("@")[2])
        )
        assert seen.current(name, "adapter") is not None
        assert any(one.startswith("run ") for one in proposal.evidence)
