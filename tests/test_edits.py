"""What an edit makes run again: each row is an edit, and exactly the steps that the next build
works out.

To add a row: a name, a change of a project's folder, and the steps, as `of` says them. The project
is `fast_project`'s: nutrition, programming and storytelling on the base mini, which is made from
the first two's records; music on the base other, which is copied from a folder; legal is left out
by build.yaml. Mini overrides epochs, batch_tokens, learning_rate, max_tokens, and of the answers how many, how long
and some bounds.
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
import yaml
from commands import damage
from fast_stages import Edit, added, build, fast_project, gone, lines, reworded, text, with_old_time
from projects import copy_built, date_all, edit, override, write_yaml
from test_incremental import digest

from meetara_build.graph import fingerprint, load
from meetara_build.plan import RESTORE, plan
from meetara_build.project import CACHE
from meetara_build.store.manifest import digest_file

Steps = frozenset[str]
Row = tuple[str, Edit, Steps]


def of(targets: str, stages: str) -> Steps:
    """These stages of these targets."""
    return frozenset(f"{target}/{stage}" for target in targets.split() for stage in stages.split())


THREE, ALL = "nutrition programming storytelling", "nutrition programming storytelling music"
MINI, OTHER, BOTH = "base/mini", "base/other", "base/mini base/other"
NOTHING, REPORT, CORPUS = of("", ""), of("report", "report"), of(MINI, "corpus")
# Music's base has no matrix: none of its types uses one.
MATRIX = of(MINI, "imatrix")


def made(stages: str, targets: str) -> Steps:
    """These stages, and the report over all domains."""
    return of(targets, stages) | REPORT


# A GGUF file's metadata name the recipes of the stages before: if one changes, it is made anew, if
# from equal weights.
evaluated, converted = (
    partial(made, "evaluate package"),
    partial(made, "merge gguf evaluate package"),
)
scored = partial(made, "baseline evaluate package")  # on other records, or another base
trained, anew = (
    partial(made, f"{stages} merge gguf evaluate package")
    for stages in ("adapter", "dataset adapter")
)
prepared = partial(
    made, "dataset merge gguf evaluate package"
)  # data sets that come out as they were
OWN = of(MINI, "base gguf imatrix")
PRETRAIN = OWN | scored(THREE) | trained(THREE)  # mini gets other weights, and keeps its tokenizer
TOKENIZE = OWN | scored(THREE) | anew(THREE)
TEACH = TOKENIZE | CORPUS  # mini learns from other records
EVERYTHING = TEACH | of(OTHER, "base gguf") | scored("music") | anew("music")


def conf(file: str, key: str, value: Any) -> Edit:
    return lambda project: edit(project / "conf" / f"{file}.yaml", key, value)


def safety(language: str, key: str, value: Any) -> Edit:
    return conf(f"safety/{language}", key, value)


def overriding(name: str, key: str, value: Any) -> Edit:
    return lambda project: override(project, name, {key: value})


build_yaml, mini, cpu = (
    partial(conf, "build"),
    partial(conf, "base/mini"),
    partial(conf, "hardware/cpu"),
)
mini_sets = partial(overriding, "base/mini")
nutrition, storytelling = partial(conf, "domain/nutrition"), partial(conf, "domain/storytelling")
stories, music = partial(overriding, "storytelling"), partial(overriding, "music")


def decision(name: str, **fields: Any) -> Edit:
    """A domain's overlay with one decision: programming's as it is, but for these fields."""
    taken = {"key": "training.weight_decay", "value": 0.01, "agent": "tuner", "reason": "so"}
    path = Path("conf") / "overlay" / f"{name}.yaml"
    return lambda project: write_yaml(
        project / path, {"decisions": [{**taken, "evidence": ["run 1"], **fields}]}
    )


def each(
    above: str, change: Callable[[str, Any], Edit], values: Mapping[str, Any], steps: Steps
) -> list[Row]:
    """A row for each key below another."""
    return [(above + key, change(above + key, value), steps) for key, value in values.items()]


def both(*edits: Edit) -> Edit:
    return lambda project: [change(project) for change in edits]


def then(first: Edit, second: Edit) -> Edit:
    """The first edit is built; only what the second reaches counts."""
    return lambda project: (first(project), build(project), second(project))


def respelt(file: str, old: str, new: str) -> Row:
    return (
        f"{new!r} for {old!r}",
        text(f"conf/{file}.yaml", lambda written: written.replace(old, new)),
        NOTHING,
    )


def moved(old: str, new: str) -> Edit:
    return lambda project: (
        (project / new).parent.mkdir(exist_ok=True),
        (project / old).rename(project / new),
    )


def copied(old: str, new: str) -> Edit:
    return lambda project: (shutil.copytree if (project / old).is_dir() else shutil.copy)(
        project / old, project / new
    )


def damaged(name: str) -> Edit:
    return with_old_time(f"artifacts/{name}", lambda project: damage(project / "artifacts" / name))


def linked(project: Path) -> None:
    moved("conf/domain/nutrition.jsonl", "elsewhere.jsonl")(project)
    (project / "conf/domain/nutrition.jsonl").symlink_to(project / "elsewhere.jsonl")


def followed(project: Path) -> None:
    """storytelling begins from the adapter that programming has now."""
    pin = digest_file(project / "artifacts/programming/adapter/adapter_model.safetensors")
    override(project, "storytelling", {"training.warm_start": f"programming@{pin}"})


def turned(line: str) -> str:
    return json.dumps(dict(reversed(json.loads(line).items())))


SAMPLED = text("conf/sample.jsonl", lambda written: written.partition("\n")[2])
STORIES, MUSIC = "conf/domain/storytelling.jsonl", "conf/domain/music.jsonl"
ADAPTERS = build_yaml("gguf.files", "lora")
# fmt: off
BUILD_YAML: list[Row] = [
    ("domains: one less", build_yaml("domains", THREE.split()), REPORT),
    ("domains: one more", build_yaml("domains", [*ALL.split(), "legal"]), scored("legal") | anew("legal")),
    ("domains: another order", build_yaml("domains", ALL.split()[::-1]), NOTHING),
    ("domains: by category", build_yaml("domains", ["healthcare", "programming", "storytelling", "music"]), NOTHING),
    ("root", build_yaml("root", "elsewhere"), EVERYTHING),
    ("keep_merged", build_yaml("keep_merged", True), of(ALL, "merge")),
    ("keep_merged no longer", then(build_yaml("keep_merged", True), build_yaml("keep_merged", False)), NOTHING),
    ("sample: none", both(build_yaml("gguf.imatrix.enabled", False), build_yaml("sample", None)),
     of(ALL, "dataset package") | CORPUS | converted(THREE)),
    ("a record of the sample", SAMPLED, of(ALL, "dataset package") | CORPUS | MATRIX | converted(THREE)),
    ("start.enabled", build_yaml("start.enabled", True), of(BOTH, "start") | trained(ALL)),
    ("start.enabled no longer", then(build_yaml("start.enabled", True), build_yaml("start.enabled", False)), NOTHING),
    ("start.enabled of one domain", stories("start.enabled", True), of(MINI, "start") | trained("storytelling")),
    *each("start.", build_yaml, {"threads": 1}, NOTHING),
    ("start.epochs, which nobody begins from", build_yaml("start.epochs", 9), NOTHING),
    ("start.epochs", then(build_yaml("start.enabled", True), build_yaml("start.epochs", 9)), of(BOTH, "start") | trained(ALL)),
    ("a record of the sample, of the start", then(build_yaml("start.enabled", True), SAMPLED),
     of(BOTH, "start") | of(ALL, "dataset") | CORPUS | MATRIX | trained(ALL)),
    ("a training record, with a start", then(build_yaml("start.enabled", True), reworded("storytelling", "train")),
     anew("storytelling")),
    ("lora of another shape, with a start", then(build_yaml("start.enabled", True), stories("lora.rank", 2)), trained("storytelling")),
    *each("", build_yaml, {"store": "elsewhere", "context.keep_days": 9, "locked": ["seed"], "training.checkpoint_seconds": 5}, NOTHING),
    ("seed", build_yaml("seed", 3), PRETRAIN | trained("music")),
    *each("data.", build_yaml, {"min_tokens": 9, "max_drop_share": 0.9}, prepared(ALL)),
    *each("data.", build_yaml, {"near_duplicate": .9, "near_group": .8, "max_bad_share": .5, "html_to_text": True}, prepared(ALL) | CORPUS),
    ("data.validation", build_yaml("data.validation", 0.3), TEACH | anew("music")),
    ("data.test", build_yaml("data.test", 0.1), TEACH | scored("music") | anew("music")),
    *each("lora.", build_yaml, {"rank": 8, "alpha": 8, "dropout": 0.1, "targets": ["q_proj"], "rslora": True, "dora": True}, trained(ALL)),
    ("lora.rank and lora.alpha swapped", both(build_yaml("lora.rank", 32), build_yaml("lora.alpha", 16)), trained(ALL)),
    *each("training.", build_yaml, {"max_steps": 9, "micro_batch_tokens": 99, "warmup_share": 0.5, "clip_norm": 0.5, "patience": 9,
                                    "validations_per_epoch": 2, "loss_on_prompt": True}, trained(ALL)),
    # Mini overrides these four, and programming's overlay the weight decay.
    *each("training.", build_yaml, {"epochs": 9, "batch_tokens": 999, "learning_rate": 0.01}, trained("music")),
    ("data.max_tokens", build_yaml("data.max_tokens", 400), scored("music") | anew("music")),
    ("training.weight_decay", build_yaml("training.weight_decay", 0.1), trained("nutrition storytelling music")),
    ("merge.bound", build_yaml("merge.bound", 0.5), of(ALL, "merge")),
    ("gguf.imatrix.enabled", build_yaml("gguf.imatrix.enabled", False), converted(THREE)),  # music has no type that uses one
    ("gguf.imatrix.tokens", build_yaml("gguf.imatrix.tokens", 99), MATRIX | converted(THREE)),
    ("gguf.imatrix.tokens where it is not enabled",
     then(build_yaml("gguf.imatrix.enabled", False), build_yaml("gguf.imatrix.tokens", 9)), NOTHING),
    ("gguf.files: merged", build_yaml("gguf.files", "merged"), of(ALL, "merge gguf package")),
    ("gguf.files: lora", ADAPTERS, of(BOTH, "quantize") | of(OTHER, "imatrix") | made("gguf evaluate package", ALL)),
    ("gguf.files: both again", then(ADAPTERS, build_yaml("gguf.files", "both")), NOTHING),
    ("gguf.files of one domain", stories("gguf.files", "lora"), of(MINI, "quantize") | made("gguf evaluate package", "storytelling")),
    ("a training record, as adapters", then(ADAPTERS, reworded("storytelling", "train")),
     made("dataset adapter gguf evaluate package", "storytelling")),
    ("a test record, as adapters", then(ADAPTERS, reworded("storytelling", "test")),
     of("storytelling", "dataset") | scored("storytelling")),
    ("epochs, as adapters", then(ADAPTERS, stories("training.epochs", 5)), made("adapter gguf evaluate package", "storytelling")),
    ("a domain's quants, as adapters", then(ADAPTERS, nutrition("quants", ["F16", "Q8_0"])), evaluated("nutrition")),
    ("a type of a base that no adapter is used on", then(ADAPTERS, mini("quants", ["Q8_0", "Q6_K", "Q4_K_M"])), of(MINI, "quantize")),
    ("a base's quants, of which nobody uses any", mini("quants", ["Q6_K"]), NOTHING),
    ("gguf.tensor_types, as adapters", then(ADAPTERS, build_yaml("gguf.tensor_types", {"ffn_down": "Q6_K"})),
     of(BOTH, "quantize") | evaluated(ALL)),
    ("a record of the sample, as adapters", then(ADAPTERS, SAMPLED),
     of(BOTH, "imatrix quantize") | of(ALL, "dataset package") | CORPUS | evaluated(THREE)),
    ("gguf.tensor_types", build_yaml("gguf.tensor_types", {"ffn_down": "Q6_K"}), of(OTHER, "imatrix") | converted(ALL)),
    ("gguf.logits_bound", build_yaml("gguf.logits_bound", 0.5), of(ALL, "merge gguf") | of(BOTH, "gguf")),
    ("evaluation.max_records", build_yaml("evaluation.max_records", 9), scored(ALL)),
    ("evaluation.kl_tokens", build_yaml("evaluation.kl_tokens", 99), evaluated(ALL)),
    ("evaluation.max_kl of a type that all have", build_yaml("evaluation.max_kl.Q8_0", 0.5), of(ALL, "package")),
    ("evaluation.max_kl of a type that three have", build_yaml("evaluation.max_kl.Q4_K_M", 0.5), of(THREE, "package")),
    ("evaluation.max_kl of a type that none has", build_yaml("evaluation.max_kl.Q6_K", 0.5), NOTHING),
    # Mini overrides the first two, and the bounds of doses.
    *each("answers.", build_yaml, {"prompts": 3, "tokens": 99}, scored("music")),
    ("answers.choice_tokens", build_yaml("answers.choice_tokens", 9), scored(ALL)),
    ("answers.prompts of a base's domains", mini_sets("answers.prompts", 3), scored(THREE)),
    ("a bound of strict domains", build_yaml("answers.bounds.strict.calls", 0.5), of("nutrition", "package")),
    ("a bound of strict domains that their base overrides", build_yaml("answers.bounds.strict.doses", 0.5), NOTHING),
    ("a bound of all other domains", build_yaml("answers.bounds.standard.phones", 0.5), of("programming storytelling music", "package")),
]
LISTS: list[Row] = [
    ("a list of English, which all speak", safety("en", "call", ["call", "ring"]), of(ALL, "package")),
    ("a list of Spanish", safety("es", "call", ["llame"]), of("nutrition", "package")),
    ("whom to turn to, in Hindi", safety("hi", "turn_to.police", ["पुलिस"]), of("nutrition", "package")),
    *each("", partial(safety, "en"), {"description": "Another", "as_of": "today", "source": "Somebody"}, NOTHING),
    ("lists of a language that none speaks", copied("conf/safety/es.yaml", "conf/safety/fr.yaml"), NOTHING),
    ("no lists of Spanish any more", gone("conf/safety/es.yaml"), of("nutrition", "package")),
    ("no lists at all", gone("conf/safety"), of(ALL, "package")),
]
BASES_AND_MACHINES: list[Row] = [
    *each("", mini, {"description": "Another", "parameters": 5, "pretraining.domains": ["programming", "nutrition"]}, NOTHING),
    ("licence", mini("licence", "mit"), of(MINI, "gguf") | scored(THREE) | converted(THREE)),
    *each("", mini, {"chat_template": "another", "tokenizer.vocab_size": 2048, "model.layers": 2}, TOKENIZE),
    *each("pretraining.", mini, {"epochs": 2, "batch_tokens": 99, "learning_rate": 0.1, "warmup_share": 0.2, "weight_decay": 0.2,
                                 "clip_norm": 0.5, "threads": 2}, PRETRAIN),
    *each("pretraining.", mini, {"share": 0.8, "domains": ["nutrition"]}, TEACH),
    ("an override", text("conf/base/mini.yaml", lambda old: old.replace("epochs: 2", "epochs: 3")), trained(THREE)),
    *each("", partial(conf, "base/other"), {"description": "Another", "revision": "1" * 40, "chat_template": "another"}, NOTHING),
    ("other's hub_id, which the model card names", conf("base/other", "hub_id", "some/where"), of("music", "package")),
    ("other's licence", conf("base/other", "licence", "apache-2.0"), of(OTHER, "gguf") | scored("music") | converted("music")),
    ("other's folder, the same files in it",
     both(copied("models/other", "models/copy"), conf("base/other", "folder", "models/copy")), NOTHING),
    ("other's weights", text("models/other/model.safetensors", str.upper), of(OTHER, "base gguf") | scored("music") | trained("music")),
    ("a file more beside other's", copied("Snakefile", "models/other/README.md"), of(OTHER, "base")),
    *each("", cpu, {"description": "Another", "memory_gb": 64, "gpu_memory_gb": 8}, NOTHING),
    *each("", cpu, {"precision": "bfloat16"}, trained(ALL)),
    ("a machine's override", lambda project: override(project, "hardware/cpu", {"training.max_steps": 7}), trained(ALL)),
    ("threads", cpu("threads", 2), scored(ALL) | trained(ALL) | of(BOTH, "gguf") | MATRIX),
    ("slots", cpu("slots", 3), trained(ALL)),
    ("with slots, one less beside the others", then(cpu("slots", 3), build_yaml("domains", THREE.split())), REPORT),
    ("the threads of a machine that no one uses", conf("hardware/big", "threads", 4), NOTHING),
]
DOMAINS: list[Row] = [
    *each("", nutrition, {"topics": ["another"], "locked": ["seed"]}, NOTHING),
    *each("", nutrition, {"description": "Another", "safety": "standard", "evaluation.beat_base_by": 0.5}, of("nutrition", "package")),
    ("category", nutrition("category", "own"), of("nutrition", "package") | REPORT),
    ("languages, the others unused", nutrition("languages", ["en"]), CORPUS | prepared("nutrition")),
    ("system_prompt", nutrition("system_prompt", "Be brief."), CORPUS | scored("nutrition") | anew("nutrition")),
    ("quants", nutrition("quants", ["F16", "Q8_0"]), converted("nutrition")),
    ("quants in another order", nutrition("quants", ["F16", "Q4_K_M", "Q8_0"]), converted("nutrition")),
    ("a limit of a source", nutrition("sources", [{"path": "nutrition.jsonl", "limit": 20}]), TEACH),
    ("columns as they are", storytelling("sources", [{"path": "storytelling.jsonl", "columns": {"prompt": "prompt"}}]),
     prepared("storytelling")),
    ("a domain that is left out", both(conf("domain/legal", "description", "Another"), overriding("legal", "seed", 3)), NOTHING),
    ("files that nothing names",
     both(copied("conf/base/mini.yaml", "conf/base/b.yaml"), copied("conf/domain/legal.yaml", "conf/domain/b.yaml")), NOTHING),
    *((f"seed of {name} is no matter of its base", overriding(name, "seed", 3), trained(name)) for name in THREE.split()),
    *((f"hardware of {name} is no matter of its base", overriding(name, "hardware", "big"), scored(name) | trained(name))
      for name in THREE.split()),
    ("another base", stories("base", "other"), of(OTHER, "imatrix") | scored("storytelling") | anew("storytelling")),
    ("data.validation of one that the base learns from", overriding("nutrition", "data.validation", 0.3), TEACH),
]
OVERRIDES: list[Row] = [
    *((f"{key}: {value}, as it is", stories(key, value), NOTHING)
      for key, value in [("lora.rank", 16), ("lora.alpha", 32), ("lora.alpha", 32.0), ("training.max_steps", None)]),
    ("training.checkpoint_seconds", stories("training.checkpoint_seconds", 5), NOTHING),
    ("keep_merged", stories("keep_merged", True), of("storytelling", "merge")),
    ("merge.bound", stories("merge.bound", 0.1), of("storytelling", "merge")),
    *each("data.", stories, {"near_group": 0.9, "repair_text": False}, prepared("storytelling")),
    ("data.min_tokens", stories("data.min_tokens", 9), prepared("storytelling")),
    ("data.max_tokens", stories("data.max_tokens", 800), scored("storytelling") | anew("storytelling")),
    ("data.test", stories("data.test", 0.4), scored("storytelling") | anew("storytelling")),
    *each("", stories, {"lora.alpha": 8, "training.epochs": 5, "training.loss_on_prompt": True}, trained("storytelling")),
    *each("", stories, {"gguf.imatrix.enabled": False, "domain.quants": ["F16"]}, converted("storytelling")),
    ("gguf.imatrix.enabled where no type uses it", music("gguf.imatrix.enabled", False), NOTHING),
    ("evaluation.max_records", stories("evaluation.max_records", 3), scored("storytelling")),
    ("answers.prompts", stories("answers.prompts", 0), scored("storytelling")),
    ("answers.bounds", stories("answers.bounds.standard.phones", 0.0), of("storytelling", "package")),
    ("evaluation.max_kl", stories("evaluation.max_kl.Q8_0", 0.1), of("storytelling", "package")),
    ("training.warm_start", followed, trained("storytelling")),
    ("what was pinned for a warm start", then(followed, overriding("programming", "lora.rank", 8)), trained("programming")),
    ("two domains' overrides swapped", then(both(music("lora.rank", 4), stories("lora.rank", 8)),
                                            both(music("lora.rank", 8), stories("lora.rank", 4))), trained("music storytelling")),
    ("a new decision", decision("storytelling", key="lora.rank", value=8), trained("storytelling")),
    ("a decision for what is so already", decision("storytelling", key="lora.rank", value=16), NOTHING),
    ("a decision's value", decision("programming", value=0.02), trained("programming")),
    ("no decision any more", gone("conf/overlay/programming.yaml"), trained("programming")),
    *((f"a decision's {field}", decision("programming", **{field: value}), NOTHING)
      for field, value in {"reason": "why not", "agent": "me", "evidence": [], "expected_gain": 0.1, "confidence": 0.5}.items()),
]
SPELLING: list[Row] = [
    ("a comment", text("conf/build.yaml", lambda old: f"# a comment\n{old}"), NOTHING),
    ("JSON, keys in another order", text("conf/build.yaml", lambda old: turned(json.dumps(yaml.safe_load(old)))), NOTHING),
    *(respelt("build", *change) for change in [("\n", "\r\n"), ("0.001", "1e-3"), ("0.001", "1.0E-03"), ("32\n", "32.0\n"), ("null", "~"),
                                               ("false", "no")]),
    respelt("domain/music", "music.jsonl", "'music.jsonl'"),
    respelt("base/mini", ": apache-2.0", ": >-\n      apache-2.0"),
]
SOURCES: list[Row] = [
    ("a record more, taught to the base", added("nutrition", "taught"), TEACH),
    ("a record more to train on, not taught", added("nutrition", "train"), CORPUS | anew("nutrition")),
    ("a record more to test on", added("nutrition", "test"), CORPUS | of("nutrition", "dataset") | scored("nutrition")),
    *((f"a record more of no base: {side}", added("storytelling", side), anew("storytelling"))
      for side in ("train", "validation")),
    ("a record more of no base: test", added("storytelling", "test"), of("storytelling", "dataset") | scored("storytelling")),
    ("a word of a taught record", reworded("nutrition", "taught"), TEACH),
    ("a word of a test record", reworded("storytelling", "test"), of("storytelling", "dataset") | scored("storytelling")),
    ("a word, under an older time", with_old_time(STORIES, reworded("storytelling", "train")), anew("storytelling")),
    ("a line that is no record", lines("storytelling", lambda old: [*old, "{}"]), of("storytelling", "dataset package")),
    ("a record twice", lines("storytelling", lambda old: [*old, old[0]]), of("storytelling", "dataset package")),
    ("a blank line at the end", lines("nutrition", lambda old: [*old, ""]), CORPUS | of("nutrition", "dataset")),
    ("blank lines between", lines("storytelling", lambda old: "\n\n".join(old).split("\n")), of("storytelling", "dataset")),
    ("records' keys in another order", lines("storytelling", lambda old: map(turned, old)), of("storytelling", "dataset")),
    ("records with Windows line ends", lines("storytelling", lambda old: [f"{line}\r" for line in old]),
     of("storytelling", "dataset")),
    ("records in another order", lines("nutrition", lambda old: old[::-1]), CORPUS | scored("nutrition") | anew("nutrition")),
    ("moved to another folder",
     both(moved(STORIES, "data/storytelling.jsonl"), storytelling("sources", [{"path": "../../data/storytelling.jsonl"}])), NOTHING),
    ("another name", both(moved(STORIES, "conf/domain/other.jsonl"), storytelling("sources", [{"path": "other.jsonl"}])),
     prepared("storytelling")),
    ("a link to the same file", linked, NOTHING),
    ("two domains' files swapped", both(moved(STORIES, "aside"), moved(MUSIC, STORIES), moved("aside", MUSIC)),
     scored("storytelling music") | anew("storytelling music")),
    ("the file of a domain that is left out", added("legal", "train"), NOTHING),
]
FILES: list[Row] = [
    ("every file touched", lambda project: date_all(project, 2e9), NOTHING),
    *((f"{name} deleted", gone(name), NOTHING)
      for name in [".meetara", "artifacts/logs", "artifacts/runs.jsonl", "artifacts/store", "artifacts/nutrition", "artifacts/[!s]*",
                   "artifacts/*/*/manifest.json", "artifacts/nutrition/gguf/nutrition-Q8_0.gguf",
                   "artifacts/nutrition/adapter/training.json", "artifacts/base/mini/model/config.json"]),
    *((f"{name} damaged, its size and time as before", damaged(name), NOTHING)
      for name in ["nutrition/dataset/train.jsonl", "nutrition/gguf/nutrition-F16.gguf", "base/mini/model/model.safetensors",
                   "nutrition/evaluation/evaluation.json"]),
    ("a manifest cut short", text("artifacts/nutrition/package/manifest.json", lambda old: old[:-9]), NOTHING),
    ("the store deleted, and a file", gone("artifacts/store", "artifacts/nutrition/dataset/train.jsonl"), of("nutrition", "dataset")),
    ("the store deleted, and a blank line", both(gone("artifacts/store"), lines("storytelling", lambda old: [*old, ""])),
     of("storytelling", "dataset")),
    ("all artifacts and the store deleted", gone("artifacts"), EVERYTHING),
    ("a file deleted, and an edit below it", both(gone("artifacts/music/adapter/training.json"), music("evaluation.max_records", 3)),
     scored("music")),
    ("two edits at once", both(music("lora.rank", 4), nutrition("description", "Another")), trained("music") | of("nutrition", "package")),
]
CODE = {
    "training/chat.py": CORPUS | MATRIX | of(BOTH, "base gguf") | of(ALL, "dataset adapter baseline merge gguf evaluate package"),
    "training/loop.py": of(BOTH, "base") | of(ALL, "adapter"),
    "training/slots/model.py training/slots/trainer.py sockets.py": of(ALL, "adapter"),
    "training/held.py": of(ALL, "adapter"),
    "training/model.py": MATRIX | of(BOTH, "gguf") | of(ALL, "adapter merge gguf"),
    "stages/types.py": EVERYTHING,
    "stages/dataset/clean.py": CORPUS | of(ALL, "dataset package"),
    "stages/merge.py": of(ALL, "merge"),
    "stages/imatrix.py": MATRIX,
    "stages/sample.py": MATRIX | CORPUS | of(ALL, "dataset package"),
    "stages/gguf/quantize.py": MATRIX | of(BOTH, "gguf") | of(ALL, "merge gguf"),
    "stages/baseline.py": of(ALL, "baseline"),
    "stages/held_out.py": of(ALL, "baseline evaluate"),
    "stages/evaluate.py": of(ALL, "evaluate"),
    "stages/asking.py llama_cpp/generation.py stages/recipes/answers.py": of(ALL, "baseline evaluate"),
    "stages/answer_lines.py": made("baseline evaluate package", ALL),
    "stages/answers/checks.py stages/answers/facts.py stages/recipes/safety.py": of(ALL, "package"),
    "stages/package/card.py stages/package/judging.py": of(ALL, "package"),
    "stages/recipes/merge.py": of(ALL, "merge"),
    "stages/recipes/preparation.py": CORPUS | of(ALL, "dataset package"),
    "errors.py project.py store/manifest.py graph/stages.py graph/compose.py graph/recipes.py plan/__init__.py": NOTHING,
    "engine/stage_run.py engine/job.py cli/stage.py new.py": NOTHING,
}
LIBRARIES = {
    "torch": MATRIX | of(BOTH, "base gguf") | of(ALL, "adapter merge gguf"),
    "peft": MATRIX | of(BOTH, "base gguf") | of(ALL, "adapter merge gguf"),
    "pandas": CORPUS | of(ALL, "dataset package"),
    "llama-cpp-python": MATRIX | of(BOTH, "base gguf") | of(ALL, "merge gguf baseline evaluate package"),
    "matplotlib": REPORT,
    "psutil rich snakemake hydra-core typer pydantic pytest": NOTHING,
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
def package(project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A copy of the package's code, which fingerprints are made from instead; what the project
    knows of the other is forgotten."""
    (project / CACHE / "code.json").unlink()
    folder = tmp_path / "meetara_build"
    shutil.copytree(
        fingerprint.PACKAGE, folder, ignore=shutil.ignore_patterns("__pycache__", "project")
    )
    monkeypatch.setattr(fingerprint, "PACKAGE", folder)
    yield folder
    monkeypatch.undo()
    forget()


def forget() -> None:
    """Look at code and libraries again."""
    for value in vars(fingerprint).values():
        getattr(value, "cache_clear", lambda: None)()


def reaches(project: Path, steps: Steps) -> None:
    """The next build works out these steps and no other, as its plan says; after it all is there,
    and nothing is to do."""
    ran = build(project)
    assert ran.worked_out == steps, (
        f"missed: {sorted(steps - ran.worked_out)}; false: {sorted(ran.worked_out - steps)}"
    )
    assert ran.not_as_announced() == {}
    graph = load(project)
    assert plan(graph).to_do() == []
    assert all(digest(graph.root, step) for step in graph.steps.values() if step.keep)


def rows(*tables: list[Row]) -> pytest.MarkDecorator:
    found = [pytest.param(*row[1:], id=row[0]) for table in tables for row in table]
    return pytest.mark.parametrize(("change", "steps"), found)


@rows(BUILD_YAML, LISTS, BASES_AND_MACHINES, DOMAINS, OVERRIDES, SPELLING, SOURCES, FILES)
def test_an_edit_reaches_exactly(project: Path, change: Edit, steps: Steps) -> None:
    change(project)
    reaches(project, steps)


@pytest.mark.parametrize("modules", CODE)
def test_an_edit_of_code_reaches_exactly(project: Path, package: Path, modules: str) -> None:
    for module in modules.split():
        with (package / module).open("a", encoding="utf-8") as file:
            file.write("\nFURTHER = 1\n")
    forget()
    reaches(project, CODE[modules])


def test_an_edit_of_what_only_people_read_reaches_nothing(project: Path, package: Path) -> None:
    """Another docstring, a comment and more empty lines in every file."""
    for path in package.rglob("*.py"):
        path.write_text(
            path.read_text("utf-8").replace('"""\n', ' And more."""\n\n\n# A comment\n', 1), "utf-8"
        )
    forget()
    reaches(project, NOTHING)


@pytest.mark.parametrize("names", LIBRARIES)
def test_another_version_reaches_exactly(
    project: Path, package: Path, monkeypatch: pytest.MonkeyPatch, names: str
) -> None:
    real = metadata.version
    monkeypatch.setattr(
        metadata,
        "version",
        lambda name: "999" if name.replace("_", "-") in names.split() else real(name),
    )
    forget()
    reaches(project, LIBRARIES[names])


@rows(
    [
        row
        for table in (BUILD_YAML, BASES_AND_MACHINES, DOMAINS, OVERRIDES, SOURCES)
        for row in table[1::9]
        if row[2]
    ]
)
def test_what_was_edited_and_built_and_is_reverted_comes_from_the_store(
    project: Path, change: Edit, steps: Steps
) -> None:
    shutil.copytree(project / "conf", project / "before")
    change(project)
    build(project)
    shutil.rmtree(project / "conf")
    (project / "before").rename(project / "conf")
    assert {item.action for item in plan(load(project)).to_do()} == {RESTORE}
    reaches(project, NOTHING)


def test_a_checkout_that_is_moved_or_copied_has_nothing_to_do(
    project: Path, tmp_path: Path
) -> None:
    shutil.copytree(project, tmp_path / "copy")
    reaches(project.rename(tmp_path / "moved"), NOTHING)
    reaches(tmp_path / "copy", NOTHING)


def test_another_user_place_and_order_of_hashes_reach_nothing(project: Path) -> None:
    environment = {
        "TZ": "Asia/Tokyo",
        "LC_ALL": "C",
        "HOME": "/",
        "USER": "other",
        "PYTHONHASHSEED": "7",
    }
    words, given = [sys.executable, "-m", "meetara_build", "plan"], {**os.environ, **environment}
    done = subprocess.run(words, cwd=project, env=given, capture_output=True, text=True, check=True)
    assert "Plan: 0 to run, 0 to restore, 0 maybe, " in done.stdout
