"""A plan as JSON: what its schema says it is, and what has changed since one was kept, each change
by its name."""

import copy
import json
import re
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from commands import damage
from fast_stages import Edit, added, build
from projects import copy_built, edit, override, write_yaml

from meetara_build.graph import load
from meetara_build.graph.stages import NAMES
from meetara_build.plan import MAYBE, RESTORE, RUN, causes, estimate, plan
from meetara_build.plan.content import VERSION, content, stale_reasons
from meetara_build.plan.estimate import Estimator, total

SCHEMA = json.loads(Path(causes.__file__).with_name("schema.json").read_text(encoding="utf-8"))
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)


@pytest.fixture
def project(built: Path, tmp_path: Path) -> Path:
    """A copy of one's own."""
    return copy_built(built, tmp_path / "project")


def kept(project: Path, *domains: str, whole: bool = True) -> dict[str, Any]:
    """The plan of a project as it is kept, read back from JSON."""
    graph = load(project)
    made = plan(graph, domains)
    estimator = Estimator(graph, made, [], "here", None)
    estimates = {item.step.name: estimator.of(item) for item in made.to_do()}
    found = content(
        graph, made, estimates, total(made, estimates, 2, 1.5), domains, "local", whole=whole
    )
    return json.loads(json.dumps(found, ensure_ascii=False))  # type: ignore[no-any-return]


def stale(project: Path, before: Mapping[str, Any]) -> list[str]:
    return stale_reasons(load(project), before, kept(project, *before["domains"]))


def faults(value: Any) -> list[str]:
    """What is wrong with a plan, by where in it."""
    return [f"{error.json_path}: {error.message}" for error in VALIDATOR.iter_errors(value)]


# The schema


def objects(schema: Any) -> Iterator[dict[str, Any]]:
    """All parts of a schema that are objects."""
    if isinstance(schema, dict):
        yield schema
    for inner in (
        schema.values() if isinstance(schema, dict) else schema if isinstance(schema, list) else ()
    ):
        yield from objects(inner)


def test_the_schema_is_one_of_the_version_that_plans_have() -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    assert SCHEMA["properties"]["version"]["const"] == VERSION


def test_every_field_is_described_and_every_measure_has_its_unit() -> None:
    fields = [field for part in objects(SCHEMA) for field in part.get("properties", {}).items()]
    assert {name for name, field in fields if not field.get("description")} == set()
    measures = [(name, field) for name, field in fields if "/amount" in json.dumps(field)]
    assert {name for name, _ in measures} >= {"seconds", "peak_mb", "size", "dollars_high"}
    unit = r"\b(seconds|MB|bytes|US dollars)\b"
    assert [name for name, field in measures if not re.search(unit, field["description"])] == []


def test_no_object_with_known_fields_may_have_others() -> None:
    closed = [
        part
        for part in objects(SCHEMA)
        if isinstance(part.get("properties"), dict) and "type" in part
    ]
    assert len(closed) == 13
    assert [part for part in closed if part.get("additionalProperties") is not False] == []


def test_the_schema_knows_every_stage_action_kind_and_source() -> None:
    parts = SCHEMA["$defs"]
    stage = re.compile(parts["item"]["properties"]["stage"]["pattern"])
    assert all(map(stage.search, NAMES))
    assert parts["item"]["properties"]["action"]["enum"] == [RUN, RESTORE, MAYBE]
    kinds = {
        value for name, value in vars(causes).items() if name.isupper() and isinstance(value, str)
    }
    assert kinds - {causes.MISSING, causes.ACCEPTED} == set(
        parts["cause"]["properties"]["kind"]["enum"]
    )
    assert parts["source"]["enum"] == [estimate.HISTORY, estimate.SIMILAR, estimate.MODEL]


@pytest.fixture(scope="module")
def decided(built: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A plan whose first step's cause is a decision."""
    project = copy_built(built, tmp_path_factory.mktemp("decided") / "project")
    a_decision(project)
    return kept(project)


def within(whole: dict[str, Any], place: str) -> tuple[Any, str]:
    """What holds a field of a plan, and the field's name there: ``items.0.causes.0.kind``."""
    *above, last = place.split(".")
    inner: Any = whole
    for part in above:
        inner = inner[int(part)] if part.isdigit() else inner[part]
    return inner, last


def everything_gone(project: Path) -> None:
    shutil.rmtree(project / "artifacts")


def a_decision(project: Path) -> None:
    taken = {
        "key": "lora.targets",
        "value": ["q_proj"],
        "agent": "tuner",
        "reason": "as good, and smaller",
    }
    write_yaml(project / "conf" / "overlay" / "storytelling.yaml", {"decisions": [taken]})


def several_edits(project: Path) -> None:
    edit(project / "conf" / "base" / "mini.yaml", "licence", "mit")
    edit(project / "conf" / "hardware" / "cpu.yaml", "threads", 2)
    override(project, "music", {"lora.dropout": 0.1, "training.loss_on_prompt": True})
    added("nutrition", "train")(project)
    a_decision(project)


def drifted(project: Path) -> None:
    damage(project / "artifacts" / "music" / "adapter" / "training.json")
    (project / "artifacts" / "nutrition" / "package" / "manifest.json").unlink()


def code_and_libraries(project: Path) -> None:
    path = project / "artifacts" / "music" / "adapter" / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["made_from"]["code"]["training.loop"] = "0" * 16
    manifest["made_from"]["libraries"]["torch"] = "1.0"
    path.unlink()
    path.write_text(json.dumps({**manifest, "fingerprint": "0" * 64}))


CHANGES: dict[str, Edit] = {
    "nothing": lambda project: None,
    "everything gone": everything_gone,
    "a decision": a_decision,
    "several edits": several_edits,
    "drift": drifted,
    "code and libraries": code_and_libraries,
}


@pytest.mark.parametrize("whole", [True, False], ids=["kept", "printed"])
@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_plan_is_as_its_schema_says(project: Path, change: Edit, whole: bool) -> None:
    change(project)
    found = kept(project, whole=whole)
    assert faults(found) == []
    assert ("made_from" in found) == whole
    assert bool(found["items"]) == (change is not CHANGES["nothing"])
    assert sum(found["counts"][action] for action in ("run", "restore", "maybe")) == len(
        found["items"]
    )


def test_the_command_prints_and_keeps_what_the_schema_says(project: Path, command: Any) -> None:
    several_edits(project)
    for words in (["nutrition", "music"], ["--profile", "lambda"]):
        done = command(project, "plan", *words, "--json", "--out", "kept.json")
        printed, written = (
            json.loads(done.stdout),
            json.loads((project / "kept.json").read_text(encoding="utf-8")),
        )
        assert faults(printed) == faults(written) == []
        assert written.pop("made_from")
        assert printed.pop("proposals") == []
        assert written == printed


@pytest.mark.parametrize(
    ("place", "value"),
    [
        ("version", 1),
        ("counts.run", -1),
        ("counts.run", "3"),
        ("domains", "nutrition"),
        ("items.0.action", "FRESH"),
        ("items.0.stage", "../train"),
        ("items.0.fingerprint", "abc"),
        ("items.0.key", None),
        ("items.0.waits_for", [3]),
        ("items.0.causes.0.kind", "whim"),
        ("items.0.causes.0.text", ""),
        ("items.0.causes.0.old", ["a list"]),
        ("items.0.causes.0.decision", "tuner"),
        ("items.0.estimate.seconds", "soon"),
        ("items.0.estimate.source", "guess"),
        ("estimate.dollars", "1.50"),
        ("estimate.jobs", 0),
        ("estimate.sources", {"guess": 1}),
        ("made_from", []),
    ],
)
def test_a_field_of_the_wrong_type_is_refused(
    decided: dict[str, Any], place: str, value: Any
) -> None:
    valid = copy.deepcopy(decided)
    assert faults(valid) == []
    inner, last = within(valid, place)
    inner[last] = value
    assert faults(valid), f"{place}: {value}"


@pytest.mark.parametrize(
    "place",
    [
        "version",
        "counts.run",
        "items.0.step",
        "items.0.causes.0.kind",
        "items.0.causes.0.decision.base",
        "items.0.estimate.low",
        "estimate.low",
    ],
)
def test_an_unknown_field_and_a_missing_one_are_refused(
    decided: dict[str, Any], place: str
) -> None:
    valid = copy.deepcopy(decided)
    inner, name = within(valid, place)
    inner["more"] = 1
    assert faults(valid)
    del inner["more"]
    assert faults(valid) == []
    del inner[name]
    assert faults(valid)


def test_a_changed_key_names_the_decision_it_comes_from(project: Path) -> None:
    a_decision(project)
    edit(project / "conf" / "build.yaml", "lora.rank", 8)
    items = {item["step"]: item for item in kept(project)["items"]}
    decisions = {
        cause["key"]: cause["decision"] for cause in items["storytelling/adapter"]["causes"]
    }
    taken = {
        "base": "all-linear",
        "overlay": ["q_proj"],
        "agent": "tuner",
        "reason": "as good, and smaller",
    }
    assert decisions == {"lora.rank": None, "lora.targets": taken}


def test_a_decision_is_named_wherever_its_key_reaches(project: Path) -> None:
    a_decision(project)
    found = [
        cause for item in kept(project)["items"] for cause in (*item["causes"], *item["inherited"])
    ]
    own = [cause["decision"] for cause in found if cause["key"] == "lora.targets"]
    assert len(own) >= 5
    assert all(taken and taken["agent"] == "tuner" for taken in own)


# What has changed since


def test_nothing_has_changed_since_a_plan_that_still_holds(project: Path) -> None:
    several_edits(project)
    before = kept(project)
    assert stale(project, before) == []
    (project / "conf" / "build.yaml").touch()
    assert stale(project, before) == []


STALE: list[tuple[str, Edit, list[str]]] = [
    (
        "a key",
        lambda project: override(project, "music", {"lora.rank": 8}),
        ["conf/domain/music.yaml lora.rank: 16 → 8 (music/adapter)"],
    ),
    (
        "a key of all domains",
        lambda project: edit(project / "conf" / "build.yaml", "merge.bound", 0.5),
        ["conf/build.yaml merge.bound: 0.001 → 0.5 (music/merge and 3 more)"],
    ),
    (
        "a source",
        added("storytelling", "train"),
        ["conf/domain/storytelling.jsonl: its content changed (storytelling/dataset)"],
    ),
]


@pytest.mark.parametrize(
    ("change", "said"), [row[1:] for row in STALE], ids=[row[0] for row in STALE]
)
def test_what_was_edited_since_is_named(project: Path, change: Edit, said: list[str]) -> None:
    everything_gone(project)  # so that every step, temporaries too, is in the plan before and after
    before = kept(project)
    change(project)
    assert stale(project, before) == said


@pytest.mark.parametrize(
    "change", [row[1] for row in STALE[::2]], ids=[row[0] for row in STALE[::2]]
)
def test_an_edit_after_a_plan_with_nothing_to_do_is_all_that_is_named(
    project: Path, change: Edit
) -> None:
    before = kept(project)
    assert before["items"] == []
    change(project)
    found = stale(project, before)
    assert found
    assert [
        line for line in found if line.endswith(("is new", "no longer part of the build"))
    ] == []


def test_what_was_built_since_is_named(project: Path) -> None:
    override(project, "music", {"lora.rank": 8})
    before = kept(project)
    build(project)
    found = stale(project, before)
    assert {
        "music/adapter: was RUN, is FRESH now",
        "music/package: was MAYBE, is FRESH now",
    } <= set(found)
    assert not [line for line in found if "no longer part" in line]


def test_what_was_deleted_since_is_named(project: Path) -> None:
    before = kept(project)
    (project / "artifacts" / "music" / "package" / "README.md").unlink()
    assert stale(project, before) == ["music/package: was FRESH, is RESTORE now"]


def test_an_input_that_came_out_different_since_is_named(project: Path) -> None:
    edit(project / "conf" / "domain" / "music.yaml", "description", "Another")
    before, after = kept(project), kept(project)
    after["items"][0]["key"] = "0" * 64
    assert stale_reasons(load(project), before, after) == ["music/package: its inputs are others"]


@pytest.mark.parametrize(
    ("one", "other", "said"),
    [
        (["music", "nutrition"], ["music"], "nutrition/package: is no longer part of the build"),
        (["music"], ["music", "nutrition"], "nutrition/package: is new"),
    ],
)
def test_a_domain_added_or_removed_since_is_named(
    project: Path, one: list[str], other: list[str], said: str
) -> None:
    path = project / "conf" / "build.yaml"
    edit(path, "domains", one)
    before = kept(project)
    edit(path, "domains", other)
    assert said in stale(project, before)
