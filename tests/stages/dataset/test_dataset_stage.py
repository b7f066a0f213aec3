"""The stage as a build calls it."""

import json
from pathlib import Path

import pytest
from made_sources import pairs, recipe, sentence
from small_models import train_tokenizer
from transformers import AutoTokenizer

from meetara_build.errors import DataError
from meetara_build.stages.dataset import prepare, run
from meetara_build.stages.dataset.records import content_id
from meetara_build.training.chat import encode, read_records

SIDES = ("train", "validation", "test")


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("base")
    train_tokenizer(folder)
    return folder


@pytest.fixture
def built(base, write, tmp_path):
    def built(records, name="nutrition.jsonl", **changes):
        path = write(records, name)
        output = tmp_path / f"output{len(list(tmp_path.glob('output*')))}"
        output.mkdir()
        given = recipe([name], **changes)
        metrics = run(given, {"base": base, "source_0": path}, output)
        assert sorted(file.name for file in output.iterdir()) == [
            "account.jsonl",
            "card.json",
            *sorted(f"{s}.jsonl" for s in SIDES),
        ]
        lines = {side: list(read_records(output / f"{side}.jsonl")) for side in SIDES}
        return metrics, lines, json.loads((output / "card.json").read_text()), output

    return built


def mixed():
    """60 good records, 1 bad, 1 exact and 1 near copy, 1 too long."""
    good = [{**record, "topic": "sleep" if n % 2 else "food"} for n, record in enumerate(pairs(60))]
    return [
        *good,
        {"prompt": "who", "response": ""},
        good[3],
        {**good[4], "response": good[4]["response"] + " xu"},
        {"prompt": sentence("long"), "response": sentence("long answer", 400)},
    ]


def test_every_record_read_is_accounted_for(built):
    metrics, lines, card, output = built(mixed())
    assert metrics["read"] == 64 == metrics["bad"] + metrics["dropped"] + metrics["kept"]
    assert (metrics["bad"], metrics["dropped"], metrics["kept"]) == (1, 3, 60)
    assert {side: len(lines[side]) for side in SIDES} == {side: metrics[side] for side in SIDES}
    assert card["counts"] == metrics
    assert card["dropped_by_reason"] == {"duplicate": 1, "near-duplicate": 1, "too long": 1}
    account = list(read_records(output / "account.jsonl"))
    assert len(account) == 64
    assert {line["id"]: line["side"] for line in account if "side" in line} == {
        record["id"]: side for side in SIDES for record in lines[side]
    }
    assert [(d["source"], d["reason"], d["matched"]) for d in account if "reason" in d] == [
        ("nutrition.jsonl:62", "duplicate", "nutrition.jsonl:4"),
        ("nutrition.jsonl:63", "near-duplicate", "nutrition.jsonl:5"),
        ("nutrition.jsonl:64", "too long", None),
    ]
    assert [line for line in account if "problem" in line] == [
        {
            "source": "nutrition.jsonl",
            "line": 61,
            "column": "response",
            "problem": "is empty",
            "found": "",
        }
    ]
    assert card["topics"] == {"food": 30, "sleep": 30}


def test_no_text_is_changed_without_a_count_and_a_line(built):
    code = {"prompt": "Finish: CafÃ© ole", "response": "    total = 0\r\n    return total\n"}
    _, lines, card, output = built([*pairs(40), code])
    (record,) = [
        one for side in SIDES for one in lines[side] if "Café ole" in one["messages"][0]["content"]
    ]
    assert record["messages"][1]["content"] == "    total = 0\n    return total"
    assert card["changed_texts"] == {"garbled text": 1, "line ends": 1, "newlines at the ends": 1}
    account = list(read_records(output / "account.jsonl"))
    assert [
        (line["source"], line["id"], line["changed"]) for line in account if "changed" in line
    ] == [
        (
            "nutrition.jsonl:41",
            record["id"],
            {"prompt": ["garbled text"], "response": ["line ends", "newlines at the ends"]},
        )
    ]


def test_a_line_holds_what_later_stages_read(built):
    _, lines, _, _ = built(mixed(), system_prompt="You know food.")
    records = [record for side in SIDES for record in lines[side]]
    assert all(list(record) == ["id", "messages", "language", "topic"] for record in records)
    assert len({record["id"] for record in records}) == 60
    first = next(
        record for record in records if record["messages"][1]["content"] == mixed()[0]["prompt"]
    )
    assert [message["role"] for message in first["messages"]] == ["system", "user", "assistant"]
    assert first["topic"] == "food"


def test_only_the_account_knows_where_a_record_stood(built, write, tmp_path, base):
    first = built(mixed())[3]
    spread = tmp_path / "other.jsonl"
    spread.write_text("\n\n".join(write(mixed()).read_text().splitlines()))
    second = tmp_path / "spread"
    second.mkdir()
    run(recipe([spread.name]), {"base": base, "source_0": spread}, second)
    differ = [
        path.name
        for path in first.iterdir()
        if path.read_bytes() != (second / path.name).read_bytes()
    ]
    assert differ == ["account.jsonl"]


def test_a_training_record_that_is_named_is_not_trained_on(built):
    _, before, _, _ = built(mixed())
    named = [before["train"][1]["id"], before["validation"][0]["id"], before["test"][0]["id"]]
    _, after, card, output = built(mixed(), drop=named)
    assert after["train"] == [record for record in before["train"] if record["id"] != named[0]]
    assert (after["validation"], after["test"]) == (before["validation"], before["test"]), (
        "what is held out stays"
    )
    assert card["dropped_by_reason"]["named in data.drop"] == 1
    account = list(read_records(output / "account.jsonl"))
    assert [line["id"] for line in account if line.get("reason") == "named in data.drop"] == named[
        :1
    ]


def test_a_name_that_no_record_has_is_refused(built):
    with pytest.raises(
        DataError,
        match=r"data\.drop: 0123456789abcdef: the domain has no such record.*account\.jsonl",
    ):
        built(mixed(), drop=["0123456789abcdef"])


def test_a_record_that_is_a_duplicate_now_may_be_named_still(built):
    copy = {**pairs(30)[4], "response": pairs(30)[4]["response"] + " xu"}
    said = [
        {"role": "user", "content": copy["prompt"]},
        {"role": "assistant", "content": copy["response"]},
    ]
    metrics = built([*pairs(30), copy], drop=[content_id(said)])[0]
    assert metrics["dropped"] == 1


def test_naming_every_training_record_is_refused(built):
    every = [record["id"] for record in built(mixed())[1]["train"]]
    with pytest.raises(DataError, match="leaves no record to train on"):
        built(mixed(), drop=every)


def test_token_lengths_are_those_of_the_base(built, base):
    _, lines, card, output = built(mixed())
    tokenizer = AutoTokenizer.from_pretrained(base)
    encoded = [encode(tokenizer, record["messages"]) for side in SIDES for record in lines[side]]
    assert card["tokens"]["whole"]["max"] == max(len(e.ids) for e in encoded) <= 512
    assert card["tokens"]["completion"]["max"] == max(sum(e.mask) for e in encoded)
    assert (
        card["tokens"]["prompt"]["p5"]
        <= card["tokens"]["prompt"]["p50"]
        <= card["tokens"]["prompt"]["p95"]
    )
    assert card["bytes"]["train"] == (output / "train.jsonl").stat().st_size


def test_a_token_limit_drops_but_never_moves(built, write):
    long = [{"prompt": sentence(f"l{n}"), "response": sentence(f"m{n}", 400)} for n in range(30)]
    records = [*pairs(40), *long]
    _, lines, _, _ = built(records)
    found = prepare(recipe(["nutrition.jsonl"]), {"source_0": write(records)})
    for side in SIDES:
        prepared = [record.id for record in getattr(found, side)]
        kept = [record["id"] for record in lines[side]]
        assert kept == [name for name in prepared if name in kept]
    assert sum(len(lines[side]) for side in SIDES) == 40


def test_the_same_recipe_and_sources_give_the_same_bytes(built):
    first, second = built(mixed())[3], built(mixed())[3]
    for file in first.iterdir():
        assert file.read_bytes() == (second / file.name).read_bytes()


def test_limits_that_leave_a_side_empty_are_refused(built):
    with pytest.raises(
        DataError,
        match=r"nutrition: none of the .* train records has between data.min_tokens 2 and data.max_tokens 4",
    ):
        built(mixed(), max_tokens=4)


def test_a_base_without_a_tokenizer_is_refused(write, tmp_path):
    path = write(mixed())
    (tmp_path / "bare").mkdir()
    with pytest.raises(DataError, match=r"^bare: the base's folder holds no tokenizer"):
        run(recipe([path.name]), {"base": tmp_path / "bare", "source_0": path}, tmp_path)


def test_importing_the_stage_loads_none_of_the_heavy_libraries():
    import subprocess
    import sys

    heavy = ("pandas", "pandera", "sklearn", "transformers", "torch", "datasets", "pyarrow")
    code = (
        f"import sys, meetara_build.stages.dataset; print([m for m in {heavy} if m in sys.modules])"
    )
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "[]"
