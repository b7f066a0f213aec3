"""gpu_optimizer: trainings that fit into the machine's memory and pay, from a memory model of
measured peaks.

- A training whose predicted peak is more than a job may have gets a smaller micro-batch; gradients
  are summed up to the same batch, so what is learnt stays the same but for rounding. Where a
  micro-batch could not hold the longest record any more, it gets gradient checkpointing too, which
  takes more time; and where even that is not enough, the longest records are left out.
- What an observer had to halve while a training ran is remembered: the next training begins with
  it.
- A larger micro-batch is proposed where there is room, and trainings of the same base were faster
  with it, or a GPU idles.
- Live, as an observer: where memory runs out, the micro-batch is halved and the step tried again.
- Insights name what holds trainings up: data, compute or memory.

Precision is the hardware file's, for all domains; an insight says what bfloat16 would save. The
trainer keeps no padded token.
"""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from statistics import median
from typing import Any, NamedTuple

from meetara_build.agents import Action, Context, Domain, Progress, Proposal, Run, hookimpl
from meetara_build.toolbox import memory_model, paired_runs

MICRO, BATCH = "training.micro_batch_tokens", "training.batch_tokens"
CHECKPOINTING, LONGEST = "training.gradient_checkpointing", "data.max_tokens"
USABLE = 0.9
"""Share of the memory that a job may have: the rest is the system's, and the model's error."""
LEAST = 64
"""Tokens of a micro-batch below which nothing is gained: whole records are longer."""
SHORT = 128
"""Tokens of the longest record below which too little is left to learn from."""
PAYS = 0.05
"""Share of the time that a larger micro-batch has to save."""
IDLE, BUSY = 50.0, 80.0
"""Percent of a GPU's or core's time below which it waits, and from which it is what holds a
training up."""
GPU_GAIN = 0.1
"""What a GPU that idles is taken to gain from twice the micro-batch before it was tried."""
FULL = 0.9


@hookimpl
def propose(context: Context) -> Iterator[Proposal]:
    """For each domain a micro-batch, and what has to go with it."""
    measured = Measured(context)
    for _, domain in sorted(context.domains.items()):
        remembered = _recall(context, domain)
        for one in (
            [remembered] if remembered else _smaller(measured, domain) or _larger(measured, domain)
        ):
            if one.value != domain.config.get(one.key) and not domain.is_locked(one.key):
                yield one


@hookimpl
def observe(progress: Progress) -> Action | None:
    """Half the micro-batch where a step did not fit, as long as there is anything to halve."""
    if progress.fault == "out_of_memory" and progress.micro_batch_tokens > LEAST:
        return Action.HALVE_MICRO_BATCH
    return None


@hookimpl
def insights(context: Context) -> Iterator[str]:
    """How good the memory model is, what does not fit at all, and what holds trainings up."""
    measured = Measured(context)
    for device, model in sorted(measured.models.items()):
        errors = [
            abs(model.peak_bytes(shape) / peak - 1)
            for shape, peak in measured.peaks
            if shape.device == device
        ]
        if errors:
            yield (
                f"Memory model ({device}): {len(errors)} trainings, {median(errors):.1%} median "
                "error"
            )
    for name, domain in sorted(context.domains.items()):
        yield from _beyond(measured, name, domain)
    yield from _bottlenecks(context)


def _beyond(measured: "Measured", name: str, domain: Domain) -> Iterator[str]:
    """What a person can do for a domain that does not fit, or only at a price."""
    shape, available = measured.shape(domain), measured.available(domain)
    if shape is None or measured.peak(shape) <= available:
        return
    least = replace(shape, tokens=LEAST, checkpointed=True)
    if measured.peak(least) > available:
        yield (
            f"{name}: {domain.model['name']} needs {measured.peak(least) / 1e9:.1f} GB even with "
            "the smallest micro-batch and gradient checkpointing, and a job has "
            f"{available / 1e9:.1f} GB: take a smaller base, fewer jobs at once, or other hardware"
        )
    if shape.device == "cuda" and shape.precision == "float32":
        half = measured.peak(replace(shape, precision="bfloat16"))
        yield (
            f"{name}: about {measured.peak(shape) / 1e9:.1f} GB at its peak, and {half / 1e9:.1f} "
            f"GB with precision: bfloat16 in conf/hardware/{domain.config['hardware']}.yaml"
        )


class Speed(NamedTuple):
    """Tokens a second of past trainings with a micro-batch, and their ids."""

    tokens_per_second: float
    runs: list[str]


class Measured:
    """What past trainings show of memory and speed."""

    def __init__(self, context: Context) -> None:
        self.context = context
        self.bases = paired_runs.base_names(context)
        self.facts = {domain.model.get("name"): domain.model for domain in context.domains.values()}
        runs = [
            run
            for run in context.runs
            if run.stage == "adapter" and run.outcome == "built" and run.recipe
        ]
        self.runs = [run for run in runs if self._base(run) in self.facts]
        self.peaks = [
            (shape, peak) for run in self.runs for shape, peak in self._list_measured(run)
        ]
        devices = {domain.machine.get("device", "cpu") for domain in context.domains.values()}
        self.models = {device: memory_model.fit_model(self.peaks, device) for device in devices}

    def shape(self, domain: Domain) -> memory_model.Shape | None:
        """The training of a domain as it is configured now; None where it is one of many in a
        trainer's passes, whose memory no job's own says."""
        if domain.machine.get("slots", 1) > 1:
            return None
        tokens = domain.config[MICRO] or domain.config[BATCH]
        last = self.context.current(domain.name, "adapter")
        lora = {
            key.removeprefix("lora."): value
            for key, value in domain.config.items()
            if key.startswith("lora.")
        }
        machine = domain.machine
        return memory_model.shape_of(
            domain.model,
            lora,
            machine.get("precision", "float32"),
            machine.get("device", "cpu"),
            min(tokens, _tokens_an_epoch(last) if last else tokens),
            bool(domain.config.get(CHECKPOINTING)),
        )

    def model(self, shape: memory_model.Shape) -> memory_model.MemoryModel:
        """The memory model of its device."""
        return self.models[shape.device]

    def peak(self, shape: memory_model.Shape) -> float:
        """Bytes."""
        return self.model(shape).peak_bytes(shape)

    def available(self, domain: Domain) -> float:
        """Bytes that a training may take."""
        machine = domain.machine
        if machine.get("device") == "cuda":
            return USABLE * float(machine["gpu_memory_gb"]) * 1e9
        jobs = max(1, self.context.slots // max(1, machine.get("threads", 1)))
        return USABLE * float(machine.get("memory_gb", float("inf"))) * 1e9 / jobs

    def speeds(self, domain: Domain) -> dict[int, Speed]:
        """By micro-batch, how fast trainings of the domain's base were on its hardware."""
        found: dict[int, list[Run]] = {}
        for run in self.runs:
            alike = (self._base(run), run.hardware) == (
                domain.model.get("name"),
                domain.config["hardware"],
            )
            if alike and run.metrics.get("tokens") and run.seconds > 0:
                found.setdefault(_micro(run), []).append(run)
        return {
            micro: Speed(
                median(run.metrics["tokens"] / run.seconds for run in runs),
                [run.id for run in runs[-3:]],
            )
            for micro, runs in found.items()
        }

    def _base(self, run: Run) -> str | None:
        return self.bases.get(run.inputs.get("base", ""))

    def _list_measured(self, run: Run) -> Iterator[tuple[memory_model.Shape, float]]:
        if run.recipe.get("slots", 1) > 1:
            return
        device = run.recipe.get("device", "cpu")
        tokens = min(_micro(run), _tokens_an_epoch(run))
        precision = run.recipe.get("precision", "float32")
        checkpointed = bool(run.value(CHECKPOINTING))
        shape = memory_model.shape_of(
            self.facts[self._base(run)], run.recipe["lora"], precision, device, tokens, checkpointed
        )
        peak = run.peak_mb * 2**20 if device == "cpu" else self._on_gpu(run)
        if shape is not None and peak:
            yield shape, peak

    def _on_gpu(self, run: Run) -> float:
        """What the trainer measured; only the newest training's file is there."""
        if (
            run.domain not in self.context.domains
            or self.context.current(run.domain, "adapter") is not run
        ):
            return 0.0
        report = self.context.domains[run.domain].read("adapter/training.json") or {}
        return float(report.get("measured", {}).get("peak_memory_bytes", 0.0))


def _micro(run: Run) -> int:
    return int(run.value(MICRO) or run.value(BATCH))


def _tokens_an_epoch(run: Run) -> int:
    """About how many tokens an epoch has: no micro-batch is larger, whatever the setting."""
    tokens = run.metrics.get("tokens")
    if not tokens or run.metrics.get("stopped_early"):
        return _micro(run)
    return max(LEAST, int(tokens / run.value("training.epochs")))


def _recall(context: Context, domain: Domain) -> Proposal | None:
    """What a training had to halve, from the start of the next one."""
    last = context.current(domain.name, "adapter")
    report = domain.read("adapter/training.json") or {}
    halved = sum(action == Action.HALVE_MICRO_BATCH for _, action in report.get("actions", ()))
    if not halved or last is None or _micro(last) != (domain.config[MICRO] or domain.config[BATCH]):
        return None
    micro = max(1, _micro(last) // 2**halved)
    return Proposal(
        domain.name,
        MICRO,
        micro,
        f"the training had to halve its micro-batch {halved} time{'s' if halved > 1 else ''}; "
        "begin with what fitted",
        [
            f"run {last.id}: {halved} × {Action.HALVE_MICRO_BATCH}, from {_micro(last)} to {micro} "
            "tokens"
        ],
        expected_gain=0.01,
        confidence=0.9,
        figure="seconds",
    )


def _smaller(measured: Measured, domain: Domain) -> list[Proposal]:
    """What makes the peak fit, where that of the present settings does not; nothing if nothing
    does, which insights say."""
    shape, available = measured.shape(domain), measured.available(domain)
    if shape is None or (peak := measured.peak(shape)) <= available:
        return []
    model, longest = measured.model(shape), min(domain.config[LONGEST], domain.config[BATCH])
    plain, saving = (replace(shape, checkpointed=on) for on in (False, True))
    chosen = (
        plain
        if not shape.checkpointed and model.most_tokens(plain, available) >= longest
        else saving
    )
    most = model.most_tokens(chosen, available)
    fits = int(domain.config[BATCH])
    while fits > most:
        fits //= 2
    if fits < min(SHORT, longest):
        return []
    lower = measured.peak(chosen.with_tokens(fits))
    whole = fits == domain.config[BATCH]
    wanted: dict[str, Any] = {MICRO: None if whole else fits, CHECKPOINTING: chosen.checkpointed}
    wanted |= {LONGEST: fits} if longest > most else {}
    changes = {
        key: value for key, value in wanted.items() if value != domain.config.get(key, False)
    }
    said = {
        MICRO: f"{fits} tokens at once",
        CHECKPOINTING: "gradient checkpointing",
        LONGEST: "no longer record",
    }
    reason = (
        f"about {peak / 1e9:.1f} GB at its peak is more than the {available / 1e9:.1f} GB that a "
        f"job has; {' with '.join(said[key] for key in changes)} takes {lower / 1e9:.1f} GB"
    )
    seen = [f"memory model of {model.runs} measured trainings"]
    gain, sure = (1 - lower / peak) / len(changes), _confidence(model)
    return [
        Proposal(domain.name, key, value, reason, seen, gain, sure, "memory")
        for key, value in changes.items()
    ]


def _larger(measured: Measured, domain: Domain) -> list[Proposal]:
    """A micro-batch that fits and is faster, by what was measured; on a GPU that idles, twice the
    present one."""
    micro, batch = domain.config[MICRO], domain.config[BATCH]
    shape = measured.shape(domain)
    if micro is None or micro >= batch or shape is None:
        return []
    available, speeds = measured.available(domain), measured.speeds(domain)
    fitting = [
        tokens
        for tokens in speeds
        if micro < tokens <= batch and measured.peak(shape.with_tokens(tokens)) <= available
    ]
    now = speeds.get(micro)
    best = max(fitting, key=lambda tokens: speeds[tokens].tokens_per_second, default=None)
    if now is not None and best is not None:
        gain = 1 - now.tokens_per_second / speeds[best].tokens_per_second
        said = [
            f"run {run}: micro-batch {tokens}, median {speeds[tokens].tokens_per_second:.0f} "
            "tokens a second"
            for tokens in (micro, best)
            for run in speeds[tokens].runs
        ]
        if gain >= PAYS:
            reason = f"there is room for {best} tokens at once, and trainings with them were faster"
            confidence = min(0.9, 0.4 + 0.1 * len(said))
            value = best if best < batch else None
            return [Proposal(domain.name, MICRO, value, reason, said, gain, confidence, "seconds")]
    double = min(2 * micro, batch)
    idle = [gpu["percent"] for gpu in _gpus(measured.context) if gpu["percent"] < IDLE]
    room = measured.peak(shape.with_tokens(double)) <= available
    if shape.device == "cuda" and idle and room and double not in speeds:
        reason = (
            f"the GPU idles ({min(idle):.0f}% busy) and there is room for {double} tokens at once"
        )
        said = [f"sample: GPU {min(idle):.0f}% busy"]
        value = double if double < batch else None
        return [Proposal(domain.name, MICRO, value, reason, said, GPU_GAIN, 0.3, "seconds")]
    return []


def _confidence(model: memory_model.MemoryModel) -> float:
    return 0.5 + 0.4 * model.runs / (model.runs + 5)


def _gpus(context: Context) -> list[Mapping[str, Any]]:
    found = context.sections.get("resource_status", {}).get("gpu_utilization", [])
    return [gpu for machine in found for gpu in machine["gpus"]]


def _bottlenecks(context: Context) -> Iterator[str]:
    """What holds trainings up, by the newest samples of machines, and the last build's
    trainings."""
    usage = context.sections.get("resource_status", {}).get("memory_usage", {})
    short = [
        machine["machine"]
        for machine in usage.get("machines", [])
        if machine["available_mb"] < (1 - FULL) * machine["total_mb"]
    ]
    jobs = [
        job
        for job in usage.get("jobs", [])
        if job["stage"] == "adapter" and job["domain"] in context.domains
    ]
    build = context.runs[-1].build if context.runs else ""
    trained = [
        run
        for run in context.runs
        if (run.build, run.stage, run.outcome) == (build, "adapter", "built")
    ]
    gpus = _gpus(context)
    if short:
        yield f"Bottleneck: memory; {', '.join(short)} had less than {1 - FULL:.0%} of it left"
    elif gpus:
        yield _of_gpus(gpus, jobs)
    elif trained:
        yield _of_cores(trained)


def _of_gpus(gpus: list[Mapping[str, Any]], jobs: list[Mapping[str, Any]]) -> str:
    busy = median(gpu["percent"] for gpu in gpus)
    used = max(gpu["memory_mb"] / gpu["total_mb"] for gpu in gpus)
    if busy >= BUSY:
        return f"Bottleneck: compute; GPUs are {busy:.0f}% busy"
    if used >= FULL:
        return f"Bottleneck: memory; a GPU's is {used:.0%} used, and it is {busy:.0f}% busy"
    cpu = f", jobs' cores {median(job['cpu_percent'] for job in jobs):.0f}%" if jobs else ""
    return f"Bottleneck: data; GPUs are {busy:.0f}% busy and {used:.0%} full{cpu}"


def _of_cores(trained: list[Run]) -> str:
    """By CPU-seconds: samples of trainings of a few seconds are too few."""
    shares = [
        100 * run.cpu_seconds / run.seconds / (run.recipe.get("threads") or 1)
        for run in trained
        if run.seconds
    ]
    busy = median(shares)
    if busy >= BUSY:
        return f"Bottleneck: compute; trainings keep their cores {busy:.0f}% busy"
    return (
        f"Bottleneck: data; trainings keep their cores {busy:.0f}% busy: they wait for files, or "
        "for other jobs' cores"
    )
