"""What cases are made of: pairs of questions and answers, files of them, bases, and what a project
has learnt of them."""

import json
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from projects import choose, edit, write_yaml
from small_models import make_model, train_tokenizer

from bench.strangers.campaign import Place, Said, expect, expect_refusal, expect_success
from meetara_build.training.chat import read_records

DOMAIN = "garden"
"""The domain that cases add."""
PLANTS = [
    "tomato",
    "basil",
    "rosemary",
    "lavender",
    "pumpkin",
    "courgette",
    "radish",
    "carrot",
    "leek",
    "spinach",
    "lettuce",
    "potato",
    "onion",
    "garlic",
    "parsley",
    "dill",
    "strawberry",
    "raspberry",
    "currant",
    "gooseberry",
    "apple",
    "pear",
    "plum",
    "cherry",
    "walnut",
    "hazelnut",
    "rose",
    "tulip",
    "crocus",
    "daffodil",
    "peony",
    "iris",
    "fern",
    "moss",
    "ivy",
    "clematis",
    "wisteria",
    "birch",
    "maple",
    "oak",
]
ASKED = (
    "How much water does {} need in a hot July?",
    "My {} has yellow leaves at the bottom, what is missing?",
    "When may I plant {} outside without fear of frost?",
    "Which neighbour in the bed is good for {}?",
    "Does {} grow in a pot on a balcony that faces north?",
)
ADVICE = (
    "Water it early, so that the leaves are dry by noon.",
    "A handful of compost in April feeds it until the autumn.",
    "It likes chalk and hates wet feet, so loosen clay with sand.",
    "Cut back a third after flowering and leave the old wood alone.",
    "Snails come at dusk: a ring of coarse sawdust keeps most of them off.",
    "Wait for the last cold nights of May before it leaves the window sill.",
    "Half a day of shade does no harm, though the harvest is smaller.",
    "Yellow between green veins means that iron is locked away in chalky soil.",
    "Mulch of straw saves you every second can.",
    "Give each one two hands of room on every side.",
    "Marigolds beside it keep worms from the roots.",
    "Turn the pot a quarter every week, or it leans to the light.",
    "A mild soap solution is enough against lice.",
    "Seeds need light, so press them in and cover nothing.",
    "Rain water is better than what comes out of the tap.",
    "Old varieties keep longer in a cool cellar between layers of paper.",
    "Prune with clean blades, and never when it freezes.",
    "An evening of strong wind breaks tall stems, therefore tie them to bamboo.",
    "Bees visit it from morning to night, which your neighbour's orchard will thank you for.",
    "Do not move it for seven years.",
    "Lift the bulbs once the foliage has withered and store them in dry peat.",
    "Nettle brew, diluted ten times, is the cheapest nitrogen there is.",
    "If buds drop off, draughts are usually to blame.",
    "Sow thinly in rows, thin out to a finger's breadth, and eat what you pull.",
    "Blackbirds love the fruit more than you do, so throw a net over in time.",
)


class Learnt(NamedTuple):
    """The conversations of a data set as they are kept, and what became of every record that was
    read."""

    chats: list[list[dict[str, Any]]]
    account: list[dict[str, Any]]

    @property
    def pairs(self) -> list[tuple[str, str]]:
        """First question and last answer of each conversation, sorted."""
        return sorted(
            (next(turn["content"] for turn in chat if turn["role"] == "user"), chat[-1]["content"])
            for chat in self.chats
        )

    @property
    def faults(self) -> list[dict[str, Any]]:
        """The entries of records that were refused or left out."""
        return [entry for entry in self.account if "problem" in entry or "reason" in entry]


def pairs(count: int = 40, seed: int = 47) -> list[tuple[str, str]]:
    """Questions about plants and answers of a few sentences, no two alike."""
    chance = random.Random(seed)
    found = []
    for number in range(count):
        plant = PLANTS[number % len(PLANTS)]
        again = f" It is number {number} in my book." if number >= len(PLANTS) else ""
        answer = " ".join(chance.sample(ADVICE, 4))
        found.append(
            (ASKED[chance.randrange(len(ASKED))].format(plant) + again, f"For {plant}: {answer}")
        )
    return found


def turn(role: str, content: Any, **more: Any) -> dict[str, Any]:
    """One turn of a conversation."""
    return {"role": role, "content": content, **more}


def add(place: Place, project: Path, source: Path, *words: str, **environment: str) -> Said:
    """``add-domain garden --from SOURCE``."""
    return place.run(project, "add-domain", DOMAIN, "--from", str(source), *words, **environment)


def prepare(place: Place, project: Path, domain: str = DOMAIN) -> Learnt:
    """What the data set of a domain holds, once its stage has run."""
    expect_success(place.run(project, "stage", "dataset", domain))
    folder = project / "artifacts" / domain / "dataset"
    chats = [
        record["messages"]
        for side in ("train", "validation", "test")
        for record in read_records(folder / f"{side}.jsonl")
    ]
    return Learnt(chats, list(read_records(folder / "account.jsonl")))


def learn(place: Place, source: Path, *words: str) -> Learnt:
    """Add a domain from a file to a built project, and prepare its data set."""
    project = place.project(f"project-{source.name}", built=True)
    expect_success(add(place, project, source, *words))
    return prepare(place, project)


def expect_pairs(learnt: Learnt, right: Sequence[tuple[str, str]]) -> None:
    """A data set holds these pairs and no others."""
    seen, wanted = learnt.pairs, sorted(right)
    missing, more = (
        [pair for pair in wanted if pair not in seen],
        [pair for pair in seen if pair not in wanted],
    )
    expect(
        seen == wanted,
        f"{len(seen)} pairs; missing {missing[:2]}; beyond {more[:2]}; {learnt.faults[:2]}",
    )


def expect_refused_or_pairs(
    place: Place, source: Path, right: Sequence[tuple[str, str]], *words: str
) -> None:
    """A file is either read as it is meant, or refused at once with these words."""
    project = place.project(f"project-{source.name}", built=True)
    said = add(place, project, source)
    if said.code:
        expect_refusal(said, *words)
    else:
        expect_pairs(prepare(place, project), right)


def make_base(
    folder: Path, kind: str = "llama", *, template: str | None = None, **changes: Any
) -> Path:
    """A random model with a byte-level tokenizer of its own, and a chat template; ``changes`` are
    its configuration's."""
    train_tokenizer(folder)
    if template is not None:
        (folder / "chat_template.jinja").write_text(template, encoding="utf-8")
    make_model(folder, kind, **{"max_position_embeddings": 1024, **changes})
    return folder


def use_base(
    place: Place, folder: Path, records: Sequence[Mapping[str, Any]] | None = None
) -> Path:
    """A project with the domain ``garden`` on a folder's model, which is trained as briefly as can
    be."""
    project = place.project(f"project-{folder.name}")
    about = {
        "description": "Mine",
        "licence": "mit",
        "chat_template": "chatml",
        "parameters": 2_000_000,
    }
    write_yaml(project / "conf" / "base" / "own.yaml", {**about, "folder": str(folder)})
    build = project / "conf" / "build.yaml"
    choose(project, base="own")
    edit(build, "data.max_tokens", 900)
    edit(build, "training.max_steps", 3)
    edit(build, "training.learning_rate", 2.0e-3)
    domain = project / "conf" / "domain" / f"{DOMAIN}.yaml"
    place.write_lines(
        domain.with_suffix(".jsonl"), records or [{"prompt": q, "response": a} for q, a in pairs()]
    )
    source = {"path": f"{DOMAIN}.jsonl"}
    about = {
        "category": "own",
        "description": "Plants",
        "topics": [],
        "languages": ["en"],
        "safety": "standard",
    }
    write_yaml(
        domain,
        {
            **about,
            "sources": [source],
            "evaluation": {"beat_base_by": 0.0},
            "quants": ["F16", "Q8_0"],
        },
    )
    return project


def take_base(place: Place, folder: Path) -> tuple[Path, Said]:
    """A project on a folder's model, and what the stage that takes the model says."""
    project = use_base(place, folder)
    return project, place.run(project, "stage", "base", "base/own")


def change_json(path: Path, **changes: Any) -> None:
    """Set keys of a JSON file."""
    content: Mapping[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps({**content, **changes}), encoding="utf-8")
