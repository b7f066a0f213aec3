"""What the agents advised last, kept beside the artifacts: `plan` shows it, `accept` and `reject`
answer it."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from meetara_build.outside import parse_json
from meetara_build.store.manifest import hold_lock, write_text

PROPOSALS = "proposals.json"
"""Below the root."""
LOCK = ".proposals.lock"
"""Beside it: several may be answered at once."""
TAKEN, REJECTED = "taken", "rejected"
EMPTY: dict[str, object] = {"verdicts": [], "withdrawals": [], "insights": {}, "faults": {}}


def keep(root: Path, content: Mapping[str, object]) -> None:
    """Keep advice: verdicts, withdrawals, insights and faults, as JSON values."""
    write_text(root / PROPOSALS, json.dumps(content, indent=1, ensure_ascii=False) + "\n")


def read_inbox(root: Path) -> dict[str, Any]:
    """What was advised last; nothing, where no agent was asked yet."""
    try:
        content = parse_json((root / PROPOSALS).read_bytes())
    except (OSError, ValueError):
        content = {}
    found = {**EMPTY, **(content if isinstance(content, dict) else {})}
    return (
        found
        if all(_is_list_of_answers(found[name]) for name in ("verdicts", "withdrawals"))
        else dict(EMPTY)
    )


def _is_list_of_answers(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(one, dict) and "id" in one for one in value)


def mark(root: Path, ids: Iterable[str], status: str) -> None:
    """Note that proposals, or withdrawals, were answered."""
    answered = set(ids)
    with hold_lock(root / LOCK):
        content = read_inbox(root)
        content["verdicts"] = [
            {**one, "status": status} if one["id"] in answered else one
            for one in content["verdicts"]
        ]
        content["withdrawals"] = [
            one for one in content["withdrawals"] if one["id"] not in answered
        ]
        keep(root, content)


def newer_plugins(root: Path, plugins: Path) -> list[str]:
    """The agents whose files changed since they were last asked; none before the first time."""
    try:
        asked = (root / PROPOSALS).stat().st_mtime
        return sorted(
            path.stem for path in plugins.glob("[!_.]*.py") if path.stat().st_mtime > asked
        )
    except OSError:
        return []
