"""knowledge_transfer: what helped one domain is proposed to those like it.

It proposes weights to begin from (the adapter of the most similar built domain, pinned by its
digest), the settings of the best run of a similar domain, breakthroughs that agents told of, and
another base where similar domains did better on it.

Domains are alike by the words of their data, and by past results: what helped the one helped the
other. How likely a change is to help is learnt from all changes that were tried: a logistic
regression, or, while there are few, the mean of a Beta prior. A change is forgotten once most
domains that tried it were not helped.
"""

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from math import log
from typing import Any, NamedTuple

from meetara_build.agents import Context, Domain, Proposal, Run, hookimpl
from meetara_build.toolbox import paired_runs

WARM, JOINT, BASE = "training.warm_start", "training.joint", "base"
SETTINGS = (
    *(
        "training.learning_rate",
        "training.batch_tokens",
        "training.warmup_share",
        "training.weight_decay",
    ),
    *("lora.rank", "lora.alpha", "lora.dropout"),
)
OWN = (WARM, JOINT, "training.epochs", "training.max_steps")
"""What suits one domain and says nothing of another: how long to train hangs on its amount of
data."""
SHAPE = ("lora.rank", "lora.alpha", "lora.targets", "lora.rslora", "lora.dora")
"""What two adapters must have in common for one to begin from the other."""
FIRST_THRESHOLD = 0.15
"""Similarity from which a warm start is tried while nothing is known of any."""
FEW = 5
"""Warm starts from which the threshold is learnt; domains from which a change has to have helped
most of them."""
ENOUGH = 20
"""Changes from which chances are learnt by regression."""
FIRST_GAIN = 0.005
"""What a warm start is taken to gain before any was measured: about what bench.agents.worth
measured."""
LEAST_GAIN = 0.002
NEIGHBOURS = 5
MOST = 250


@hookimpl
def propose(context: Context) -> Sequence[Proposal]:
    """The best proposal for each key of each domain, those that promise most first."""
    knowledge = Knowledge(context)
    started = list(warm_starts(knowledge))
    fixed = {proposal.domain for proposal in started} | {
        name for name, domain in context.domains.items() if domain.config.get(WARM)
    }
    others = [*settings(knowledge), *breakthroughs(knowledge), *bases(knowledge)]
    kept = [
        one for one in others if not (one.domain in fixed and (one.key in SHAPE or one.key == BASE))
    ]
    return _best(
        [one for one in [*started, *kept] if not context.domains[one.domain].is_locked(one.key)]
    )


@hookimpl
def insights(context: Context) -> Iterator[str]:
    """What warm starts were worth, and which changes are kept and which forgotten."""
    knowledge = Knowledge(context)
    started = paired_runs.by_domain(change for change in knowledge.past if change.key == WARM)
    if started:
        yield (
            f"Warm starts: {_describe_help(started)}, {sum(started.values()) / len(started):.1%} less "
            "loss on average"
        )
    for (key, old, new), gains in sorted(knowledge.tried.items(), key=str):
        if len(gains) >= FEW:
            verdict = "kept" if paired_runs.lower_bound(*_counts(gains)) > 0.5 else "forgotten"
            yield f"{key} {old} → {new}: {_describe_help(gains)}: {verdict}"


def _best(found: Sequence[Proposal]) -> list[Proposal]:
    """The one proposal for each key that is worth most."""
    ranked = sorted(
        found,
        key=lambda one: (-one.expected_gain * one.confidence, one.domain, one.key, str(one.value)),
    )
    first = {(one.domain, one.key): one for one in reversed(ranked)}
    return [one for one in ranked if first[one.domain, one.key] is one][:MOST]


def _counts(gains: Mapping[str, float]) -> tuple[int, int]:
    return sum(gain > 0 for gain in gains.values()), len(gains)


def _describe_help(gains: Mapping[str, float]) -> str:
    helped, tried = _counts(gains)
    return f"helped in {helped} of {tried} domain{'s' if tried > 1 else ''}"


# What is known


class Idea(NamedTuple):
    """A change that is not tried yet."""

    domain: str
    key: str
    old: Any
    new: Any


class Knowledge:
    """Past changes, how alike domains are, and what follows for a change that was not tried yet."""

    def __init__(self, context: Context, past: Sequence[paired_runs.Change] | None = None) -> None:
        """``past``: the changes to learn from, by default all that the context's runs show."""
        self.context = context
        found = (
            [*paired_runs.changes(context), *paired_runs.base_changes(context)]
            if past is None
            else past
        )
        self.past = [
            change.turned() if change.key in (WARM, JOINT) and not change.new else change
            for change in found
        ]

    @cached_property
    def tried(self) -> dict[tuple[str, Any, Any], dict[str, float]]:
        """By change of a setting, told from both sides, the mean gain of each domain that tried
        it."""
        found: dict[tuple[str, Any, Any], list[paired_runs.Change]] = {}
        for change in self.past:
            if change.key == BASE or change.key in SETTINGS:
                found.setdefault((change.key, change.old, change.new), []).append(change)
            if change.key in SETTINGS:
                found.setdefault((change.key, change.new, change.old), []).append(change.turned())
        return {change: paired_runs.by_domain(several) for change, several in found.items()}

    def known(self, idea: "paired_runs.Change | Idea") -> dict[str, float]:
        """The mean gain of each domain that tried the same change of a setting."""
        return (
            self.tried.get((idea.key, idea.old, idea.new), {})
            if idea.key in (BASE, *SETTINGS)
            else {}
        )

    def counts(self, idea: "paired_runs.Change | Idea") -> tuple[int, int]:
        """How many other domains the same change helped, and how many tried it, by the runs or by
        what is remembered of more."""
        same = self.known(idea)
        if idea.key in (WARM, JOINT):
            same = paired_runs.by_domain(one for one in self.past if one.key == idea.key)
        seen = _counts({name: gain for name, gain in same.items() if name != idea.domain})
        told_of = paired_runs.list_remembered(self.context).get(
            f"{idea.key}: {idea.old} → {idea.new}", (0, 0)
        )
        return max(seen, told_of, key=lambda counts: counts[1])

    def forgotten(self, idea: "paired_runs.Change | Idea") -> bool:
        """Whether a change was tried so often that it would have shown by now whether it helps, and
        has not."""
        helped, tried = self.counts(idea)
        return tried >= FEW and paired_runs.lower_bound(helped, tried) <= 0.5

    @cached_property
    def alike(self) -> dict[str, dict[str, float]]:
        """How alike each two domains are: cosine of their words, and, the more changes both tried,
        correlation of the gains."""
        everything = len(self.context.domains)
        words = {
            name: dict(self.context.similar(name, everything)) for name in self.context.domains
        }
        gains: dict[str, dict[Any, float]] = {name: {} for name in words}
        for change, by_name in self.tried.items():
            for name, gain in by_name.items():
                gains.setdefault(name, {})[change] = gain
        return {
            name: {
                other: _blend(cosine, gains[name], gains[other]) for other, cosine in row.items()
            }
            for name, row in words.items()
        }

    def neighbours(self, domain: str) -> list[tuple[str, float]]:
        """The most similar domains, the most similar first."""
        return sorted(self.alike[domain].items(), key=lambda item: (-item[1], item[0]))[:NEIGHBOURS]

    @cached_property
    def teachers(self) -> dict[str, str]:
        """By digest of an adapter's weights, the domain it is of."""
        pins = [
            message["body"].get("value")
            for message in self.context.messages
            if message["body"].get("key") == WARM
        ]
        for domain in self.context.domains.values():
            pins += [domain.config.get(WARM), *(decision["value"] for decision in domain.decisions)]
            pins.append(pin(domain))
        whole = [text.split("@") for text in pins if isinstance(text, str) and text.count("@") == 1]
        return {digest: name for name, digest in whole if name in self.context.domains}

    def partners(self, change: paired_runs.Change | Idea) -> list[str]:
        """The domains that a change brings something from: the teacher, the companions, or who
        tried the same."""
        if change.key == WARM:
            teacher = self.teachers.get(str(change.new).rpartition("@")[2])
            return [teacher] if teacher and teacher != change.domain else []
        if change.key == JOINT:
            return [name for name in change.new or () if name in self.context.domains]
        known = self.known(change)
        near = [name for name in known if name != change.domain and name in self.context.domains]
        return sorted(near, key=lambda name: (-self.alike[change.domain][name], name))[:1]

    def expected(self, change: paired_runs.Change | Idea) -> float:
        """The gain of the same kind of change in other domains, the more alike the more it counts;
        drawn to nothing."""
        if change.key in (WARM, JOINT):
            gains = paired_runs.by_domain(
                one for one in self.past if one.key == change.key and one.domain != change.domain
            )
        else:
            gains = self.known(change)
        weights = {
            name: self.alike[change.domain].get(name, 0.0)
            for name in gains
            if name != change.domain
        }
        total = sum(weights.values())
        return (
            sum(weight * gains[name] for name, weight in weights.items()) / (total + 0.1)
            if total
            else 0.0
        )

    def chance(self, idea: paired_runs.Change | Idea) -> float:
        """How likely a change is to lower the loss, as far as it can be known before it is
        tried."""
        if self._regression is None:
            helped, tried = self.counts(idea)
            return (helped + 1) / (tried + 2)
        return float(self._regression.predict_proba([self.features(idea)])[0, 1])

    def features(self, change: paired_runs.Change | Idea) -> list[float]:
        """What the chance depends on: kind of change, similarity, amounts of data, what the same
        did elsewhere."""
        partners = self.partners(change)
        domains = self.context.domains
        alike = [self.alike[change.domain][name] for name in partners]
        own = self._records(change.domain)
        theirs = (
            sum(self._records(name) for name in partners) if change.key in (WARM, JOINT) else own
        )
        category = domains[change.domain].category
        return [
            float(change.key == WARM),
            float(change.key == JOINT),
            sum(alike) / len(alike) if alike else 0.0,
            float(bool(partners) and all(domains[name].category == category for name in partners)),
            log(own),
            log(max(theirs, 1.0) / own),
            sum(self._learnt(name) for name in partners) / len(partners) if partners else 0.0,
            self.expected(change),
            _doublings(change.old, change.new),
        ]

    def _records(self, domain: str) -> float:
        last = self.context.runs_of(domain, "adapter")[-1:]
        return float(last[0].metrics.get("training_records") or 1) if last else 1.0

    def _learnt(self, domain: str) -> float:
        """What a domain's last training gained over its start."""
        for run in reversed(self.context.runs_of(domain, "adapter")):
            before = run.metrics.get("validation_loss_before")
            if before and paired_runs.loss(run):
                return float((before - paired_runs.loss(run)) / before)
        return 0.0

    @cached_property
    def _regression(self) -> Any:
        """Chance by features; None while there are too few changes, or all of them ended alike."""
        known = [change for change in self.past if change.domain in self.context.domains]
        helped = [change.gain > 0 for change in known]
        if len(known) < ENOUGH or len(set(helped)) < 2:
            return None
        from sklearn.linear_model import LogisticRegression
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import StandardScaler

        model = make_pipeline(StandardScaler(), LogisticRegression(C=0.3, max_iter=1000))
        return model.fit([self.features(change) for change in known], helped)


def _blend(cosine: float, one: Mapping[Any, float], other: Mapping[Any, float]) -> float:
    likeness, trust = paired_runs.agreement(one, other)
    return (1 - trust) * cosine + trust * likeness


def _doublings(old: Any, new: Any) -> float:
    numbers = all(
        isinstance(one, int | float) and not isinstance(one, bool) and one > 0 for one in (old, new)
    )
    return log(new / old, 2) if numbers else 0.0


# Weights


def warm_starts(knowledge: Knowledge) -> Iterator[Proposal]:
    """For domains that have not tried any: to begin from the most similar adapter that fits, and
    over no others from themselves."""
    domains = knowledge.context.domains
    above = {
        name: str(domain.config.get(WARM) or "").partition("@")[0]
        for name, domain in domains.items()
    }
    pins = {name: found for name, domain in domains.items() if (found := pin(domain))}
    threshold, known = (
        find_similarity(knowledge),
        paired_runs.by_domain(one for one in knowledge.past if one.key == WARM),
    )
    names = paired_runs.base_names(knowledge.context)
    pairs = [
        (alike, name, teacher)
        for name, domain in domains.items()
        if not above[name] and name not in known
        for teacher, alike in knowledge.neighbours(name)
        if alike >= threshold and teacher in pins and _fits(domain, domains[teacher], names)
    ]
    for alike, name, teacher in sorted(pairs, key=lambda pair: (-pair[0], pair[1:])):
        if above[name] or name in _chain(teacher, above):
            continue
        above[name] = teacher
        idea = Idea(name, WARM, None, pins[teacher])
        past = f"warm starts {_describe_help(known)}" if known else "no warm start was measured yet"
        run = knowledge.context.current(teacher, "adapter")
        yield Proposal(
            name,
            WARM,
            pins[teacher],
            f"begin from {teacher}, the most similar domain that fits; {past}",
            [f"similarity {alike:.2f}", *([paired_runs.describe_run(run)] if run else [])],
            max(knowledge.expected(idea), LEAST_GAIN) if known else FIRST_GAIN,
            knowledge.chance(idea),
        )


def find_similarity(knowledge: Knowledge) -> float:
    """The similarity from which warm starts have helped more often than not; above all of them if
    they did not."""
    known = [
        (knowledge.alike[change.domain][partners[0]], change.gain > 0)
        for change in knowledge.past
        if change.key == WARM
        and change.domain in knowledge.alike
        and (partners := knowledge.partners(change))
    ]
    if len(known) < FEW:
        return FIRST_THRESHOLD
    return paired_runs.find_threshold(known)


def pin(domain: Domain) -> str | None:
    """``DOMAIN@SHA256`` of a domain's adapter as it is now."""
    manifest = domain.read("adapter/manifest.json")
    weights = (
        manifest["files"].get("adapter_model.safetensors") if isinstance(manifest, dict) else None
    )
    return f"{domain.name}@{weights['sha256']}" if weights else None


def _as_it_came(domain: Domain) -> bool:
    """Whether no agent has decided its settings or its base yet."""
    return not any(decision["key"] in (BASE, *SETTINGS) for decision in domain.decisions)


def _fits(domain: Domain, teacher: Domain, names: Mapping[str, str]) -> bool:
    """Whether a domain can begin from another's adapter: made on the same base, of the same
    shape."""
    made = teacher.read("adapter/manifest.json")
    lora = made["made_from"]["recipe"]["lora"]
    same_shape = all(lora.get(key.partition(".")[2]) == domain.config.get(key) for key in SHAPE)
    base = names.get(made["inputs"].get("base"), teacher.config.get(BASE))
    return same_shape and base == domain.config.get(BASE)


def _chain(name: str, above: Mapping[str, str]) -> list[str]:
    chain = [name]
    while (following := above.get(chain[-1])) and following not in chain:
        chain.append(following)
    return chain


# Settings


def settings(knowledge: Knowledge) -> Iterator[Proposal]:
    """What the best run of a similar domain has otherwise than a domain that is new, or built as it
    came."""
    domains = knowledge.context.domains
    for name, domain in domains.items():
        for neighbour, alike in knowledge.neighbours(name) if _as_it_came(domain) else ():
            if alike >= FIRST_THRESHOLD and domains[neighbour].config.get(
                BASE
            ) == domain.config.get(BASE):
                yield from _settings_of(knowledge, domain, neighbour, alike)


def _settings_of(
    knowledge: Knowledge, domain: Domain, neighbour: str, alike: float
) -> Iterator[Proposal]:
    runs = [
        run
        for run in knowledge.context.runs_of(neighbour, "adapter")
        if isinstance(paired_runs.loss(run), float)
    ]
    same = [
        run for run in runs if all(run.value(key) == domain.config.get(key) for key in SETTINGS)
    ]
    if not same:
        return
    start = same[-1]
    best = min(
        (run for run in runs if _beside_settings(run) == _beside_settings(start)),
        key=paired_runs.loss,
    )
    keys = [key for key in SETTINGS if best.value(key) != start.value(key)]
    for key in keys:
        idea = Idea(domain.name, key, start.value(key), best.value(key))
        known = knowledge.known(idea)
        gain = known.get(
            neighbour,
            (paired_runs.loss(start) - paired_runs.loss(best))
            / paired_runs.loss(start)
            / len(keys),
        )
        chance = knowledge.chance(idea)
        if gain < LEAST_GAIN or chance < 0.5 or domain.name in known or knowledge.forgotten(idea):
            continue
        past = (
            f"it {_describe_help(known)}"
            if known
            else f"with {len(keys) - 1} other changes it helped there"
        )
        yield Proposal(
            domain.name,
            key,
            idea.new,
            f"as in the best run of {neighbour}, a similar domain; {past}",
            [
                f"similarity {alike:.2f}",
                paired_runs.describe_run(start),
                paired_runs.describe_run(best),
            ],
            gain,
            chance,
        )


def _beside_settings(run: Run) -> list[Any]:
    return [run.inputs.get(BASE), run.inputs.get("dataset"), run.value(WARM), run.value(JOINT)]


def breakthroughs(knowledge: Knowledge) -> Iterator[Proposal]:
    """What agents told of, for the domains most like the one it was seen in; half its gain, for
    what stands out falls back."""
    domains = knowledge.context.domains
    for message in knowledge.context.messages:
        body, origin = message["body"], message["domain"] or message["body"].get("domain")
        if message["about"] != "breakthrough" or origin not in domains:
            continue
        told = body.get("changes") or ({body["key"]: body.get("value")} if "key" in body else {})
        gain = body.get("gain") or 0.0
        for key, value in told.items():
            for name, alike in knowledge.neighbours(origin):
                old = domains[name].config.get(key)
                idea = Idea(name, key, old, value)
                known = knowledge.known(idea)
                if key in OWN or old == value or name in known or knowledge.forgotten(idea):
                    continue
                yield Proposal(
                    name,
                    key,
                    value,
                    f"a breakthrough in {origin}, a similar domain: {gain:.1%} less loss",
                    [f"similarity {alike:.2f}", *(f"run {run}" for run in body.get("runs", []))],
                    gain / 2,
                    knowledge.chance(idea),
                )


def bases(knowledge: Knowledge) -> Iterator[Proposal]:
    """Another base, where most of the similar domains that were trained on both did better on
    it."""
    for name, domain in knowledge.context.domains.items():
        if domain.config.get(WARM) or not _as_it_came(domain):
            continue
        near = {other for other, _ in knowledge.neighbours(name)}
        for (key, old, new), known in knowledge.tried.items():
            gains = {other: gain for other, gain in known.items() if other in near}
            if (
                key == BASE
                and old == domain.config.get(BASE)
                and paired_runs.lower_bound(*_counts(gains)) > 0.5
            ):
                yield Proposal(
                    name,
                    BASE,
                    new,
                    f"base {new} instead of {old} {_describe_help(gains)} like it",
                    [
                        f"{other}: {gain:.1%} fewer nats for the same text"
                        for other, gain in gains.items()
                    ],
                    sum(gains.values()) / len(gains),
                    knowledge.chance(Idea(name, BASE, old, new)),
                )
