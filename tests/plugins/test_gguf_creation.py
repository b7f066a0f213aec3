"""gguf_creation: which types a domain's files should have, by what was measured of them here and on
the same base."""

import ctypes
import json
from collections.abc import Mapping, Sequence
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from contexts import context, domain, load

from meetara_build.agents import Context, Domain, Proposal, Run

agent = load("gguf_creation")

NUMBERS = count(1)
WEIGHTS = {
    "token_embd": 1_048_576,
    "attn_q": 196_608,
    "attn_v": 98_304,
    "ffn_down": 393_216,
    "ffn_up": 393_216,
}
F16_BYTES = 2 * sum(WEIGHTS.values())
KL = {"Q8_0": 0.0002, "Q6_K": 0.002, "Q5_K_M": 0.004, "Q4_K_M": 0.012, "Q3_K_M": 0.05, "Q2_K": 0.3}
TRUE = {"token_embd": 0.6, "attn_q": 6.0, "attn_v": 2.0, "ffn_down": 1.0, "ffn_up": 0.2}
"""How sensitive groups are in these tests, as multiples of what llama.cpp takes them for."""

Measured = tuple[Run, Run]


def stored(quant: str, types: Mapping[str, str]) -> dict[str, dict[str, int]]:
    """What the gguf stage's metrics say of a file, whose embedding has the type of an output."""
    kind = quant.removesuffix("_M")
    kinds = {
        group: "Q6_K" if group == "token_embd" and kind[1] < "6" else kind for group in WEIGHTS
    }
    kinds |= {pattern.replace(r"\b", ""): wanted for pattern, wanted in types.items()}
    return {
        group: {kind.replace("Q", "q"): int(WEIGHTS[group] * agent.STORAGE[kind].bits / 8)}
        for group, kind in kinds.items()
    }


def measured(
    name: str,
    quants: Sequence[str],
    types: Mapping[str, str] | None = None,
    model: str = "one",
    base: str = "mini",
    kl: Mapping[str, float] | None = None,
    sizes: Mapping[str, int] | None = None,
) -> Measured:
    """A domain's files as the gguf stage made and the evaluate stage measured them."""
    number, types = next(NUMBERS), dict(types or {})
    held = {quant: stored(quant, types) for quant in quants if quant not in agent.WHOLE}
    tensors = {"F16": {group: {"f16": 2 * weights} for group, weights in WEIGHTS.items()}, **held}
    found = {
        quant: sum(sum(kinds.values()) for kinds in groups.values())
        for quant, groups in tensors.items()
    }
    found |= sizes or {}
    divergence = {
        quant: KL.get(quant, 0.01) * true_ratio(quant, types) for quant in quants if quant != "F16"
    }
    divergence |= kl or {}
    given: dict[str, Any] = {
        "time": float(number),
        "domain": name,
        "build": "b",
        "machine": "here",
        "hardware": "cpu",
        "outcome": "built",
        "seconds": 1.0,
        "cpu_seconds": 1.0,
        "peak_mb": 500.0,
        "fingerprint": "f",
        "key": f"key{number}",
        "usd": 0.0,
    }
    recipe = {"base": base, "quants": list(quants), "tensor_types": types}
    gguf = Run(
        id=f"gguf{number}",
        stage="gguf",
        size=sum(found.values()),
        recipe=recipe,
        inputs={"merged": f"{name}-{model}"},
        metrics={"bytes": found, "tensors": tensors},
        **given,
    )
    losses = {"F16": 6.0, **{quant: 6.0 + value for quant, value in divergence.items()}}
    evaluation = Run(
        id=f"evaluate{number}",
        stage="evaluate",
        size=1000,
        recipe={"domain": name},
        metrics={"bytes": found, "kl": divergence, "losses": losses},
        **given,
    )
    return gguf, evaluation


def true_ratio(quant: str, types: Mapping[str, str]) -> float:
    """The divergence of a mix as a share of its uniform file's, if the sum over groups were all
    there is to it."""
    plain, mixed = stored(quant, {}), stored(quant, types)
    share = {group: TRUE[group] * weights for group, weights in WEIGHTS.items()}
    error = {group: _error(mixed[group]) / _error(plain[group]) for group in WEIGHTS}
    return sum(share[group] * error[group] for group in WEIGHTS) / sum(share.values())


def _error(kinds: Mapping[str, int]) -> float:
    return sum(agent.STORAGE[kind.upper()].error for kind in kinds)


@pytest.fixture
def town(tmp_path: Path) -> Any:
    """Domains as their last measured files are, with bounds and machines of their own."""

    def make(*runs: Measured, bounds: Mapping[str, float] | None = None, **fields: Any) -> Context:
        last = {gguf.domain: (gguf, evaluation) for gguf, evaluation in runs}
        config = {f"evaluation.max_kl.{quant}": bound for quant, bound in (bounds or {}).items()}
        made = [_domain(tmp_path, gguf, config, fields) for gguf, _ in last.values()]
        return context(*made, runs=[run for pair in runs for run in pair])

    return make


def _domain(
    folder: Path, gguf: Run, config: Mapping[str, Any], fields: Mapping[str, Any]
) -> Domain:
    speeds = fields.get("speeds", {})
    report = {
        # The base's file is read only, and generates nothing.
        "measured": {"base": {"prompt_tokens_per_second": 900.0}}
        | {quant: {"generated_tokens_per_second": speed} for quant, speed in speeds.items()}
    }
    evaluation = folder / gguf.domain / "evaluation"
    evaluation.mkdir(parents=True, exist_ok=True)
    (evaluation / "evaluation.json").write_text(json.dumps(report), encoding="utf-8")
    own = {
        "domain.quants": list(gguf.recipe["quants"]),
        "gguf.tensor_types": dict(gguf.recipe["tensor_types"]),
        "base": gguf.recipe["base"],
        **config,
        **fields.get("config", {}),
    }
    rest = {
        name: value
        for name, value in fields.items()
        if name in ("machine", "model", "locked", "decisions")
    }
    return domain(folder, gguf.domain, config=own, decided={"gguf": gguf.key}, **rest)


def proposed(given: Context) -> dict[str, Proposal]:
    """What is proposed, by domain; one change each at most."""
    found = list(agent.propose(given))
    assert len({one.domain for one in found}) == len(found)
    return {one.domain: one for one in found}


# Types of no use


def test_a_type_that_another_is_better_than_in_everything_is_dropped(town: Any) -> None:
    files = measured("music", ["F16", "Q5_0", "Q4_K_M"], kl={"Q5_0": 0.02, "Q4_K_M": 0.012})
    speeds = {"Q5_0": 50.0, "Q4_K_M": 49.0}
    found = proposed(town(files, speeds=speeds))["music"]
    assert (found.key, found.value, found.figure) == ("domain.quants", ["F16", "Q4_K_M"], "size")
    assert found.expected_gain == pytest.approx(files[0].metrics["bytes"]["Q5_0"] / files[0].size)
    assert files[1].id in found.evidence[0]


@pytest.mark.parametrize(
    ("kl", "speeds"),
    [
        ({"Q5_0": 0.005, "Q4_K_M": 0.012}, {"Q5_0": 50.0, "Q4_K_M": 50.0}),
        ({"Q5_0": 0.02, "Q4_K_M": 0.012}, {"Q5_0": 60.0, "Q4_K_M": 40.0}),
        ({"Q5_0": 0.02, "Q4_K_M": 0.012}, {}),
    ],
    ids=["it is nearer F16", "it is faster", "nobody measured how fast"],
)
def test_a_type_that_is_better_in_something_stays(
    town: Any, kl: Mapping[str, float], speeds: Any
) -> None:
    files = measured("music", ["F16", "Q5_0", "Q4_K_M"], kl=kl)
    assert proposed(town(files, speeds=speeds)) == {}


# Smaller types


def test_a_smaller_type_is_proposed_where_neighbours_measured_it_well_below_the_bound(
    town: Any,
) -> None:
    neighbours = [measured(name, ["F16", "Q6_K", "Q5_K_M"]) for name in ("art", "legal", "sales")]
    found = proposed(town(*neighbours, measured("music", ["F16", "Q6_K"]), bounds={"Q6_K": 0.05}))[
        "music"
    ]
    assert (found.key, found.value, found.figure) == ("domain.quants", ["F16", "Q5_K_M"], "size")
    sizes = neighbours[0][0].metrics["bytes"]
    mine = measured("music", ["F16", "Q6_K"])[0]
    assert found.expected_gain == pytest.approx(
        (sizes["Q6_K"] - sizes["Q5_K_M"]) / mine.size, rel=1e-3
    )
    assert any(neighbours[0][1].id in line for line in found.evidence)


@pytest.mark.parametrize(
    "bounds",
    [{"Q6_K": 0.004}, {"Q6_K": 0.05, "Q5_K_M": 0.004}, {}],
    ids=["its", "the smaller's", "none"],
)
def test_a_bound_without_room_and_no_bound_leave_the_types_alone(
    town: Any, bounds: Mapping[str, float]
) -> None:
    neighbours = [measured(name, ["F16", "Q6_K", "Q5_K_M"]) for name in ("art", "legal", "sales")]
    assert "music" not in proposed(
        town(*neighbours, measured("music", ["F16", "Q6_K"]), bounds=bounds)
    )


def test_what_was_measured_on_another_base_counts_for_nothing(town: Any) -> None:
    others = [
        measured(name, ["F16", "Q6_K", "Q5_K_M"], base="large")
        for name in ("art", "legal", "sales")
    ]
    found = proposed(town(*others, measured("music", ["F16", "Q6_K"]), bounds={"Q6_K": 0.05}))[
        "music"
    ]
    assert "nobody on this base has measured it: a trial" in found.reason
    assert found.confidence < 0.5


def test_one_domain_tries_what_nobody_has_measured_and_the_others_wait(town: Any) -> None:
    files = [measured(name, ["F16", "Q6_K"]) for name in ("music", "art", "legal")]
    found = proposed(town(*files, bounds={"Q6_K": 0.05}, locked=["gguf"]))
    assert {name: one.value for name, one in found.items()} == {"art": ["F16", "Q5_K_M"]}


def test_a_type_that_costs_more_loss_than_its_bytes_are_worth_is_not_proposed(town: Any) -> None:
    neighbours = [measured(name, ["F16", "Q3_K_M", "Q2_K"]) for name in ("art", "legal", "sales")]
    assert "music" not in proposed(
        town(*neighbours, measured("music", ["F16", "Q3_K_M"]), bounds={"Q3_K_M": 5.0})
    )


def test_a_smaller_type_that_measured_above_the_bound_is_taken_back_and_not_tried_again(
    town: Any,
) -> None:
    before = measured("music", ["F16", "Q6_K"])
    after = measured("music", ["F16", "Q5_K_M"], kl={"Q5_K_M": 0.08})
    taken = {
        "key": "domain.quants",
        "value": ["F16", "Q5_K_M"],
        "below": ["F16", "Q6_K"],
        "agent": "gguf_creation",
    }
    found = proposed(town(before, after, bounds={"Q6_K": 0.05, "Q5_K_M": 0.1}, decisions=[taken]))[
        "music"
    ]
    assert (found.value, found.figure) == (["F16", "Q6_K"], "loss")
    assert found.expected_gain == pytest.approx((0.08 - 0.002) / 6.08, rel=1e-2)
    again = measured("music", ["F16", "Q6_K"])
    assert proposed(town(before, after, again, bounds={"Q6_K": 0.05, "Q5_K_M": 0.1})) == {}


# Graphics memory


def test_types_that_do_not_fit_the_gpu_go(town: Any) -> None:
    small = {"device": "cuda", "gpu_memory_gb": 0.0018}
    found = proposed(town(measured("music", ["F16", "Q8_0", "Q4_K_M"]), machine=small))["music"]
    assert found.value == ["F16", "Q4_K_M"]
    assert "Q8_0 and an attention cache do not fit 0.0018 GB" in found.reason


def test_where_none_fits_the_largest_that_should_takes_its_place(town: Any) -> None:
    small = {"device": "cuda", "gpu_memory_gb": 0.0018}
    found = proposed(town(measured("music", ["F16", "Q8_0"]), machine=small))["music"]
    assert found.value == ["F16", "Q5_K_M"]


def test_the_attention_cache_counts(town: Any) -> None:
    large = {"device": "cuda", "gpu_memory_gb": 0.0018}
    model = {"layers": 100, "heads": 4, "kv_heads": 4, "hidden_size": 256}
    config = {"data.max_tokens": 2}
    files = measured("music", ["F16", "Q4_K_M"])
    assert proposed(town(files, machine=large, locked=["gguf"])) == {}
    found = proposed(town(files, machine=large, locked=["gguf"], model=model, config=config))
    assert found["music"].value == ["F16", "Q3_K_M"]


def test_a_machine_without_gpu_has_no_such_bound(town: Any) -> None:
    assert (
        proposed(town(measured("music", ["F16", "Q8_0", "Q4_K_M"]), machine={"device": "cpu"}))
        == {}
    )


# Types of single tensors


def test_the_first_mix_is_a_trial_a_little_smaller_than_the_uniform_file(town: Any) -> None:
    names = [f"domain_{number}" for number in range(12)]
    found = proposed(town(*(measured(name, ["F16", "Q4_K_M"]) for name in names)))
    assert len(found) >= 3
    for one in found.values():
        assert (one.key, one.figure) == ("gguf.tensor_types", "size")
        assert 0 < one.expected_gain < 0.05
        assert "a trial" in one.reason
    assert len({json.dumps(one.value) for one in found.values()}) > 1


def test_what_neighbours_measured_shows_which_tensors_matter(town: Any) -> None:
    """After a few trials the mix that is proposed is better than the uniform file by what it is in
    truth, too."""
    rounds = learnt(town, 4)
    for name, one in rounds[-1].items():
        assert true_ratio("Q4_K_M", one) < 0.8, name
        assert size_of(one) < size_of({})


def test_a_mix_that_measured_worse_gives_way_to_none(town: Any) -> None:
    worse = [
        measured("music", ["F16", "Q4_K_M"], {r"\battn_q\b": kind})
        for kind in ("Q3_K", "IQ4_XS", "Q2_K")
    ]
    found = proposed(town(measured("music", ["F16", "Q4_K_M"]), *worse))["music"]
    assert found.value == {}
    assert found.figure == "loss"
    assert found.expected_gain > 0
    assert worse[-1][1].id in " ".join(found.evidence)


def test_a_domain_with_several_quantized_files_gets_no_mix(town: Any) -> None:
    """The types would go into all of them."""
    assert proposed(town(measured("music", ["F16", "Q8_0", "Q4_K_M"]))) == {}


def test_tensors_whose_rows_fit_no_block_are_left_alone(town: Any) -> None:
    gguf, evaluation = measured("music", ["F16", "Q4_K_M"])
    gguf.metrics["tensors"]["Q4_K_M"]["attn_q"] = {"q5_0": 135_168}
    mixes = [
        agent._candidate(agent.Known.of(town((gguf, evaluation))).files[0], (), str(seed)).types
        for seed in range(20)
    ]
    assert any(mixes)
    assert not any(r"\battn_q\b" in types for types in mixes)


# What holds for all


def test_nothing_is_proposed_for_files_that_are_not_measured_as_they_are_configured(
    town: Any,
) -> None:
    files = measured("music", ["F16", "Q4_K_M"])
    assert proposed(town(files, config={"domain.quants": ["F16", "Q5_K_M"]})) == {}
    assert proposed(town(files, config={"gguf.tensor_types": {"attn_q": "Q6_K"}})) == {}
    assert proposed(town((files[0], measured("music", ["F16"])[1]))) == {}


def test_locked_keys_are_left_alone(town: Any) -> None:
    names = [f"domain_{number}" for number in range(12)]
    files = [measured(name, ["F16", "Q4_K_M"]) for name in names]
    found = proposed(town(*files, bounds={"Q4_K_M": 0.25}, locked=["domain.quants"]))
    assert {one.key for one in found.values()} == {"gguf.tensor_types"}
    assert proposed(town(*files, bounds={"Q4_K_M": 0.25}, locked=["domain", "gguf"])) == {}


def test_the_same_context_gives_the_same_proposals(town: Any) -> None:
    given = town(*(measured(name, ["F16", "Q4_K_M"]) for name in ("art", "music", "legal")))
    assert list(agent.propose(given)) == list(agent.propose(given))


# Insights


def test_what_one_size_smaller_would_cost_is_told_from_neighbours(town: Any) -> None:
    neighbours = [measured(name, ["F16", "Q4_K_M", "Q3_K_M"]) for name in ("art", "legal")]
    lines = list(agent.insights(town(*neighbours, measured("music", ["F16", "Q4_K_M"]))))
    line = next(line for line in lines if line.startswith("music"))
    assert "one size smaller than Q4_K_M (Q3_K_M) saves 0.1" in line
    assert line.endswith("adds 0.038 of KL and +0.038 of loss, as in 2 measurements on mini")


def test_what_nobody_measured_is_said_to_be_unknown(town: Any) -> None:
    (line,) = agent.insights(town(measured("music", ["F16", "Q4_K_M"])))
    assert "(Q3_K_M) saves 0.14 MB (10%), about" in line  # the embedding would stay as it is
    assert line.endswith("what it adds of KL nobody on mini has measured")


def test_what_a_mix_gained_is_told(town: Any) -> None:
    types = {r"\battn_q\b": "Q6_K"}
    lines = list(
        agent.insights(
            town(measured("music", ["F16", "Q4_K_M"]), measured("music", ["F16", "Q4_K_M"], types))
        )
    )
    assert "(Q3_K_M) saves 0.14 MB (10%)" in lines[0]  # than the uniform file
    assert (
        f"Q4_K_M with attn_q Q6_K: {true_ratio('Q4_K_M', types):.0%} of the KL without" in lines[-1]
    )


def test_the_errors_of_storage_types_are_llama_cpp_s() -> None:
    """Squared error of normally distributed weights, all columns equally important."""
    import gguf
    from llama_cpp import llama_cpp

    lib = llama_cpp._lib
    lib.ggml_row_size.restype = ctypes.c_size_t
    weights = np.random.default_rng(0).standard_normal((32, 1024)).astype(np.float32)
    importance = np.ones(1024, np.float32)
    for name, (bits, error) in agent.STORAGE.items():
        kind = gguf.GGMLQuantizationType[name]
        row = lib.ggml_row_size(ctypes.c_int(kind), ctypes.c_int64(1024))
        assert row * 8 / 1024 == bits
        made = np.zeros((32, row), np.uint8)
        sizes = (ctypes.c_int64(0), ctypes.c_int64(32), ctypes.c_int64(1024))
        pointers = (weights.ctypes.data_as(ctypes.c_void_p), made.ctypes.data_as(ctypes.c_void_p))
        lib.ggml_quantize_chunk(
            ctypes.c_int(kind), *pointers, *sizes, importance.ctypes.data_as(ctypes.c_void_p)
        )
        found = float(
            np.square(gguf.quants.dequantize(made, kind) - weights).mean()
            / np.square(weights).mean()
        )
        assert found == pytest.approx(error, rel=0.1), name


def size_of(types: Mapping[str, str]) -> int:
    return sum(sum(kinds.values()) for kinds in stored("Q4_K_M", types).values())


def learnt(town: Any, rounds: int) -> list[dict[str, dict[str, str]]]:
    """The mixes of six domains after so many rounds of proposing and measuring."""
    names = [f"domain_{number}" for number in range(6)]
    runs = [measured(name, ["F16", "Q4_K_M"]) for name in names]
    now: dict[str, dict[str, str]] = {name: {} for name in names}
    seen = []
    for _ in range(rounds):
        changes = {name: one.value for name, one in proposed(town(*runs)).items()}
        runs += [measured(name, ["F16", "Q4_K_M"], types) for name, types in changes.items()]
        now |= changes
        seen.append(dict(now))
    return seen
