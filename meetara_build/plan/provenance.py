"""Which key of which file below conf/ a key of a recipe comes from: the way back from a changed recipe to its cause.

``recipes`` is the way there; a test holds the two together.
"""

from collections.abc import Sequence
from typing import NamedTuple

from meetara_build.config.overrides import COMMAND_LINE
from meetara_build.graph import Graph, Step


class Origin(NamedTuple):
    """A key and the file that sets it, as seen from the project; or "command line"."""

    file: str
    key: str


Table = dict[str, tuple[str, str]]
DATA: Table = {key: ("domain", key) for key in ("system_prompt", "languages", "sources")} | {
    "domain": ("domain", "")
}
MACHINE: Table = {"threads": ("hardware", "threads")}
"""First key of a recipe → kind of file, and the key there. What is not listed comes from ``UNLISTED``."""

TABLES: dict[str, Table] = {
    "corpus": {"share": ("base", "pretraining.share")},
    "base": {
        "name": ("base", ""),
        "seed": ("build", "seed"),
        "threads": ("base", "pretraining.threads"),
        "gguf": ("base", "gguf"),
    },
    "dataset": DATA,
    "adapter": {
        "domain": ("domain", ""),
        "seed": ("build", "seed"),
        **{key: ("hardware", key) for key in ("threads", "device", "precision")},
        "loss_on_prompt": ("build", "training.loss_on_prompt"),
        "max_tokens": ("build", "data.max_tokens"),
        "lora": ("build", "lora"),
        "training": ("build", "training"),
    },
    "merge": {"domain": ("domain", ""), "bound": ("build", "merge.bound"), **MACHINE},
    "gguf": {
        **{key: ("domain", key) for key in ("quants", "system_prompt")},
        **dict.fromkeys(("name", "domain"), ("domain", "")),
        "base": ("build", "base"),
        "licence": ("base", "licence"),
        "recipe": ("above", "recipe"),
        **MACHINE,
    },
    "base gguf": {
        **dict.fromkeys(
            ("name", "domain", "base", "recipe", "quants", "imatrix", "lora", "system_prompt"),
            ("base", ""),
        ),
        "licence": ("base", "licence"),
        "original": ("base", "gguf"),
        **MACHINE,
    },
    "evaluate": {
        "domain": ("domain", ""),
        "quants": ("domain", "quants"),
        "base": ("build", "base"),
        "context": ("build", "data.max_tokens"),
        "max_records": ("build", "evaluation.max_records"),
        **MACHINE,
    },
    "package": {
        "domain": ("domain", ""),
        **{
            key: ("domain", key)
            for key in ("description", "category", "languages", "safety", "system_prompt", "quants")
        },
        "base": ("build", "base"),
        "base_origin": ("base", "hub_id"),
        "base_file": ("base", "gguf"),
        "licence": ("base", "licence"),
        "lora": ("build", "gguf.lora"),
        "beat_base_by": ("domain", "evaluation.beat_base_by"),
        "max_loss": ("build", "evaluation.max_loss"),
        "max_kl": ("build", "evaluation.max_kl"),
    },
    "report": {
        "domains": ("domain", "category"),
        "begins_from": ("build", "training.warm_start"),
        "learns_with": ("build", "training.joint"),
    },
}
UNLISTED = {
    "dataset": ("build", "data"),
    "base": ("base", ""),
    "gguf": ("build", "gguf"),
    "base gguf": ("build", "gguf"),
}


def origin(graph: Graph, step: Step, path: Sequence[str]) -> Origin | None:
    """Where a key of a step's recipe (its path within the recipe) comes from; None for what sums up the stages before."""
    stage, target, path = step.stage, step.target, list(path)
    if stage in ("corpus", "report") and path[0] == "domains":
        domain = path[1] if len(path) > 1 else ""
        if stage == "report" or len(path) < 3:
            return Origin(f"conf/domain/{domain}.yaml", "category" if stage == "report" else "")
        stage, target, path = "dataset", domain, path[2:]
    if stage == "gguf" and target.startswith("base/"):
        stage = "base gguf"
    group, above = TABLES[stage].get(path[0], UNLISTED.get(stage, ("build", "")))
    rest = path[1:] if path[0] in TABLES[stage] else path
    key = (
        ".".join(part for part in (above, *rest) if part)
        if above or path[0] not in TABLES[stage]
        else ""
    )
    if group == "above":
        return None
    if group == "base":
        return Origin(f"conf/base/{_base(step)}.yaml", key)
    file = _file(graph, target, group, key)
    own = file == COMMAND_LINE and group != "build"
    return Origin(file, f"{group}.{key}" if own else key)


def _file(graph: Graph, target: str, group: str, key: str) -> str:
    """The file that sets a key for a target: the last of the layers that does, else the file the key belongs to."""
    wanted = key if group == "build" else f"{group}.{key}"
    for change in graph.changes.get(target, []):
        # Whoever chooses a machine in a file sets what is in that machine's file; the command line is no file.
        chosen = change["key"] == "hardware" and change["path"] != COMMAND_LINE
        if not chosen and (wanted == change["key"] or wanted.startswith(f"{change['key']}.")):
            return str(change["path"])
    if group == "hardware":
        return f"conf/hardware/{graph.hardware(target)}.yaml"
    return f"conf/domain/{target}.yaml" if group == "domain" else "conf/build.yaml"


def _base(step: Step) -> str:
    given = next(
        (given.target for given in step.inputs.values() if given.target.startswith("base/")),
        step.target,
    )
    return given.removeprefix("base/")
