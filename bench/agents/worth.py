"""What the agents are worth: builds with them against builds without that get the same training
time, and each one's part.

python -m bench.agents.worth [--domains healthcare,legal,…] [--split FILE:FIELD …] [--seeds
                             17,18,19] [--rounds 3] [--without] [--keep FOLDER]

On: `meetara-build run --rounds N`, all that agents propose accepted. Off: no agents; trained with
the default epochs, and again with so many more that it takes as many CPU-seconds as all trainings
of "on" together; of the two the one with the lower validation loss. Compared is the held-out loss
of the F16 file. With `--without` each agent of which something was taken is left out once, with the
first seed. With `--split` a JSONL or CSV file is split by one of its fields into domains beside the
embedded ones, of the two commonest values. Trainings that several variants have in common are done
once, and counted for each.
"""

import argparse
import csv
import json
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from bench import machine
from bench.result_files import keep_result
from bench.tiny import tiny_project

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests"))

from projects import override

BIN = Path(sys.executable).parent
EMBEDDED = "healthcare,specialized"
"""Whole categories: one whose domains are near each other, and one whose are not."""
TOPICS, RECORDS = 2, 120
"""Domains of a file that is split, and records of each, the first ones."""
SAME, LESS_TIME = 0.001, 0.95
"""A loss lower by more than a thousandth is better; one within it is the same, and counts as better
if it took less time."""


class Result(NamedTuple):
    """One domain of a variant: held-out and validation loss in nats a token, and CPU-seconds of all
    its trainings."""

    loss: float
    validation: float
    seconds: float


Results = dict[str, Result]
Rows = list[dict[str, Any]]


def tool(project: Path, *words: str) -> None:
    """Run meetara-build in a project.

    Raises:
        SystemExit: it failed.
    """
    done = subprocess.run(
        [BIN / "meetara-build", *words], cwd=project, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(
            f"meetara-build {' '.join(words)} failed:\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"
        )


def edited(project: Path, **values: Any) -> None:
    """Set dotted keys (``__`` for the dots) of conf/build.yaml."""
    path = project / "conf" / "build.yaml"
    content = yaml.safe_load(path.read_text())
    for key, value in values.items():
        *above, last = key.split("__")
        place = content
        for part in above:
            place = place[part]
        place[last] = value
    path.write_text(yaml.safe_dump(content, sort_keys=False))


def template(folder: Path, domains: Sequence[str], split: Sequence[str]) -> list[str]:
    """A project of these domains and categories, and of the files' topics, with one store for all
    copies of it; its domains."""
    tiny_project(folder)
    names = [name for name, category in categories(folder).items() if {name, category} & {*domains}]
    for given in split:
        file, _, field = given.rpartition(":")
        names += [added(folder, name, rows) for name, rows in topics(Path(file), field).items()]
    edited(
        folder,
        domains=names,
        store=str(folder.parent / "store"),
        agents__policy={"default": "accept", "llm_advisor": "never"},
    )
    return names


def topics(file: Path, field: str) -> dict[str, Rows]:
    """The first records of the commonest values of a field, by the name of their domain."""
    with file.open(encoding="utf-8", newline="") as lines:
        rows: Rows = (
            [*csv.DictReader(lines)]
            if file.suffix == ".csv"
            else [json.loads(line) for line in lines]
        )
    common = [value for value, _ in Counter(row[field] for row in rows).most_common(TOPICS)]
    names = {value: re.sub(r"[^a-z0-9]+", "_", f"{file.stem}_{value}".lower()) for value in common}
    return {
        names[value]: [row for row in rows if row[field] == value][:RECORDS] for value in common
    }


def added(project: Path, name: str, rows: Rows) -> str:
    """Add a domain of these records."""
    source = project / f"{name}.jsonl"
    source.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    tool(project, "add-domain", name, "--from", str(source))
    return name


def categories(folder: Path) -> dict[str, str]:
    """The category of each domain of a project."""
    files = sorted((folder / "conf" / "domain").glob("*.yaml"))
    return {path.stem: yaml.safe_load(path.read_text())["category"] for path in files}


def variant(parent: Path, name: str, seed: int, domains: Sequence[str], **values: Any) -> Path:
    """A copy of the template in which the domains, and not the base, have another seed."""
    project = parent / name
    shutil.copytree(
        parent / "template",
        project,
        ignore=shutil.ignore_patterns("artifacts", ".meetara", ".snakemake"),
    )
    for domain in domains:
        override(project, domain, {"seed": seed, "domain.quants": ["F16"]})
    edited(project, gguf__lora=False, **values)
    return project


def results(project: Path, domains: Sequence[str], known: dict[str, float]) -> Results:
    """What a variant reached; ``known`` has the CPU-seconds of each training by its key, from all
    variants so far."""
    lines = [
        json.loads(line) for line in (project / "artifacts" / "runs.jsonl").read_text().splitlines()
    ]
    trainings = [
        line for line in lines if line["stage"] == "adapter" and line["outcome"] != "failed"
    ]
    known |= {line["key"]: line["cpu_seconds"] for line in trainings if line["outcome"] == "built"}
    found = {}
    for domain in domains:
        evaluation = json.loads(
            (project / "artifacts" / domain / "evaluation" / "evaluation.json").read_text()
        )
        training = json.loads(
            (project / "artifacts" / domain / "adapter" / "training.json").read_text()
        )
        keys = {line["key"] for line in trainings if line["target"] == domain}
        seconds = sum(known[key] for key in keys)
        found[domain] = Result(
            evaluation["variants"]["F16"]["loss"], training["validation_loss_after"], seconds
        )
    return found


def off(
    parent: Path, name: str, seed: int, domains: Sequence[str], known: dict[str, float], on: Results
) -> Results:
    """Without agents, as long as ``on`` took: the default, and one training with more epochs; the
    better by validation."""
    project = variant(parent, name, seed, domains)
    tool(project, "build")
    plain = results(project, domains, known)
    for domain in domains:
        times = max(1.0, (on[domain].seconds - plain[domain].seconds) / plain[domain].seconds)
        steps = {"training.epochs": round(6 * times), "training.max_steps": round(600 * times)}
        override(project, domain, steps)
    tool(project, "build")
    longer = results(project, domains, known)
    return {
        domain: longer[domain]
        if longer[domain].validation < plain[domain].validation
        else plain[domain]._replace(seconds=longer[domain].seconds)
        for domain in domains
    }


def compared(title: str, on: Sequence[Results], other: Sequence[Results]) -> str:
    """A line: the median change of the held-out loss over domains and seeds, how many domains are
    better over all seeds, the worst."""
    losses = {
        name: [
            mine[name].loss / theirs[name].loss - 1 for mine, theirs in zip(on, other, strict=True)
        ]
        for name in on[0]
    }
    times = {
        name: [
            mine[name].seconds / max(theirs[name].seconds, 1e-9)
            for mine, theirs in zip(on, other, strict=True)
        ]
        for name in on[0]
    }
    better = [
        name
        for name in losses
        if _better(statistics.mean(losses[name]), statistics.mean(times[name]))
    ]
    all_losses, all_times = (
        [value for seeds in of.values() for value in seeds] for of in (losses, times)
    )
    return (
        f"{title:38} {statistics.median(all_losses):+7.2%} {len(better):3d} of {len(losses):2d} {max(all_losses):+7.2%} "
        f"{statistics.median(all_times):6.2f}"
    )


def summarize(on: Sequence[Results], other: Sequence[Results]) -> dict[str, Any]:
    """What is kept: how many pairs of a domain and a seed are better, and by how much; a positive
    median is a lower loss."""
    pairs = [
        [(mine[name], theirs[name]) for name in mine]
        for mine, theirs in zip(on, other, strict=True)
    ]
    every = [pair for seed in pairs for pair in seed]
    changes = [mine.loss / theirs.loss - 1 for mine, theirs in every]
    by_seed = [
        sum(
            _better(mine.loss / theirs.loss - 1, mine.seconds / max(theirs.seconds, 1e-9))
            for mine, theirs in seed
        )
        for seed in pairs
    ]
    ratios = [mine.seconds / max(theirs.seconds, 1e-9) for mine, theirs in every]
    return {
        "domains": len(on[0]),
        "pairs": len(every),
        "better": sum(by_seed),
        "better_share": sum(by_seed) / len(every),
        "better_by_seed": by_seed,
        "median": -statistics.median(changes),
        "worst": max(changes),
        "cpu_ratio": statistics.median(ratios),
    }


def each(name: str, on: Result, other: Result) -> str:
    """A line of one domain with one seed: both losses, their difference, the share of the time."""
    change, time = on.loss / other.loss - 1, on.seconds / max(other.seconds, 1e-9)
    return f"  {name:30} {on.loss:.4f} and {other.loss:.4f}: {change:+.2%}, time {time:.2f}"


def _better(change: float, time: float) -> bool:
    return change < -SAME or (change <= SAME and time < LESS_TIME)


def main() -> None:
    """Print the report."""
    words = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    words.add_argument("--domains", default=EMBEDDED)
    words.add_argument("--split", nargs="*", default=(), metavar="FILE:FIELD")
    words.add_argument("--seeds", default="17,18,19")
    words.add_argument("--rounds", type=int, default=3)
    words.add_argument("--without", action="store_true")
    words.add_argument("--keep", type=Path)
    given = words.parse_args()
    print(machine.describe(), flush=True)
    with tempfile.TemporaryDirectory() as scratch:
        parent = given.keep or Path(scratch)
        parent.mkdir(parents=True, exist_ok=True)
        domains = template(parent / "template", given.domains.split(","), given.split)
        known: dict[str, float] = {}
        seeds = [int(seed) for seed in given.seeds.split(",")]
        on, without = [], []
        print(
            f"{'held-out loss with agents, against':38} {'median':>7} {'better':>9} {'worst':>7} {'time':>6}",
            flush=True,
        )
        for seed in seeds:
            on.append(ran(parent, f"on-{seed}", seed, domains, known, given.rounds))
            without.append(off(parent, f"off-{seed}", seed, domains, known, on[-1]))
            print(compared(f"without any, seed {seed}", on[-1:], without[-1:]), flush=True)
            print(
                *(each(name, on[-1][name], without[-1][name]) for name in domains),
                sep="\n",
                flush=True,
            )
        print(compared("without any, all seeds", on, without), flush=True)
        left_out = {}
        if given.split:
            keep_result("agents_worth", {"seeds": seeds, **summarize(on, without)})
        for agent in taken(parent / f"on-{seeds[0]}") if given.without else ():
            policy = {"default": "accept", "llm_advisor": "never", agent: "never"}
            left = ran(
                parent,
                f"without-{agent}",
                seeds[0],
                domains,
                known,
                given.rounds,
                agents__policy=policy,
            )
            print(compared(f"without {agent}, seed {seeds[0]}", on[:1], [left]), flush=True)
            left_out[agent] = summarize(on[:1], [left])["median"]
        if given.without:
            everything = summarize(on, without)
            about = {"domains": len(domains), "rounds": given.rounds, "seed": seeds[0]}
            keep_result("agents_worth_without", {**about, "lower": left_out, "all": everything})


def taken(project: Path) -> list[str]:
    """The agents of which something was taken; without another nothing would have been
    different."""
    done = subprocess.run(
        [BIN / "meetara-build", "agents", "--json"],
        cwd=project,
        capture_output=True,
        text=True,
        check=True,
    )
    return [name for name, agent in json.loads(done.stdout)["agents"].items() if agent["accepted"]]


def ran(
    parent: Path,
    name: str,
    seed: int,
    domains: Sequence[str],
    known: dict[str, float],
    rounds: int,
    **values: Any,
) -> Results:
    """A variant with agents, after so many rounds."""
    project = variant(parent, name, seed, domains, **values)
    tool(project, "run", "--rounds", str(rounds))
    return results(project, domains, known)


if __name__ == "__main__":
    main()
