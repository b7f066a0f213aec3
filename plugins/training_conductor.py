"""training_conductor: which domains are built first, what to change where a step failed, and what a
build showed.

- Priorities, by which the longest domains begin first where that makes a whole build shorter (see
  agents.schedule).
- Where the newest run of a step failed: a change that helps against that error, from a table by its
  code, and from what solved the same error before. The same recipe would only fail again.
- After a build: a summary. A training that was killed goes on from its checkpoint by itself, in the
  next build.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

from meetara_build.agents import Context, Domain, Proposal, Run, hookimpl
from meetara_build.toolbox import makespan
from meetara_build.toolbox.quant_types import LARGER

MODEL_OR_NONE = 0.5
"""What a remedy is taken to gain: a model where there was none."""
PRIORITY, RATE, EPOCHS = "priority", "training.learning_rate", "training.epochs"
MICRO, BATCH, OBSERVERS, QUANTS = (
    "training.micro_batch_tokens",
    "training.batch_tokens",
    "training.observers",
    "domain.quants",
)
LEAST_MICRO = 64
SHOWN = 160
"""Characters of an error's first line."""

Changes = dict[str, Any]


@hookimpl
def propose(context: Context) -> Iterator[Proposal]:
    """Remedies for what failed, then priorities."""
    for failure in failures(context):
        yield from _remedies(context, failure)
    yield from _priorities(context)


@hookimpl
def insights(context: Context) -> Iterator[str]:
    """What the last build did, and what came of it."""
    build = (
        [run for run in context.runs if run.build == context.runs[-1].build] if context.runs else []
    )
    if build:
        yield _summary(context, build)
        yield from _best_and_worst(build)
    for failure in failures(context):
        found = [f"{key}: {value}" for key, value in failure.changes.items()]
        advice = f"proposed: {', '.join(found)}" if found else failure.advice
        yield (
            f"{failure.domain.name}/{failure.run.stage} failed: {_show(failure.run.error)}; "
            f"{advice}"
        )
    for name, domain in sorted(context.domains.items()):
        if any((domain.folder.parent / ".work").glob(f"{name}-adapter-*/checkpoint/*")):
            yield (
                f"{name}: an unfinished training left a checkpoint; the next build goes on from "
                "there, unless its recipe changes"
            )


class Case(NamedTuple):
    """A failed run, how many different recipes in a row failed so, and the domain's last training
    and evaluation."""

    domain: Domain
    run: Run
    tries: int
    trained: Run | None
    evaluated: Run | None


class Remedy(NamedTuple):
    """What helps against errors of some codes (meetara_build/errors.py).

    ``advice`` is for people, where nothing that an agent may change helps.
    """

    codes: tuple[str, ...]
    name: str
    change: Callable[[Case], Changes]
    advice: str = "nothing left to change: look at its log"


class Failure(NamedTuple):
    """A step whose newest run failed, and what to change."""

    domain: Domain
    run: Run
    name: str
    changes: Changes
    advice: str


def _lower_rate(case: Case) -> Changes:
    """Half the rate; from the second time on a still lower one, a longer warm-up and a tighter
    bound on gradients too."""
    found: Changes = {RATE: case.domain.config[RATE] / 2 ** min(case.tries, 3)}
    if case.tries > 1:
        found["training.warmup_share"] = min(
            0.3, max(0.1, 2 * case.domain.config["training.warmup_share"])
        )
        found["training.clip_norm"] = case.domain.config["training.clip_norm"] / 2
    return found


def _less_memory(case: Case) -> Changes:
    """Half the micro-batch, and gpu_optimizer to halve it again where that is not enough."""
    micro = (case.domain.config[MICRO] or case.domain.config[BATCH]) // 2
    observers = sorted({*case.domain.config[OBSERVERS], "gpu_optimizer"})
    if case.run.stage != "adapter":
        return {}
    return {OBSERVERS: observers, **({MICRO: micro} if micro >= LEAST_MICRO else {})}


def _larger_quants(case: Case) -> Changes:
    """The next larger type for each that is too far from F16."""
    quants = [
        LARGER.get(quant, quant) if _is_too_far(case, quant) else quant
        for quant in case.domain.config[QUANTS]
    ]
    return {QUANTS: list(dict.fromkeys(quants))}


def _is_too_far(case: Case, quant: str) -> bool:
    bound = case.domain.config.get(f"evaluation.max_kl.{quant}")
    kl = case.evaluated.metrics.get("kl", {}).get(quant, 0.0) if case.evaluated else 0.0
    return bound is not None and (kl is None or not kl <= bound)


def _longer(case: Case) -> Changes:
    return {EPOCHS: 2 * case.domain.config[EPOCHS]}


def _better(case: Case) -> Changes:
    """More epochs, or a lower rate where training made things worse, or was best before its end."""
    if case.trained is None:
        return _longer(case)
    gain = _gain(case.trained)
    too_fast = (gain is not None and gain <= 0) or case.trained.metrics.get("stopped_early")
    return _lower_rate(case) if too_fast else _longer(case)


def _nothing(case: Case) -> Changes:
    return {}


REMEDIES = (
    Remedy(
        ("training-not-finite", "training-diverged", "proof-not-finite"),
        "not finite",
        _lower_rate,
    ),
    Remedy(
        ("training-memory", "build-memory"),
        "out of memory",
        _less_memory,
        "fewer jobs at once, a smaller base, or a machine with more memory",
    ),
    Remedy(
        ("training-unmoved",),
        "did not move",
        lambda case: {RATE: min(0.5, 4 * case.domain.config[RATE])},
    ),
    Remedy(("proof-no-effect",), "no effect", _longer),
    Remedy(("training-warm-start",), "warm start", lambda case: {"training.warm_start": None}),
    Remedy(("training-targets",), "targets", lambda case: {"lora.targets": "all-linear"}),
    Remedy(("gate-quant",), "too far from F16", _larger_quants),
    Remedy(("gate-loss",), "not good enough", _better),
    Remedy(
        ("training-too-long",),
        "too long",
        _nothing,
        "a person has to lower data.max_tokens, or take a base with more positions",
    ),
    Remedy(
        ("artifact-unwritable",),
        "disk",
        _nothing,
        "a person has to make room, or mend the rights",
    ),
    Remedy(("build-input-changed",), "changed", _nothing, "build again"),
)


def failures(context: Context) -> Iterator[Failure]:
    """The first step of each domain's chain whose newest run failed."""
    for name, domain in sorted(context.domains.items()):
        for stage in makespan.CHAIN:
            runs = context.runs_of(name, stage, None)
            if runs and runs[-1].outcome == "failed":
                yield _failure(context, domain, runs)
                break


def _failure(context: Context, domain: Domain, runs: Sequence[Run]) -> Failure:
    run = runs[-1]
    remedy = _remedy(run)
    last_good = max((at for at, one in enumerate(runs) if one.outcome != "failed"), default=-1)
    tries = len({one.key for one in runs[last_good + 1 :] if _signature(one) == _signature(run)})
    trained, evaluated = (
        next(reversed(context.runs_of(domain.name, stage)), None)
        for stage in ("adapter", "evaluate")
    )
    found = remedy.change(Case(domain, run, tries, trained, evaluated)) if remedy else {}
    found = {**_learnt(context, domain, run), **found}
    open_ = {key: value for key, value in found.items() if _may(context, domain, run, key, value)}
    advice = (
        remedy.advice if remedy else "not known: the same recipe would fail again; look at its log"
    )
    return Failure(domain, run, remedy.name if remedy else "learnt", open_, advice)


def _may(context: Context, domain: Domain, run: Run, key: str, value: Any) -> bool:
    """Whether a key is there, free, not so already, and still what it was when the step failed."""
    if domain.is_locked(key) or key not in domain.config or domain.config[key] == value:
        return False
    field = "quants" if key == QUANTS else key
    stage = "gguf" if key == QUANTS else "adapter"
    tried = [run, *reversed(context.runs_of(domain.name, stage, None))]
    built = next((one.value(field) for one in tried if one.value(field) is not None), None)
    return built is None or built == domain.config[key]


def _remedies(context: Context, failure: Failure) -> Iterator[Proposal]:
    domain, run = failure.domain, failure.run
    for key, value in failure.changes.items():
        solved, again = _count_outcomes(context, run, key)
        said = [f"run {run.id}: {_show(run.error)}"]
        if times := solved + again:
            said.append(
                f"of {times} times that {key} was changed after this error, {solved} solved it"
            )
        yield Proposal(
            domain.name,
            key,
            value,
            f"{run.stage} failed ({failure.name}); the same again would fail again, so {key} "
            f"becomes {value}",
            said,
            expected_gain=MODEL_OR_NONE,
            confidence=(solved + 2) / (solved + again + 3),
        )


def _count_outcomes(context: Context, run: Run, key: str) -> tuple[int, int]:
    """How often a change of a key came between an error like this and a run that went through, or
    one that failed so again."""
    signature = _signature(run)
    solved = sum(
        any(changed == key for changed, _, _ in changes) for changes in _solutions(context, run)
    )
    again = 0
    for name in context.domains:
        runs = [one for one in context.runs_of(name, run.stage, None) if one.recipe]
        for one, after in pairwise(runs):
            again += _signature(one) == _signature(after) == signature and one.value(
                key
            ) != after.value(key)
    return solved, again


def _learnt(context: Context, domain: Domain, run: Run) -> Changes:
    """The change that most often solved the same error in any domain."""
    votes: dict[str, list[Any]] = {}
    for changes in _solutions(context, run):
        for key, old, new in changes:
            if key in domain.config:
                votes.setdefault(key, []).append(_apply(domain.config[key], old, new))
    if not votes:
        return {}
    key = max(sorted(votes), key=lambda one: len(votes[one]))
    values = sorted(votes[key], key=str)
    return {key: values[len(values) // 2]}


def _apply(now: Any, old: Any, new: Any) -> Any:
    """A number is changed in proportion, anything else to what it became."""
    if (
        all(isinstance(one, int | float) and not isinstance(one, bool) for one in (now, old, new))
        and old
    ):
        changed = now * new / old
        return round(changed) if isinstance(now, int) else changed
    return new


def _solutions(context: Context, run: Run) -> Iterator[list[tuple[str, Any, Any]]]:
    """What was changed each time an error like a run's was solved."""
    for entry in context.sections.get("knowledge_base", {}).get("error_solutions", []):
        named = _name_change(entry["code"], entry["message"], entry["domain"])
        if entry["solved"] and (entry["stage"], named) == (run.stage, _signature(run)):
            yield [(one["key"], one["before"], one["after"]) for one in entry["changes"]]


def _remedy(run: Run) -> Remedy | None:
    return next((one for one in REMEDIES if run.code in one.codes), None)


def _signature(run: Run) -> str:
    return _name_change(run.code, run.error, run.domain) if run.outcome == "failed" else ""


def _name_change(code: str, message: str | None, domain: str) -> str:
    """What the same error is called wherever it comes: its code, if that tells one from all others,
    or else its first line without its numbers and the domain's name."""
    if any(code in remedy.codes for remedy in REMEDIES):
        return code
    return re.sub(r"\d+(\.\d+)?(e[+-]?\d+)?", "N", _first_line(message).replace(domain, "DOMAIN"))


def _first_line(message: str | None) -> str:
    lines = (message or "").strip().splitlines() or ["no reason given"]
    return lines[0] if len(lines[0]) > 40 or len(lines) == 1 else f"{lines[0]} {lines[1].strip()}"


def _show(message: str | None) -> str:
    line = _first_line(message)
    return line if len(line) <= SHOWN else f"{line[: SHOWN - 1]}…"


def _priorities(context: Context) -> Iterator[Proposal]:
    """Which domains to begin with, where that makes a build shorter; what people set stays."""
    chains, measured = makespan.estimate_seconds(context)
    gpus = max(
        (int(domain.machine.get("gpus", 0)) for domain in context.domains.values()), default=0
    )
    now = {name: domain.config.get(PRIORITY, 0) for name, domain in context.domains.items()}
    given = {name: now[name] for name, domain in context.domains.items() if _set_by_others(domain)}
    wanted = {
        **dict.fromkeys(now, 0),
        **given,
        **makespan.longest_first(chains, context.slots, gpus, given),
    }
    before, after = (makespan.usual(chains, one, context.slots, gpus) for one in (now, wanted))
    if not before or 1 - after / before < makespan.LEAST_GAIN:
        return
    share = len(measured) / len(chains)
    for name in sorted(wanted, key=lambda one: (-wanted[one], one)):
        if wanted[name] != now[name]:
            yield Proposal(
                name,
                PRIORITY,
                wanted[name],
                f"the longest first: a whole build on {context.slots} slots takes about "
                f"{after:.0f} s instead of {before:.0f} s",
                [
                    f"expected {makespan.length(chains[name]):.0f} s; {len(measured)} of "
                    f"{len(chains)} domains were measured"
                ],
                expected_gain=1 - after / before,
                confidence=0.3 + 0.5 * share,
                figure="seconds",
            )


def _set_by_others(domain: Domain) -> bool:
    own = any(
        one["key"] == PRIORITY and one["agent"] == "training_conductor" for one in domain.decisions
    )
    return domain.is_locked(PRIORITY) or (bool(domain.config.get(PRIORITY, 0)) and not own)


def _summary(context: Context, build: Sequence[Run]) -> str:
    counts = {
        outcome: sum(run.outcome == outcome for run in build)
        for outcome in ("built", "restored", "failed")
    }
    wall = max(run.time for run in build) - min(run.time - run.seconds for run in build)
    chains: dict[str, list[makespan.Job]] = {}
    for run in build:
        chains.setdefault(run.domain, []).append(
            makespan.Job(run.stage, run.seconds, run.recipe.get("threads") or 1)
        )
    ideal = makespan.lower_bound(chains, context.slots)
    slowest, largest = (
        max(build, key=lambda run: run.seconds),
        max(build, key=lambda run: run.peak_mb),
    )
    money = (
        f", {sum(run.usd for run in build):.2f} US dollars" if any(run.usd for run in build) else ""
    )
    return (
        f"Build {build[-1].build}: {len({run.domain for run in build if run.outcome == 'built'})} "
        f"domains, {', '.join(f'{count} steps {name}' for name, count in counts.items() if count)} "
        f"in {wall:.0f} s (at least {ideal:.0f} s on {context.slots} slots){money}; slowest "
        f"{slowest.domain}/{slowest.stage} {slowest.seconds:.0f} s, most memory "
        f"{largest.domain}/{largest.stage} {largest.peak_mb:.0f} MB"
    )


def _best_and_worst(build: Iterable[Run]) -> Iterator[str]:
    gains = {
        run.domain: gain
        for run in build
        if run.outcome == "built" and (gain := _gain(run)) is not None
    }
    if gains:
        order = sorted(gains, key=lambda name: (-gains[name], name))
        best, worst = order[0], order[-1]
        only = f"; least: {worst} {gains[worst]:.1%}" if worst != best else ""
        yield f"Validation loss below the base's: most: {best} {gains[best]:.1%}{only}"


def _gain(run: Run) -> float | None:
    before, after = (
        run.metrics.get("validation_loss_before"),
        run.metrics.get("validation_loss_after"),
    )
    return (before - after) / before if before and after is not None else None
