"""How well wrong training records are found, and what dropping them does to the held-out loss.

python -m bench.agents.records [--folder DIR] [--pools N]

The embedded domains of a category, put together, are one domain whose topics are those domains.
Some training records are made wrong, and which is known: some answers change places, some topics
are replaced by another. The base ``tiny`` is adapted to all of them, and the scores of
``quality_assurance`` are compared with what was done. Then what it would drop is dropped, and the
training is made again; and once more with as many records dropped that were drawn at random.
"""

import argparse
import random
import tempfile
from collections.abc import Collection, Mapping, Sequence
from multiprocessing import get_context
from pathlib import Path
from statistics import mean
from typing import Any, NamedTuple

import yaml

from bench import machine
from bench.result_files import keep_result

SWAPPED, FLIPPED = 0.05, 0.04
DROPPED = 0.03
"""Of the records, as the agent has it: at most so many at once."""
SEED = 17
WORKERS = 2

Records = list[dict[str, Any]]


class Spoilt(NamedTuple):
    """Training records, and which of them were made wrong."""

    records: Records
    swapped: set[str]
    flipped: set[str]

    @property
    def wrong(self) -> set[str]:
        """All of them."""
        return self.swapped | self.flipped


class Found(NamedTuple):
    """What came of a pool: precision and recall of each score, what was dropped and named, and
    losses of the test records."""

    name: str
    records: int
    wrong: int
    scores: dict[str, tuple[float, float]]
    dropped: tuple[int, int]
    named: tuple[int, int]
    spoilt: float
    cleaned: float
    by_chance: float


def spoil(records: Records, draw: random.Random) -> Spoilt:
    """Answers that changed places between records of different topics, and topics that are not
    theirs."""
    several = [dict(record) for record in records]
    swaps, flips = round(SWAPPED * len(several)), round(FLIPPED * len(several))
    chosen = draw.sample(range(len(several)), swaps + flips)
    swapped, flipped = chosen[:swaps], chosen[swaps:]
    turned = sorted(swapped, key=lambda index: several[index]["topic"])
    half = len(turned) // 2
    answers = {
        index: several[turned[(at + half) % len(turned)]]["messages"][-1]
        for at, index in enumerate(turned)
    }
    for index, answer in answers.items():
        several[index]["messages"] = [*several[index]["messages"][:-1], answer]
    topics = sorted({record["topic"] for record in several})
    for index in flipped:
        several[index]["topic"] = draw.choice(
            [topic for topic in topics if topic != several[index]["topic"]]
        )
    return Spoilt(
        several, *({several[index]["id"] for index in group} for group in (swapped, flipped))
    )


def at_k(score: Mapping[str, float], wrong: set[str], count: int) -> tuple[float, float]:
    """Precision and recall of the so many records that score highest."""
    top = sorted(score, key=lambda key: (-score[key], key))[:count]
    hits = sum(key in wrong for key in top)
    return hits / max(1, len(top)), hits / len(wrong)


class Pool:
    """The domains of a category as one domain, on which trainings are made."""

    def __init__(self, folder: Path, domains: Sequence[str]) -> None:
        import torch

        from bench.agents.short_trainings import Trainer
        from meetara_build.graph import load

        torch.set_num_threads(1)
        graph = load(folder)
        trainers = {domain: Trainer(graph, domain) for domain in domains}
        self.trainer = trainers[domains[0]]
        self.trainer.validation = self.trainer.encoded(_together(trainers, "validation"))
        self.training, self.test = (_together(trainers, side) for side in ("train", "test"))

    def train(
        self, records: Records, without: Collection[str] = ()
    ) -> tuple[float, dict[str, list[float | None]]]:
        """The loss of the test records, and of each training record in each epoch."""
        from meetara_build.training.loop import evaluate

        kept = [one for one in records if one["id"] not in without and self.trainer.encoded([one])]
        history, model = self.trainer.train(self.trainer.encoded(kept), {}, SEED)
        loss, _ = evaluate(model, self.trainer.encoded(self.test))
        return loss, {
            record["id"]: several for record, several in zip(kept, history.losses, strict=True)
        }


def examine(job: tuple[Path, str, Sequence[str]]) -> Found:
    """Spoil, train, score, drop, train again."""
    from meetara_build.toolbox.mislabelled import suspects

    folder, name, domains = job
    pool, draw = Pool(folder, domains), random.Random(SEED)
    spoilt = spoil(pool.training, draw)
    loss, losses = pool.train(spoilt.records)
    found = suspects(spoilt.records, losses)
    many = int(DROPPED * len(spoilt.records))
    drop = [one.id for one in found if one.other_answer][:many]
    named = [one.id for one in found if not one.other_answer][:many]
    chance = draw.sample(sorted(losses), len(drop))
    return Found(
        name=name,
        records=len(spoilt.records),
        wrong=len(spoilt.wrong),
        scores=compared(spoilt, losses, many),
        dropped=(len(drop), sum(key in spoilt.swapped for key in drop)),
        named=(len(named), sum(key in spoilt.flipped for key in named)),
        spoilt=loss,
        cleaned=pool.train(spoilt.records, drop)[0],
        by_chance=pool.train(spoilt.records, chance)[0],
    )


def compared(
    spoilt: Spoilt, losses: Mapping[str, Any], many: int
) -> dict[str, tuple[float, float]]:
    """Precision and recall of each score for each kind of fault."""
    from meetara_build.toolbox.mislabelled import doubts, hardness

    said = {
        record["id"]: (record["messages"][0]["content"], record["messages"][-1]["content"])
        for record in spoilt.records
    }
    topics = {record["id"]: record["topic"] for record in spoilt.records}
    doubted = {key: doubt.score for key, doubt in doubts(said, topics).items()}
    found = {}
    for label, score in (("loss in training", hardness(losses)), ("words against topic", doubted)):
        for kind, wrong in (("swapped", spoilt.swapped), ("flipped", spoilt.flipped)):
            found[f"{label}, {kind}"] = at_k(score, wrong, len(wrong))
        found[f"{label}, any, worst 3%"] = at_k(score, spoilt.wrong, many)
    return found


def _together(trainers: Mapping[str, Any], side: str) -> Records:
    """A side's records of all domains, each with its domain as its topic, once."""
    found = {}
    for name, trainer in trainers.items():
        for record in trainer.records(side):
            turns = [turn for turn in record["messages"] if turn["role"] != "system"]
            found[record["id"]] = {**record, "topic": name, "messages": turns}
    return list(found.values())


def categories(folder: Path, count: int) -> list[tuple[str, list[str]]]:
    """The categories with the fewest domains: so that all of it takes minutes."""
    domains: dict[str, list[str]] = {}
    for path in sorted((folder / "conf" / "domain").glob("*.yaml")):
        domains.setdefault(yaml.safe_load(path.read_text(encoding="utf-8"))["category"], []).append(
            path.stem
        )
    return sorted(domains.items(), key=lambda one: (len(one[1]), one[0]))[:count]


def report(found: Sequence[Found]) -> None:
    """The table and what it comes to."""
    print(
        f"\n{'category':14} {'records':>7} {'wrong':>5} {'dropped':>9} {'named':>9} {'loss':>7} {'cleaned':>8} {'by chance':>9}"
    )
    for one in found:
        changes = f"{one.cleaned / one.spoilt - 1:+8.2%} {one.by_chance / one.spoilt - 1:+9.2%}"
        shares = [f"{right} of {many}" for many, right in (one.dropped, one.named)]
        print(
            f"{one.name:14} {one.records:7} {one.wrong:5} {shares[0]:>9} {shares[1]:>9} {one.spoilt:7.3f} {changes}"
        )
    print(
        "\nprecision and recall, means over categories; as many as are wrong of that kind, unless said otherwise"
    )
    for label in found[0].scores:
        precision, recall = (mean(one.scores[label][at] for one in found) for at in (0, 1))
        print(f"  {label:36} {precision:5.0%} {recall:5.0%}")
    dropped, named = (
        [sum(getattr(one, part)[at] for one in found) for at in (0, 1)]
        for part in ("dropped", "named")
    )
    print(
        f"\ndropped: {dropped[1]} of {dropped[0]} had another's answer; named to relabel: {named[1]} of {named[0]} had another topic; "
        f"chance {SWAPPED:.0%} and {FLIPPED:.0%}"
    )
    cleaned, chance = (
        mean(getattr(one, part) / one.spoilt - 1 for one in found)
        for part in ("cleaned", "by_chance")
    )
    result = {
        "categories": len(found),
        "wrong_share": sum(one.wrong for one in found) / sum(one.records for one in found),
        "dropped": dropped[0],
        "right": dropped[1],
        "cleaned": -cleaned,
        "by_chance": -chance,
    }
    keep_result("agents_records", result)
    print(
        f"held-out loss after dropping: {cleaned:+.2%} on average; {chance:+.2%} after dropping as many at random"
    )


def main() -> None:
    """Print the report."""
    from bench.agents.short_trainings import project

    words = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    words.add_argument(
        "--folder", type=Path, help="keep base and data sets here, and use those that are there"
    )
    words.add_argument(
        "--pools", type=int, default=4, help="how many categories, the smallest first"
    )
    given = words.parse_args()
    print(machine.describe())
    with tempfile.TemporaryDirectory() as scratch:
        folder = given.folder or Path(scratch) / "project"
        project(folder)
        jobs = [(folder, name, domains) for name, domains in categories(folder, given.pools)]
        with get_context("spawn").Pool(WORKERS) as pool:
            found = []
            for one in pool.imap(examine, jobs):
                print(
                    f"  {one.name}: loss {one.spoilt:.3f}, cleaned {one.cleaned:.3f}, by chance {one.by_chance:.3f}",
                    flush=True,
                )
                found.append(one)
            report(found)


if __name__ == "__main__":
    main()
