"""Quant types go by llama.cpp's own names."""

import gguf
import llama_cpp
import pytest
from hypothesis import given
from hypothesis import strategies as st

from meetara_build.llama_cpp.quants import (
    QUANTS,
    TENSOR_TYPES,
    check_quant,
    check_tensor_type,
    needs_imatrix,
)


@pytest.mark.parametrize("quant", QUANTS)
def test_every_type_is_one_of_llama_cpp_s(quant: str) -> None:
    check_quant(quant)
    group = "ALL" if quant == "F32" else "MOSTLY"
    assert hasattr(llama_cpp, f"LLAMA_FTYPE_{group}_{quant}")


def test_no_type_is_listed_twice() -> None:
    assert len(set(QUANTS)) == len(QUANTS)


@pytest.mark.parametrize(
    ("written", "meant"),
    [("q4_k_m", "Q4_K_M"), ("Q4KM", "Q4_K_M"), ("fp16", "F16"), ("q8", "Q8_0")],
)
def test_an_unknown_type_is_refused_with_the_nearest(written: str, meant: str) -> None:
    with pytest.raises(ValueError, match=f"unknown quant type '{written}'; did you mean '{meant}'"):
        check_quant(written)


def test_where_nothing_is_near_all_are_named() -> None:
    with pytest.raises(
        ValueError, match=r"unknown quant type 'gptq-int'; known: F32, F16, .*TQ2_0"
    ):
        check_quant("gptq-int")


@given(st.text(max_size=8).filter(lambda name: name not in QUANTS))
def test_no_other_name_is_accepted(name: str) -> None:
    with pytest.raises(ValueError, match="unknown quant type"):
        check_quant(name)


@pytest.mark.parametrize("kind", TENSOR_TYPES)
def test_every_tensor_type_is_one_of_llama_cpp_s(kind: str) -> None:
    check_tensor_type(kind)
    assert kind in gguf.GGMLQuantizationType.__members__


def test_a_mix_of_types_is_no_tensor_type() -> None:
    with pytest.raises(ValueError, match="unknown tensor type 'Q4_K_M'; did you mean 'Q4_K'"):
        check_tensor_type("Q4_K_M")


@pytest.mark.parametrize(
    ("quants", "tensor_types", "helps"),
    [
        (["F16", "Q8_0"], [], False),
        (["F16", "Q4_K_M"], [], True),
        (["F16", "Q8_0"], ["Q6_K"], True),
        (["F16", "BF16"], ["Q6_K"], False),
    ],
    ids=["eight bits", "four bits", "six bits for some tensors", "no quantized file"],
)
def test_an_importance_matrix_helps_where_weights_have_few_bits(
    quants: list[str], tensor_types: list[str], helps: bool
) -> None:
    assert needs_imatrix(quants, tensor_types) is helps
