"""All domains in a table: how good each is, and which are held back, because of what."""

from collections.abc import Mapping
from typing import Any

HEAD = (
    "| domain | base loss | loss | better by | answers with a fault | that can do harm | finds the "
    "right answer of four | |\n|---|--:|--:|--:|--:|--:|--:|---|"
)


def render_table(evaluations: Mapping[str, Any], verdicts: Mapping[str, Any]) -> str:
    """Markdown, a line a domain; ``verdicts`` are the packages' ``verdict.json``. Answers are those of
    the last file, by custom the smallest."""
    lines = [_render_line(name, evaluations[name], verdicts[name]) for name in sorted(evaluations)]
    held = sum(verdict["held_back"] is not None for verdict in verdicts.values())
    return "\n".join(
        [
            f"# All domains\n\n{len(evaluations)} domains, {held} of them held back. Losses are of the "
            "F16 file on held-out records, in nats per token.\n",
            HEAD,
            *lines,
        ]
    )


def _render_line(name: str, evaluation: Mapping[str, Any], verdict: Mapping[str, Any]) -> str:
    base, loss = evaluation["base"]["loss"], evaluation["variants"]["F16"]["loss"]
    last = list(evaluation["variants"])[-1]
    counted, choices = verdict["answers"].get(last), evaluation["choices"].get(last)
    refusal = verdict["held_back"]
    cells = (
        name,
        f"{base:.3f}",
        f"{loss:.3f}",
        f"{1 - loss / base:.1%}",
        f"{counted['faulty']:.0%}" if counted else "",
        f"{counted['harmful']:.0%}" if counted else "",
        f"{choices['accuracy']:.0%} of {choices['choices']}" if choices else "",
        f"held back [{refusal['code']}]" if refusal else "",
    )
    return f"| {' | '.join(cells)} |"
