"""The context that agents see, from the configuration, the artifacts and the shared context."""

import contextlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from pydantic import ValidationError

from meetara_build.agents.snapshot import Context, Domain, Run, pick_values, read_run
from meetara_build.config.auto_precision import resolve_precision
from meetara_build.config.resolve import Configuration, Resolved
from meetara_build.context.delivery import Context as Shared
from meetara_build.context.delivery import Delivery
from meetara_build.context.reports import Proposal, describe_faults
from meetara_build.context.store import SECTIONS
from meetara_build.graph import Graph
from meetara_build.outside import parse_json
from meetara_build.rounds.track_record import outcomes, records
from meetara_build.store.content import Store

LOOK_BACK = 5000
"""Runs and messages that agents see, the newest."""
SIZES = {
    "hidden_size": "hidden_size",
    "intermediate_size": "intermediate_size",
    "layers": "num_hidden_layers",
    "heads": "num_attention_heads",
    "kv_heads": "num_key_value_heads",
    "vocab_size": "vocab_size",
}
"""Facts of a model, and what transformers' config.json calls them."""


class Past(NamedTuple):
    """What agents look back on, oldest first; ``passed_over`` says of whom a message cannot be
    read, and why."""

    runs: list[Run]
    messages: list[dict[str, object]]
    passed_over: dict[str, str]


def gather(
    graph: Graph,
    configuration: Configuration,
    shared: Shared,
    slots: int = 1,
    usd_per_hour: float = 0.0,
) -> Context:
    """Everything an agent may know of the domains of this build, as it is now; what waits to be
    delivered is taken in first.

    Raises:
        ConfigError: anything below conf/ is wrong.
        ContextError: the shared context cannot be read.
    """
    Delivery(graph.root, shared).once()
    past = look_back(shared)
    return Context(
        domains={
            name: _domain(graph, configuration, configuration.resolve(name))
            for name in graph.domains
        },
        runs=past.runs,
        sections={name: shared.section(name) for name in SECTIONS},
        messages=past.messages,
        passed_over=past.passed_over,
        records=records(past.messages, outcomes(past.messages, past.runs)),
        policy=configuration.build.agents.model_dump(),
        tuning=configuration.build.tuning.model_dump(exclude_defaults=True),
        slots=slots,
        usd_per_hour=usd_per_hour,
    )


def look_back(shared: Shared) -> Past:
    """The newest runs and messages. A proposal that is none, which anyone may have put there, is
    passed over.

    Raises:
        ContextError: the shared context cannot be read.
    """
    past = shared.history(LOOK_BACK)
    runs = [read_run(row) for row in past["runs"]]
    messages, passed_over = [], {}
    for message in past["messages"]:
        if fault := _fault_of(message):
            passed_over[message["sender"]] = (
                f"message {message['id']} is no proposal and is passed over ({fault})"
            )
        else:
            messages.append(message)
    return Past(runs, messages, passed_over)


def _fault_of(message: Mapping[str, object]) -> str | None:
    """What is wrong with a message that should be a proposal."""
    if message["about"] != "proposal":
        return None
    if message["domain"] is None:
        return "it names no domain"
    try:
        Proposal.model_validate(message["body"])
    except ValidationError as error:
        return describe_faults(error)
    return None


def _domain(graph: Graph, configuration: Configuration, item: Resolved) -> Domain:
    steps = {stage: step for (stage, target), step in graph.steps.items() if target == item.name}
    store = Store(graph.store, graph.root)
    content = {
        **item.build.model_dump(),
        "domain": {
            "quants": item.domain.quants,
            "sources": [one.model_dump() for one in item.domain.sources],
        },
        "base": item.base_name,
        "hardware": item.hardware_name,
    }
    bounds = [f"evaluation.max_kl.{quant}" for quant in item.build.evaluation.max_kl]
    return Domain(
        name=item.name,
        category=item.domain.category,
        description=item.domain.description,
        topics=item.domain.topics,
        languages=item.domain.languages,
        config=pick_values(dict.fromkeys([*configuration.keys(), *bounds]), content),
        model=_model(graph, item),
        machine={
            **item.hardware.model_dump(exclude={"description"}),
            "precision": resolve_precision(item.hardware.precision),
        },
        locked=[*configuration.build.locked, *item.domain.locked],
        decisions=_decisions(item),
        folder=graph.root / item.name,
        sources=[Path(path) for path in steps["dataset"].sources.values()],
        decided={
            stage: key
            for stage, step in steps.items()
            if (key := store.read_reference(step.reference))
        },
    )


def _decisions(item: Resolved) -> Sequence[Mapping[str, object]]:
    return [change._asdict() for change in item.changes if change.agent is not None]


def _model(graph: Graph, item: Resolved) -> dict[str, object]:
    """Facts of the base: from its own config.json where it has been made or loaded, else from
    conf/base/."""
    found = {}
    with contextlib.suppress(OSError, ValueError):
        folder = graph.root / graph.step("base", f"base/{item.base_name}").place.folder
        found = parse_json((folder / "config.json").read_bytes())
    shape = item.base.model.model_dump() if item.base.model else {}
    if item.base.tokenizer:
        shape["vocab_size"] = item.base.tokenizer.vocab_size
    sizes = {name: found.get(theirs, shape.get(name)) for name, theirs in SIZES.items()}
    return {"name": item.base_name, "parameters": item.base.parameters, **sizes}
