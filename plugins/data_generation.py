"""data_generation: what a domain's data lacks.

- between builds: proposes that records of weak topics come more often in training;
- after a build: which topics are weak, how many more records they need, and which sources lose most
  records, and why. Sources, columns and limits are for people to change, so these are said, with
  file and key, and not proposed.

Weak topics are told by training records when they first came by, never by the test records.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from statistics import fmean
from typing import Any

from meetara_build.agents import Context, Domain, Proposal, hookimpl
from meetara_build.toolbox.paired_runs import by_domain, changes, describe_run, loss
from meetara_build.toolbox.topics import Law, law, more_records, topics_of

WEIGHTS = "training.topic_weights"
WEIGHT = 2
MOST_TOPICS = 3
GAIN = 0.003
"""What a weight is taken to gain before any was measured."""
FEW_TRIED = 4
REJECTED = 0.1
"""Share of a source's records that are left out, from which it is worth a line."""
SHOWN = 3
REMEDIES = {
    "too long": "data.max_tokens in conf/build.yaml is the limit; or split them",
    "too short": "data.min_tokens in conf/build.yaml is the limit",
    "near-duplicate": "data.near_duplicate in conf/build.yaml is the limit; records that say something new help more",
    "duplicate": "the same question and answer stands there more than once",
}


@hookimpl
def propose(context: Context) -> Iterator[Proposal]:
    """Weights of weak topics, unless such weights did no good so far."""
    tried = by_domain(change for change in changes(context) if change.key.startswith(WEIGHTS))
    gain = fmean(tried.values()) if len(tried) >= FEW_TRIED else GAIN
    for domain in context.domains.values() if gain > 0 else ():
        proposal = None if domain.is_locked(WEIGHTS) else weights(context, domain, gain)
        if proposal is not None:
            yield proposal


def weights(context: Context, domain: Domain, gain: float) -> Proposal | None:
    """The weights of today, and those of the weakest topics that have none."""
    now = domain.config.get(WEIGHTS) or {}
    weak = [
        topic for topic in topics_of(_list_trained(domain)) if topic.weak and topic.name not in now
    ][:MOST_TOPICS]
    if not weak:
        return None
    names = ", ".join(
        f"'{topic.name}' ({topic.above:+.1%}, {topic.records} records)" for topic in weak
    )
    run = context.current(domain.name, "adapter")
    evidence = [describe_run(run)] if run is not None and isinstance(loss(run), float) else []
    return Proposal(
        domain.name,
        WEIGHTS,
        {**now, **{topic.name: WEIGHT for topic in weak}},
        "Weak topics come twice an epoch: the first loss of their records is above that of the "
        f"others: {names}",
        evidence,
        gain,
        0.3,
    )


@hookimpl
def insights(context: Context) -> Iterator[str]:
    """By domain: weak topics and what they need, sources that lose records."""
    found = law([sizes(domain) for domain in context.domains.values()])
    for domain in context.domains.values():
        yield from weak_topics(domain, found)
        yield from losing_sources(domain)


def weak_topics(domain: Domain, found: Law | None) -> Iterator[str]:
    """A line for each topic that is weak, with the records it needs where past domains tell."""
    shares, trained = _shares(domain), _list_trained(domain)
    for topic in topics_of(trained)[:SHOWN]:
        if not topic.weak:
            continue
        line = (
            f"{domain.name}: '{topic.name}' is weak: the first loss of its {topic.records} records "
            f"is {topic.above:+.1%} above the others'"
        )
        if topic.name in shares:
            line += f"; held out, training took it to {shares[topic.name]:.1%} of the base's loss"
            line += _describe_needed(
                topic.records, shares[topic.name], fmean(shares.values()), found
            )
        yield line


def _describe_needed(records: int, share: float, target: float, found: Law | None) -> str:
    if share <= target:
        return ", no less than its other topics: it may be harder by nature"
    needed = more_records(records, share, target, found)
    if needed is None:
        return (
            f", its topics' mean is {target:.1%}; how many more records would do cannot be told "
            "from these domains"
        )
    fewest, most = needed
    many = f"about {fewest} to {most} more" if most else f"{fewest} more at the least"
    return f", its topics' mean is {target:.1%}: {many} records would take it there"


def sizes(domain: Domain) -> list[tuple[int, float]]:
    """Of every topic: its training records, and which share of the base's loss is left on held-out
    ones."""
    counts = Counter(line["topic"] for line in _list_trained(domain) if line.get("topic"))
    return [(counts[name], share) for name, share in _shares(domain).items() if counts[name]]


def losing_sources(domain: Domain) -> Iterator[str]:
    """Sources of which many records are left out, with the reasons and what would mend them."""
    records: dict[str, dict[int, str | None]] = {}
    for line in domain.read("dataset/account.jsonl") or []:
        file, place, reason = _became(line)
        records.setdefault(file, {})[place] = reason
    for file, reasons in sorted(records.items()):
        lost = Counter(reason for reason in reasons.values() if reason)
        if lost.total() >= REJECTED * len(reasons):
            told = "; ".join(_describe(reason, count) for reason, count in lost.most_common(SHOWN))
            yield (
                f"{domain.name}: {file}: {lost.total()} of {len(reasons)} records are left out: "
                f"{told}"
            )


def _became(line: Mapping[str, Any]) -> tuple[str, int, str | None]:
    """Of a record in the account: its file and line, and why it is left out, if it is."""
    if "problem" in line:
        return (
            line["source"],
            line["line"],
            f"bad, {line['column'] or 'the line'} {line['problem']}",
        )
    file, _, place = line["source"].rpartition(":")
    return file, int(place), line.get("reason")


def _describe(reason: str, count: int) -> str:
    remedy = REMEDIES.get(reason)
    return f"{count} {reason}{f' ({remedy})' if remedy else ''}"


def _list_trained(domain: Domain) -> list[dict[str, Any]]:
    """The domain's own training records, as they were learnt; those of joint domains are left
    out."""
    own = {record["id"] for record in domain.read("dataset/train.jsonl") or []}
    return [line for line in domain.read("adapter/records.jsonl") or [] if line["id"] in own]


def _shares(domain: Domain) -> dict[str, float]:
    """By topic, which share of the base's held-out loss is left."""
    report = domain.read("evaluation/evaluation.json") or {}
    base = report.get("base_by_topic", {})
    return {
        name: loss / base[name]
        for name, (loss, _) in report.get("by_topic", {}).items()
        if base.get(name)
    }
