"""The way back from a key of a recipe to the file that sets it: it leads somewhere, and to where an
edit was made."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from fast_stages import Edit
from projects import copy_built, edit, override, read_yaml, write_yaml

from meetara_build.config import schema
from meetara_build.graph import Step, load
from meetara_build.plan import plan
from meetara_build.plan.causes import ABOVE, CONFIG, TEMPORARY
from meetara_build.plan.provenance import Origin, origin

SHAPES = {
    "base": schema.Base,
    "hardware": schema.Hardware,
    "domain": schema.Domain,
    "safety": schema.Safety,
}


@pytest.fixture
def project(built: Path, tmp_path: Path) -> Path:
    """A copy of one's own."""
    return copy_built(built, tmp_path / "project")


def leaves(recipe: Mapping[str, Any], above: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """The paths of all keys of a recipe that hold no further keys."""
    for key, value in recipe.items():
        if isinstance(value, dict) and value:
            yield from leaves(value, (*above, key))
        else:
            yield (*above, key)


def every_key(project: Path) -> Iterator[tuple[Step, tuple[str, ...], Origin | None]]:
    graph = load(project)
    for step in graph.steps.values():
        yield from ((step, path, origin(graph, step, path)) for path in leaves(step.recipe))


def is_set(step: Step, path: tuple[str, ...]) -> bool:
    """Whether a recipe says something there: what is None may stand in no file."""
    value: Any = step.recipe
    for part in path:
        value = value[part]
    return value is not None


def dotted(content: Mapping[str, Any]) -> set[str]:
    """All keys of a file, those that hold further keys too; a group's own keys and an overlay's
    decisions as what they set."""
    keys = {".".join(path[:end]) for path in leaves(content) for end in range(1, len(path) + 1)}
    keys |= {key.partition(".")[2] for key in keys if key.partition(".")[0] in SHAPES}
    keys |= {
        str(group).removeprefix("override /")
        for entry in content.get("defaults", [])
        if isinstance(entry, dict)
        for group in entry
    }
    return keys | {taken["key"].removeprefix("domain.") for taken in content.get("decisions", [])}


def known(project: Path, file: str) -> set[str]:
    """The keys of a file, and the optional ones that it might have."""
    shape = SHAPES.get(file.split("/")[1])
    return dotted(read_yaml(project / file)) | set(shape.model_fields if shape else ())


# Every key comes from somewhere


def test_every_key_of_every_recipe_comes_from_a_file_of_the_project(built: Path) -> None:
    lost = {
        f"{step.name} {'.'.join(path)}": found.file
        for step, path, found in every_key(built)
        if found is not None and not (built / found.file).is_file()
    }
    assert lost == {}


def test_every_key_of_every_recipe_is_a_key_of_its_file(built: Path) -> None:
    keys = {
        file: known(built, file)
        for file in {found.file for *_, found in every_key(built) if found}
        if (built / file).exists()
    }
    wrong = {
        f"{step.name} {'.'.join(path)}": found
        for step, path, found in every_key(built)
        if found and found.key and found.file in keys and is_set(step, path)
        if found.key not in keys[found.file]
    }
    assert wrong == {}


def test_only_what_sums_up_the_stages_before_comes_from_no_file(built: Path) -> None:
    assert {(step.stage, path) for step, path, found in every_key(built) if found is None} <= {
        ("merge", ("recipe",)),
        ("gguf", ("recipe",)),
    }


# An edit is found where it was made


def conf(file: str, key: str, value: Any) -> tuple[str, str, Any]:
    return f"conf/{file}.yaml", key, value


EDITS = [
    *(
        conf("build", key, value)
        for key, value in {
            "seed": 3,
            "data.min_tokens": 9,
            "data.near_duplicate": 0.9,
            "data.test": 0.3,
            "data.max_tokens": 400,
            "lora.rank": 8,
            "lora.targets": ["q_proj"],
            "training.patience": 9,
            "training.loss_on_prompt": True,
            "training.epochs": 9,
            "merge.bound": 0.5,
            "gguf.imatrix.tokens": 99,
            "gguf.files": "merged",
            "gguf.logits_bound": 0.5,
            "evaluation.max_records": 9,
            "evaluation.max_kl.Q8_0": 0.5,
            "answers.choice_tokens": 9,
            "answers.bounds.strict.calls": 0.5,
            "answers.bounds.standard.phones": 0.5,
        }.items()
    ),
    conf("safety/en", "call", ["call", "ring"]),
    conf("safety/es", "turn_to.police", ["policía"]),
    conf("safety/hi", "decimal_comma", True),
    *(
        conf("base/mini", key, value)
        for key, value in {
            "licence": "mit",
            "chat_template": "another",
            "tokenizer.vocab_size": 2048,
            "model.layers": 2,
            "pretraining.share": 0.8,
            "pretraining.epochs": 2,
            "pretraining.threads": 2,
        }.items()
    ),
    conf("base/other", "hub_id", "some/where"),
    *(
        conf("hardware/cpu", key, value)
        for key, value in {"threads": 2, "precision": "bfloat16"}.items()
    ),
    *(
        conf("domain/nutrition", key, value)
        for key, value in {
            "description": "Another",
            "category": "own",
            "languages": ["en"],
            "safety": "standard",
            "system_prompt": "Be brief.",
            "quants": ["F16", "Q4_K_M", "Q8_0"],
            "evaluation.beat_base_by": 0.5,
            "sources": [{"path": "nutrition.jsonl", "limit": 20}],
        }.items()
    ),
]


def named(project: Path) -> set[tuple[str, str]]:
    """File and key of every cause that the plan has, but for those that only follow from
    another."""
    causes = {
        cause
        for item in plan(load(project)).items
        for cause in item.causes
        if cause.kind not in (ABOVE, TEMPORARY)
    }
    assert {cause.kind for cause in causes} <= {CONFIG}
    return {(cause.where, cause.key) for cause in causes}


@pytest.mark.parametrize(
    ("file", "key", "value"), EDITS, ids=[f"{file[5:-5]} {key}" for file, key, _ in EDITS]
)
def test_a_changed_key_is_the_one_cause_of_all_that_is_to_do(
    project: Path, file: str, key: str, value: Any
) -> None:
    edit(project / file, key, value)
    assert named(project) == {(file, key)}


def overriding(file: str, key: str, value: Any) -> Edit:
    """A key of build.yaml in a base, a machine or a domain."""
    return lambda project: override(project, file, {key: value})


def decided(domain: str, key: str, value: Any) -> Edit:
    """An agent's decision."""
    taken = {"key": key, "value": value, "agent": "tuner", "reason": "it was better"}
    return lambda project: write_yaml(
        project / "conf" / "overlay" / f"{domain}.yaml", {"decisions": [taken]}
    )


LAYERS: list[tuple[str, Edit, str, str]] = [
    (
        "a domain's override",
        overriding("domain/music", "lora.rank", 8),
        "conf/domain/music.yaml",
        "lora.rank",
    ),
    (
        "a domain's override of a whole list",
        overriding("domain/music", "domain.quants", ["Q8_0", "F16"]),
        "conf/domain/music.yaml",
        "quants",
    ),
    (
        "a base's override",
        overriding("base/mini", "training.epochs", 3),
        "conf/base/mini.yaml",
        "training.epochs",
    ),
    (
        "a base's override of what the base itself is made with",
        overriding("base/mini", "seed", 3),
        "conf/base/mini.yaml",
        "seed",
    ),
    (
        "a base's override of the bound of its own file",
        overriding("base/other", "gguf.logits_bound", 0.5),
        "conf/base/other.yaml",
        "gguf.logits_bound",
    ),
    (
        "a machine's override",
        overriding("hardware/cpu", "training.patience", 9),
        "conf/hardware/cpu.yaml",
        "training.patience",
    ),
    (
        "a machine's override of what bases are made with",
        overriding("hardware/cpu", "seed", 3),
        "conf/hardware/cpu.yaml",
        "seed",
    ),
    ("a decision", decided("music", "lora.rank", 8), "conf/overlay/music.yaml", "lora.rank"),
    (
        "a decision about a domain's own key",
        decided("music", "domain.quants", ["Q8_0", "F16"]),
        "conf/overlay/music.yaml",
        "quants",
    ),
    (
        "another machine for a domain",
        overriding("domain/music", "hardware", "big"),
        "conf/hardware/big.yaml",
        "threads",
    ),
]


@pytest.mark.parametrize(
    ("change", "file", "key"), [row[1:] for row in LAYERS], ids=[row[0] for row in LAYERS]
)
def test_what_a_layer_sets_comes_from_that_layer_s_file(
    project: Path, change: Edit, file: str, key: str
) -> None:
    change(project)
    assert named(project) == {(file, key)}


def test_the_last_layer_that_sets_a_key_is_named(project: Path) -> None:
    overriding("hardware/cpu", "lora.rank", 4)(project)
    override(project, "music", {"lora.rank": 8})
    override(project, "nutrition", {"lora.rank": 8})
    decided("nutrition", "lora.rank", 32)(project)
    assert named(project) == {
        (f"conf/{file}.yaml", "lora.rank")
        for file in ("hardware/cpu", "domain/music", "overlay/nutrition")
    }


def test_an_override_of_a_domain_that_only_teaches_the_base_is_found_too(project: Path) -> None:
    edit(project / "conf" / "build.yaml", "domains", ["storytelling"])
    override(project, "nutrition", {"data.validation": 0.3})
    graph = load(project)
    found = origin(graph, graph.step("corpus", "base/mini"), ["domains", "nutrition", "validation"])
    assert found == Origin("conf/domain/nutrition.yaml", "data.validation")


@pytest.mark.parametrize("quants", [["F16"], ["F16", "Q8_0", "Q4_K_M", "Q6_K"]])
def test_bounds_of_types_that_come_and_go_are_no_causes_of_their_own(
    project: Path, quants: list[str]
) -> None:
    edit(project / "conf" / "domain" / "nutrition.yaml", "quants", quants)
    assert named(project) == {("conf/domain/nutrition.yaml", "quants")}


def test_lists_that_come_and_go_are_named_by_their_file(project: Path) -> None:
    (project / "conf" / "safety" / "es.yaml").unlink()
    assert named(project) == {("conf/safety/es.yaml", "")}


def test_another_profile_s_machine_is_named(built: Path) -> None:
    graph = load(built, "big")
    step = graph.step("adapter", "nutrition")
    assert origin(graph, step, ["threads"]) == Origin("conf/hardware/big.yaml", "threads")
