"""Public reports about data files: each rebuilt on a garden's questions, and read as its writer
meant it."""

import csv
import gzip
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import datasets
import pyarrow
import pyarrow.parquet
from projects import write_yaml

from bench.strangers.campaign import Place, case, expect, expect_refusal, expect_success
from bench.strangers.inputs import (
    DOMAIN,
    add,
    expect_pairs,
    expect_refused_or_pairs,
    learn,
    pairs,
    prepare,
    turn,
)
from meetara_build.graph import load
from meetara_build.graph.domain_similarity import similar_domains

PAIRS = pairs()


def lines(place: Place, name: str, records: Sequence[Mapping[str, Any]]) -> Path:
    """A file of records in the case's own folder."""
    return place.write_lines(place.folder / name, records)


@case(
    "2",
    "a question and its answer as lists of messages are turns of their roles, system text and all",
)
def messages_on_both_sides(place: Place) -> None:
    kind = turn("system", "Answer as an old gardener.")
    records = [
        {"prompt": [kind, turn("user", q)], "completion": [turn("assistant", a)]} for q, a in PAIRS
    ]
    learnt = learn(place, lines(place, "trl.jsonl", records))
    expect_pairs(learnt, PAIRS)
    expect(all(chat[0] == kind for chat in learnt.chats), learnt.chats[0])


@case(
    "3a", "of a preference set the chosen answer is learnt, also where the rejected one is longer"
)
def preferences(place: Place) -> None:
    def bad(answer: str) -> str:
        return f"{answer} But I am not sure about any of that, and would rather talk about something else."

    flat = [{"prompt": q, "chosen": a, "rejected": bad(a)} for q, a in PAIRS]
    expect_pairs(learn(place, lines(place, "flat.jsonl", flat)), PAIRS)
    whole = [
        {
            "rejected": [turn("user", q), turn("assistant", bad(a))],
            "chosen": [turn("user", q), turn("assistant", a)],
        }
        for q, a in PAIRS
    ]
    expect_pairs(learn(place, lines(place, "whole.jsonl", whole)), PAIRS)
    named = [{"question": q, "rejected_response": bad(a), "chosen_response": a} for q, a in PAIRS]
    expect_refused_or_pairs(place, lines(place, "named.jsonl", named), PAIRS, "--response")


@case("6", "a first line sep=; as Excel writes it is no header, also behind a byte order mark")
def separator_line(place: Place) -> None:
    for name, start in (("plain.csv", b""), ("marked.csv", b"\xef\xbb\xbf")):
        path = place.folder / name
        with path.open("w", newline="", encoding="utf-8") as file:
            rows = csv.writer(file, delimiter=";")
            rows.writerows([("Question", "Answer"), *PAIRS])
        path.write_bytes(start + b"sep=;\r\n" + path.read_bytes())
        expect_pairs(learn(place, path), PAIRS)


@case("7", "quotation marks in a file of tabs are text: no lines run together, and none is lost")
def quotes_between_tabs(place: Place) -> None:
    right = [
        *PAIRS[3:],
        ('"Early girl', "is a tomato for short summers, sown in March and eaten in June."),
        ('What is a 6" pot good for?', '"Small" herbs, the kind that you cut every week.'),
        ("And what of the large pots?", 'Those are for "hungry" plants"'),
    ]
    for at in (0, 17, 37):
        order = [*right[-3:], *right[:-3]][at:] + [*right[-3:], *right[:-3]][:at]
        path = place.folder / f"quotes{at}.tsv"
        path.write_text(
            "".join(f"{q}\t{a}\n" for q, a in [("question", "answer"), *order]), encoding="utf-8"
        )
        expect_pairs(learn(place, path), right)


@case(
    "8a",
    "records below a key of one JSON document are read, or the command that mends the file is named",
)
def records_below_a_key(place: Place) -> None:
    for key in ("data", "examples"):
        path = place.folder / f"{key}.json"
        path.write_text(
            json.dumps({"version": "2", key: [{"question": q, "answer": a} for q, a in PAIRS]})
        )
        expect_refused_or_pairs(place, path, PAIRS, path.name, "jq ", key)


@case("8c", "a JSON array is read, on one line and indented")
def arrays(place: Place) -> None:
    records = [{"question": q, "answer": a} for q, a in PAIRS]
    for name, indent in (("one.json", None), ("indented.json", 2), ("one.jsonl", None)):
        path = place.folder / name
        path.write_text(json.dumps(records, indent=indent))
        expect_pairs(learn(place, path), PAIRS)


@case("9", "an answer in code keeps the indentation of its first line")
def indentation(place: Place) -> None:
    code = []
    for n, (q, a) in enumerate(PAIRS):
        body = f"    need = bed.size * {n + 2}\n\tif days > {n}:\n        return need\n    return {n}  # {a}"
        code.append((f"def water_{n}(bed, days):\n    # {q}", body))
    records = [{"prompt": q, "completion": a} for q, a in code]
    expect_pairs(learn(place, lines(place, "code.jsonl", records)), code)


@case(
    "10",
    "texts about garbled letters and about escape codes stay as they are, and mended ones are counted",
)
def right_texts_that_look_wrong(place: Place) -> None:
    about = [
        (
            "Why does my plant label read MÃ¶hre where I typed Möhre?",
            "Möhre was saved as UTF-8 and read as Latin-1: MÃ¶hre.",
        ),
        (
            "How do I print a plant's name in green?",
            "Write \x1b[32mbasil\x1b[0m, as in `printf '\x1b[32mbasil\x1b[0m'`.",
        ),
        ("What does cafÃ© stand for?", "For café, read in the wrong encoding."),
    ]
    right = [*PAIRS, *about]
    source = lines(place, "shell.jsonl", [{"prompt": q, "response": a} for q, a in right])
    expect_pairs(learn(place, source), right)
    garbled = [
        *PAIRS,
        ("Wann säe ich Möhren für den Herbst aus?".encode().decode("latin-1"), PAIRS[0][1]),
    ]
    project = place.project("garbled", built=True)
    expect_success(
        add(
            place,
            project,
            lines(place, "garbled.jsonl", [{"prompt": q, "response": a} for q, a in garbled]),
        )
    )
    learnt = prepare(place, project)
    card = json.loads((project / "artifacts" / DOMAIN / "dataset" / "card.json").read_text())
    was_told = sum(card.get("changed_texts", {}).values()) > 0
    expect(
        "Wann säe ich Möhren für den Herbst aus?" in dict(learnt.pairs) and was_told,
        (card, learnt.pairs[-1]),
    )


@case("17", "NaN, null and lists in columns beside question and answer cost no record")
def empty_optional_cells(place: Place) -> None:
    beside: list[dict[str, Any]] = [
        {"input": float("nan"), "category": float("nan")},
        {"input": None, "category": ["herbs", "pots"]},
        {"input": "", "category": None},
        {"input": "NaN", "category": "herbs"},
    ]
    records = [{"instruction": q, **beside[n % 3], "output": a} for n, (q, a) in enumerate(PAIRS)]
    expect_pairs(learn(place, lines(place, "alpaca.jsonl", records)), PAIRS)
    table = pyarrow.table(
        {
            "instruction": [q for q, _ in PAIRS],
            "input": pyarrow.array([float("nan")] * len(PAIRS)),
            "output": [a for _, a in PAIRS],
            "category": pyarrow.array([float("nan")] * len(PAIRS)),
        }
    )
    pyarrow.parquet.write_table(table, place.folder / "alpaca.parquet")
    expect_pairs(learn(place, place.folder / "alpaca.parquet"), PAIRS)


def parquet(place: Place, name: str, **columns: Any) -> Path:
    """A Parquet file with these columns."""
    path = place.folder / name
    pyarrow.parquet.write_table(pyarrow.table(columns), path)
    return path


@case("18", "conversations whose turns are maps, as Spark writes them, are conversations")
def maps(place: Place) -> None:
    chats = [
        [[("role", "user"), ("content", q)], [("role", "assistant"), ("content", a)]]
        for q, a in PAIRS
    ]
    turns = pyarrow.array(chats, pyarrow.list_(pyarrow.map_(pyarrow.string(), pyarrow.string())))
    expect_pairs(learn(place, parquet(place, "spark.parquet", messages=turns)), PAIRS)


@case("18b", "texts that Parquet holds as bytes are texts")
def binary(place: Place) -> None:
    columns = [
        pyarrow.array([text.encode() for text in column], pyarrow.binary())
        for column in zip(*PAIRS, strict=True)
    ]
    expect_pairs(
        learn(place, parquet(place, "bytes.parquet", question=columns[0], answer=columns[1])), PAIRS
    )


@case("18c", "texts that Parquet holds by a dictionary are texts")
def dictionary(place: Place) -> None:
    columns = [pyarrow.array(column).dictionary_encode() for column in zip(*PAIRS, strict=True)]
    expect_pairs(
        learn(place, parquet(place, "coded.parquet", question=columns[0], answer=columns[1])), PAIRS
    )


@case("19", "a number is an answer, guessed and given")
def numbers(place: Place) -> None:
    records = [{"question": q, "answer": 7919 * n + 3} for n, (q, _) in enumerate(PAIRS)]
    right = [(record["question"], str(record["answer"])) for record in records]
    expect_pairs(learn(place, lines(place, "guessed.jsonl", records)), right)
    given = ("--prompt", "question", "--response", "answer")
    expect_pairs(learn(place, lines(place, "given.jsonl", records), *given), right)


@case("23", "a compressed JSONL file is read; other archives are named as what they are")
def compressed(place: Place) -> None:
    plain = lines(
        place, "plain.jsonl", [{"question": q, "answer": a} for q, a in PAIRS]
    ).read_bytes()
    path = place.folder / "small.jsonl.gz"
    path.write_bytes(gzip.compress(plain))
    expect_pairs(learn(place, path), PAIRS)
    path = place.folder / "named_wrong.jsonl"
    path.write_bytes(gzip.compress(plain))
    expect_refused_or_pairs(place, path, PAIRS, "gzip")
    path = place.folder / "other.jsonl"
    path.write_bytes(b"PK\x03\x04" + gzip.compress(plain))
    said = add(place, place.project(), path)
    expect_refusal(said, "zip")
    expect("iconv" not in said.text and "WINDOWS" not in said.text, said.text)


@case("24", "a CSV file whose lines end as a Mac's once did is read")
def old_line_ends(place: Place) -> None:
    path = place.folder / "mac.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\r").writerows([("Question", "Answer"), *PAIRS])
    expect_pairs(learn(place, path), PAIRS)


@case("26", "a turn whose weight is 0 is kept, and not learnt")
def weights(place: Place) -> None:
    draft = "Just guess, nobody will know."
    records = [
        {
            "messages": [
                turn("user", q),
                turn("assistant", draft, weight=0),
                turn("user", "Better?"),
                turn("assistant", a, weight=1),
            ]
        }
        for q, a in PAIRS
    ]
    for chat in learn(place, lines(place, "weights.jsonl", records)).chats:
        off = [
            one["content"]
            for one in chat
            if one["role"] == "assistant" and one.get("learn") is False
        ]
        expect(off == [draft] and chat[-1].get("learn", True), chat)


def expect_named_faults(place: Place, source: Path, count: int, *words: str) -> None:
    """Records that text cannot teach are told, at the latest by ``data check``, and the others are
    learnt."""
    project = place.project(f"project-{source.name}", built=True)
    added = add(place, project, source)
    told = added.text if added.code else place.run(project, "data", "check", DOMAIN).text
    missing = [word for word in words if word not in told]
    expect(not missing and "Traceback" not in told, f"{missing} not in {told}")
    if not added.code:
        kept = prepare(place, project).pairs
        expect(len(kept) == len(PAIRS) - count, f"{len(kept)} kept")


@case("26b", "records with tool calls are faults by line, and no half of them is learnt")
def tool_calls(place: Place) -> None:
    call = {
        "id": "c1",
        "type": "function",
        "function": {"name": "look_up_frost", "arguments": '{"town": "Ulm"}'},
    }
    records: list[dict[str, Any]] = [
        {"messages": [turn("user", q), turn("assistant", a)]} for q, a in PAIRS
    ]
    records[7]["messages"][1] = turn("assistant", "Let me see.", tool_calls=[call])
    expect_named_faults(
        place, lines(place, "calls.jsonl", records), 1, "calls.jsonl", "8", "tool_calls"
    )
    described = [
        {**record, "tools": [{"type": "function", "function": {"name": "look_up_frost"}}]}
        for record in records[:1]
    ]
    expect_named_faults(
        place,
        lines(place, "tools.jsonl", [*described, *records[1:7], *records[8:]]),
        2,
        "tools.jsonl",
        "tools",
    )


@case(
    "26c",
    "records with pictures are faults by line, and nothing is learnt of a picture that nobody saw",
)
def pictures(place: Place) -> None:
    records: list[dict[str, Any]] = [
        {"conversations": [{"from": "human", "value": q}, {"from": "gpt", "value": a}]}
        for q, a in PAIRS
    ]
    records[4]["conversations"][0]["value"] = "<image>\nWhich weed is this?"
    records[4]["image"] = "beds/00017.png"
    expect_named_faults(place, lines(place, "seen.jsonl", records), 1, "seen.jsonl", "5", "image")


@case("30", "a key or a column that stands twice is told, and none of the two wins in silence")
def twice(place: Place) -> None:
    path = place.folder / "twice.jsonl"
    text = [json.dumps({"question": q, "answer": a}) for q, a in PAIRS]
    text[11] = f'{text[11][:-1]}, "answer": "Another one."}}'
    path.write_text("\n".join(text) + "\n")
    expect_named_faults(place, path, 1, "twice.jsonl", "12", "answer", "twice")
    schema = pyarrow.schema(
        [("question", pyarrow.string()), ("answer", pyarrow.string()), ("answer", pyarrow.string())]
    )
    questions, answers = [q for q, _ in PAIRS], [a for _, a in PAIRS]
    table = pyarrow.Table.from_arrays(
        [pyarrow.array(column) for column in (questions, answers, answers[::-1])], schema=schema
    )
    pyarrow.parquet.write_table(table, place.folder / "twice.parquet")
    expect_refusal(
        add(place, place.project(), place.folder / "twice.parquet"), "twice.parquet", "answer"
    )


@case("35", "the same records are alike whatever files hold them")
def likeness(place: Place) -> None:
    project = place.project()
    records = [{"prompt": q, "response": a} for q, a in PAIRS]
    folder = project / "conf" / "domain"
    place.write_lines(folder / "flat.jsonl", records)
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(records), folder / "table.parquet")
    (folder / "shards").mkdir()
    for part in range(4):
        place.write_lines(folder / "shards" / f"part-{part}.jsonl", records[part::4])
    datasets.disable_progress_bars()
    datasets.Dataset.from_list(records).save_to_disk(folder / "saved", num_shards=2)
    about = {
        "category": "own",
        "description": "Plants",
        "topics": [],
        "languages": ["en"],
        "safety": "standard",
    }
    about |= {"evaluation": {"beat_base_by": 0.0}, "quants": ["F16"]}
    for name, path in (
        ("flat", "flat.jsonl"),
        ("columns", "table.parquet"),
        ("shards", "shards"),
        ("saved", "saved"),
    ):
        write_yaml(folder / f"{name}.yaml", {**about, "sources": [{"path": path}]})
    graph = load(project)
    alike = {other.domain: other.similarity for other in similar_domains(graph, "flat", count=9)}
    right = (
        all(alike.get(name, 0) > 0.97 for name in ("columns", "shards", "saved"))
        and alike.get("nutrition", 1) < 0.9
    )
    expect(right, alike)
