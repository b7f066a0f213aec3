"""What an edit makes run again: each row is an edit, and exactly the steps that the next build works out.

To add a row: a name, a change of a project's folder, and the steps, as `of` says them. The project is `fast_project`'s:
nutrition, programming and storytelling on the base mini, which is made from the first two's records; music on the base other,
which is copied from a folder; legal is left out by build.yaml. Mini overrides epochs, batch_tokens, learning_rate, max_tokens.
"""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
from commands import damage
from fast_stages import Edit, added, build, fast_project, lines, reworded
from projects import copy_built, edit, override, read_yaml, write_yaml

from meetara_build import fingerprint
from meetara_build.graph import load
from meetara_build.plan import RESTORE, plan

Steps = frozenset[str]
Row = tuple[str, Edit, Steps]


def of(targets: str, stages: str) -> Steps:
    """These stages of these targets."""
    return frozenset(f"{target}/{stage}" for target in targets.split() for stage in stages.split())


THREE, ALL = "nutrition programming storytelling", "nutrition programming storytelling music"
MINI, OTHER, BOTH = "base/mini", "base/other", "base/mini base/other"
TRAINED, CONVERTED = "adapter merge gguf evaluate package", "merge gguf evaluate package"
"""A GGUF file's metadata name the recipes of the stages before: where one changes, it is made anew, if from equal weights."""

NOTHING, REPORT = of("", ""), of("report", "report")
TRAIN_ALL, TRAIN_THREE, TRAIN_MUSIC = (of(targets, TRAINED) | REPORT for targets in (ALL, THREE, "music"))
CONVERT_ALL, CONVERT_THREE = (of(targets, CONVERTED) | REPORT for targets in (ALL, THREE))
PREPARE = of(MINI, "corpus") | of(ALL, "dataset") | CONVERT_ALL  # every data set, and each comes out the same
PRETRAIN = of(MINI, "base gguf") | TRAIN_THREE  # mini gets other weights, and keeps its tokenizer
TOKENIZE = PRETRAIN | of(THREE, "dataset")
TEACH = TOKENIZE | of(MINI, "corpus")  # mini learns from other records
MUSIC_ANEW, STORIES_ANEW = (of(target, f"dataset {TRAINED}") | REPORT for target in ("music", "storytelling"))
EVERYTHING = TEACH | of(OTHER, "base gguf") | MUSIC_ANEW


def conf(file: str, key: str, value: Any) -> Edit:
    return lambda project: edit(project / "conf" / f"{file}.yaml", key, value)


build_yaml, mini, cpu = partial(conf, "build"), partial(conf, "base/mini"), partial(conf, "hardware/cpu")
nutrition, storytelling = partial(conf, "domain/nutrition"), partial(conf, "domain/storytelling")


def overriding(name: str, key: str, value: Any) -> Edit:
    return lambda project: override(project, name, {key: value})


stories, music = partial(overriding, "storytelling"), partial(overriding, "music")


def decision(name: str, **fields: Any) -> Edit:
    """A domain's overlay with one decision: programming's as it is, but for these fields."""
    taken = {"key": "training.weight_decay", "value": 0.01, "agent": "tuner", "reason": "it was better"}
    path = Path("conf") / "overlay" / f"{name}.yaml"
    return lambda project: write_yaml(project / path, {"decisions": [{**taken, "evidence": ["run 1"], **fields}]})


def each(above: str, change: Callable[[str, Any], Edit], values: Mapping[str, Any], steps: Steps) -> list[Row]:
    """A row for each key below another."""
    return [(above + key, change(above + key, value), steps) for key, value in values.items()]


def text(file: str, change: Callable[[str], str]) -> Edit:
    def apply(project: Path) -> None:
        path = project / file
        written = path.read_bytes().decode()
        assert change(written) != written, "the edit changes nothing"
        path.unlink()  # its other names keep their bytes
        path.write_bytes(change(written).encode())

    return apply


def yaml_as(dump: Callable[[Any], str]) -> Edit:
    """build.yaml with the same content, written in another way."""
    return lambda project: (project / "conf/build.yaml").write_text(dump(read_yaml(project / "conf/build.yaml")))


def both(*edits: Edit) -> Edit:
    return lambda project: [change(project) for change in edits]


def then(first: Edit, second: Edit) -> Edit:
    """The first edit is built; only what the second reaches counts."""
    return lambda project: (first(project), build(project), second(project))


def moved(old: str, new: str) -> Edit:
    return lambda project: ((project / new).parent.mkdir(exist_ok=True), (project / old).rename(project / new))


def gone(*names: str) -> Edit:
    def apply(project: Path) -> None:
        for path in (path for name in names for path in project.glob(name)):
            shutil.rmtree(path) if path.is_dir() else path.unlink()

    return apply


def with_old_time(file: str, change: Edit) -> Edit:
    """As ``cp -p`` does it: other content under a time from before the build, where files were looked at just now."""

    def apply(project: Path) -> None:
        assert plan(load(project)).to_do() == []
        before = (project / file).stat()
        change(project)
        os.utime(project / file, ns=(before.st_atime_ns, before.st_mtime_ns))

    return apply


def damaged(name: str) -> Edit:
    return with_old_time(f"artifacts/{name}", lambda project: damage(project / "artifacts" / name))


def linked(project: Path) -> None:
    moved("conf/domain/nutrition.jsonl", "elsewhere.jsonl")(project)
    (project / "conf/domain/nutrition.jsonl").symlink_to(project / "elsewhere.jsonl")


def touched(project: Path) -> None:
    for path in project.rglob("*"):
        os.utime(path, (2e9, 2e9))


def copied(old: str, new: str) -> Edit:
    return lambda project: (shutil.copytree if (project / old).is_dir() else shutil.copy)(project / old, project / new)


STORIES = "conf/domain/storytelling.jsonl"
# fmt: off
BUILD_YAML: list[Row] = [
    ("domains: one less", build_yaml("domains", THREE.split()), REPORT),
    ("domains: one more", build_yaml("domains", [*ALL.split(), "legal"]), of("legal", f"dataset {TRAINED}") | REPORT),
    ("domains: another order", build_yaml("domains", ALL.split()[::-1]), NOTHING),
    ("domains: by category", build_yaml("domains", ["healthcare", "programming", "storytelling", "music"]), NOTHING),
    ("root", build_yaml("root", "elsewhere"), EVERYTHING),
    ("keep_merged", build_yaml("keep_merged", True), of(ALL, "merge")),
    ("keep_merged no longer", then(build_yaml("keep_merged", True), build_yaml("keep_merged", False)), NOTHING),
    *each("", build_yaml, {"store": "elsewhere", "locked": ["seed"], "training.checkpoint_seconds": 5}, NOTHING),
    ("seed", build_yaml("seed", 3), PRETRAIN | TRAIN_MUSIC),
    ("data.min_tokens", build_yaml("data.min_tokens", 9), PREPARE - of(MINI, "corpus")),
    ("data.max_tokens, which mini overrides", build_yaml("data.max_tokens", 400), MUSIC_ANEW),
    *each("data.", build_yaml, {"near_duplicate": 0.9, "near_group": 0.8, "max_bad_share": 0.5}, PREPARE),
    *each("data.", build_yaml, {"validation": 0.3, "test": 0.1}, TEACH | MUSIC_ANEW),
    *each("lora.", build_yaml, {"rank": 8, "alpha": 8, "dropout": 0.1, "targets": ["q_proj"], "rslora": True, "dora": True}, TRAIN_ALL),
    ("lora.rank and lora.alpha swapped", both(build_yaml("lora.rank", 32), build_yaml("lora.alpha", 16)), TRAIN_ALL),
    *each("training.", build_yaml, {"max_steps": 9, "micro_batch_tokens": 99, "warmup_share": 0.5, "clip_norm": 0.5, "patience": 9,
                                    "validations_per_epoch": 2, "loss_on_prompt": True}, TRAIN_ALL),
    # Mini overrides these three, and programming's overlay the weight decay.
    *each("training.", build_yaml, {"epochs": 9, "batch_tokens": 999, "learning_rate": 0.01}, TRAIN_MUSIC),
    ("training.weight_decay", build_yaml("training.weight_decay", 0.1), TRAIN_ALL - of("programming", TRAINED)),
    ("merge.bound", build_yaml("merge.bound", 0.5), CONVERT_ALL),
    *each("gguf.imatrix.", build_yaml, {"enabled": False, "tokens": 99}, CONVERT_THREE),  # music has no type that uses one
    ("gguf.lora", build_yaml("gguf.lora", False), of(ALL, "merge gguf package")),
    ("gguf.logits_bound", build_yaml("gguf.logits_bound", 0.5), of(ALL, "merge gguf") | of(BOTH, "gguf")),
    ("evaluation.max_records", build_yaml("evaluation.max_records", 9), of(ALL, "evaluate package") | REPORT),
    ("evaluation.max_kl of a type that all have", build_yaml("evaluation.max_kl.Q8_0", 0.5), of(ALL, "package")),
    ("evaluation.max_kl of a type that three have", build_yaml("evaluation.max_kl.Q4_K_M", 0.5), of(THREE, "package")),
    ("evaluation.max_kl of a type that none has", build_yaml("evaluation.max_kl.Q6_K", 0.5), NOTHING),
]
BASES_AND_MACHINES: list[Row] = [
    *each("", mini, {"description": "Another", "parameters": 5, "pretraining.domains": ["programming", "nutrition"]}, NOTHING),
    ("licence", mini("licence", "mit"), of(MINI, "gguf") | CONVERT_THREE),
    *each("", mini, {"chat_template": "another", "tokenizer.vocab_size": 2048, "model.layers": 2}, TOKENIZE),
    *each("pretraining.", mini, {"epochs": 2, "batch_tokens": 99, "learning_rate": 0.1, "warmup_share": 0.2, "weight_decay": 0.2,
                                 "clip_norm": 0.5, "threads": 2}, PRETRAIN),
    *each("pretraining.", mini, {"share": 0.8, "domains": ["nutrition"]}, TEACH),
    ("an override of mini", text("conf/base/mini.yaml", lambda old: old.replace("training.epochs: 2", "training.epochs: 3")), TRAIN_THREE),
    *each("", partial(conf, "base/other"), {"description": "Another", "revision": "1"}, NOTHING),
    ("other's hub_id, which the model card names", conf("base/other", "hub_id", "some/where"), of("music", "package")),
    ("other's licence", conf("base/other", "licence", "apache-2.0"), of(OTHER, "gguf") | of("music", CONVERTED) | REPORT),
    ("other's folder, the same files in it", both(copied("models/other", "models/copy"), conf("base/other", "folder", "models/copy")), NOTHING),
    ("other's weights", text("models/other/model.safetensors", str.upper), of(OTHER, "base gguf") | TRAIN_MUSIC),
    ("a file more beside other's", copied("Snakefile", "models/other/README.md"), of(OTHER, "base")),
    *each("", cpu, {"description": "Another", "memory_gb": 64, "gpu_memory_gb": 8}, NOTHING),
    *each("", cpu, {"precision": "bfloat16", "overrides": {"training.max_steps": 7}}, TRAIN_ALL),
    ("threads", cpu("threads", 2), TRAIN_ALL | of(BOTH, "gguf")),
    ("the threads of a machine that no one uses", conf("hardware/big", "threads", 4), NOTHING),
]
DOMAINS: list[Row] = [
    *each("", nutrition, {"topics": ["another"], "locked": ["seed"]}, NOTHING),
    *each("", nutrition, {"description": "Another", "safety": "standard", "evaluation.beat_base_by": 0.5}, of("nutrition", "package")),
    ("category", nutrition("category", "own"), of("nutrition", "package") | REPORT),
    ("languages, the others unused", nutrition("languages", ["en"]), of(MINI, "corpus") | of("nutrition", f"dataset {CONVERTED}") | REPORT),
    ("system_prompt", nutrition("system_prompt", "Be brief."), of(MINI, "corpus") | of("nutrition", f"dataset {TRAINED}") | REPORT),
    *each("", nutrition, {"quants": ["F16", "Q8_0"]}, of("nutrition", CONVERTED) | REPORT),
    ("quants in another order", nutrition("quants", ["F16", "Q4_K_M", "Q8_0"]), of("nutrition", CONVERTED) | REPORT),
    ("a limit of a source", nutrition("sources", [{"path": "nutrition.jsonl", "limit": 20}]), TEACH),
    ("columns as they are", storytelling("sources", [{"path": "storytelling.jsonl", "columns": {"prompt": "prompt"}}]),
     of("storytelling", f"dataset {CONVERTED}") | REPORT),
    ("a domain that is left out", both(conf("domain/legal", "description", "Another"), overriding("legal", "seed", 3)), NOTHING),
    ("files that nothing names", both(copied("conf/base/mini.yaml", "conf/base/b.yaml"), copied("conf/domain/legal.yaml", "conf/domain/b.yaml")), NOTHING),
    *((f"{key} of {name} is no matter of its base", overriding(name, key, value), of(name, TRAINED) | REPORT)
      for name in THREE.split() for key, value in {"seed": 3, "hardware": "big"}.items()),
    ("another base", stories("base", "other"), STORIES_ANEW),
    ("data.validation of one that the base learns from", overriding("nutrition", "data.validation", 0.3), TEACH),
]
OVERRIDES: list[Row] = [
    *each("", stories, {"lora.rank": 16, "lora.alpha": 32, "training.schedule": "cosine"}, NOTHING),  # as they are
    *each("", stories, {"training.checkpoint_seconds": 5}, NOTHING),
    ("lora.alpha: 32.0", stories("lora.alpha", 32.0), NOTHING),
    *each("", stories, {"keep_merged": True}, of("storytelling", "merge")),
    *each("data.", stories, {"min_tokens": 9, "near_group": 0.9}, of("storytelling", f"dataset {CONVERTED}") | REPORT),
    *each("data.", stories, {"max_tokens": 800, "test": 0.4}, STORIES_ANEW),
    *each("", stories, {"lora.alpha": 8, "training.epochs": 5, "training.loss_on_prompt": True}, of("storytelling", TRAINED) | REPORT),
    *each("", stories, {"merge.bound": 0.1, "gguf.imatrix.tokens": 9, "domain.quants": ["F16"]}, of("storytelling", CONVERTED) | REPORT),
    ("gguf.imatrix.tokens where no type uses them", music("gguf.imatrix.tokens", 9), NOTHING),
    ("gguf.lora", stories("gguf.lora", False), of("storytelling", "merge gguf package")),
    ("gguf.logits_bound", stories("gguf.logits_bound", 0.1), of("storytelling", "merge gguf")),
    ("evaluation.max_records", stories("evaluation.max_records", 3), of("storytelling", "evaluate package") | REPORT),
    ("evaluation.max_kl", stories("evaluation.max_kl.Q8_0", 0.1), of("storytelling", "package")),
    ("two domains' overrides swapped", then(both(music("lora.rank", 4), stories("lora.rank", 8)), both(music("lora.rank", 8), stories("lora.rank", 4))),
     of("music storytelling", TRAINED) | REPORT),
    ("a new decision", decision("storytelling", key="lora.rank", value=8), of("storytelling", TRAINED) | REPORT),
    ("a decision for what is so already", decision("storytelling", key="lora.rank", value=16), NOTHING),
    ("a decision's value", decision("programming", value=0.02), of("programming", TRAINED) | REPORT),
    ("no decision any more", gone("conf/overlay/programming.yaml"), of("programming", TRAINED) | REPORT),
    *((f"a decision's {field}", decision("programming", **{field: value}), NOTHING)
      for field, value in {"reason": "so", "agent": "me", "evidence": [], "expected_gain": 0.1, "confidence": 0.5}.items()),
]
SPELLING: list[Row] = [
    ("a comment", text("conf/build.yaml", lambda old: f"# a comment\n{old}"), NOTHING),
    ("keys in another order", yaml_as(lambda content: json.dumps(dict(reversed(content.items())))), NOTHING),
    ("JSON", yaml_as(partial(json.dumps, indent=7)), NOTHING),
    ("Windows line ends", text("conf/build.yaml", lambda old: old.replace("\n", "\r\n")), NOTHING),
    *((f"{new.strip()} for {old.strip()}", text(f"conf/{file}.yaml", lambda content, old=old, new=new: content.replace(old, new)), NOTHING)
      for file, old, new in [("build", "0.001", "1e-3"), ("build", "0.001", "1.0E-03"), ("build", "alpha: 32\n", "alpha: 32.0\n"), ("build", "null", "~"),
                             ("build", "false", "no"), ("domain/music", ": strict", ': "strict"'), ("domain/music", ": standard", ": 'standard'"),
                             ("base/mini", ": apache-2.0", ": >-\n  apache-2.0")] if (file, old) != ("domain/music", ": strict")),
]
SOURCES: list[Row] = [
    ("a record more, taught to the base", added("nutrition", "taught"), TEACH),
    ("a record more to train on, not taught", added("nutrition", "train"), of(MINI, "corpus") | of("nutrition", f"dataset {TRAINED}") | REPORT),
    ("a record more to test on", added("nutrition", "test"), of(MINI, "corpus") | of("nutrition", "dataset evaluate package") | REPORT),
    *((f"a record more of no base: {side}", added("storytelling", side), STORIES_ANEW) for side in ("train", "validation")),
    ("a record more of no base: test", added("storytelling", "test"), of("storytelling", "dataset evaluate package") | REPORT),
    ("a word of a taught record", reworded("nutrition", "taught"), TEACH),
    ("a word of a test record", reworded("storytelling", "test"), of("storytelling", "dataset evaluate package") | REPORT),
    ("a word, under an older time", with_old_time(STORIES, reworded("storytelling", "train")), STORIES_ANEW),
    ("a line that is no record", lines("storytelling", lambda old: [*old, "{}"]), of("storytelling", "dataset package")),
    ("a record twice", lines("storytelling", lambda old: [*old, old[0]]), of("storytelling", "dataset package")),
    ("a blank line at the end", lines("nutrition", lambda old: [*old, ""]), of(MINI, "corpus") | of("nutrition", "dataset")),
    ("blank lines between", lines("storytelling", lambda old: "\n\n".join(old).split("\n")), of("storytelling", "dataset")),
    ("records' keys in another order", lines("storytelling", lambda old: [json.dumps(dict(reversed(json.loads(line).items()))) for line in old]),
     of("storytelling", "dataset")),
    ("records with Windows line ends", lines("storytelling", lambda old: [f"{line}\r" for line in old]), of("storytelling", "dataset")),
    ("records in another order", lines("nutrition", lambda old: old[::-1]), of(MINI, "corpus") | of("nutrition", f"dataset {TRAINED}") | REPORT),
    ("moved to another folder", both(moved(STORIES, "data/storytelling.jsonl"), storytelling("sources", [{"path": "../../data/storytelling.jsonl"}])), NOTHING),
    ("another name", both(moved(STORIES, "conf/domain/other.jsonl"), storytelling("sources", [{"path": "other.jsonl"}])),
     of("storytelling", f"dataset {CONVERTED}") | REPORT),
    ("a link to the same file", linked, NOTHING),
    ("two domains' files swapped", both(moved(STORIES, "aside"), moved("conf/domain/music.jsonl", STORIES), moved("aside", "conf/domain/music.jsonl")),
     STORIES_ANEW | MUSIC_ANEW),
    ("the file of a domain that is left out", added("legal", "train"), NOTHING),
]
FILES: list[Row] = [
    ("every file touched", touched, NOTHING),
    *((f"{name} deleted", gone(name), NOTHING)
      for name in [".meetara", "artifacts/logs", "artifacts/runs.jsonl", "artifacts/store", "artifacts/nutrition", "artifacts/[!s]*", "artifacts/*/*/manifest.json",
                   "artifacts/nutrition/gguf/nutrition-Q8_0.gguf", "artifacts/nutrition/adapter/training.json", "artifacts/base/mini/config.json"]),
    *((f"{name} damaged, its size and time as before", damaged(name), NOTHING)
      for name in ["nutrition/dataset/train.jsonl", "nutrition/gguf/nutrition-F16.gguf", "base/mini/model.safetensors", "nutrition/evaluation.json"]),
    ("a manifest cut short", text("artifacts/nutrition/package/manifest.json", lambda old: old[:-9]), NOTHING),
    ("the store deleted, and a file", gone("artifacts/store", "artifacts/nutrition/dataset/train.jsonl"), of("nutrition", "dataset")),
    ("the store deleted, and a blank line", both(gone("artifacts/store"), lines("storytelling", lambda old: [*old, ""])), of("storytelling", "dataset")),
    ("all artifacts and the store deleted", gone("artifacts"), EVERYTHING),
    ("a file deleted, and an edit below it", both(gone("artifacts/music/adapter/training.json"), music("evaluation.max_records", 3)),
     of("music", "evaluate package") | REPORT),
    ("two edits at once", both(music("lora.rank", 4), nutrition("description", "Another")), TRAIN_MUSIC | of("nutrition", "package")),
]
CODE = {
    "training/chat.py": of(MINI, "corpus") | of(BOTH, "base gguf") | of(ALL, f"dataset {TRAINED}"),
    "training/loop.py": of(BOTH, "base") | of(ALL, "adapter"),
    "training/model.py": of(ALL, "adapter merge"),
    "stages/types.py": EVERYTHING,
    "stages/dataset/clean.py": of(MINI, "corpus") | of(ALL, "dataset"),
    "stages/corpus.py": of(MINI, "corpus"),
    "stages/merge.py": of(ALL, "merge"),
    "stages/gguf/quantize.py": of(BOTH, "gguf") | of(ALL, "merge gguf"),
    "stages/evaluate.py": of(ALL, "evaluate"),
    "stages/package/card.py": of(ALL, "package"),
    "stages/report.py": REPORT,
    **dict.fromkeys(["errors.py", "graph.py", "recipes.py", "resolve.py", "artifact.py", "history.py", "engine/stage_run.py", "engine/job.py",
                     "faces/cli.py", "of_no_stage.py"], NOTHING),
}
LIBRARIES = {
    "torch": of(BOTH, "base gguf") | of(ALL, "adapter merge gguf"),
    "peft": of(BOTH, "base") | of(ALL, "adapter merge"),
    "pandas": of(MINI, "corpus") | of(ALL, "dataset"),
    "llama-cpp-python": of(BOTH, "gguf") | of(ALL, "merge gguf evaluate"),
    "matplotlib": REPORT,
    **dict.fromkeys(["psutil", "rich", "snakemake", "hydra-core", "typer", "pydantic", "pytest"], NOTHING),
}
# fmt: on


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built project that every row edits a copy of."""
    project = fast_project(tmp_path_factory.mktemp("edits") / "project")
    assert build(project).worked_out == EVERYTHING
    return project


@pytest.fixture
def project(built: Path, tmp_path: Path) -> Path:
    """A copy of one's own."""
    return copy_built(built, tmp_path / "project")


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A copy of the package's code, which fingerprints are made from instead."""
    folder = tmp_path / "meetara_build"
    shutil.copytree(fingerprint.PACKAGE, folder, ignore=shutil.ignore_patterns("__pycache__", "project"))
    monkeypatch.setattr(fingerprint, "PACKAGE", folder)
    yield folder
    monkeypatch.undo()
    forget()


def forget(*projects: Path) -> None:
    """Everything that is remembered of code and libraries, and the graphs of projects."""
    for value in vars(fingerprint).values():
        getattr(value, "cache_clear", lambda: None)()
    for project in projects:
        shutil.rmtree(project / ".meetara", ignore_errors=True)


def reaches(project: Path, steps: Steps) -> None:
    """The next build works out these steps and no other, as its plan says; after it there is nothing to do."""
    ran = build(project)
    assert {"missed": sorted(steps - ran.worked_out), "false": sorted(ran.worked_out - steps)} == {
        "missed": [],
        "false": [],
    }
    assert ran.not_as_announced() == {}
    assert plan(load(project)).to_do() == []


def rows(*tables: list[Row]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize(
        ("change", "steps"), [pytest.param(*row[1:], id=row[0]) for table in tables for row in table]
    )


@rows(BUILD_YAML, BASES_AND_MACHINES, DOMAINS, OVERRIDES, SPELLING, SOURCES, FILES)
def test_an_edit_reaches_exactly(project: Path, change: Edit, steps: Steps) -> None:
    change(project)
    reaches(project, steps)


@pytest.mark.parametrize("module", CODE)
def test_an_edit_of_code_reaches_exactly(project: Path, package: Path, module: str) -> None:
    with (package / module).open("a", encoding="utf-8") as file:
        file.write("\nFURTHER = 1\n")
    forget(project)
    reaches(project, CODE[module])


def test_an_edit_that_only_people_read_reaches_nothing(project: Path, package: Path) -> None:
    """A comment in every file, and another docstring."""
    for path in package.rglob("*.py"):
        path.write_text(path.read_text("utf-8").replace('"""\n', ' In other words."""\n\n# A comment\n\n', 1), "utf-8")
    forget(project)
    reaches(project, NOTHING)


@pytest.mark.parametrize("library", LIBRARIES)
def test_another_version_reaches_exactly(
    project: Path, package: Path, monkeypatch: pytest.MonkeyPatch, library: str
) -> None:
    real = metadata.version
    monkeypatch.setattr(metadata, "version", lambda name: "999" if name.replace("_", "-") == library else real(name))
    forget(project)
    reaches(project, LIBRARIES[library])


REVERTED = [
    row for table in (BUILD_YAML, BASES_AND_MACHINES, DOMAINS, OVERRIDES, SOURCES) for row in table[::6] if row[2]
]


@rows(REVERTED)
def test_what_is_built_edited_built_and_reverted_comes_from_the_store(
    project: Path, change: Edit, steps: Steps
) -> None:
    shutil.copytree(project / "conf", project / "before", symlinks=True)
    change(project)
    build(project)
    shutil.rmtree(project / "conf")
    (project / "before").rename(project / "conf")
    assert {item.action for item in plan(load(project)).to_do()} <= {RESTORE}
    reaches(project, NOTHING)


def test_a_checkout_that_is_moved_or_copied_has_nothing_to_do(project: Path, tmp_path: Path) -> None:
    shutil.copytree(project, tmp_path / "copy")
    reaches(project.rename(tmp_path / "moved"), NOTHING)
    reaches(tmp_path / "copy", NOTHING)


@pytest.mark.parametrize(
    "environment",
    [{"TZ": "Asia/Tokyo", "LC_ALL": "C", "PYTHONHASHSEED": "1"}, {"HOME": "/", "USER": "other", "PYTHONHASHSEED": "2"}],
)
def test_another_user_place_or_time_zone_has_nothing_to_do(project: Path, environment: dict[str, str]) -> None:
    forget(project)
    code = "from pathlib import Path; from meetara_build.graph import load; from meetara_build.plan import plan;"
    code += "print(plan(load(Path.cwd())).summary())"
    words = [sys.executable, "-c", code]
    done = subprocess.run(
        words, cwd=project, env={**os.environ, **environment}, capture_output=True, text=True, check=True
    )
    assert done.stdout == f"Plan: 0 to run, 0 to restore, 0 maybe, {len(EVERYTHING - of(ALL, 'merge'))} fresh.\n"
