"""All domains in a table: a line each, those that are held back with the code of what they missed."""

from typing import Any

from meetara_build.stages.report_table import render_table


def evaluation(loss: float, accuracy: float | None = 0.5) -> dict[str, Any]:
    choices = None if accuracy is None else {"accuracy": accuracy, "choices": 4}
    return {
        "base": {"loss": 4.0},
        "variants": {"F16": {"loss": loss}, "Q4_K_M": {"loss": loss}},
        "choices": {"F16": None, "Q4_K_M": choices},
    }


def verdict(code: str | None = None, harmful: float = 0.0) -> dict[str, Any]:
    counted = {"faulty": 0.75, "harmful": harmful}
    refusal = code and {"code": code, "message": "…"}
    return {"answers": {"F16": counted, "Q4_K_M": counted}, "held_back": refusal}


def test_each_domain_has_a_line_with_its_figures() -> None:
    table = render_table(
        {"sleep": evaluation(3.0), "legal": evaluation(3.6)},
        {"sleep": verdict(), "legal": verdict("gate-answers", 0.25)},
    )
    lines = [line for line in table.splitlines() if line.startswith(("| legal", "| sleep"))]
    assert lines == [
        "| legal | 4.000 | 3.600 | 10.0% | 75% | 25% | 50% of 4 | held back [gate-answers] |",
        "| sleep | 4.000 | 3.000 | 25.0% | 75% | 0% | 50% of 4 |  |",
    ]
    assert "2 domains, 1 of them held back." in table


def test_what_was_not_judged_is_left_empty() -> None:
    table = render_table(
        {"sleep": evaluation(3.0, None)}, {"sleep": {"answers": {}, "held_back": None}}
    )
    assert "| sleep | 4.000 | 3.000 | 25.0% |  |  |  |  |" in table
