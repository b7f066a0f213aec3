"""Whole builds in a fraction of a second: everything is real but the stages' own work.

The graph, fingerprints, plan, stage runs, manifests and store are the package's; only
`meetara_build.engine.job.perform` is replaced. A stand-in reads what the real stage reads, and
writes the files that the real stage writes, with bytes that depend on all that decides the real
ones and on nothing else. So a step that is wrongly left out shows in the files after it, and one
that gives the same files again ends what follows, as with real models.
"""

import hashlib
import json
import os
import resource
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

from projects import edit, override, read_yaml, small_project, write_yaml

from meetara_build.engine import job
from meetara_build.engine.backfill import preserve
from meetara_build.engine.cleanup import sweep
from meetara_build.engine.planning import look
from meetara_build.engine.stage_run import run
from meetara_build.graph import JOINT, OBSERVER, Graph, Step, load
from meetara_build.graph.stages import STAGE, TOKENIZER
from meetara_build.plan import MAYBE, RESTORE, RUN
from meetara_build.store.manifest import MEASURED, digest_json

Edit = Callable[[Path], object]
"""A change of a project's folder."""
Content = dict[str, str]
Made = dict[str, Any]
"""What a stand-in writes: text, or JSON values, by file name."""

BUILT = ("nutrition", "programming", "storytelling", "music")
"""The domains that build.yaml names: the base of the first three, ``mini``, is made from the first
two's records; the base of ``music``, ``other``, is copied from a folder. ``legal`` is there too,
and left out."""


def fast_project(folder: Path) -> Path:
    """A project for fast builds: four domains on two bases, one domain left out, one overlay."""
    small_project(folder, (*BUILT, "legal"))
    conf, model = folder / "conf", folder / "models" / "other"
    edit(conf / "build.yaml", "domains", list(BUILT))
    edit(conf / "base" / "mini.yaml", "pretraining.domains", ["nutrition", "programming"])
    model.mkdir(parents=True)
    for name in ("config.json", "tokenizer.json", "model.safetensors"):
        (model / name).write_text(json.dumps({"name": name}))
    other = {
        "description": "A model of ours",
        "licence": "mit",
        "chat_template": "chatml",
        "parameters": 900_000,
    }
    write_yaml(conf / "base" / "other.yaml", {**other, "folder": "models/other"})
    write_yaml(
        conf / "hardware" / "big.yaml", {**read_yaml(conf / "hardware" / "cpu.yaml"), "threads": 2}
    )
    override(folder, "music", {"base": "other"})
    edit(conf / "domain" / "music.yaml", "quants", ["F16", "Q8_0"])
    taken = {
        "key": "training.weight_decay",
        "value": 0.01,
        "agent": "tuner",
        "reason": "so",
        "evidence": ["run 1"],
    }
    write_yaml(conf / "overlay" / "programming.yaml", {"decisions": [taken]})
    return folder


UNREACHED = 0.9
"""Of ``evaluation.beat_base_by``: a package that asks for so much is held back."""
REASON = "F16: 1 of 4 answers: tells people to call [bold]504[/], which is no known number"
"""The first reason, with what a model said in it."""


class Ran(NamedTuple):
    """What a build did, by names of steps, and what its plan had said."""

    announced: dict[str, str]
    worked_out: frozenset[str]
    restored: frozenset[str]

    def not_as_announced(self) -> dict[str, list[str]]:
        """Steps for which the plan was wrong, by what was wrong; empty if it was right."""

        def planned(*actions: str) -> set[str]:
            return {name for name, action in self.announced.items() if action in actions}

        found = {
            "said to run, and did not": planned(RUN) - self.worked_out,
            "said to be restored, and was not": planned(RESTORE) - self.restored,
            "worked out, and not announced": self.worked_out - planned(RUN, MAYBE),
            "restored, and not announced": self.restored - planned(RESTORE, MAYBE),
        }
        return {what: sorted(names) for what, names in found.items() if names}


def build(project: Path, domains: Sequence[str] = ()) -> Ran:
    """Build in this process what ``meetara-build build DOMAINS`` would, with the same plan and the
    same stage runs.

    Only nothing is synced to the disk: that takes most of the time, and no test here pulls a plug.
    """
    worked_out, restored = set(), set()

    def perform(request: Mapping[str, Any]) -> int:
        worked_out.add(request["name"])
        return stand_in(request)

    with mock.patch.object(job, "perform", perform), mock.patch.object(os, "fsync"):
        graph = load(project)
        made = look(graph, domains)
        sweep(graph, made, domains)
        preserve(graph, made)
        for item in made.to_do():
            _make_room(graph, item.step)
            if run(graph, item.step, cold=True) == "restored":
                restored.add(item.step.name)
    for item in made.to_do():
        if not item.step.keep:
            shutil.rmtree(graph.root / item.step.place.folder)
    announced = {item.step.name: item.action for item in made.to_do()}
    return Ran(announced, frozenset(worked_out), frozenset(restored - worked_out))


def _make_room(graph: Graph, step: Step) -> None:
    """Snakemake starts a job for whatever is not fresh, and only that; before that it deletes what
    the rule declares."""
    folder = graph.root / step.place.folder
    if not step.keep:
        shutil.rmtree(folder, ignore_errors=True)
    for path in (graph.root / step.place.manifest, *(folder / name for name in step.files)):
        path.unlink(missing_ok=True)


def stand_in(request: Mapping[str, Any]) -> int:
    """In place of ``job.perform``: write a stage's files and its figures."""
    output = Path(request["output"])
    inputs = {name: Path(path) for name, path in request["inputs"].items()}
    made = STAND_INS[request["stage"]](request["recipe"], inputs)
    metrics: dict[str, Any] = {}
    if request["stage"] == "package" and request["recipe"]["beat_base_by"] >= UNREACHED:
        made = {name: made[name] for name in STAGE["package"].list_files("", request["recipe"])}
        text = f"{request['recipe']['domain']}: not packaged:\n  {REASON}\n    said: Call 504.\nTrain it."
        metrics = {"held_back": {"code": "gate-answers", "message": text}}
    for name, content in made.items():
        (output / name).write_text(
            content if isinstance(content, str) else json.dumps(content, sort_keys=True)
        )
    figures = {
        "metrics": {"files": len(made), **metrics},
        "pid": os.getpid(),
        "seconds": 0.0,
        "cpu_seconds": 0.0,
    }
    figures["peak_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    output.with_name(job.FIGURES).write_text(json.dumps(figures))
    return 0


# What is read


def _read(folder: Path, *patterns: str) -> Content:
    """sha256 of the files that match, their measured figures left out; a folder's own files,
    manifests excepted."""
    found = {
        path.name: path
        for pattern in patterns
        for path in sorted(folder.glob(pattern))
        if path.is_file()
    }
    return {
        name: _sha(_told(path))
        for name, path in found.items()
        if not name.endswith("manifest.json")
    }


def _told(path: Path) -> bytes:
    content = path.read_bytes()
    if path.suffix == ".json" and MEASURED.encode() in content:
        values = json.loads(content)
        values.pop(MEASURED, None)
        return json.dumps(values, sort_keys=True).encode()
    return content


def _sha(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _without(recipe: Mapping[str, Any], *keys: str) -> dict[str, Any]:
    return {key: value for key, value in recipe.items() if key not in keys}


def _measured() -> dict[str, str]:
    return {MEASURED: os.urandom(8).hex()}


class Record(NamedTuple):
    """A question and its answer; ``id`` depends on both alone."""

    id: str
    messages: list[dict[str, str]]

    @classmethod
    def of(cls, row: Mapping[str, Any], system_prompt: str | None = None) -> "Record":
        """From a line of a source."""
        turns = [
            {"role": "user", "content": row["prompt"]},
            {"role": "assistant", "content": row["response"]},
        ]
        system = [{"role": "system", "content": system_prompt}] if system_prompt else []
        return cls(digest_json(turns)[:16], system + turns)

    def chance(self, what: str) -> float:
        """A number from 0 to 1 that depends on what is said alone."""
        return int(_sha(f"{what} {self.id}".encode())[:8], 16) / 0xFFFFFFFF

    def side(self, validation: float, test: float) -> str:
        """Where the split puts it."""
        at = self.chance("split")
        return "validation" if at < validation else "test" if at >= 1 - test else "train"


Row = tuple[str, dict[str, Any] | None]
"""A line of a source: ``file:line``, and what it holds; None where that is no record."""


def _rows(recipe: Mapping[str, Any], inputs: Mapping[str, Path]) -> Iterator[Row]:
    for number, source in enumerate(recipe["sources"]):
        lines = enumerate(inputs[f"source_{number}"].read_text("utf-8").splitlines(), 1)
        names = source["columns"] or {}
        for at, line in [(at, line) for at, line in lines if line.strip()][: source["limit"]]:
            values = None
            with suppress(ValueError, KeyError):
                values = {
                    key: json.loads(line)[names.get(key, key)].strip()
                    for key in ("prompt", "response")
                }
            yield f"{source['name']}:{at}", values


def _prepared(
    recipe: Mapping[str, Any], inputs: Mapping[str, Path]
) -> tuple[dict[str, list[Record]], dict[str, int]]:
    """A domain's records by side, without duplicates, in the order of the sources, and what was
    read."""
    rows = list(_rows(recipe, inputs))
    good = [Record.of(values, recipe["system_prompt"]) for _, values in rows if values is not None]
    sides: dict[str, list[Record]] = {"train": [], "validation": [], "test": []}
    for record in {record.id: record for record in good}.values():
        sides[record.side(recipe["validation"], recipe["test"])].append(record)
    return sides, {"read": len(rows), "bad": len(rows) - len(good)}


def _lines(values: Sequence[Any]) -> str:
    return "".join(json.dumps(value, ensure_ascii=False) + "\n" for value in values)


# What is written


def _corpus(recipe: Mapping[str, Any], inputs: Mapping[str, Path]) -> Made:
    taught, held_out = {}, set()
    for domain, preparation in sorted(recipe["domains"].items()):
        own = {
            name.rpartition("/")[2]: path
            for name, path in inputs.items()
            if name.startswith(f"{domain}/")
        }
        sides, _ = _prepared(preparation, own)
        held_out |= {record.id for side in ("validation", "test") for record in sides[side]}
        for record in sides["train"]:
            if record.chance("corpus") < recipe["share"]:
                turns = [turn for turn in record.messages if turn["role"] != "system"]
                taught[record.id] = {"id": record.id, "domain": domain, "messages": turns}
    kept = [line for key, line in sorted(taught.items()) if key not in held_out]
    return {
        "corpus.jsonl": _lines(kept),
        "card.json": {"records": len(kept), "held_out_records": len(held_out)},
    }


def _imatrix(recipe: Mapping[str, Any], inputs: Mapping[str, Path]) -> Made:
    read = [_read(inputs["base"], "*"), inputs["sample"].read_text()]
    return {"imatrix.gguf": digest_json([_without(recipe, "threads"), read])}


def _base(recipe: Mapping[str, Any], inputs: Mapping[str, Path]) -> Made:
    if recipe["model"] is None:
        patterns = ("*.safetensors", "config.json", "tokenizer*")
        return {
            path.name: path.read_text()
            for pattern in patterns
            for path in inputs["folder"].glob(pattern)
        }
    corpus = _read(inputs["corpus"], "corpus.jsonl")
    return {
        "config.json": {"model": recipe["model"], "tokenizer": recipe["tokenizer"]},
        "tokenizer.json": {
            "of": digest_json([corpus, recipe["tokenizer"], recipe["chat_template"]])
        },
        "model.safetensors": digest_json([recipe, corpus]),
    }


def _dataset(recipe: Mapping[str, Any], inputs: Mapping[str, Path]) -> Made:
    (sides, counts), language = _prepared(recipe, inputs), {"language": recipe["languages"][0]}
    made: Made = {"account.jsonl": _lines(list(_rows(recipe, inputs)))}
    for side, records in sides.items():
        dropped = recipe["drop"] if side == "train" else []
        lines = [
            one._asdict() | language
            for one in records
            if _fits(one, recipe) and one.id not in dropped
        ]
        made[f"{side}.jsonl"], counts[side] = _lines(lines), len(lines)
    return {
        **made,
        "card.json": {"counts": counts, "tokens": digest_json(_read(inputs["base"], *TOKENIZER))},
    }


def _fits(record: Record, recipe: Mapping[str, Any]) -> bool:
    words = sum(len(turn["content"].split()) for turn in record.messages)
    return bool(recipe["min_tokens"] <= words <= recipe["max_tokens"])


def _adapter(recipe: Mapping[str, Any], inputs: Mapping[str, Path]) -> Made:
    decides = _without(recipe, "checkpoint_seconds")
    joint = {
        name: _read(path, "train.jsonl") for name, path in inputs.items() if name.startswith(JOINT)
    }
    records = _read(
        inputs["dataset"], "train.jsonl", "validation.jsonl", *["test.jsonl"] * bool(joint)
    )
    agents = {
        name: _sha(path.read_bytes()) for name, path in inputs.items() if name.startswith(OBSERVER)
    }
    start = _read(inputs["start"], "adapter_*") if "start" in inputs else {}
    made = digest_json([decides, _read(inputs["base"], "*"), records, joint, agents, start])
    files = {
        "adapter_model.safetensors": made,
        "adapter_config.json": recipe["lora"],
        "records.jsonl": made,
    }
    return {**files, "training.json": {"curve": made, **_measured()}}


def _start(recipe: Mapping[str, Any], inputs: Mapping[str, Path]) -> Made:
    made = digest_json([recipe, _read(inputs["base"], "*"), inputs["sample"].read_text()])
    files = {"adapter_model.safetensors": made, "adapter_config.json": recipe["lora"]}
    return {**files, "training.json": {"curve": made, **_measured()}}


def _merge(recipe: Mapping[str, Any], inputs: Mapping[str, Path]) -> Made:
    # The validation records, and the bound, only prove that the weights are right.
    labels = _without(recipe, "bound", "logits_bound", "threads", "floats", "folder")
    read = [_read(inputs["base_gguf"], "*-F16.gguf"), _read(inputs["base"], "*")]
    made = digest_json([labels, read, _read(inputs["adapter"], "adapter_*")])
    files = {f"{recipe['domain']}-{kind}.gguf": made for kind in ("F16", *recipe["floats"])}
    kept = {"model.safetensors": made, **_read(inputs["base"], *TOKENIZER)}
    return {**files, **(kept if recipe["folder"] else {})}


def _gguf(recipe: Mapping[str, Any], inputs: Mapping[str, Path]) -> Made:
    labels = _without(
        recipe, "quants", "files", "imatrix", "tensor_types", "logits_bound", "system_prompt"
    )
    f16 = digest_json([labels, _read(inputs["base"], "*")])
    if "merged" in inputs:
        f16 = (inputs["merged"] / f"{recipe['name']}-F16.gguf").read_text()
    whole = recipe["files"] != "lora"
    made, own = {f"{recipe['name']}-F16.gguf": f16} if whole else {}, recipe["tensor_types"]
    weights = _read(inputs["imatrix"], "imatrix.gguf") if recipe["imatrix"] else {}
    for quant in recipe["quants"]:
        weighed = weights if own or quant not in ("F16", "Q8_0") else {}
        made[f"{recipe['name']}-{quant}.gguf"] = (
            f16 if quant == "F16" else digest_json([f16, quant, weighed, own])
        )
    if recipe["files"] != "merged":
        made[f"{recipe['name']}-lora.gguf"] = digest_json(
            [labels, _read(inputs["adapter"], "adapter_*")]
        )
    return {**made, "proof.json": {"files": sorted(made), **_measured()}}


def _quantize(recipe: Mapping[str, Any], inputs: Mapping[str, Path]) -> Made:
    weights = _read(inputs["imatrix"], "imatrix.gguf") if recipe["imatrix"] else {}
    f16 = _read(inputs["base_gguf"], "*-F16.gguf")
    return {
        f"{recipe['base']}-{quant}.gguf": digest_json(
            [f16, quant, {} if quant == "Q8_0" else weights, recipe["tensor_types"]]
        )
        for quant in recipe["quants"]
    }


def _baseline(recipe: Mapping[str, Any], inputs: Mapping[str, Path]) -> Made:
    read = [_read(inputs["base_gguf"], "*-F16.gguf"), _read(inputs["base"], *TOKENIZER)]
    made = digest_json([recipe, read, _read(inputs["dataset"], "test.jsonl")])
    return {"baseline.json": {"of": made, **_measured()}, "answers.jsonl": _ask(recipe, made)}


def _ask(recipe: Mapping[str, Any], of: str) -> str:
    """As many answers as are asked for, which depend on all else as well."""
    return _lines([{"id": number, "of": of} for number in range(recipe["answers"]["prompts"])])


def _evaluate(recipe: Mapping[str, Any], inputs: Mapping[str, Path]) -> Made:
    own = [
        f"{recipe['domain']}-{quant}.gguf"
        for quant in {"F16": 1, **dict.fromkeys(recipe["quants"])}
    ]
    read = [
        *(
            [_read(inputs["lora"], "*-lora.gguf"), _read_base_files(recipe, inputs)]
            if recipe["on_base"]
            else [_read(inputs["gguf"], *own)]
        ),
        _read(inputs["baseline"], "baseline.json", "answers.jsonl"),
        _read(inputs["base"], *TOKENIZER),
    ]
    made = digest_json([recipe, read, _read(inputs["dataset"], "test.jsonl")])
    return {"evaluation.json": {"of": made, **_measured()}, "answers.jsonl": _ask(recipe, made)}


def _read_base_files(recipe: Mapping[str, Any], inputs: Mapping[str, Path]) -> Made:
    """The base's files that a domain's adapter is used on."""
    quants = [f"{recipe['base']}-{quant}.gguf" for quant in recipe["quants"] if quant != "F16"]
    made = _read(inputs["quantized"], *quants) if quants else {}
    return made | _read(inputs["base_gguf"], "*-F16.gguf")


def _package(recipe: Mapping[str, Any], inputs: Mapping[str, Path]) -> Made:
    files = {
        "gguf": ["*.gguf"],
        "evaluation": ["evaluation.json", "answers.jsonl"],
        "adapter": ["training.json"],
        "dataset": ["card.json", "train.jsonl", "validation.jsonl"],
    }
    read = {name: _read(inputs[name], *files[name]) for name in files}
    if recipe["files"] == "lora":
        read["base files"] = _read_base_files(recipe, inputs)
    if "sample" in inputs:
        read["sample"] = _read(inputs["sample"].parent, inputs["sample"].name)
    made = digest_json([recipe, _read(inputs["base"], *TOKENIZER), read])
    judged = digest_json([recipe["lists"], recipe["safety"], read])
    card = {"README.md": made, "answers.jsonl": judged, "verdict.json": read["evaluation"]}
    return {**card, "Modelfile": digest_json(recipe), "SHA256SUMS": _sha(made.encode())}


def _report(recipe: Mapping[str, Any], inputs: Mapping[str, Path]) -> Made:
    files = {
        "training": "training.json",
        "evaluation": "evaluation.json",
        "package": "verdict.json",
        "dataset": "train.jsonl",
    }
    read = {name: _read(path, files[name.rpartition("/")[2]]) for name, path in inputs.items()}
    return {
        name: digest_json([name, recipe, read]) for name in STAGE["report"].list_files("", recipe)
    }


def _bundle(recipe: Mapping[str, Any], inputs: Mapping[str, Path]) -> Made:
    files = {"gguf": "*-lora.gguf", "package": "[MRv]*", "dataset": "train.jsonl"}
    of_base = {
        f"{recipe['base']}-{quant}.gguf": inputs["base_gguf" if quant == "F16" else "quantized"]
        for quant in recipe["quants"]
    }
    read = {
        name: _read(path, files[name.rpartition("/")[2]])
        for name, path in inputs.items()
        if "/" in name
    }
    made = digest_json([recipe, read, [_read(path, name) for name, path in of_base.items()]])
    return {"index.json": made, "SHA256SUMS": _sha(made.encode())}


STAND_INS: dict[str, Callable[[Mapping[str, Any], Mapping[str, Path]], Made]] = {
    "corpus": _corpus,
    "imatrix": _imatrix,
    "base": _base,
    "dataset": _dataset,
    "adapter": _adapter,
    "start": _start,
    "merge": _merge,
    "gguf": _gguf,
    "quantize": _quantize,
    "baseline": _baseline,
    "evaluate": _evaluate,
    "package": _package,
    "report": _report,
    "bundle": _bundle,
}


# Edits, of sources and of other files


def lines(domain: str, change: Callable[[list[str]], Iterable[str]]) -> Edit:
    """The lines of a domain's data file changed."""

    return text(
        f"conf/domain/{domain}.jsonl",
        lambda old: "".join(f"{line}\n" for line in change(old.splitlines())),
    )


def side(row: Mapping[str, str]) -> str:
    """Where the usual split puts a row: test, validation, train, or taught: the part of train that
    the base sees too."""
    record = Record.of(row)
    found = record.side(validation=0.1, test=0.2)
    return "taught" if found == "train" and record.chance("corpus") < 0.5 else found


def added(domain: str, where: str) -> Edit:
    """One more record, that goes to this side."""

    def change(old: list[str]) -> list[str]:
        rows = (
            {"prompt": "Is it new?", "response": f"Yes, it is new, number {number} of all."}
            for number in count()
        )
        return [*old, json.dumps(next(row for row in rows if side(row) == where))]

    return lines(domain, change)


def reworded(domain: str, where: str) -> Edit:
    """A record of this side with another answer of the same length, and still on that side."""

    def change(old: list[str]) -> list[str]:
        at, row = next(
            (at, row) for at, row in enumerate(map(json.loads, old)) if side(row) == where
        )
        ways = ({**row, "response": f"{row['response'][:-3]}{number:03}"} for number in count())
        old[at] = json.dumps(next(way for way in ways if side(way) == where), ensure_ascii=False)
        return old

    return lines(domain, change)


def text(file: str, change: Callable[[str], str]) -> Edit:
    """The text of a file changed."""

    def apply(project: Path) -> None:
        path = project / file
        written = path.read_bytes().decode()
        assert change(written) != written, "the edit changes nothing"
        path.unlink()  # its other names keep their bytes
        path.write_bytes(change(written).encode())

    return apply


def gone(*patterns: str) -> Edit:
    """Files and folders deleted."""

    def apply(project: Path) -> None:
        for path in [path for pattern in patterns for path in project.glob(pattern)]:
            shutil.rmtree(path) if path.is_dir() else path.unlink()

    return apply


def with_old_time(file: str, change: Edit) -> Edit:
    """As ``cp -p`` does it: other content under a time from before the build, in a file that was
    looked at just now."""

    def apply(project: Path) -> None:
        look(load(project))
        before = (project / file).stat()
        change(project)
        os.utime(project / file, ns=(before.st_atime_ns, before.st_mtime_ns))

    return apply
