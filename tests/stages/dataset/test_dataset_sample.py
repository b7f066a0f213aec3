"""The pinned sample: what is in it is never held out, wherever it stands."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from made_sources import pairs, recipe

from meetara_build.errors import DataError
from meetara_build.stages.dataset import prepare
from meetara_build.stages.sample import SAMPLE, read_sample

Write = Callable[..., Path]


def turns(record: dict[str, Any]) -> dict[str, Any]:
    """A pair as a sample has it."""
    said = (("user", record["prompt"]), ("assistant", record["response"]))
    return {"messages": [{"role": role, "content": text} for role, text in said]}


def sides(path: Path, sample: Path | None) -> dict[str, str]:
    """The side of each record, by id."""
    inputs = {"source_0": path} | ({SAMPLE: sample} if sample else {})
    found = prepare(recipe([path.name]), inputs)
    return {
        one.id: side for side in ("train", "validation", "test") for one in getattr(found, side)
    }


def test_a_sampled_record_is_never_held_out_and_no_other_record_moves(write: Write) -> None:
    path = write(pairs(60))
    before = sides(path, None)
    records = {one.id: one for one in prepare(recipe([path.name]), {"source_0": path}).test}
    held = [
        {"messages": [{**turn} for turn in one.messages if turn["role"] != "system"]}
        for one in list(records.values())[:2]
    ]
    after = sides(path, write(held, "sample.jsonl"))
    changed = {name: after[name] for name in before if after[name] != before[name]}
    assert changed == dict.fromkeys(list(records)[:2], "train")


def test_what_is_like_a_sampled_record_goes_with_it(write: Write) -> None:
    alike = [{**pair, "response": f"{pair['response']} indeed"} for pair in pairs(60)[:20]]
    path = write([*pairs(60), *alike])
    found = prepare(recipe([path.name], near_group=0.6, near_duplicate=0.999), {"source_0": path})
    prompts = {one.prompt for one in found.test} & {pair["prompt"] for pair in alike}
    assert prompts
    sample = write([turns(pair) for pair in alike if pair["prompt"] in prompts], "sample.jsonl")
    inputs = {"source_0": path, SAMPLE: sample}
    again = prepare(recipe([path.name], near_group=0.6, near_duplicate=0.999), inputs)
    assert prompts.isdisjoint(one.prompt for one in (*again.test, *again.validation))


def test_records_that_are_all_sampled_leave_no_side_to_test_on(write: Write) -> None:
    path = write(pairs(20))
    assert set(sides(path, write([*map(turns, pairs(20))], "sample.jsonl")).values()) == {"train"}


@pytest.mark.parametrize(
    "line",
    [
        "{",
        "7",
        "{}",
        '{"messages": []}',
        '{"messages": [{"role": "user", "content": "a"}]}',
        '{"messages": [{"role": "assistant", "content": "a"}, {"role": "user", "content": "b"}]}',
        '{"messages": [{"role": "user", "content": ""}, {"role": "assistant", "content": "b"}]}',
        '{"messages": [{"role": "user", "content": 7}, {"role": "assistant", "content": "b"}]}',
    ],
)
def test_a_line_that_is_no_conversation_is_named(write: Write, line: str) -> None:
    path = write(f"{json.dumps(turns(pairs(1)[0]))}\n\n{line}\n", "sample.jsonl")
    with pytest.raises(DataError, match=r"sample.jsonl:3: is no conversation; write"):
        read_sample(path)


def test_an_empty_sample_is_refused(write: Write) -> None:
    with pytest.raises(DataError, match="holds no record; add some, or set `sample: null`"):
        read_sample(write("\n", "sample.jsonl"))
