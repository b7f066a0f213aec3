"""The typed shape of everything below conf/. Unknown keys are errors that name the file, the line
and the nearest known key."""

import re
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from meetara_build.config.schema.base import Base, GgufFile
from meetara_build.config.schema.bundle import Bundle
from meetara_build.config.schema.checking import Locate, Shape, check
from meetara_build.config.schema.safety import Safety
from meetara_build.config.schema.values import (
    NAME,
    Commit,
    Harm,
    Name,
    Positive,
    QuantName,
    Scalar,
    Share,
    TensorPattern,
)
from meetara_build.llama_cpp.quants import check_quant, check_quants, check_tensor_type

__all__ = [
    "NAME",
    "Base",
    "Build",
    "Bundle",
    "Decision",
    "Domain",
    "GgufFile",
    "Hardware",
    "Locate",
    "Name",
    "Overlay",
    "Provider",
    "Safety",
    "Shape",
    "check",
]


class Source(Shape):
    """Where records come from: a file, or a data set of a hub."""

    path: str | None = None
    """A file, seen from the domain's own."""
    hub: str | None = None
    """A data set of a hub, instead of a file."""
    revision: Commit | None = None
    """The commit of a hub's data set: what a name means today may be other records tomorrow."""
    split: str = "train"
    """Which part of a hub's data set."""
    format: Literal["jsonl", "csv", "parquet"] | None = None
    """Where the file's name does not say it."""
    columns: (
        dict[Literal["prompt", "response", "input", "system", "topic", "language", "messages"], str]
        | None
    ) = None
    """Which columns hold what, where that is not guessed."""
    language: str | None = None
    """Of all its records; guessed if not given."""
    limit: Positive | None = None
    """Read at most so many records."""

    @model_validator(mode="after")
    def _one_place(self) -> "Source":
        if (self.path is None) == (self.hub is None):
            raise ValueError("a source has either a path or a hub id")
        if self.revision is not None and self.hub is None:
            raise ValueError("revision is for a hub id")
        return self


class DomainEvaluation(Shape):
    """What a domain's models must reach before they are packaged."""

    beat_base_by: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.0
    """By which share the held-out loss must be below the base's."""


class Domain(Shape):
    """``conf/domain/NAME.yaml``"""

    category: Name
    """Groups domains, in reports and as a name to build."""
    description: str
    """What the domain answers, for the model card."""
    topics: list[str]
    """What its records are about."""
    languages: list[str]
    """Two-letter codes of the languages of its records."""
    safety: Literal["strict", "standard"]
    """`strict` where a wrong answer can do harm; the model card says so."""
    system_prompt: str | None = None
    """Goes before every conversation, in training and in the Modelfile."""
    sources: Annotated[list[Source], Field(min_length=1)]
    """Where its records come from."""
    evaluation: DomainEvaluation
    quants: Annotated[list[QuantName], Field(min_length=1)]
    """The GGUF types to make."""
    locked: list[str] = []
    """Keys that no agent may change here."""

    @field_validator("quants")
    @classmethod
    def _check_quants(cls, quants: list[str]) -> list[str]:
        check_quants(quants)
        return quants


class Hardware(Shape):
    """``conf/hardware/NAME.yaml``: one machine, and how a job uses it."""

    description: str
    """For people."""
    device: Literal["cpu", "cuda"]
    """Where models are trained."""
    gpus: Annotated[int, Field(ge=0)]
    """How many there are."""
    gpu_memory_gb: Annotated[float, Field(ge=0)]
    """Of one GPU."""
    memory_gb: Annotated[float, Field(gt=0)]
    """Of the machine."""
    threads: Positive
    """Of one job."""
    precision: Literal["float32", "bfloat16", "auto"]
    """Of the frozen base in training; the adapter itself is always float32. `auto`, on a machine
    without a GPU: bfloat16 where its processor has it and a short probe finds it faster, else
    float32. The adapter's recipe holds what it became, so whoever shares adapters between unlike
    machines names one."""
    slots: Annotated[int, Field(ge=1, le=64)] = 1
    """How many adapters are trained at once on the device, by one resident trainer that holds the
    base. Each gives the same bytes whoever else is trained beside it; another number of slots gives
    other bytes. For jobs on one machine with a GPU: a processor gains nothing by it, and a cluster
    starts each job elsewhere."""

    @model_validator(mode="after")
    def _refuse_auto_of_gpu(self) -> "Hardware":
        if self.device == "cuda" and self.precision == "auto":
            raise ValueError(
                "precision: auto is found out on the machine that plans, which need not be the one "
                "with the GPU: name bfloat16, or float32 where the GPU has none"
            )
        return self


class Provider(Shape):
    """``conf/provider/NAME.yaml``: what a provider asks for its machines, by the name of their file
    in conf/hardware/."""

    description: str
    """For people."""
    as_of: str
    """When the prices held."""
    source: str
    """Where they are from."""
    usd_per_hour: Annotated[dict[str, Annotated[float, Field(gt=0)]], Field(min_length=1)]
    """By the machine's file in conf/hardware/."""


class Data(Shape):
    """How records are cleaned and split."""

    min_tokens: Positive
    max_tokens: Positive
    near_duplicate: Share
    near_group: Share
    validation: Share
    test: Share
    max_bad_share: Share
    max_drop_share: Share = 0.5
    """Of the good records, how many may be dropped, for length or as copies, before the data set is
    refused."""
    repair_text: bool = True
    """Mend garbled text (mojibake) and bring line ends and Unicode into one form; false leaves
    every text as it is."""
    html_to_text: bool = False
    """Turn HTML in questions and answers into plain text."""
    drop: list[Annotated[str, Field(pattern=r"^[0-9a-f]{16}$")]] = []
    """Records that are not trained on, by their id in the dataset's account.jsonl; held-out ones
    stay."""

    @field_validator("test")
    @classmethod
    def _some_to_test(cls, share: float) -> float:
        if share == 0:
            raise ValueError(
                "should be above 0: a model that no held-out record is kept for cannot be evaluated"
            )
        return share

    @model_validator(mode="after")
    def _room_for_training(self) -> "Data":
        if self.validation + self.test >= 0.9:
            raise ValueError(
                "validation and test together leave too little to train on: keep them below 0.9"
            )
        if self.min_tokens >= self.max_tokens:
            raise ValueError("data.min_tokens must be below data.max_tokens")
        return self


class Lora(Shape):
    """LoRA (arXiv 2106.09685), rsLoRA (arXiv 2312.03732), DoRA (arXiv 2402.09353), as PEFT names
    them."""

    rank: Positive
    alpha: Annotated[float, Field(gt=0)]
    dropout: Annotated[float, Field(ge=0, lt=1)]
    targets: Literal["all-linear"] | list[str]
    rslora: bool
    dora: bool

    @field_validator("targets")
    @classmethod
    def _names_of_modules(cls, targets: str | list[str]) -> str | list[str]:
        names = [] if targets == "all-linear" else targets
        if not targets or not all(re.fullmatch(r"\w+(\.\w+)*", name) for name in names):
            raise ValueError(
                "should be 'all-linear' or names of modules, like [q_proj, v_proj], not "
                f"{str(targets)[:80]}"
            )
        return targets


class Training(Shape):
    """One adapter's training."""

    epochs: Positive
    max_steps: Positive | None
    batch_tokens: Positive
    """Most tokens of the records of one step; each record counts whole, though what several begin
    with (a system prompt) is computed once."""
    micro_batch_tokens: Positive | None
    """Most tokens in memory at once, counted likewise; gradients are summed up to the batch."""
    gradient_checkpointing: bool = False
    """Keep each layer's input alone and work out the rest again in the backward pass: less memory,
    one more forward pass."""
    learning_rate: Annotated[float, Field(gt=0, lt=1)]
    warmup_share: Share
    schedule: Literal["cosine"]
    weight_decay: Annotated[float, Field(ge=0)]
    clip_norm: Annotated[float, Field(gt=0)]
    patience: Positive
    validations_per_epoch: Positive
    checkpoint_seconds: Positive
    loss_on_prompt: bool
    warm_start: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*@[0-9a-f]{64}$")] | None = None
    """``DOMAIN@SHA256``: begin from that neighbour's adapter, pinned by the digest of its weights
    in the store."""
    joint: list[Name] = []
    """Domains whose training records are learnt too; what is held out stays the domain's own."""
    topic_weights: dict[str, Annotated[int, Field(ge=1, le=10)]] = {}
    """How often the records of a topic come in an epoch; 1 for those not named."""
    observers: list[Name] = []
    """Agents that watch the training and act on it. What they do is part of the result, so it is
    part of the recipe."""


class Start(Shape):
    """An adapter trained once a base on the sample, from which the trainings of its domains begin,
    but for those with LoRA of another shape and those that begin from a neighbour."""

    enabled: bool
    """Whether domains begin from it."""
    threads: Positive = 2
    """Of its job, which all domains wait for: another number gives other bytes."""
    epochs: Positive
    batch_tokens: Positive
    learning_rate: Annotated[float, Field(gt=0, lt=1)]


class Merge(Shape):
    """Largest difference allowed between the logits of base + adapter and of the merged weights, as
    a share of the largest logit, in float32; what F16 rounds off on top of that is held to
    `gguf.logits_bound`."""

    bound: Annotated[float, Field(gt=0)]


class Imatrix(Shape):
    """Whether quantizing weighs by an importance matrix, and how much of the sample that is
    measured on.

    It is made once a base, so that ``tokens`` is set here or in a base's file, for all its domains.
    """

    enabled: bool
    """Whether quantizing weighs by it."""
    tokens: Positive
    """Of the sample, to measure it on."""


class Gguf(Shape):
    """How GGUF files are made, and how far F16's logits may be from base + adapter's."""

    imatrix: Imatrix
    files: Literal["lora", "merged", "both"]
    """A domain's models of their own, its adapter alone for use on its base's files, or both."""
    logits_bound: Annotated[float, Field(gt=0)]
    tensor_types: dict[TensorPattern, QuantName] = {}
    """By a regular expression over tensor names, the type that those tensors get in every quantized
    file."""

    @field_validator("tensor_types")
    @classmethod
    def _known_types(cls, types: dict[str, str]) -> dict[str, str]:
        for quant in types.values():
            check_tensor_type(quant)
        return types


class Evaluation(Shape):
    """How many held-out records are looked at, and how far a type may be from F16 (nats per
    token)."""

    max_records: Positive | None
    kl_tokens: Positive | None = 512
    """Of the held-out answers' tokens, on how many each type is compared with F16; null: on all."""
    max_kl: dict[QuantName, Annotated[float, Field(gt=0)]]
    max_loss: Annotated[float, Field(gt=0)] | None = None
    """Held-out loss of the F16 file, nats per token, above which nothing is packaged."""
    worse_by: Annotated[float, Field(ge=0)] = 0.0
    """By which share of its held-out loss a domain may surely be worse than its accepted build."""

    @field_validator("max_kl")
    @classmethod
    def _known_quants(cls, bounds: dict[str, float]) -> dict[str, float]:
        for quant in bounds:
            check_quant(quant)
        return bounds


class AnswerBounds(Shape):
    """By safety level and check, which share of a file's answers may have a finding that can do
    harm."""

    strict: dict[Harm, Share] = {}
    """Of domains that are ``safety: strict``; a check that is not named holds nothing back."""
    standard: dict[Harm, Share] = {}
    """Of all others. What is found is said in the model card, bound or not."""


class Answers(Shape):
    """Answers of the base and of each file to held-out prompts, greedily written, and judged."""

    prompts: Annotated[int, Field(ge=0)] | None
    """Of the held-out ones, spread evenly; null: all; 0: nothing is asked, nor judged."""
    tokens: Positive
    """Where an answer is cut off."""
    choice_tokens: Positive
    """Of the right answer and of three others, between which a model chooses by likelihood."""
    bounds: AnswerBounds


class ContextPlace(Shape):
    """Where what builds learn is kept, and for how many days: samples and progress, and all
    else."""

    url: str | None = None
    keep_samples_days: Annotated[float, Field(gt=0)] = 30
    keep_days: Annotated[float, Field(gt=0)] = 400


class External(Shape):
    """An agent that is another process: an MCP server with a tool ``propose``, started here
    (``command``) or listening (``url``)."""

    command: Annotated[list[str], Field(min_length=1)] | None = None
    """Starts an MCP server on standard input and output."""
    url: str | None = None
    """Of an MCP server that listens."""
    seconds: Annotated[float, Field(gt=0)] = 10.0
    """How long it may think."""

    @model_validator(mode="after")
    def _one_way(self) -> "External":
        if (self.command is None) == (self.url is None):
            raise ValueError("an external agent has either a command or a url")
        return self


class Agents(Shape):
    """What agents may do: each one's policy, which keys, by how much and how often, and what it may
    cost.

    A proposal promises that a figure falls by a share; ``minutes_a_percent`` is what one percent
    less loss may cost. Domains are alike by what ``embedding_model`` makes of their records, or by
    their words.
    """

    policy: dict[Name, Literal["accept", "ask", "never"]] = {
        "default": "ask",
        "llm_advisor": "never",
    }
    may_change: Annotated[list[str], Field(min_length=1)]
    at_most_times: Annotated[float, Field(gt=1)]
    rest_builds: Annotated[int, Field(ge=0)]
    decisions_a_round: Positive
    minutes_a_percent: Annotated[float, Field(ge=0)]
    minutes: Annotated[float, Field(gt=0)] | None = None
    usd: Annotated[float, Field(ge=0)] | None = None
    seconds: Annotated[float, Field(gt=0)] = 60.0
    embedding_model: Annotated[str, Field(min_length=1)] | None = None
    external: dict[Name, External] = {}
    settings: dict[Name, dict[str, Any]] = {}


class Range(Shape):
    """The values that tuning tries for a key: from ``low`` to ``high``, or those of ``choices``."""

    low: float | int | None = None
    """The least value."""
    high: float | int | None = None
    """The largest value."""
    log: bool = False
    """Whether steps are ratios."""
    choices: list[bool | int | float | str] | None = None
    """The values, where it is no range."""

    @model_validator(mode="after")
    def _one_kind(self) -> "Range":
        if self.choices is not None:
            if self.low is not None or self.high is not None or len(self.choices) < 2:
                raise ValueError("give two choices at least, or low and high")
        elif self.low is None or self.high is None or not self.low < self.high:
            raise ValueError("give low and a larger high, or choices")
        elif self.log and self.low <= 0:
            raise ValueError("low must be above zero where log is true")
        return self


class Tuning(Shape):
    """What ``meetara-build tune`` searches, and how: see
    ``optuna.pruners.SuccessiveHalvingPruner``."""

    space: Annotated[dict[str, Range], Field(min_length=1)]
    reduction_factor: Annotated[int, Field(ge=2)]


class Build(Shape):
    """``conf/build.yaml``: what to build, and how, unless a base, machine or domain says
    otherwise."""

    domains: Literal["all"] | list[str]
    root: str
    store: str | None = None
    context: ContextPlace = ContextPlace()
    keep_merged: bool
    sample: str | None = None
    """A file of training records that no domain holds out."""
    seed: int
    data: Data
    lora: Lora
    start: Start
    training: Training
    merge: Merge
    gguf: Gguf
    evaluation: Evaluation
    answers: Answers
    priority: Annotated[int, Field(ge=0, le=1000)] = 0
    agents: Agents
    tuning: Tuning
    locked: list[str] = []
    """Keys that no agent may change anywhere."""


class Decision(Shape):
    """One accepted change of the configuration: an agent's, or a person's on an agent's advice."""

    key: str
    """The key that is changed."""
    value: Scalar
    """Its new value."""
    agent: str
    """Who proposed it."""
    reason: str
    """Why, in a sentence."""
    evidence: list[str] = []
    """Runs and figures that speak for it."""
    expected_gain: float | None = None
    """By which share the figure should fall."""
    confidence: Share | None = None
    """How sure the agent is."""
    figure: Literal["loss", "seconds", "size", "memory"] = "loss"
    """Which figure should fall."""


class Overlay(Shape):
    """``conf/overlay/DOMAIN.yaml``"""

    decisions: list[Decision]
