"""A pinned sample of training records: what stands for all domains' text where something is made
once a base."""

import hashlib
import json
from pathlib import Path

from meetara_build.errors import DataError
from meetara_build.stages.dataset import Record, prepare
from meetara_build.stages.dataset.records import Message
from meetara_build.stages.recipes.sample import SampleRecipe
from meetara_build.stages.types import Inputs, Metrics


def run(recipe: SampleRecipe, inputs: Inputs, output: Path) -> Metrics:
    """Write ``sample.jsonl``, lines of ``id``, ``domain`` and ``messages``: so many training records
    of each domain, one of each domain after the other.

    Which ones depends on each record's content alone, so that most edits of a domain's records
    leave its sample as it is; system prompts are left out, for the same reason. What any of the
    domains holds out to validate or to test is none of them.

    ``inputs`` holds the sources as ``DOMAIN/source_N``.

    Raises:
        DataError: a domain's sources cannot be read, or nothing is left.
    """
    train: dict[str, list[Record]] = {}
    held_out: set[str] = set()
    for domain, preparation in sorted(recipe.domains.items()):
        sources = {
            name.partition("/")[2]: path
            for name, path in inputs.items()
            if name.partition("/")[0] == domain
        }
        prepared = prepare(preparation, sources)
        held_out.update(record.id for record in (*prepared.validation, *prepared.test))
        train[domain] = prepared.train
    chosen = {
        domain: sorted((one for one in records if one.id not in held_out), key=_draw)[
            : recipe.records
        ]
        for domain, records in train.items()
    }
    lines = [
        {"id": records[at].id, "domain": domain, "messages": _without_system(records[at])}
        for at in range(recipe.records)
        for domain, records in chosen.items()
        if at < len(records)
    ]
    if not lines:
        raise DataError(
            f"no training record of {', '.join(recipe.domains)} is left for the sample; name other "
            "domains in gguf.imatrix.domains, or set gguf.imatrix.enabled to false"
        )
    text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
    (output / "sample.jsonl").write_text(text, encoding="utf-8")
    return {
        "records": len(lines),
        "by_domain": {domain: len(records) for domain, records in chosen.items()},
        "held_out_records": len(held_out),
    }


def _without_system(record: Record) -> list[Message]:
    return [turn for turn in record.messages if turn["role"] != "system"]


def _draw(record: Record) -> str:
    """A number that depends on a record's content alone."""
    return hashlib.sha256(f"sample {record.id}".encode()).hexdigest()
