"""Nothing gets into the context that is not of its kind's shape, and every fault is named."""

import math
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError
from reported import nested, one_of_each, progress, proposal, report, run, sample

from meetara_build.context.reports import LARGEST, SHAPES, Proposal, Stage, check_reports
from meetara_build.errors import ReportError
from meetara_build.graph.stages import NAMES as STAGES


@pytest.mark.parametrize("given", one_of_each(), ids=lambda given: given["kind"])
def test_each_kind_is_taken_as_it_is_made(given: dict[str, Any]) -> None:
    (found,) = check_reports([given])
    assert found.model_dump(exclude_unset=True) | {"kind": given["kind"]} == given


def test_every_kind_is_tried_here() -> None:
    assert {given["kind"] for given in one_of_each()} == set(SHAPES)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"kind": "gossip"}, "report 1: kind 'gossip' is unknown; known: run, sample"),
        ({}, "kind None is unknown"),
        (run(domain="Nutrition"), "domain: String should match pattern"),
        (run(domain="../../etc"), "domain: String should match pattern"),
        (run(domain="nutri\0tion"), "holds the control character"),
        (run(domain="n\N{COMBINING DIAERESIS}utrition"), "domain: String should match pattern"),
        (run(outcome="great"), "outcome: Input should be 'built', 'restored' or 'failed'"),
        (run(seconds=-1.0), "seconds: Input should be greater than or equal to 0"),
        (run(seconds=math.nan), "is no finite JSON; leave out NaN and infinities"),
        (progress(loss=math.inf), "is no finite JSON; leave out NaN and infinities"),
        (progress(loss=1e300), "loss: Input should be less than or equal to"),
        (progress(step=-1), "step: Input should be greater than or equal to 0"),
        (sample(memory_mb="much"), "memory_mb: Input should be a valid number"),
        (run(secret=1), "secret: Extra inputs are not permitted"),
        (run(error="a\0b"), "holds the control character '\\x00'; leave it out"),
        (run(error="half \ud800"), "holds the control character '\\ud800'; leave it out"),
        (run(metrics={"a": {"b\0": 1}}), "holds the control character"),
        (run(metrics={"a": "x" * LARGEST}), f"at most {LARGEST} are taken"),
        (run(error="x" * 10_000_000), f"at most {LARGEST} are taken"),
        ({**run(), "id": "../up"}, "id: String should match pattern"),
        ({**run(), "time": 1e15}, "time: is 277777"),
        (run(stage="../../elsewhere/x"), "stage: String should match pattern"),
        (
            report("error", domain="nutrition", stage="../x", sender="me", message="m"),
            "stage: String should match pattern",
        ),
        (proposal(domain=None), "a proposal is for a domain; name it"),
        (
            proposal(body={"key": "a", "value": nested(100), "reason": "so"}),
            "is nested too deep; at most 50",
        ),
        (run(metrics={"deep": nested(100_000)}), "is nested too deep; at most 50"),
        (
            report("metrics", domain="nutrition", sender="a b", values={"x": 1.0}),
            "sender: String should match pattern",
        ),
        (
            report("metrics", domain="nutrition", sender="me", values={"x": math.nan}),
            "is no finite JSON",
        ),
        (
            proposal(body={"key": "training epochs", "value": 1, "reason": "so"}),
            "key: String should match pattern",
        ),
        (proposal(body={"key": "training.epochs", "value": 1}), "reason: Field required"),
        (
            proposal(body={"key": "a", "value": 1, "reason": "so", "confidence": 2}),
            "confidence: Input should be less",
        ),
    ],
)
def test_what_is_wrong_is_named(wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(ReportError) as refusal:
        check_reports([wrong])
    assert said in str(refusal.value)
    assert len(str(refusal.value)) < 2_000


def test_a_clock_that_is_ahead_is_named_and_one_that_is_a_little_off_is_not() -> None:
    with pytest.raises(
        ReportError, match=r"time: is 2.0 hours ahead of the clock here; give Unix time in seconds"
    ):
        check_reports([sample(time=time.time() + 2 * 3600)])
    assert check_reports([sample(time=time.time() + 60)])


def test_reports_are_of_stages_by_names_that_lead_nowhere() -> None:
    """A stage's name becomes part of a path."""
    stage = TypeAdapter(Stage)
    assert [stage.validate_python(name) for name in STAGES] == list(STAGES)
    for name in ("", "../x", "a/b", "Adapter", "a.b", "a\n", "x" * 65):
        with pytest.raises(ValidationError):
            stage.validate_python(name)


def test_the_number_of_the_wrong_one_is_said() -> None:
    with pytest.raises(ReportError, match=r"^report 2 \(sample\): cpu_percent: Field required"):
        check_reports(
            [
                run(),
                report(
                    "sample", domain="a", stage="b", memory_mb=1.0, available_mb=1.0, total_mb=1.0
                ),
            ]
        )


NESTED = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(
    st.sampled_from(sorted(SHAPES)),
    st.dictionaries(
        st.sampled_from(
            [
                "id",
                "time",
                "domain",
                "stage",
                "body",
                "about",
                "sender",
                "values",
                "message",
                "recipe",
                "metrics",
                "seconds",
                "outcome",
            ]
        ),
        NESTED,
    ),
)
def test_whatever_is_reported_is_taken_or_refused_in_words(
    kind: str, fields: dict[str, Any]
) -> None:
    refusal = None
    try:
        (found,) = check_reports([{"kind": kind, **fields}])
    except ReportError as error:
        refusal = str(error)
    assert refusal.startswith("report 1") if refusal else found.id == fields["id"]


@given(NESTED)
def test_a_proposal_may_be_of_any_json_value(value: Any) -> None:
    body = {"key": "training.epochs", "value": value, "reason": "so"}
    try:
        (found,) = check_reports([proposal(body=body)])
    except ReportError:
        return
    assert Proposal.model_validate(found.model_dump()["body"]).value == value
