"""Which quantized types a domain's files should have, from what was measured: divergence from F16
(KL), bytes and speed.

For a domain whose files are measured as they are configured, the first of these that has something
to say:

1. a smaller type of this agent's is taken back where it measured worse than the one before it may;
2. a type is dropped where another listed one is no larger, no further from F16 and no slower;
3. on a GPU, types that do not fit its memory make room for the largest that does;
4. a type gives way to a smaller one where its bound (``evaluation.max_kl``) leaves much room, by
   what neighbours on the same base measured of both; where none did, one domain tries;
5. tensors get types of their own: at a little less than the size of the uniform type, the least
   divergence.

For (5), a file's divergence is taken as a sum over groups of tensors of sensitivity × squared error
of how they are stored: to second order, what independent errors add to it (HAWQ-V2, arXiv
1911.03852). Sensitivities are a ridge regression over all mixes measured on a base, each against
its domain's uniform file; before any is measured, what llama.cpp's own choice of types amounts to.
A domain first tries the best mixes for sensitivities drawn from what is known (Thompson sampling,
Biometrika 25, 1933), so that neighbours learn from it.
"""

import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import permutations
from math import inf, prod
from statistics import median
from typing import NamedTuple

from meetara_build.agents import Context, Domain, Proposal, Run, hookimpl
from meetara_build.toolbox.quant_types import STORAGE, Storage

STEPS = ("Q8_0", "Q6_K", "Q5_K", "Q4_K", "IQ4_XS", "Q3_K", "Q2_K")
"""What a tensor of a mix may become; all but the first want rows of a multiple of 256."""
LADDER = ("Q8_0", "Q6_K", "Q5_K_M", "Q4_K_M", "Q3_K_M", "Q2_K")
"""Types of whole files, each about a size smaller than the one before."""
WHOLE = ("F16", "BF16", "F32")

SPEED = "generated_tokens_per_second"
AS_FAST = 0.95  # of another's speed counts as no slower: speeds of one file differ by more from run to run
ROOM = 0.7  # a smaller type is proposed where at most this share of the bound is expected of it
FAIR = 0.1  # of the share of bytes saved: the share of loss that a smaller type may add
DOUBT = 1.5  # by how much a type's divergence may be above what few neighbours, or its storage's error, promise
SIZE = 0.99  # of the uniform file's bytes is what a mix gets
TRIES = 3  # mixes that a domain measures at most, for one type: the last for sensitivities as they are known
BETTER = (
    0.97  # a mix is proposed where at most this share of the present divergence is expected of it
)
LOWER = 5.0  # times its error is the most that a group of tensors may get: a size smaller has four
NOISE = 0.1  # relative error of a measured divergence, and of the sum above
UNKNOWN = 1.0  # how far off llama.cpp's own choice may be of what a group's sensitivity calls for, as a share of it
GPU_SHARE = (
    0.9  # of a GPU's memory that a file and its attention cache may take; the rest is for computing
)


@dataclass(frozen=True)
class File:
    """A quantized file that was measured; ``made`` is the key of the gguf run's work, ``stored``
    bytes by group and storage type."""

    run: str
    made: str
    model: str
    domain: str
    base: str
    quant: str
    types: Mapping[str, str]
    bytes: int
    kl: float
    loss: float
    stored: Mapping[str, Mapping[str, int]]
    weights: Mapping[str, int]
    all_bytes: int

    def __str__(self) -> str:
        mixed = " with gguf.tensor_types" if self.types else ""
        return (
            f"run {self.run}: {self.domain} {self.quant}{mixed}: KL {self.kl:.4g}, "
            f"{self.bytes / 1e6:.2f} MB"
        )

    def share(self, group: str) -> float:
        """A group's part of the weights."""
        return self.weights.get(group, 0) / sum(self.weights.values())

    def error(self, group: str) -> float:
        """Squared error of a group's weights, summed."""
        kinds = ((kind.upper(), size) for kind, size in self.stored.get(group, {}).items())
        return sum(
            size * 8 / STORAGE[kind].bits * STORAGE[kind].error
            for kind, size in kinds
            if kind in STORAGE
        )


@hookimpl
def propose(context: Context) -> Iterable[Proposal]:
    """For each domain whose files are measured, at most one change."""
    known = Known.of(context)
    for domain in context.domains.values():
        now = known.now(domain)
        for rule in (_take_back, _drop, _fit, _smaller, _mix) if now else ():
            found = rule(domain, now, known)
            if found and not domain.is_locked(found.key):
                yield found
                break


@hookimpl
def insights(context: Context) -> Iterable[str]:
    """What going one size smaller would cost each domain, and what mixes gained."""
    known = Known.of(context)
    for domain in context.domains.values():
        now = known.now(domain)
        for file in sorted(now, key=lambda file: file.bytes)[:1]:
            yield _one_smaller(known.plain(file) or file, known)
        for mix, plain in known.mixes(domain.config["base"]):
            if mix in now:
                types = ", ".join(
                    f"{pattern} {kind}" for pattern, kind in mix.types.items()
                ).replace(r"\b", "")
                share, size = mix.kl / plain.kl, mix.bytes / plain.bytes
                yield (
                    f"{domain.name}: {mix.quant} with {types}: {share:.0%} of the KL without, "
                    f"{size:.1%} of the bytes"
                )


@dataclass(frozen=True)
class Known:
    """All files that were measured, oldest first."""

    files: Sequence[File]
    domains: Sequence[Domain]

    @classmethod
    def of(cls, context: Context) -> "Known":
        """What a context's runs hold: each evaluation belongs to the domain's last gguf run before
        it, if that made its files."""
        made, found = dict[str, Run](), dict[tuple[str, str], File]()
        for run in context.runs:
            if run.outcome == "failed" or not run.recipe:
                continue
            if run.stage == "gguf":
                made[run.domain] = run
            elif run.stage == "evaluate" and run.domain in made:
                found.update(
                    {
                        (file.made, file.quant): file
                        for file in _list_measured(made[run.domain], run)
                    }
                )
        return cls([*found.values()], [*context.domains.values()])

    def now(self, domain: Domain) -> list[File]:
        """A domain's quantized files; none where they are not measured as it is configured now."""
        files = [
            file
            for file in self.files
            if (file.domain, file.made) == (domain.name, domain.decided.get("gguf"))
        ]
        wanted = {quant for quant in domain.config["domain.quants"] if quant not in WHOLE}
        types = domain.config.get("gguf.tensor_types") or {}
        as_wanted = {file.quant for file in files} == wanted and all(
            file.types == types for file in files
        )
        return files if as_wanted else []

    def plain(self, file: File) -> File | None:
        """The same domain's file of the same type without types for single tensors: of the same
        model if there is one."""
        found = [one for one in self.of_domain(file.domain, file.quant) if not one.types]
        return next(
            (one for one in reversed(found) if one.model == file.model),
            found[-1] if found else None,
        )

    def of_domain(self, domain: str, quant: str) -> list[File]:
        """What a domain measured of a type."""
        return [file for file in self.files if file.domain == domain and file.quant == quant]

    def pairs(self, base: str, quant: str, other: str) -> list[tuple[File, File]]:
        """Uniform files of two types, of one model each, on a base."""
        uniform = [file for file in self.files if file.base == base and not file.types]
        mine = {
            (file.domain, file.model): file
            for file in uniform
            if file.quant == quant and file.kl > 0
        }
        theirs = [file for file in uniform if file.quant == other]
        return [
            (mine[one.domain, one.model], one) for one in theirs if (one.domain, one.model) in mine
        ]

    def mixes(self, base: str) -> list[tuple[File, File]]:
        """Files with types for single tensors on a base, each with its uniform one."""
        mixed = (
            (file, self.plain(file)) for file in self.files if file.base == base and file.types
        )
        return [(file, plain) for file, plain in mixed if plain is not None and plain.kl > 0]


def _list_measured(gguf: Run, evaluation: Run) -> Iterator[File]:
    if "tensors" not in gguf.metrics or evaluation.metrics.get("bytes") != gguf.metrics["bytes"]:
        return
    stored, kl = gguf.metrics["tensors"], evaluation.metrics["kl"]
    weights = {group: kinds["f16"] // 2 for group, kinds in stored["F16"].items() if "f16" in kinds}
    for quant, divergence in kl.items():
        if quant not in WHOLE and quant in stored:
            yield File(
                evaluation.id,
                gguf.key,
                gguf.inputs.get("merged", ""),
                gguf.domain,
                gguf.recipe["base"],
                quant,
                gguf.recipe.get("tensor_types", {}),
                gguf.metrics["bytes"][quant],
                divergence,
                evaluation.metrics["losses"][quant],
                stored[quant],
                weights,
                gguf.size,
            )


def _take_back(domain: Domain, now: Sequence[File], known: Known) -> Proposal | None:
    """A smaller type of ours that is further from F16 than the one it replaced may be."""
    quants, ours = list(domain.config["domain.quants"]), ("gguf_creation", "domain.quants")
    below = next(
        (one["below"] for one in domain.decisions if (one["agent"], one["key"]) == ours), quants
    )
    for file in now:
        above = LADDER[: LADDER.index(file.quant)] if file.quant in LADDER else ()
        larger = [one for one in above if one in below and one not in quants][-1:]
        bound = domain.config.get(f"evaluation.max_kl.{larger[0]}") if larger else None
        if file.quant in below or bound is None or file.kl <= bound:
            continue
        before = known.of_domain(domain.name, larger[0])[-1:]
        gain = max((file.loss - before[0].loss) / file.loss, 0.0) if before else 0.0
        return Proposal(
            domain.name,
            "domain.quants",
            [larger[0] if one == file.quant else one for one in quants],
            f"{file.quant} measured a KL of {file.kl:.4g}, and {larger[0]}, which it replaced, may "
            f"have {bound:g}",
            [*map(str, [file, *before])],
            gain,
            0.9,
            "loss",
        )
    return None


def _drop(domain: Domain, now: Sequence[File], known: Known) -> Proposal | None:
    """A listed type that another listed one is better than in everything that was measured."""
    measured = (domain.read("evaluation/evaluation.json") or {}).get("measured", {})
    speeds = {quant: figures[SPEED] for quant, figures in measured.items() if SPEED in figures}
    for file, other in permutations(
        sorted((one for one in now if one.quant in speeds), key=lambda one: -one.bytes), 2
    ):
        equal = (file.bytes, file.kl) == (other.bytes, other.kl)
        no_worse = (
            other.bytes <= file.bytes
            and other.kl <= file.kl
            and (not equal or other.quant < file.quant)
        )
        if no_worse and speeds[other.quant] >= AS_FAST * speeds[file.quant]:
            return Proposal(
                domain.name,
                "domain.quants",
                [quant for quant in domain.config["domain.quants"] if quant != file.quant],
                f"{other.quant} is no larger than {file.quant}, no further from F16 and no slower: "
                f"{file.quant} is of no use",
                [
                    str(file),
                    str(other),
                    *(
                        f"{one.quant}: {speeds[one.quant]:g} tokens a second"
                        for one in (file, other)
                    ),
                ],
                file.bytes / file.all_bytes,
                0.9,
                "size",
            )
    return None


def _fit(domain: Domain, now: Sequence[File], known: Known) -> Proposal | None:
    """On a GPU, types that its memory cannot hold go; where none fits, the largest that should
    takes their place."""
    memory = domain.machine.get("gpu_memory_gb") or 0.0
    sizes = [domain.model.get(name) or 0 for name in ("layers", "kv_heads", "hidden_size")]
    cache = (
        4.0 * prod(sizes) / (domain.model.get("heads") or 1) * domain.config["data.max_tokens"]
    )  # 16 bits a value
    room = memory * 1e9 * GPU_SHARE - cache
    large = [file for file in now if file.bytes > room]
    if domain.machine.get("device") != "cuda" or not memory or not large:
        return None
    expected = (
        {quant: _bytes(large[-1], quant, known) for quant in LADDER}
        if len(large) == len(now)
        else {}
    )
    added = [quant for quant, size in expected.items() if size <= room][:1]
    if expected and not added:
        return None
    gone = [file.quant for file in large]
    saved = sum(file.bytes for file in large) - sum(expected[quant] for quant in added)
    return Proposal(
        domain.name,
        "domain.quants",
        [*(quant for quant in domain.config["domain.quants"] if quant not in gone), *added],
        f"{', '.join(gone)} and an attention cache do not fit {memory:g} GB of GPU memory",
        [*map(str, large)],
        saved / large[0].all_bytes,
        0.6,
        "size",
    )


def _smaller(domain: Domain, now: Sequence[File], known: Known) -> Proposal | None:
    """The smallest type that may be expected to stay well within the bound of the one it
    replaces."""
    quants = list(domain.config["domain.quants"])
    for file in sorted(now, key=lambda one: -one.bytes):
        below = _types_below(domain, file)
        for quant in reversed(below):
            most, evidence = _estimate_gain(file, quant, known)
            size = _bytes(file, quant, known)
            if not evidence and not (quant == below[0] and _is_first(domain, quant, known)):
                continue
            if (
                quant in quants
                or not _is_fair(file, size, most)
                or not _is_within_bounds(domain, file, quant, most, known)
            ):
                continue
            bound = domain.config[f"evaluation.max_kl.{file.quant}"]
            return Proposal(
                domain.name,
                "domain.quants",
                [quant if one == file.quant else one for one in quants],
                f"{file.quant}'s KL is {file.kl:.4g} of {bound:g} allowed; {quant}'s should be "
                f"{most:.4g} at most, and it saves {(file.bytes - size) / 1e6:.2f} MB"
                + ("" if evidence else "; nobody on this base has measured it: a trial"),
                [str(file), *evidence],
                (file.bytes - size) / file.all_bytes,
                0.8 if evidence else 0.4,
                "size",
            )
    return None


def _types_below(domain: Domain, file: File) -> Sequence[str]:
    """Types smaller than a file's own, the next one first, where it has a bound and no types for
    single tensors."""
    bound = domain.config.get(f"evaluation.max_kl.{file.quant}")
    if file.quant not in LADDER or not bound or file.types:
        return ()
    return LADDER[LADDER.index(file.quant) + 1 :]


def _is_fair(file: File, size: float, most: float) -> bool:
    """Whether the bytes that are saved are worth the loss that a divergence of this may add."""
    return most - file.kl <= FAIR * (1 - size / file.bytes) * file.loss


def _is_within_bounds(domain: Domain, file: File, quant: str, most: float, known: Known) -> bool:
    """Whether a type should stay well within both types' bounds, and did so when the domain last
    measured it."""
    bound = domain.config[f"evaluation.max_kl.{file.quant}"]
    allowed = ROOM * min(bound, domain.config.get(f"evaluation.max_kl.{quant}") or bound)
    last = known.of_domain(domain.name, quant)[-1:]
    return most <= allowed and all(one.kl <= allowed for one in last)


def _estimate_gain(file: File, quant: str, known: Known) -> tuple[float, list[str]]:
    """The most that a type's divergence should be in place of a file's, and what was measured of it
    on this base."""
    pairs = known.pairs(file.base, file.quant, quant)
    promised = [other.kl / mine.kl for mine, other in pairs] or [
        _storage(quant).error / _storage(file.quant).error
    ]
    return file.kl * max(promised) * (DOUBT if len(pairs) < 3 else 1.0), [
        str(other) for _, other in pairs[-5:]
    ]


def _is_first(domain: Domain, quant: str, known: Known) -> bool:
    """Whether a domain is the one to try a type that nobody on its base has measured beside the
    present one, or is about to."""
    others = [
        one
        for one in known.domains
        if one.config["base"] == domain.config["base"] and one.name != domain.name
    ]
    measured = [other.name for other in others if known.now(other)]
    awaited = any(
        quant in other.config["domain.quants"] for other in others if other.name not in measured
    )
    return not awaited and domain.name < min(measured, default="~")


def _bytes(file: File, quant: str, known: Known) -> float:
    """How large a file's like of another type should be: by neighbours' ratio, else by its
    storage's bits."""
    ratios = [other.bytes / mine.bytes for mine, other in known.pairs(file.base, file.quant, quant)]
    kinds = [
        (STORAGE.get(kind.upper()), size)
        for held in file.stored.values()
        for kind, size in held.items()
    ]
    main = sum(
        size for storage, size in kinds if storage == _storage(file.quant)
    )  # other tensors stay as they are
    saved = main * (1 - _storage(quant).bits / _storage(file.quant).bits)
    return file.bytes * median(ratios) if ratios else file.bytes - saved


class Mix(NamedTuple):
    """Types by pattern, the divergence they give as a share of the uniform file's, and the file's
    bytes; ``run`` measured it."""

    types: dict[str, str]
    ratio: float
    bytes: float
    run: str = ""


def _mix(domain: Domain, now: Sequence[File], known: Known) -> Proposal | None:
    """Types for single tensors: the best that was measured here, or that may be expected to be
    better."""
    file, plain = now[0], known.plain(now[0])
    if len(now) > 1 or plain is None or plain.kl <= 0:
        return None  # the types would go into its other files too
    measured = known.mixes(plain.base)
    own = [
        (one, uniform)
        for one, uniform in measured
        if (one.domain, one.quant) == (domain.name, file.quant)
    ]
    options = [Mix({}, 1.0, plain.bytes, str(plain))]
    options += [
        Mix(dict(one.types), one.kl / uniform.kl, one.bytes, str(one)) for one, uniform in own
    ]
    if len(own) < TRIES:
        candidate = _candidate(
            plain, measured, f"{domain.name} {len(own)}" if len(own) < TRIES - 1 else None
        )
        options += [candidate] if all(candidate.types != one.types for one in options) else []
    best, present = min(options, key=lambda one: one.ratio), file.kl / plain.kl
    if best.types == file.types or best.ratio > BETTER * present:
        return None
    saved = file.bytes - best.bytes
    gain = saved / file.all_bytes if saved > 0 else (present - best.ratio) * plain.kl / file.loss
    unmeasured = ("expected", 0.7) if len(own) == TRIES - 1 else ("hoped for, a trial", 0.4)
    how, confidence = ("measured", 0.9) if best.run else unmeasured
    return Proposal(
        domain.name,
        "gguf.tensor_types",
        best.types,
        f"{best.ratio:.0%} of the uniform {file.quant}'s KL ({how}) at "
        f"{best.bytes / plain.bytes:.1%} of its bytes; now {present:.0%}",
        [best.run or str(plain), *(str(one) for one, _ in measured[-5:])],
        gain,
        confidence,
        "size" if saved > 0 else "loss",
    )


def _candidate(plain: File, measured: Sequence[tuple[File, File]], seed: str | None) -> Mix:
    """The mix of least divergence at its size, for sensitivities as they are known, or drawn from
    what is known."""
    sensitivity = _sensitivities(plain, measured, seed)
    shares = {
        group: sensitivity.get(group, 1.0) * weights for group, weights in plain.weights.items()
    }
    options = {group: _options(plain, group, share) for group, share in shares.items()}
    held = sum(sum(plain.stored[group].values()) for group in shares)
    front: list[tuple[float, float, dict[str, str | None]]] = [(0.0, 0.0, {})]
    for (
        group,
        found,
    ) in options.items():  # of what is as small, only the least divergent can become the best
        grown = [
            (b + size, d + more, {**own, group: kind})
            for b, d, own in front
            for kind, size, more in found
        ]
        front, least = [], inf
        for one in sorted(grown, key=lambda one: one[:2]):
            if one[1] < least:
                front, least = [*front, one], one[1]
    fitting = [one for one in front if one[0] <= held - (1 - SIZE) * plain.bytes]
    size, divergence, chosen = min(
        fitting or [(held, sum(shares.values()), {})], key=lambda one: one[1]
    )
    types = {rf"\b{group}\b": kind for group, kind in sorted(chosen.items()) if kind}
    return Mix(types, divergence / sum(shares.values()), plain.bytes - held + size)


def _options(plain: File, group: str, share: float) -> list[tuple[str | None, float, float]]:
    """What a group may be stored as, at most a size smaller, with its bytes and divergence; first
    as the uniform file has it."""
    stored, weights = plain.stored[group], plain.weights[group]
    present = max(stored, key=lambda kind: stored[kind]).upper()
    most = LOWER * STORAGE[present].error if present in STEPS[1:] else 0.0  # other rows may not fit
    uniform = present if len(stored) == 1 else None
    own = (
        (kind, *STORAGE[kind]) for kind in STEPS if STORAGE[kind].error <= most and kind != uniform
    )
    others = [
        (kind, weights * bits / 8, share * weights * error / plain.error(group))
        for kind, bits, error in own
    ]
    return [(None, sum(stored.values()), share), *others]


def _sensitivities(
    plain: File, measured: Sequence[tuple[File, File]], seed: str | None
) -> dict[str, float]:
    """How sensitive each group is, as a multiple of what llama.cpp takes it for; with a seed, one
    draw from what may be."""
    import numpy as np

    groups = [group for group in sorted(plain.weights) if plain.error(group) > 0]
    pairs = [(plain, plain), *measured]
    parts = [
        [mix.error(one) / (uniform.error(one) or 1.0) * uniform.share(one) for one in groups]
        for mix, uniform in pairs
    ]
    wanted = np.array([mix.kl / uniform.kl for mix, uniform in pairs])
    scale = 1 / (NOISE * np.maximum(wanted, 1.0))
    known = np.array(parts) * scale[:, None]
    precision = known.T @ known + np.eye(len(groups)) / UNKNOWN**2
    found = np.linalg.solve(precision, known.T @ (wanted * scale) + 1 / UNKNOWN**2)
    if seed is not None:
        number = int.from_bytes(hashlib.sha256(seed.encode()).digest()[:8], "big")
        drawn = np.random.default_rng(number).standard_normal(len(groups))
        found = found + np.linalg.solve(np.linalg.cholesky(precision).T, drawn)
    return dict(zip(groups, np.maximum(found, 0.05).tolist(), strict=True))


def _one_smaller(file: File, known: Known) -> str:
    """What the next smaller type would save and cost."""
    if file.quant not in LADDER[:-1]:
        return (
            f"{file.domain}: {file.quant} is its smallest type, and this agent knows none that is "
            "a size smaller"
        )
    quant = LADDER[LADDER.index(file.quant) + 1]
    saved = file.bytes - _bytes(file, quant, known)
    start = (
        f"{file.domain}: one size smaller than {file.quant} ({quant}) saves {saved / 1e6:.2f} MB "
        f"({saved / file.bytes:.0%})"
    )
    pairs = known.pairs(file.base, file.quant, quant)
    own = [pair for pair in pairs if pair[0].domain == file.domain][-1:]
    if not pairs:
        return f"{start}, about; what it adds of KL nobody on {file.base} has measured"
    added = file.kl * (median(other.kl / mine.kl for mine, other in own or pairs) - 1)
    loss = median(other.loss - mine.loss for mine, other in own or pairs)
    source = "as it measured" if own else f"as in {len(pairs)} measurements on {file.base}"
    return f"{start} and adds {added:.4g} of KL and {loss:+.4g} of loss, {source}"


def _storage(quant: str) -> Storage:
    return STORAGE[re.sub("_[SML]$", "", quant)]
