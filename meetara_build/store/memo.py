"""Results of pure functions, kept in a file for the next process."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from meetara_build.outside import parse_json
from meetara_build.store.manifest import digest_json, write_cache


class Memo:
    """JSON values by key, as long as all that they depend on has the same ``state``; ``save`` keeps
    those that were used."""

    def __init__(self, kept_in: Path, state: Any) -> None:
        self.kept_in, self.state = kept_in, digest_json(state)
        self.kept: dict[str, Any] = {}
        self.used: dict[str, Any] = {}
        try:
            content = parse_json(kept_in.read_bytes())
            if content["state"] == self.state and isinstance(content["values"], dict):
                self.kept = content["values"]
        except (OSError, ValueError, LookupError, TypeError):
            pass

    def get(self, key: str, make: Callable[[], Any]) -> Any:
        """The value of a key, made if it is not kept."""
        if key not in self.used:
            self.used[key] = self.kept[key] if key in self.kept else make()
        return self.used[key]

    def save(self) -> None:
        """Write what was used, if it is not what was kept."""
        if self.used != self.kept:
            write_cache(self.kept_in, json.dumps({"state": self.state, "values": self.used}))
            self.kept = dict(self.used)
