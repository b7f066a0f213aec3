"""The text that an embedded base is pretrained on: a stated share of each domain's training
records, never a held-out one."""

import hashlib
import json
from pathlib import Path

from meetara_build.errors import DataError
from meetara_build.stages.dataset import prepare
from meetara_build.stages.recipes.corpus import CorpusRecipe
from meetara_build.stages.sample import SAMPLE
from meetara_build.stages.types import Inputs, Metrics


def run(recipe: CorpusRecipe, inputs: Inputs, output: Path) -> Metrics:
    """Write ``corpus.jsonl``: lines of ``id``, ``domain`` and ``messages``.

    ``inputs`` holds the sources as ``DOMAIN/source_N``, and the pinned sample if there is one.

    Raises:
        DataError: a domain's sources cannot be read, or nothing is left to learn from.
    """
    lines: dict[str, str] = {}
    held_out: set[str] = set()
    trained = 0
    for domain, preparation in sorted(recipe.domains.items()):
        sources = {
            name.partition("/")[2]: path
            for name, path in inputs.items()
            if name.partition("/")[0] == domain
        }
        sources |= {SAMPLE: inputs[SAMPLE]} if SAMPLE in inputs else {}
        prepared = prepare(preparation, sources)
        held_out.update(record.id for record in (*prepared.validation, *prepared.test))
        trained += len(prepared.train)
        for record in prepared.train:
            if _chance(record.id) < recipe.share:
                # Only what is asked and answered: a base that knew each domain's system prompt
                # would know the domain.
                turns = [turn for turn in record.messages if turn["role"] != "system"]
                line = {"id": record.id, "domain": domain, "messages": turns}
                lines[record.id] = json.dumps(line, ensure_ascii=False)
    # A record may stand in two domains and be held out by only one of them.
    kept = [line for key, line in sorted(lines.items()) if key not in held_out]
    if not kept:
        raise DataError(
            "no training record is left for the base; raise pretraining.share, or add domains to "
            "pretraining.domains"
        )
    (output / "corpus.jsonl").write_text("\n".join(kept) + "\n", encoding="utf-8")
    metrics = {"records": len(kept), "training_records": trained, "held_out_records": len(held_out)}
    (output / "card.json").write_text(
        json.dumps({**metrics, "share": recipe.share}, indent=1) + "\n"
    )
    return metrics


def _chance(key: str) -> float:
    """A number from 0 to 1 that depends on a record's content alone, and not on which side of the
    split it is."""
    return int(hashlib.sha256(f"corpus {key}".encode()).hexdigest()[:8], 16) / 0xFFFFFFFF
