"""The embedded base's corpus: a stated share of training records, and never one that any domain
holds out."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from projects import REPOSITORY
from small_models import train_tokenizer

from meetara_build.config.resolve import Configuration, Resolved
from meetara_build.config.schema import Build, Domain, Hardware, check
from meetara_build.config.yaml_files import read_yaml
from meetara_build.errors import DataError
from meetara_build.graph.recipes import Scope, make_recipe
from meetara_build.graph.stages import STAGE
from meetara_build.stages import corpus, dataset
from meetara_build.stages.recipes.corpus import CorpusRecipe
from meetara_build.stages.recipes.dataset import DatasetRecipe
from meetara_build.stages.recipes.preparation import Preparation
from meetara_build.stages.types import Metrics

CONF = REPOSITORY / "conf"
SHIPPED = ("nutrition", "programming", "storytelling")


def preparation(domain: str, **changes: Any) -> dict[str, Any]:
    """What the dataset stage is told of a domain with one JSONL source."""
    return {
        "domain": domain,
        "system_prompt": f"You know {domain}.",
        "languages": ["en"],
        "sources": [
            {
                "name": f"{domain}.jsonl",
                "format": None,
                "hub": None,
                "split": "train",
                "columns": None,
                "language": None,
                "limit": None,
            }
        ],
        "near_duplicate": 0.85,
        "near_group": 0.75,
        "validation": 0.1,
        "test": 0.2,
        "max_bad_share": 0.05,
        "repair_text": True,
        "html_to_text": False,
        **changes,
    }


def run(recipe: Mapping[str, Any], *more: Any) -> Metrics:
    """The stage, of a recipe that is written as JSON."""
    return corpus.run(CorpusRecipe.model_validate(recipe), *more)


def write(path: Path, pairs: Sequence[tuple[str, str]]) -> Path:
    path.write_text(
        "".join(json.dumps({"prompt": asked, "response": said}) + "\n" for asked, said in pairs)
    )
    return path


def make(
    folder: Path, share: float, domains: Sequence[str], sources: dict[str, Path]
) -> list[dict[str, Any]]:
    folder.mkdir(parents=True)
    recipe = {"share": share, "domains": {name: preparation(name) for name in domains}}
    run(recipe, {f"{name}/source_0": path for name, path in sources.items()}, folder)
    return read(folder / "corpus.jsonl")


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def shipped() -> dict[str, Path]:
    return {name: CONF / "domain" / f"{name}.jsonl" for name in SHIPPED}


@pytest.fixture(scope="module")
def sides(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, set[str]]]:
    """Record ids by domain and side, as the dataset stage itself splits the shipped records."""
    root = tmp_path_factory.mktemp("sides")
    train_tokenizer(root / "base")
    found = {}
    for name in SHIPPED:
        (root / name).mkdir()
        recipe = {
            **preparation(name),
            "min_tokens": 1,
            "max_tokens": 100_000,
            "max_drop_share": 1.0,
            "drop": [],
        }
        dataset.run(
            DatasetRecipe.model_validate(recipe),
            {"base": root / "base", "source_0": shipped()[name]},
            root / name,
        )
        found[name] = {
            side: {line["id"] for line in read(root / name / f"{side}.jsonl")}
            for side in ("train", "validation", "test")
        }
    return found


def test_the_whole_share_is_every_training_record_and_nothing_held_out(
    tmp_path: Path, sides: dict[str, dict[str, set[str]]]
) -> None:
    ids = {line["id"] for line in make(tmp_path / "out", 1.0, SHIPPED, shipped())}
    assert ids == set.union(*(side["train"] for side in sides.values()))
    for side in sides.values():
        assert not ids & (side["validation"] | side["test"])


def test_a_smaller_share_is_part_of_a_larger_one_and_about_as_large_as_it_says(
    tmp_path: Path,
) -> None:
    chosen = {
        share: {line["id"] for line in make(tmp_path / str(share), share, SHIPPED, shipped())}
        for share in (0.2, 0.5, 0.8, 1.0)
    }
    assert chosen[0.2] < chosen[0.5] < chosen[0.8] < chosen[1.0]
    for share, ids in chosen.items():
        assert abs(len(ids) / len(chosen[1.0]) - share) < 0.15


def test_what_one_domain_holds_out_is_not_learnt_through_another(tmp_path: Path) -> None:
    """Two domains share records; a further record beside one of them moves it to another side in
    one domain only."""
    subjects = [(topic, word) for topic in _words("topic", 30) for word in _words("word", 4)]
    pairs = [
        (
            f"What is {topic} number {number}?",
            f"{topic.title()} {number} is best done slowly, and {word} at a time.",
        )
        for number, (topic, word) in enumerate(subjects)
    ]
    near = [(asked, said) for asked, said in pairs] + [
        (f"{asked} Please!", f"{said} Truly.") for asked, said in pairs
    ]
    sources = {
        "first": write(tmp_path / "first.jsonl", pairs),
        "second": write(tmp_path / "second.jsonl", near),
    }
    split = {}
    for name, path in sources.items():
        prepared = dataset.prepare(
            Preparation.model_validate(preparation(name, near_duplicate=1.0)), {"source_0": path}
        )
        split[name] = {
            side: {record.id for record in getattr(prepared, side)}
            for side in ("train", "validation", "test")
        }
    torn = split["first"]["train"] & (split["second"]["test"] | split["second"]["validation"])
    torn |= split["second"]["train"] & (split["first"]["test"] | split["first"]["validation"])
    assert torn, "the two domains disagree about some record, or this test proves nothing"
    recipe = {
        "share": 1.0,
        "domains": {name: preparation(name, near_duplicate=1.0) for name in sources},
    }
    (tmp_path / "out").mkdir()
    run(recipe, {f"{name}/source_0": path for name, path in sources.items()}, tmp_path / "out")
    assert not torn & {line["id"] for line in read(tmp_path / "out" / "corpus.jsonl")}


def _words(kind: str, count: int) -> list[str]:
    return [
        "".join(
            chr(97 + int(letter, 16))
            for letter in hashlib.sha256(f"{kind}{number}".encode()).hexdigest()[:9]
        )
        for number in range(count)
    ]


def test_each_line_says_whose_it_is_and_holds_only_what_is_asked_and_answered(
    tmp_path: Path,
) -> None:
    lines = make(tmp_path / "out", 1.0, SHIPPED, shipped())
    assert {line["domain"] for line in lines} == set(SHIPPED)
    for line in lines:
        assert set(line) == {"id", "domain", "messages"}
        assert [message["role"] for message in line["messages"]] == ["user", "assistant"], (
            "no system prompt"
        )
    assert len({line["id"] for line in lines}) == len(lines)


def test_neither_the_order_of_domains_nor_of_sources_changes_a_byte(tmp_path: Path) -> None:
    make(tmp_path / "one", 0.5, SHIPPED, shipped())
    make(tmp_path / "other", 0.5, SHIPPED[::-1], dict(reversed(shipped().items())))
    for name in ("corpus.jsonl", "card.json"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "other" / name).read_bytes()


def test_the_card_counts_what_was_there_and_what_was_taken(
    tmp_path: Path, sides: dict[str, dict[str, set[str]]]
) -> None:
    lines = make(tmp_path / "out", 0.5, SHIPPED, shipped())
    card = json.loads((tmp_path / "out" / "card.json").read_text())
    assert card["share"] == 0.5
    assert card["records"] == len(lines)
    assert card["training_records"] == sum(len(side["train"]) for side in sides.values())
    assert card["held_out_records"] == sum(
        len(side["validation"]) + len(side["test"]) for side in sides.values()
    )


def test_where_nothing_is_left_to_learn_from_it_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(
        DataError,
        match=r"no training record is left for the base; raise pretraining\.share, or add domains",
    ):
        make(tmp_path / "out", 0.0, SHIPPED[:1], {"nutrition": shipped()["nutrition"]})


def test_a_domain_whose_records_are_bad_stops_it(tmp_path: Path) -> None:
    bad = write(tmp_path / "bad.jsonl", [("Why?", "")] * 20)
    with pytest.raises(DataError, match=r"nutrition\.jsonl.*bad"):
        make(tmp_path / "out", 1.0, ["nutrition"], {"nutrition": bad})


def test_the_shipped_base_learns_a_stated_part_of_every_shipped_domain() -> None:
    """So that fine-tuning has something left to learn, and no domain is strange to the base."""
    base = Configuration(REPOSITORY).common("tiny").base
    assert base.pretraining is not None
    assert 0.1 <= base.pretraining.share <= 0.6
    assert set(base.pretraining.domains) == {path.stem for path in CONF.glob("domain/*.yaml")}
    content = read_yaml(CONF / "build.yaml")
    del content["defaults"]
    build = check(Build, content, CONF)
    hardware = check(Hardware, read_yaml(CONF / "hardware" / "cpu.yaml"), CONF)
    domain = check(Domain, read_yaml(CONF / "domain" / "nutrition.yaml"), CONF)
    item = Resolved("nutrition", domain, "tiny", base, "cpu", hardware, build, [])
    recipe, prepared = (
        make_recipe(STAGE[stage], Scope(item, {"nutrition": item})).model_dump()
        for stage in ("corpus", "dataset")
    )
    assert recipe["share"] == base.pretraining.share
    assert recipe["domains"]["nutrition"].items() <= prepared.items(), (
        "the corpus prepares a domain's records exactly as its dataset stage does"
    )
