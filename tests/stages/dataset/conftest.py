"""Fixtures that write a source and prepare it."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from made_sources import recipe

from meetara_build.stages.dataset import Prepared, prepare


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    """Write a source: a list of records as JSONL, text or bytes as they are."""

    def write(content: Any, name: str = "nutrition.jsonl") -> Path:
        path = tmp_path / name
        if isinstance(content, list):
            content = "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in content)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    return write


@pytest.fixture
def prepared(write: Callable[..., Path]) -> Callable[..., Prepared]:
    """Prepare one source."""

    def prepared(content: Any, name: str = "nutrition.jsonl", **changes: Any) -> Prepared:
        path = content if isinstance(content, Path) else write(content, name)
        return prepare(recipe([path.name], **changes), {"source_0": path})

    return prepared
