"""How well knowledge_transfer knows beforehand whether a change will lower the validation loss.

python -m bench.agents.success [--folder DIR] [--domains N]

What is predicted: warm starts from near and from far domains, joint training with near ones, and
five changes of settings, each trained for real. Predictions for a domain come from the changes of
other domains alone (ten folds of domains). The Brier score is the mean squared difference between
chance and outcome; the base rate's says for every change what share of the others helped.
"""

import importlib.util
from pathlib import Path
from statistics import mean
from types import ModuleType
from typing import Any

from bench.agents.joint import JOINT
from bench.agents.joint import wanted as joint_trials
from bench.agents.transfer import raced
from bench.agents.trials import Result, Trial, Trials, nearest, opened, with_near_neighbours
from bench.result_files import keep_result
from meetara_build.agents import Context, Domain, Run
from meetara_build.config.resolve import Configuration
from meetara_build.toolbox.paired_runs import Change

FOLDS = 10
SETTINGS = 10
"""Domains whose settings are changed, those that the transfers of settings would come from."""
CHANGES = (
    ("training.learning_rate", 4e-3),
    ("training.learning_rate", 8e-3),
    ("training.learning_rate", 1e-3),
    ("training.batch_tokens", 256),
    ("lora.rank", 4),
)


def agent() -> ModuleType:
    """plugins/knowledge_transfer.py."""
    path = Path(__file__).parents[2] / "plugins" / "knowledge_transfer.py"
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def wanted(trials: Trials, count: int) -> list[Trial]:
    """The changes that are tried, each against the cold training of its domain."""
    alike = trials.similarities()
    names = with_near_neighbours(alike, count)
    found = [Trial(name, nearest(alike, name)[0]) for name in names]
    found += [Trial(name, nearest(alike, name)[-1]) for name in names]
    found += [together for _, together in joint_trials(trials, JOINT)]
    return found + [
        Trial(name, changes=(change,)) for change in CHANGES for name in names[:SETTINGS]
    ]


def as_change(trial: Trial, cold: Result, result: Result, recipe: Any) -> Change:
    """An outcome as past runs would show it; a warm start after its race."""
    if trial.warm:
        after = raced(cold, result).after
        return Change(
            trial.domain,
            "training.warm_start",
            None,
            pinned(trial.warm),
            cold.after,
            after,
            ("", ""),
        )
    if trial.joint:
        return Change(
            trial.domain,
            "training.joint",
            [],
            list(trial.joint),
            cold.after,
            result.after,
            ("", ""),
        )
    ((key, new),) = trial.changes
    part, _, name = key.partition(".")
    return Change(trial.domain, key, recipe[part][name], new, cold.after, result.after, ("", ""))


def pinned(domain: str) -> str:
    """A pin as in the configuration; the digest does not matter here."""
    return f"{domain}@adapter of {domain}"


def context(trials: Trials, used: list[str]) -> Context:
    """The domains, and their cold trainings."""
    configuration = Configuration(trials.graph.project)
    domains, runs = {}, []
    for name in trials.domains:
        item, step = configuration.resolve(name).domain, trials.graph.step("dataset", name)
        domains[name] = Domain(
            name,
            item.category,
            item.description,
            item.topics,
            item.languages,
            {},
            {},
            {},
            [],
            [],
            trials.graph.root / name,
            [Path(path) for path in step.sources.values()],
            {},
        )
    for name in used:
        cold = trials[Trial(name)]
        metrics = {
            "validation_loss_before": cold.before,
            "validation_loss_after": cold.after,
            "training_records": cold.records,
        }
        recipe = trials.graph.step("adapter", name).recipe
        runs.append(
            Run(
                name,
                0.0,
                name,
                "adapter",
                "",
                "",
                "",
                "built",
                0.0,
                0.0,
                0.0,
                0,
                "",
                "",
                0.0,
                metrics,
                recipe,
            )
        )
    told = [
        {
            "about": "proposal",
            "domain": None,
            "body": {"key": "training.warm_start", "value": pinned(name)},
        }
        for name in used
    ]
    return Context(domains, runs, messages=told)


def predicted(seen: Context, changes: list[Change]) -> tuple[list[float], list[float]]:
    """For each change the agent's chance and the base rate, from the changes of other folds'
    domains."""
    module = agent()
    places = {
        name: place % FOLDS
        for place, name in enumerate(sorted({change.domain for change in changes}))
    }
    chances, rates = [], []
    for fold in range(FOLDS):
        past = [change for change in changes if places[change.domain] != fold]
        knowledge, rate = module.Knowledge(seen, past), mean(change.gain > 0 for change in past)
        for index, change in enumerate(changes):
            if places[change.domain] == fold:
                chances.append((index, knowledge.chance(change)))
                rates.append((index, rate))
    return [value for _, value in sorted(chances)], [value for _, value in sorted(rates)]


def brier(chances: list[float], helped: list[bool]) -> float:
    """Brier (1950)."""
    return mean((chance - good) ** 2 for chance, good in zip(chances, helped, strict=True))


def main() -> None:
    """Print how often each kind of change helped, both scores, and how chances and outcomes go
    together."""
    with opened(__doc__, 22) as (options, trials):
        several = wanted(trials, options.domains)
        trials.make([Trial(trial.domain) for trial in several] + several)
        changes = [
            as_change(
                trial,
                trials[Trial(trial.domain)],
                trials[trial],
                trials.graph.step("adapter", trial.domain).recipe,
            )
            for trial in several
        ]
        used = sorted({name for trial in several for name in (trial.domain, trial.warm) if name})
        chances, rates = predicted(context(trials, used), changes)
    helped = [change.gain > 0 for change in changes]
    print(f"\n{'change':40} {'tried':>5} {'helped':>6} {'mean chance':>11}")
    kinds = [
        f"{one.key} {'' if one.key.endswith(('joint', 'start')) else one.new}" for one in changes
    ]
    for kind in dict.fromkeys(kinds):
        places = [index for index, one in enumerate(kinds) if one == kind]
        print(
            f"{kind:40} {len(places):5} {sum(helped[index] for index in places):6} "
            f"{mean(chances[index] for index in places):11.0%}"
        )
    print(f"\n{'chance':12} {'changes':>7} {'helped':>6}")
    for low, high in ((0.0, 0.25), (0.25, 0.5), (0.5, 0.75), (0.75, 1.01)):
        inside = [
            good for chance, good in zip(chances, helped, strict=True) if low <= chance < high
        ]
        if inside:
            print(f"{low:4.0%}–{min(high, 1):4.0%}    {len(inside):7} {mean(inside):6.0%}")
    own, base = brier(chances, helped), brier(rates, helped)
    counted = {"changes": len(changes), "domains": len({one.domain for one in changes})}
    keep_result("agents_success", {**counted, "brier": own, "base_rate": base})
    print(
        f"\nBrier score over {len(changes)} changes of {len({one.domain for one in changes})} domains: {own:.3f}, "
        f"of the base rate {base:.3f}: {'reached' if own < base else 'MISSED'}"
    )


if __name__ == "__main__":
    main()
