"""The table of stages, a row a stage: what it makes, where, from what, and what that costs.

Whoever has to know something of a stage reads its row. A new stage is a row here, a module of its
name in ``stages/`` with its recipe's model, a rule in ``rules/``, and a test. Hardly anything is
imported here: Snakemake and every job read this.
"""

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import TYPE_CHECKING, NamedTuple

from meetara_build.errors import ConfigError
from meetara_build.store.manifest import Slice

if TYPE_CHECKING:
    from meetara_build.stages.types import Recipe

BASE, MADE_BASE, DOMAIN, ALL = "base", "base made here", "domain", "all domains"
BUNDLE = "bundle"
"""What a stage is a stage of."""
REPORT = "report"
"""The target of what looks at all domains."""
ABOVE_BASES, ABOVE_BUNDLES = "base/", "bundle/"
"""How the targets of bases and bundles begin, and so their folders."""

LORA, MERGED, BOTH = "lora", "merged", "both"
"""What a domain's GGUF files are, as ``gguf.files`` says: its adapter, used on its base's files, or
models of its own."""

TOKENIZER = ("config.json", "tokenizer*", "special_tokens_map.json", "*.jinja")
"""The files of a base that decide its token ids."""
LEARNT = ("train.jsonl", "validation.jsonl")
"""The records that a training sees."""


class Key(NamedTuple):
    """Which key of conf/ a field of a recipe comes from: ``build.training.epochs``,
    ``domain.quants``; a file's kind alone is its name, and ``safety`` all files of that folder.

    ``by`` is the function of ``graph.recipes`` that makes the field of the key's value. Without a
    key it is made of the recipes of the stages before.
    """

    key: str
    by: str = ""


class Each(NamedTuple):
    """A field that has a value for each domain: of a key of its own, or a recipe of fields."""

    of: "Key | Fields"


Fields = Mapping[str, Key | Each]
"""By field of a recipe, where it comes from. A field that is not named has its model's default."""


class Read(NamedTuple):
    """An artifact that a stage reads, and which of its files; those of a base where only bases have
    it, or ``of`` says so; a bundle reads each of its domains'; ``only`` by domains with one of these ``gguf.files``, where some are
    named."""

    stage: str
    files: tuple[str, ...] = ("*",)
    of: str = ""
    only: tuple[str, ...] = ()

    @property
    def is_of_base(self) -> bool:
        """Whether it is a base's."""
        return (self.of or STAGE[self.stage].of) in (BASE, MADE_BASE)


Files = tuple[str, ...] | Callable[[str, Slice], tuple[str, ...]]
"""Names of files, or a function of a target's name and recipe that gives them."""


class Stage(NamedTuple):
    """A row.

    Attributes:
        of: what it is a stage of.
        folder: the folder of its artifact below its target's, which it owns alone; empty where it
            is the target's own.
        recipe: the recipe's model, below ``meetara_build.stages``.
        fields: where the recipe's fields come from.
        settings: fields that decide no byte: they are told, and are not in the fingerprint.
        inputs: the artifacts it reads.
        more: functions of ``graph.own_inputs`` that give the inputs and sources that only some
            targets have.
        files: what its rule declares; there may be more.
        temporary: its artifact goes once it was read, unless ``keep_merged`` is set.
        device: it works where the machine's file says, on its GPU if it has one.
        holds: the input that it trains on a CPU: a process holds it, laid out, for its jobs.
        memory: copies of the base's weights in float32 that it holds at most.
        urgency: among domains of one priority, what is more urgent goes first: a merged model is
            large, so what makes it superfluous goes before the next domain.
        work: how its work is reckoned, and ``size`` what it leaves on the disk: see
            ``plan.workload``.
        seconds: to start, and for each unit of work, on the machine that ``plan.estimate`` scales
            from; fitted to builds on the default base.
        peak_mb: what its process holds besides the weights.
        figures: which of the figures that proposals promise its runs show.
    """

    name: str
    of: str
    folder: str
    recipe: str
    fields: Fields
    inputs: Mapping[str, Read] = {}
    more: tuple[str, ...] = ()
    files: Files = ()
    settings: tuple[str, ...] = ()
    temporary: bool = False
    device: bool = False
    holds: str = ""
    memory: float = 0.0
    urgency: int = 0
    work: str = "inputs"
    size: str = "little"
    seconds: tuple[float, float] = (0.2, 0.0)
    peak_mb: float = 560.0
    figures: tuple[str, ...] = ()

    @property
    def rule(self) -> str:
        """The name of its rule: its own, but for a base's files beside a domain's."""
        return f"base_{self.name}" if STAGE[self.name] is not self else self.name

    @property
    def is_base(self) -> bool:
        """Whether bases have it."""
        return self.of in (BASE, MADE_BASE)

    def place(self, target: str) -> str:
        """The folder of its artifact below the root; ``target`` is a domain, ``base/NAME`` or
        ``bundle/NAME``."""
        return self.folder if self.of == ALL else f"{target}/{self.folder}".rstrip("/")

    def log(self, target: str) -> str:
        """Where the log of a target's job lies below the root, without an ending."""
        return f"logs/{self.name}" if self.of == ALL else f"logs/{target}/{self.name}"

    def load_model(self) -> "type[Recipe]":
        """The model of its recipe."""
        module, _, name = self.recipe.rpartition(".")
        found: type[Recipe] = getattr(import_module(f"meetara_build.stages.{module}"), name)
        return found

    def list_files(self, name: str, recipe: Slice) -> tuple[str, ...]:
        """What its rule declares for a target of this name."""
        return self.files(name, recipe) if callable(self.files) else self.files


def list_types(recipe: Slice) -> list[str]:
    """The types of the whole models that a recipe of the gguf stage asks for: F16, from which the
    others are made, is always among them."""
    return [] if recipe["files"] == LORA else list(dict.fromkeys(["F16", *recipe["quants"]]))


def list_ggufs(name: str, recipe: Slice) -> tuple[str, ...]:
    """The GGUF files of a base or a domain."""
    kinds = [*list_types(recipe), *([] if recipe["files"] == MERGED else ["lora"])]
    return tuple(f"{name}-{kind}.gguf" for kind in kinds)


def list_quantized(name: str, recipe: Slice) -> tuple[str, ...]:
    """The quantized files of a base."""
    return tuple(f"{name}-{quant}.gguf" for quant in recipe["quants"])


def _same(*keys: str) -> dict[str, Key]:
    """Fields that are called like the last part of their keys."""
    return {key.rpartition(".")[2]: Key(key) for key in keys}


_NAME, _BASE_NAME = Key("domain"), Key("build.base")
_THREADS = _same("hardware.threads")
_PREPARATION: Fields = {
    "domain": _NAME,
    **_same("domain.system_prompt", "domain.languages"),
    "sources": Key("domain.sources", "source_recipes"),
    **_same("build.data.near_duplicate", "build.data.near_group"),
    **_same("build.data.validation", "build.data.test", "build.data.max_bad_share"),
    **_same("build.data.repair_text", "build.data.html_to_text"),
}
"""What decides the records of a domain and their split, before any limit in tokens."""
_ANSWERS: Fields = {"answers": Key("build.answers", "asked")}
_MODELS = ("*-[A-Z]*.gguf",)
"""The GGUF files of whole models: their types begin with a capital letter."""

STAGES: tuple[Stage, ...] = (
    Stage(
        "corpus",
        MADE_BASE,
        "corpus",
        "recipes.corpus.CorpusRecipe",
        {"share": Key("base.pretraining.share"), "domains": Each(_PREPARATION)},
        more=("taught_sources", "sample"),
        files=("corpus.jsonl",),
        work="sources",
        size="sources",
        seconds=(2.0, 2.0e-6),
    ),
    Stage(
        "base",
        BASE,
        "model",
        "recipes.base.BaseRecipe",
        {
            "name": Key("base"),
            "seed": Key("build.seed", "where_made_here"),
            "chat_template": Key("base.chat_template", "where_made_here"),
            **_same("base.tokenizer", "base.model"),
            "pretraining": Key("base.pretraining", "pretraining"),
            "threads": Key("base.pretraining.threads"),
            "gguf": Key("base.gguf", "pinned_file"),
            "hub_id": Key("base.hub_id", "where_fetched"),
            "revision": Key("base.revision", "where_fetched"),
        },
        more=("origin",),
        device=True,
        memory=4,
        work="pretraining",
        size="weights",
        seconds=(1.0, 1.0e-10),
        peak_mb=617.0,
    ),
    Stage(
        "gguf",
        BASE,
        "gguf",
        "recipes.gguf.GgufRecipe",
        {
            "name": Key("base"),
            "base": Key("base"),
            **_same("base.licence", "build.gguf.logits_bound"),
            **_THREADS,
            "original": Key("base.gguf", "pinned_file"),
        },
        {"base": Read("base")},
        more=("original",),
        files=list_ggufs,
        memory=3,
        urgency=2,
        work="types",
        size="types",
        seconds=(4.0, 2.5e-8),
    ),
    Stage(
        "start",
        BASE,
        "start",
        "recipes.start.StartRecipe",
        {
            "base": Key("base"),
            **_same("build.seed", "hardware.device"),
            "precision": Key("hardware.precision", "precision"),
            **_same("build.data.max_tokens", "build.lora", "build.start.threads"),
            **_same("build.start.epochs", "build.start.batch_tokens", "build.start.learning_rate"),
            **_same("build.training.micro_batch_tokens"),
        },
        {"base": Read("base"), "base_gguf": Read("gguf", (), BASE)},
        more=("sample",),
        files=("adapter_model.safetensors", "adapter_config.json", "training.json"),
        device=True,
        memory=4,
        work="start",
        size="lora",
        seconds=(5.0, 6.0e-11),
        peak_mb=844.0,
    ),
    Stage(
        "imatrix",
        BASE,
        "imatrix",
        "recipes.imatrix.ImatrixRecipe",
        {"base": Key("base"), **_same("build.gguf.imatrix.tokens"), **_THREADS},
        {"base": Read("base")},
        more=("sample",),
        files=("imatrix.gguf",),
        memory=2,
        urgency=2,
        work="measured",
        seconds=(1.0, 3.6e-11),
    ),
    Stage(
        "quantize",
        BASE,
        "quantized",
        "recipes.quantize.QuantizeRecipe",
        {
            "base": Key("base"),
            **_same("base.quants", "build.gguf.tensor_types"),
            "imatrix": Key("build.gguf.imatrix.enabled", "base_imatrix"),
            **_THREADS,
        },
        {"base_gguf": Read("gguf", ("*-F16.gguf",), BASE)},
        more=("base_imatrix",),
        files=list_quantized,
        memory=1,
        urgency=2,
        work="types",
        size="types",
        seconds=(0.5, 2.2e-8),
    ),
    Stage(
        "dataset",
        DOMAIN,
        "dataset",
        "recipes.dataset.DatasetRecipe",
        {
            **_PREPARATION,
            **_same("build.data.min_tokens", "build.data.max_tokens", "build.data.max_drop_share"),
            "drop": Key("build.data.drop", "sorted_set"),
        },
        {"base": Read("base", TOKENIZER)},
        more=("own_sources", "sample"),
        files=(*LEARNT, "test.jsonl", "card.json", "account.jsonl"),
        work="sources",
        size="sources",
        seconds=(1.0, 4.0e-6),
    ),
    Stage(
        "adapter",
        DOMAIN,
        "adapter",
        "recipes.adapter.AdapterRecipe",
        {
            "domain": _NAME,
            "base": _BASE_NAME,
            **_same("build.seed", "hardware.device"),
            "precision": Key("hardware.precision", "precision"),
            **_THREADS,
            **_same("build.training.loss_on_prompt", "build.training.checkpoint_seconds"),
            **_same("build.data.max_tokens", "build.lora"),
            "training": Key("build.training", "training"),
            "start": Key("build.start.enabled"),
            **_same("hardware.slots"),
        },
        # Nothing of the base's own file is read, but a base whose proof has failed is not trained
        # on.
        {
            "base": Read("base"),
            "base_gguf": Read("gguf", (), BASE),
            "dataset": Read("dataset", LEARNT),
        },
        more=("start", "joint", "warm_start", "observers"),
        holds="base",
        files=(
            "adapter_model.safetensors",
            "adapter_config.json",
            "training.json",
            "records.jsonl",
        ),
        settings=("checkpoint_seconds",),
        device=True,
        memory=4,
        work="training",
        size="lora",
        seconds=(5.0, 9.0e-11),
        peak_mb=844.0,
        figures=("loss", "seconds", "memory"),
    ),
    Stage(
        "baseline",
        DOMAIN,
        "baseline",
        "recipes.baseline.BaselineRecipe",
        {
            "domain": _NAME,
            "base": _BASE_NAME,
            **_same("build.evaluation.max_records"),
            **_ANSWERS,
            **_THREADS,
            "context": Key("build.data.max_tokens"),
        },
        {
            "base_gguf": Read("gguf", ("*-F16.gguf",), BASE),
            "base": Read("base", TOKENIZER),
            "dataset": Read("dataset", ("test.jsonl",)),
        },
        files=("baseline.json", "answers.jsonl"),
        memory=1,
        work="held_out",
        seconds=(0.3, 3.2e-11),
    ),
    Stage(
        "merge",
        DOMAIN,
        "merged",
        "recipes.merge.MergeRecipe",
        {
            "domain": _NAME,
            "base": _BASE_NAME,
            **_same("base.licence", "build.merge.bound", "build.gguf.logits_bound"),
            "recipe": Key("", "digest_above"),
            "floats": Key("domain.quants", "floats"),
            "folder": Key("build.keep_merged"),
            **_THREADS,
        },
        {
            "base": Read("base"),
            "base_gguf": Read("gguf", ("*-F16.gguf",), BASE),
            "adapter": Read("adapter", ("adapter_*",)),
            "dataset": Read("dataset", LEARNT),
        },
        more=("imatrix_before",),
        temporary=True,
        memory=3,
        urgency=1,
        work="weights",
        size="floats",
        seconds=(2.0, 6.0e-8),
    ),
    Stage(
        "gguf",
        DOMAIN,
        "gguf",
        "recipes.gguf.GgufRecipe",
        {
            "name": _NAME,
            "domain": _NAME,
            "base": _BASE_NAME,
            **_same("base.licence", "domain.system_prompt"),
            "recipe": Key("", "digest_above"),
            "quants": Key("domain.quants", "own_quants"),
            "imatrix": Key("build.gguf.imatrix.enabled", "used_imatrix"),
            "tensor_types": Key("build.gguf.tensor_types", "used_tensor_types"),
            **_same("build.gguf.files", "build.gguf.logits_bound"),
            **_THREADS,
        },
        {
            "merged": Read("merge", ("*.gguf",), only=(MERGED, BOTH)),
            "adapter": Read("adapter", ("adapter_*",)),
            "base": Read("base"),
            "base_gguf": Read("gguf", ("*-F16.gguf",), BASE),
            "dataset": Read("dataset", ("train.jsonl",)),
        },
        more=("imatrix",),
        files=list_ggufs,
        memory=3,
        urgency=2,
        work="types",
        size="types",
        seconds=(4.0, 2.5e-8),
        figures=("size",),
    ),
    Stage(
        "evaluate",
        DOMAIN,
        "evaluation",
        "recipes.evaluate.EvaluateRecipe",
        {
            "domain": _NAME,
            "base": _BASE_NAME,
            **_same("domain.quants", "build.evaluation.max_records"),
            **_same("build.evaluation.kl_tokens"),
            "on_base": Key("build.gguf.files", "on_base"),
            **_ANSWERS,
            **_THREADS,
            "context": Key("build.data.max_tokens"),
        },
        {
            "gguf": Read("gguf", _MODELS, only=(MERGED, BOTH)),
            "lora": Read("gguf", ("*-lora.gguf",), only=(LORA,)),
            "baseline": Read("baseline"),
            "base": Read("base", TOKENIZER),
            "dataset": Read("dataset", ("test.jsonl",)),
        },
        more=("base_types",),
        files=("evaluation.json", "answers.jsonl"),
        memory=1.5,
        urgency=2,
        work="held_out",
        seconds=(0.5, 3.5e-11),
    ),
    Stage(
        "package",
        DOMAIN,
        "package",
        "recipes.package.PackageRecipe",
        {
            "domain": _NAME,
            **_same("domain.description", "domain.category", "domain.languages", "domain.safety"),
            **_same("domain.system_prompt", "domain.quants", "domain.evaluation.beat_base_by"),
            "base": _BASE_NAME,
            "base_origin": Key("base.hub_id", "base_origin"),
            "base_file": Key("base.gguf", "pinned_file"),
            **_same("base.licence", "build.gguf.files", "build.evaluation.max_loss"),
            "max_kl": Key("build.evaluation.max_kl", "used_bounds"),
            "harm": Key("build.answers.bounds", "own_level"),
            "lists": Key("safety", "safety_lists"),
            "accepted": Key("accepted", "accepted"),
            **_same("build.evaluation.worse_by"),
        },
        {
            "gguf": Read("gguf", ("*.gguf",)),
            "evaluation": Read("evaluate"),
            "adapter": Read("adapter", ("training.json",)),
            "dataset": Read("dataset", ("card.json", *LEARNT)),
            "base": Read("base", (*TOKENIZER, "origin.json")),
        },
        more=("base_types", "sample"),
        # A model that is held back has neither Modelfile nor SHA256SUMS.
        files=("README.md", "answers.jsonl", "verdict.json"),
        urgency=2,
    ),
    Stage(
        "report",
        ALL,
        "report",
        "recipes.report.ReportRecipe",
        {
            "domains": Each(Key("domain.category")),
            "begins_from": Each(Key("build.training.warm_start", "teacher")),
            "learns_with": Each(Key("build.training.joint", "sorted_set")),
        },
        {
            "training": Read("adapter", ("training.json",)),
            "evaluation": Read("evaluate"),
            "package": Read("package", ("verdict.json",)),
            "dataset": Read("dataset", ("train.jsonl",)),
        },
        files=("domains.md", "loss_curves.svg", "size_quality.svg", "relations.svg"),
        seconds=(1.0, 2.0e-2),
    ),
    Stage(
        "bundle",
        BUNDLE,
        "",
        "recipes.bundle.BundleRecipe",
        {
            "name": Key("bundle"),
            **_same("bundle.description"),
            "members": Key("bundle.domains", "members"),
            "quants": Key("bundle.quants", "bundle_quants"),
            "base": _BASE_NAME,
            "base_origin": Key("base.hub_id", "base_origin"),
            "base_file": Key("base.gguf", "pinned_file"),
            **_same("base.licence"),
            "domains": Each(
                {
                    **_same("domain.category", "domain.description", "domain.languages"),
                    **_same("domain.system_prompt", "domain.quants", "build.gguf.files"),
                }
            ),
        },
        {
            "gguf": Read("gguf", ("*-lora.gguf",)),
            "package": Read("package", ("Modelfile", "README.md", "verdict.json")),
            "dataset": Read("dataset", ("train.jsonl",)),
        },
        more=("bundle_types",),
        files=("index.json", "SHA256SUMS"),
        seconds=(0.5, 2.0e-2),
    ),
)

STAGE = {row.name: row for row in STAGES}
"""The rows by name: a domain's, where bases have that stage too."""
NAMES = tuple(row.name for row in STAGES if STAGE[row.name] is row)
"""The stages' names, each after those of the stages it needs."""
RULES = {row.rule: row for row in STAGES}
"""The rows by the names of their rules."""


def row_of(stage: str, target: str) -> Stage:
    """The row of a stage of a target."""
    row = STAGE[stage]
    return RULES.get(f"base_{stage}", row) if target.startswith(ABOVE_BASES) else row


BUNDLED = tuple(row for row in STAGES if row.of == BUNDLE)
"""What is only built where somebody asks for a bundle."""
_READ = {
    read.stage for row in STAGES if row.of not in (BUNDLE, ALL) for read in row.inputs.values()
}
ENDS = tuple(
    row for row in STAGES if not row.is_base and row not in BUNDLED and row.name not in _READ
)
"""What a build is for: the stages whose artifacts are read by none, but for bundles and what looks
at all domains."""
CHAIN = tuple(row for row in STAGES if row.of == DOMAIN)
"""A domain's own stages, one after the other."""
RESERVED = tuple(
    sorted(
        {*RULES, *NAMES, *(f"{row.name}_kept" for row in STAGES if row.temporary)}
        | {"all_domains", "base", "logs", "store", *(row.folder for row in STAGES if row.of == ALL)}
    )
)
"""Names that domains and bundles cannot have: rules, or folders beside the domains'."""


def refuse_reserved(name: str, where: str = "", kind: str = "domain") -> None:
    """Refuse the name of a domain, or of another ``kind``, that is a rule's, or a folder's beside
    the domains'; ``where`` begins the message.

    Raises:
        ConfigError: it is one.
    """
    if name in RESERVED:
        raise ConfigError(
            f"{where}'{name}' cannot name a {kind}; use a word that is none of "
            f"{', '.join(RESERVED)}"
        )


def list_reached(key: str) -> list[Stage]:
    """A domain's stages that a change of a key below build.yaml, or of ``domain.KEY``, reaches:
    those that read it, and those after."""
    wanted = key if key.startswith("domain.") else f"build.{key}"
    found: list[Stage] = []
    for row in CHAIN:
        above = {read.stage for read in row.inputs.values() if not read.is_of_base}
        if any(one.name in above for one in found) or _reads_key(row, wanted):
            found.append(row)
    return found


def _reads_key(row: Stage, wanted: str) -> bool:
    keys = [field.key for field in row.fields.values() if isinstance(field, Key)]
    return any(
        f"{wanted}.".startswith(f"{key}.") or key.startswith(f"{wanted}.")
        for key in keys
        if "." in key
    )
