"""Hostile and rough treatment by agents: what they propose, what they are called, and what they
would have a terminal do."""

import csv
import json
import subprocess
from pathlib import Path
from typing import Any

from projects import DOMAINS, edit, override, read_yaml, write_yaml

from bench.strangers.campaign import BIN, Place, case, expect, expect_success
from bench.strangers.inputs import DOMAIN, pairs
from meetara_build.config.overlay import read_overlay
from meetara_build.graph import load

TRIED = "nutrition"
EPOCHS = f"Proposal({TRIED!r}, 'training.epochs', 3, 'the last epoch was the best')"
"""What the agent proposes that must be heard whatever others do."""
IDS = ["4471e02983110526", "0000000000000e10", "7734901265518820", "00000000000000e5"]
"""Ids that records could have, and that a reader of YAML could take for numbers."""
NUMBERS = ["6e2", "1_000", "0x1F", "0o17", "12:30:45", ".inf", "-.5E+3", "2026-07-18"]
"""Texts that one or another reader of YAML takes for something else."""
OTHERS = [
    "no",
    "~",
    "null",
    "=",
    "<<",
    "- dill",
    "# dill",
    "'",
    '"',
    "!!int 3",
    "a: b",
    "*dill",
    "&dill",
    "? dill",
    " dill ",
    "{}",
]
UNSEEN = ["\x1b", "\x07", "\x9b", "\u202e", "\u2066", "\u2028", "\u200b"]
"""What steers a terminal, or turns the order of what is read."""


def lone_project(place: Place, name: str = "project", *, built: bool = False) -> Path:
    """A project without any agents."""
    project = place.project(name, built=built)
    for path in (project / "plugins").glob("*.py"):
        path.unlink()
    return project


def add_agent(project: Path, name: str, *proposals: str) -> None:
    """An agent that proposes this."""
    text = "from meetara_build.agents import Proposal, hookimpl\n\n@hookimpl\ndef propose(context):\n    return [{}]\n"
    (project / "plugins" / f"{name}.py").write_text(text.format(", ".join(proposals)))


def ask(place: Place, project: Path) -> dict[str, Any]:
    """A round, as ``propose --json`` tells of it."""
    said = place.run(project, "propose", "--json")
    expect_success(said)
    told: dict[str, Any] = json.loads(said.out)
    return told


def statuses(told: dict[str, Any]) -> dict[tuple[str, str], str]:
    """What became of each agent's proposal for each key."""
    return {(one["agent"], one["proposal"]["key"]): one["status"] for one in told["proposals"]}


def id_of(told: dict[str, Any], key: str) -> str:
    """The id of the proposal for a key."""
    return next(str(one["id"]) for one in told["proposals"] if one["proposal"]["key"] == key)


@case(
    "H3",
    "texts that look like numbers, dates or signs of YAML are read back as they were accepted, and stop no command",
)
def texts_like_numbers(place: Place) -> None:
    project = lone_project(place)
    looks = [*IDS, *NUMBERS, *OTHERS]
    add_agent(project, "counter", f"Proposal({TRIED!r}, 'data.drop', {IDS!r}, '7e1', {looks!r})")
    told = ask(place, project)
    expect_success(place.run(project, "accept", id_of(told, "data.drop")))
    expect_success(place.run(project, "plan"))
    [taken] = read_overlay(project / "conf", TRIED)
    expect((taken.value, taken.reason, taken.evidence) == (IDS, "7e1", looks), taken)


@case(
    "H3b", "each reason that an agent gives is read back as it was, where policy accepts it unasked"
)
def reasons_like_numbers(place: Place) -> None:
    project = lone_project(place)
    edit(project / "conf" / "build.yaml", "agents.policy.default", "accept")
    edit(project / "conf" / "build.yaml", "agents.decisions_a_round", 100)
    values = {
        "training.epochs": 3,
        "training.weight_decay": 0.02,
        "training.warmup_share": 0.2,
        "training.learning_rate": 0.001,
        "lora.rank": 4,
        "lora.alpha": 8,
        "lora.dropout": 0.1,
        "training.batch_tokens": 600,
    }
    places = [(domain, key) for key in values for domain in DOMAINS]
    right = dict(zip(places, [*NUMBERS, *OTHERS], strict=False))
    words = [
        f"Proposal({domain!r}, {key!r}, {values[key]}, {reason!r})"
        for (domain, key), reason in right.items()
    ]
    add_agent(project, "counter", *words)
    told = ask(place, project)
    expect(set(statuses(told).values()) == {"wins"} and not told["faults"], told)
    read = {
        (domain, one.key): one.reason
        for domain in DOMAINS
        for one in read_overlay(project / "conf", domain)
    }
    expect(
        read == right, [(at, right[at], read.get(at)) for at in right if read.get(at) != right[at]]
    )
    expect_success(place.run(project, "plan"))


@case(
    "H3c",
    "columns whose names look like numbers are those that add-domain was told, and it writes what can be read",
)
def columns_like_numbers(place: Place) -> None:
    project = place.project()
    for number, (prompt, response) in enumerate((("6e2", "7e2"), ("0x1F", "12:30"), ("no", "~"))):
        source = place.folder / f"table{number}.csv"
        with source.open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows(
                [(prompt, response, "why"), *((q, a, "so") for q, a in pairs())]
            )
        name = f"{DOMAIN}{number}"
        said = place.run(
            project,
            "add-domain",
            name,
            "--from",
            str(source),
            "--prompt",
            prompt,
            "--response",
            response,
        )
        expect_success(said)
        [read] = load(project).step("dataset", name).recipe["sources"]
        expect(read["columns"] == {"prompt": prompt, "response": response}, read)


@case(
    "H10",
    "an agent that cannot be, or that says too much, is named in a line, and all others are heard",
)
def agents_that_cannot_be(place: Place) -> None:
    project = lone_project(place)
    names = ["old agent", "Größe", "-f", "a;b", "x" * 90]
    for name in names:
        add_agent(project, name, EPOCHS)
    add_agent(project, "heard", EPOCHS)
    large = {
        "loud": "'v' * 63_000, 'r' * 7_900",
        "wordy": "3, 'r' * 20_000",
        "deep": "[[" * 40 + "]]" * 40 + ", 'so'",
    }
    for name, words in large.items():
        add_agent(project, name, f"Proposal({TRIED!r}, 'training.learning_rate', {words})")
    told = ask(place, project)
    expect(statuses(told).get(("heard", "training.epochs")) == "wins", statuses(told))
    missing = [name for name in (*names, *large) if name not in told["faults"]]
    expect(not missing, f"{missing} not in {told['faults']}")
    expect("\n" not in "".join(told["faults"].values()), told["faults"])
    said = place.run(project, "propose")
    expect(said.code == 0 and "unexpected" not in said.text, said.text)


@case("H13", "of decisions that are accepted at the same moment none is lost")
def accepted_at_once(place: Place) -> None:
    project = lone_project(place)
    values = {
        "training.epochs": 3,
        "training.weight_decay": 0.02,
        "lora.rank": 4,
        "training.warmup_share": 0.2,
    }
    domains = (TRIED, "programming")
    words = [
        f"Proposal({domain!r}, {key!r}, {value}, 'so')"
        for domain in domains
        for key, value in values.items()
    ]
    add_agent(project, "busy", *words)
    told = ask(place, project)
    for domain in domains:
        ids = [str(one["id"]) for one in told["proposals"] if one["proposal"]["domain"] == domain]
        started = [
            subprocess.Popen(
                [str(BIN / "meetara-build"), "accept", id],
                cwd=project,
                stdout=subprocess.PIPE,
                text=True,
            )
            for id in ids
        ]
        answers = [process.communicate()[0] for process in started]
        expect(
            len(answers) == len(values) and all("1 proposal taken" in answer for answer in answers),
            answers,
        )
        taken = {one.key: one.value for one in read_overlay(project / "conf", domain)}
        expect(taken == values, f"{sorted(taken)} of {sorted(values)}")


@case(
    "H14",
    "what agents and files say stays in its line and steers no terminal: newlines, escapes, and signs that turn text round",
)
def words_of_others(place: Place) -> None:
    project = lone_project(place, built=True)
    forged = "Plan: 0 to run, 0 to restore, 0 maybe, 77 fresh."
    reason = "fine\n" + forged + "\n" + "".join(UNSEEN[3:]) + "end"
    add_agent(
        project, "smooth", f"Proposal({TRIED!r}, 'training.epochs', 3, {reason!r}, [{reason!r}])"
    )
    add_agent(
        project, "steering", "Proposal('nutri\\x1b]0;owned\\x07tion', 'training.epochs', 3, 'so')"
    )
    add_agent(project, "colour\x1b[2Jful", EPOCHS)
    asked = place.run(project, "propose", FORCE_COLOR="1").text
    edit(
        project / "conf" / "domain" / "programming.yaml",
        "system_prompt",
        f"Be kind.\x1b[2J\x1b]0;owned\x07\n{forged}\n",
    )
    said = place.run(project, "plan", FORCE_COLOR="1")
    listed = place.run(project, "agents", FORCE_COLOR="1").text
    for text in (asked, said.text, listed):
        lines = text.splitlines()
        expect(not any(line.startswith(forged) for line in lines), text)
        seen = [sign for sign in ("\x1b]", "\x1b[2J", *UNSEEN[1:]) if sign in text]
        expect(not seen, f"{seen} in {text!r}")
    last = said.out.splitlines()[-1]
    expect("Plan: " in last and "77 fresh" not in last, last)
    shown = f"{asked}{said.text}"
    expect("\\u202e" in shown and "77 fresh" in shown, f"hidden, not shown: {shown!r}")


@case(
    "H14b",
    "what a record says is printed as it stands: no sign of markup and no code of a picture is read",
)
def words_of_records(place: Place) -> None:
    project = place.project()
    texts = [
        "root:x:0",
        ":smile: :x:",
        "[bold]now[/bold]",
        "[/nothing]",
        "[link=x]y[/link]",
        "\u202eesrever",
        "a\x1b[2Jb",
    ]
    path = project / "conf" / "domain" / f"{TRIED}.jsonl"
    path.write_text(path.read_text() + "".join(f"{text} is no JSON\n" for text in texts))
    said = place.run(project, "data", "check", TRIED, COLUMNS="300")
    expect(said.code == 1 and "unexpected" not in said.text, said.text)
    shown = [text.replace("\u202e", "\\u202e").replace("\x1b", "\\x1b") for text in texts]
    missing = [text for text in shown if text not in said.text]
    expect(not missing, f"{missing} not in {said.text}")


@case(
    "H17",
    "a value that no training could take is refused in the round, with the reason, and what could be is not",
)
def values_that_cannot_work(place: Place) -> None:
    project = lone_project(place, built=True)
    values: dict[str, Any] = {
        "training.topic_weights": {"line\nbreak: x": 4},
        "lora.targets": ["../../conf"],
        "gguf.tensor_types": {"(x+x+)+y$": "Q8_0"},
        "training.learning_rate": -1.0,
        "domain.quants": ["Q9_9"],
        "evaluation.max_loss": "low",
    }
    add_agent(
        project,
        "clumsy",
        *(f"Proposal({TRIED!r}, {key!r}, {value!r}, 'so')" for key, value in values.items()),
    )
    add_agent(project, "heard", EPOCHS)
    told = ask(place, project)
    seen = statuses(told)
    expect(seen.pop(("heard", "training.epochs"), "") == "wins", seen)
    expect(
        set(seen.values()) == {"refused"} and len(seen) == len(values),
        {**seen, "faults": told["faults"]},
    )
    silent = [
        one["proposal"]["key"]
        for one in told["proposals"]
        if one["status"] == "refused" and not one["why"]
    ]
    expect(not silent, f"no reason for {silent}")


@case(
    "H23", "what an agent proposed that is gone counts no more, and a person is not asked about it"
)
def agents_that_are_gone(place: Place) -> None:
    project = lone_project(place)
    add_agent(project, "leaver", EPOCHS, f"Proposal({TRIED!r}, 'lora.rank', 4, 'so')")
    add_agent(project, "stayer", f"Proposal({TRIED!r}, 'training.weight_decay', 0.03, 'so')")
    expect(len(statuses(ask(place, project))) == 3, "not all three are heard")
    (project / "plugins" / "leaver.py").unlink()
    left = statuses(ask(place, project))
    expect(left == {("stayer", "training.weight_decay"): "wins"}, left)


@case(
    "H16",
    "JSON without end, wherever it lies, is a fault of that file: commands go on without it or name it",
)
def nested_json(place: Place) -> None:
    project = lone_project(place, built=True)
    deep = "[" * 200_000
    outbox = project / "artifacts" / ".outbox"
    outbox.mkdir(exist_ok=True)
    (outbox / "1-1.reports").write_text(deep + "\n")
    (project / "artifacts" / "proposals.json").write_text(deep)
    for path in (project / ".meetara").glob("*.json"):
        path.write_text(deep)
    add_agent(project, "heard", EPOCHS)
    said = place.run(project, "plan")
    expect(said.code == 0 and "Plan: 0 to run, 0 to restore, 0 maybe" in said.out, said.text)
    expect(statuses(ask(place, project)) == {("heard", "training.epochs"): "wins"}, "not heard")
    expect_success(place.run(project, "context", "show"))
    file = place.folder / "deep.json"
    file.write_text('{"a":' * 200_000)
    for words in (["context", "import"], ["apply"]):
        said = place.run(project, *words, str(file))
        expect(
            said.code == 1 and "deep.json" in said.text and "unexpected" not in said.text, said.text
        )
    manifest = project / "artifacts" / TRIED / "package" / "manifest.json"
    manifest.unlink()
    manifest.write_text(deep)
    said = place.run(project, "plan", TRIED)
    expect("Plan: 0 to run, 1 to restore" in said.out, said.text)


@case("H14c", "a name of a domain's own file, or of a key in it, steers no terminal either")
def names_of_files(place: Place) -> None:
    project = place.project()
    about = read_yaml(project / "conf" / "domain" / f"{TRIED}.yaml")
    for name in ("a\x1b[2Jb", "a\u202eb", "a\nPlan: 0 to run, 0 to restore, 0 maybe, 77 fresh."):
        path = project / "conf" / "domain" / f"{name}.yaml"
        write_yaml(path, about)
        said = place.run(project, "plan", FORCE_COLOR="1")
        path.unlink()
        right = (
            said.code == 1
            and "\x1b[2J" not in said.text
            and "\u202e" not in said.text
            and "\nPlan:" not in said.text
        )
        expect(right, f"{name!r}: {said.text!r}")
    override(project, TRIED, {"training.ep\x1b[2Jochs\n": 3})
    said = place.run(project, "plan", FORCE_COLOR="1")
    expect(said.code == 1 and "\x1b[2J" not in said.text, repr(said.text))
