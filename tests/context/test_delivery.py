"""What waits is delivered once, whatever happens to the context, the courier or a report."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from reported import nested, report, url

from meetara_build.context.delivery import Delivery, make_refused_path, waiting_files
from meetara_build.context.local import Local
from meetara_build.context.outbox import Outbox, folder
from meetara_build.context.store import Retention
from meetara_build.errors import ContextError

SAMPLE = {"cpu_percent": 1.0, "memory_mb": 1.0, "available_mb": 1.0, "total_mb": 1.0}
ABOUT = {"domain": "nutrition", "stage": "adapter"}


class Away:
    """A context that is away for some deliveries, or dies in the middle of one, after it was taken
    in."""

    shown = "away"

    def __init__(self, context: Local, faults: list[str]) -> None:
        self.context, self.faults = context, faults

    def deliver(self, reports: list[dict[str, Any]]) -> list[str]:
        fault = self.faults.pop(0) if self.faults else ""
        if fault == "before":
            raise ContextError("away")
        taken = self.context.deliver(reports)
        if fault == "after":
            raise ContextError("gone")
        return taken

    def __getattr__(self, name: str) -> Any:
        return getattr(self.context, name)


@pytest.fixture
def context(tmp_path: Path) -> Local:
    return Local(url(tmp_path), Retention())


def kept(context: Local) -> list[float]:
    """What was delivered: how much memory each sample says."""
    return sorted(row["memory_mb"] for row in context.store.export() if row["kind"] == "sample")


def test_what_is_delivered_is_gone_from_the_outbox(tmp_path: Path, context: Local) -> None:
    box = Outbox(tmp_path, **ABOUT)
    box.put("sample", **SAMPLE)
    box.close()
    delivery = Delivery(tmp_path, context)
    assert delivery.once() == 1
    assert waiting_files(tmp_path) == 0
    assert delivery.once() == 0


def test_a_file_that_grows_is_delivered_as_it_grows(tmp_path: Path, context: Local) -> None:
    box, delivery = Outbox(tmp_path, **ABOUT), Delivery(tmp_path, context)
    for number in range(3):
        box.put("sample", **{**SAMPLE, "memory_mb": float(number)})
        assert delivery.once() == 1
        assert delivery.waiting
    box.close()
    assert delivery.once() == 0
    assert not delivery.waiting
    assert kept(context) == [0.0, 1.0, 2.0]


@settings(
    max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None
)
@given(
    st.lists(st.sampled_from(["put", "deliver", "close", "restart"]), max_size=25),
    st.lists(st.sampled_from(["", "before", "after"]), max_size=15),
)
def test_every_report_arrives_once_whenever_the_context_or_the_courier_goes_away(
    tmp_path_factory: pytest.TempPathFactory, steps: list[str], faults: list[str]
) -> None:
    root = tmp_path_factory.mktemp("root")
    away = Away(Local(url(root), Retention()), list(faults))
    box, delivery, said = Outbox(root, **ABOUT), Delivery(root, away), 0
    for step in [*steps, "close", *["deliver"] * (len(faults) + 1)]:
        if step == "put":
            box.put("sample", **{**SAMPLE, "memory_mb": float(said)})
            said += 1
        elif step == "close":
            box.close()
        elif step == "restart":
            delivery = Delivery(root, away)
        else:
            try:
                delivery.once()
            except ContextError:
                continue
    assert kept(away.context) == [float(number) for number in range(said)]
    assert waiting_files(root) == 0
    away.context.close()


def test_a_report_that_is_refused_is_put_aside_with_the_reason_and_holds_up_no_other(
    tmp_path: Path, context: Local
) -> None:
    box = Outbox(tmp_path, **ABOUT)
    box.put("sample", **SAMPLE)
    box.put("gossip", text="who")
    box.put("sample", **SAMPLE)
    box.close()
    assert Delivery(tmp_path, context).once() == 2
    assert waiting_files(tmp_path) == 0
    refused = make_refused_path(tmp_path).read_text(encoding="utf-8")
    assert "kind 'gossip' is unknown" in refused
    assert '"text": "who"' in refused


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("[" * 100_000, "is no report"),
        (json.dumps({"kind": "message", "body": {"deep": nested(900)}}), "is nested too deep"),
        ('{"kind": "sample", "stage": "half \\ud800"}', "holds the control character"),
        ("not json", "is no report"),
    ],
    ids=["endless brackets", "deep but JSON", "half a surrogate pair", "text"],
)
def test_what_can_hardly_be_read_is_put_aside_and_holds_up_nobody(
    tmp_path: Path, context: Local, line: str, said: str
) -> None:
    box = Outbox(tmp_path, **ABOUT)
    box.put("sample", **SAMPLE)
    box.close()
    (folder(tmp_path) / "1-1.reports").write_text(f"{line}\n")
    delivery = Delivery(tmp_path, context)
    assert (delivery.once(), delivery.refused) == (1, 1)
    assert waiting_files(tmp_path) == 0
    assert said in make_refused_path(tmp_path).read_text(encoding="utf-8")


def test_reports_of_all_kinds_may_wait_together(tmp_path: Path, context: Local) -> None:
    box = Outbox(tmp_path)
    for made in (
        report("metrics", domain="a", sender="me", values={"x": 1.0}),
        report("error", domain="a", sender="me", message="no"),
    ):
        box.put(**made)
    box.close()
    assert Delivery(tmp_path, context).once() == 2
