"""Messages and runs as the shared context gives them, for tests."""

from typing import Any

from meetara_build.agents.snapshot import Run


def run(
    id: str,
    time: float,
    loss: float | None = None,
    *,
    domain: str = "nutrition",
    stage: str = "adapter",
    **more: Any,
) -> Run:
    """A run of the adapter stage with this validation loss; one without a loss has failed."""
    outcome = more.pop("outcome", "failed" if loss is None else "built")
    metrics = {} if loss is None else {"validation_loss_after": loss}
    fields: dict[str, Any] = {
        "build": f"build-{id}",
        "machine": "here",
        "hardware": "cpu",
        "seconds": 10.0,
        "cpu_seconds": 10.0,
        "peak_mb": 500.0,
        "size": 1000,
        "fingerprint": f"print-{id}",
        "key": f"key-{id}",
        "usd": 0.0,
    }
    return Run(
        id=id,
        time=time,
        domain=domain,
        stage=stage,
        outcome=outcome,
        **{**fields, "metrics": metrics, **more},
    )


def proposal(
    id: str,
    *answers: tuple[float, str, str],
    agent: str = "tuner",
    domain: str = "nutrition",
    **body: Any,
) -> dict[str, Any]:
    """A proposal's message, with (time, sender, answer) of each answer."""
    content = {
        "key": "training.epochs",
        "value": 4,
        "reason": "it helps",
        "expected_gain": 0.02,
        **body,
    }
    replies = [
        {"time": time, "sender": sender, "answer": answer, "reason": ""}
        for time, sender, answer in answers
    ]
    return {
        "id": id,
        "time": 0.0,
        "about": "proposal",
        "sender": agent,
        "domain": domain,
        "body": content,
        "answers": replies,
    }


def accepted(id: str, time: float = 1.0, **more: Any) -> dict[str, Any]:
    """A proposal that was accepted."""
    return proposal(id, (time, "person", "accepted"), **more)
