"""add-domain: a data file becomes a domain, and what will be learnt of it is shown."""

import contextlib
import csv
import json
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from projects import DOMAINS, REPOSITORY, choose, read_yaml, small_project, write_yaml
from small_models import train_tokenizer

from meetara_build.cli.add_domain import add_domain
from meetara_build.config.resolve import Configuration
from meetara_build.errors import ConfigError, DataError
from meetara_build.graph import load

RESERVED = ("base", "store", "logs", "all_domains", "package", "dataset", "report")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A table of questions and answers, its columns named in someone's own way."""
    path = tmp_path / "faq.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(["id", "Question", "Answer"])
        rows.writerows(
            (n, f"How do I do thing number {n}?", f"Take tool {n}, and turn it {n} times.")
            for n in range(40)
        )
    return path


@pytest.fixture
def fresh(tmp_path: Path) -> Path:
    """A project in which nothing is built."""
    return small_project(tmp_path / "project")


def test_a_domain_is_added_from_a_file_with_its_columns_guessed(
    fresh: Path, data: Path, command: Any
) -> None:
    done = command(fresh, "add-domain", "repairs", "--from", str(data))
    assert done.returncode == 0, done.stderr
    assert "Next: meetara-build data check repairs, meetara-build build repairs" in done.stdout
    content = read_yaml(fresh / "conf" / "domain" / "repairs.yaml")
    assert content["sources"][0]["columns"] == {"prompt": "Question", "response": "Answer"}
    assert "repairs" in load(fresh).domains
    assert command(fresh, "data", "check", "repairs").returncode == 0


def test_given_columns_win_over_guesses(fresh: Path, data: Path, command: Any) -> None:
    done = command(
        fresh,
        "add-domain",
        "repairs",
        "--from",
        str(data),
        "--prompt",
        "Answer",
        "--response",
        "Question",
        "--category",
        "home",
        "--description",
        "Repairs at home",
        "--json",
    )
    domain = json.loads(done.stdout)["domain"]
    assert domain["sources"][0]["columns"] == {"prompt": "Answer", "response": "Question"}
    assert (domain["category"], domain["description"]) == ("home", "Repairs at home")


def test_a_column_that_looks_like_a_number_is_written_as_a_name(
    fresh: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [
        "1e3,Answer",
        *(f"How do I do thing {n}?,Take tool {n}; turn it {n} times." for n in range(40)),
    ]
    (tmp_path / "faq.csv").write_text("\n".join(rows), encoding="utf-8")
    monkeypatch.chdir(fresh)
    add_domain(
        "repairs",
        tmp_path / "faq.csv",
        description="1e9",
        category="home",
        prompt="1e3",
        response="Answer",
        as_json=True,
    )
    assert Configuration(fresh).resolve("repairs").domain.description == "1e9"
    assert "repairs" in load(fresh).domains


def test_a_dollar_in_a_column_or_a_description_is_no_interpolation(
    fresh: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [
        "ask ${q},Answer",
        *(f"How do I do thing {n}?,Take tool {n}; turn it {n} times." for n in range(40)),
    ]
    (tmp_path / "faq.csv").write_text("\n".join(rows), encoding="utf-8")
    monkeypatch.chdir(fresh)
    said = r"Costs of ${oc.env:HOME} and C:\${x}"
    add_domain("repairs", tmp_path / "faq.csv", description=said, category="home", as_json=True)
    domain = Configuration(fresh).resolve("repairs").domain
    assert domain.description == said
    assert domain.sources[0].columns["prompt"] == "ask ${q}"
    assert "repairs" in load(fresh).domains


@pytest.mark.parametrize("name", ["x" * 65, "x" * 300])
def test_a_name_that_no_folder_rule_and_report_can_have_is_refused(
    fresh: Path, data: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(fresh)
    with pytest.raises(
        ConfigError,
        match=r"cannot name a domain; use lower-case letters, digits and _, .* 64 at most",
    ):
        add_domain(name, data)


def test_a_pipe_is_no_data_file(
    fresh: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    os.mkfifo(tmp_path / "pipe.csv")
    monkeypatch.chdir(fresh)
    with pytest.raises(
        DataError, match=r"pipe\.csv: no regular file; name a JSONL, CSV or Parquet file"
    ):
        add_domain("repairs", tmp_path / "pipe.csv")


def test_a_taken_name_is_refused_and_its_file_left_alone(
    fresh: Path, data: Path, command: Any
) -> None:
    path = fresh / "conf" / "domain" / f"{DOMAINS[0]}.yaml"
    before = path.read_bytes()
    done = command(fresh, "add-domain", DOMAINS[0], "--from", str(data))
    assert done.returncode == 1
    assert f"{path}: this domain is there already; edit it, or choose another name" in done.stderr
    assert path.read_bytes() == before


@pytest.mark.parametrize("name", ["Repairs", "my-domain", "1st", "a b", "../up", *RESERVED])
def test_a_name_that_cannot_be_is_refused(fresh: Path, data: Path, command: Any, name: str) -> None:
    done = command(fresh, "add-domain", name, "--from", str(data))
    assert done.returncode == 1
    advice = (
        "a word that is none of adapter, "
        if name in RESERVED
        else "lower-case letters, digits and _, such as 'my_domain'"
    )
    assert f"'{name}' cannot name a domain; use {advice}" in done.stderr


def test_a_missing_file_is_refused(fresh: Path, command: Any) -> None:
    done = command(fresh, "add-domain", "repairs", "--from", "nowhere.csv")
    assert done.returncode == 1
    assert "nowhere.csv: no such file; name a JSONL, CSV or Parquet file" in done.stderr
    assert not (fresh / "conf" / "domain" / "repairs.yaml").exists()


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("empty.jsonl", b""),
        ("prose.txt", b"Once upon a time.\n"),
        ("binary.jsonl", b"\xff\xfe\x00\x01" * 40),
        ("one.csv", b"only\none\ncolumn\n"),
        ("fake.parquet", b"PAR1 no more"),
        ("list.jsonl", b"[1, 2, 3]\n"),
    ],
)
def test_a_file_without_questions_and_answers_is_refused(
    fresh: Path, tmp_path: Path, command: Any, name: str, content: bytes
) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    done = command(fresh, "add-domain", "repairs", "--from", str(path))
    assert done.returncode == 1
    assert name in done.stderr
    assert "unexpected" not in done.stderr
    assert not (fresh / "conf" / "domain" / "repairs.yaml").exists()


# What add-domain shows


Add = Callable[..., tuple[list[str], dict[str, Any]]]


def pairs(count: int, times: int = 1) -> list[dict[str, str]]:
    """English questions, each with its answer so many times over."""
    lines = (
        (REPOSITORY / "conf" / "domain" / "storytelling.jsonl")
        .read_text(encoding="utf-8")
        .splitlines()
    )
    found = [json.loads(line) for line in lines[:count]]
    return [
        {"prompt": one["prompt"], "response": " ".join([one["response"]] * times)} for one in found
    ]


@pytest.fixture(scope="module")
def on_a_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project whose base is a folder with a tokenizer, so that lengths can be measured before
    anything is built."""
    folder = tmp_path_factory.mktemp("base")
    train_tokenizer(folder)
    project = small_project(tmp_path_factory.mktemp("shown") / "project")
    about = {
        "description": "Mine",
        "licence": "mit",
        "chat_template": "chatml",
        "parameters": 100_000,
    }
    write_yaml(project / "conf" / "base" / "own.yaml", {**about, "folder": str(folder)})
    choose(project, base="own")
    return project


@pytest.fixture
def add(
    on_a_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Iterator[Add]:
    """``add(content, name)``: what add-domain prints for a file with this content, and the domain's
    file."""
    path = on_a_folder / "conf" / "domain" / "new.yaml"

    def added(
        content: Any, name: str = "new.jsonl", **given: Any
    ) -> tuple[list[str], dict[str, Any]]:
        file = tmp_path / name
        if isinstance(content, list):
            content = "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in content)
        file.write_text(content, encoding="utf-8")
        monkeypatch.chdir(on_a_folder)
        add_domain("new", file, **given)
        return capsys.readouterr().out.splitlines(), read_yaml(path)

    yield added
    path.unlink(missing_ok=True)


def test_three_records_are_shown_as_they_will_be_learnt_with_what_is_learnt_marked(
    add: Add,
) -> None:
    code = [
        {**record, "response": f"    x = 1\n    return {record['response']}"}
        for record in pairs(32)
    ]
    lines, _ = add(code)
    shown = [line for line in lines if re.fullmatch(r"new\.jsonl:\d+:", line)]
    assert len(shown) == 3
    first, at = int(shown[0].split(":")[1]) - 1, lines.index(shown[0])
    answer = f"{pairs(32)[first]['response']}<|im_end|>"
    assert lines[at + 1 : at + 5] == [
        "    <|im_start|>user",
        f"    {code[first]['prompt']}<|im_end|>",
        "    <|im_start|>assistant",
        "  >     x = 1",
    ]
    assert lines[at + 5].startswith(f"  >     return {answer[:100]}")
    assert lines[-2:] == [
        "conf/domain/new.yaml written",
        "Next: meetara-build data check new, meetara-build build new",
    ]


def test_without_the_base_s_tokenizer_turns_are_shown_and_lengths_are_said_not_to_be_measured(
    fresh: Path, data: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(fresh)
    add_domain("repairs", data)
    said = capsys.readouterr().out
    turns = r"    user: How do I do thing number (\d+)\?\n  > assistant: Take tool \1, and turn it \1 times\.\n"
    assert len(re.findall(turns, said)) == 3
    assert "base mini is not here yet, so no lengths were measured" in said


def test_what_is_left_out_is_said_with_counts_and_keys(add: Add) -> None:
    records = [*pairs(28), *pairs(32, times=30)[28:]]
    lines, _ = add([*({**record, "url": "http://x.org"} for record in records), {"prompt": "who"}])
    assert "33 records read; columns that are not used: url" in lines
    assert (
        "5 of 33 records (15%) are left out: 4 too long (data.max_tokens 512), 1 bad (data.max_bad_share 0.05)"
        in lines
    )
    assert re.search(r"^  new\.jsonl +33 +response +is missing$", "\n".join(lines), re.MULTILINE)


def test_of_a_large_file_the_first_records_are_looked_at(
    add: Add, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("meetara_build.cli.new_data.LOOK_AT", 20)
    lines, content = add(pairs(32))
    assert "the first 20 records looked at" in lines
    assert "limit" not in content["sources"][0]


def test_data_that_a_build_would_refuse_are_said_to_be_refused_and_their_file_can_be_edited(
    add: Add,
) -> None:
    lines, content = add(pairs(5))
    assert (
        "as they are, a build refuses these data: the 5 usable records are too few to train, validate and test"
        in ("\n".join(lines))
    )
    assert content["sources"][0]["path"].endswith("new.jsonl")


@pytest.mark.parametrize(
    ("question", "answer", "languages"),
    [
        (
            "第{}个问题：番茄炒蛋怎么做才好吃？",
            "先把鸡蛋打散，再把番茄切块，最后一起翻炒{}分钟。",
            ["zh"],
        ),
        (
            "Wie repariere ich Sache Nummer {}?",
            "Nimm das Werkzeug {} und drehe es vorsichtig nach links.",
            ["de"],
        ),
        ("Reset {}?", "Hold {}.", ["en"]),
    ],
)
def test_the_languages_are_those_of_the_texts(
    add: Add, question: str, answer: str, languages: list[str]
) -> None:
    records = [
        {"prompt": question.format(n * 7919), "response": answer.format(n * 104729)}
        for n in range(40)
    ]
    lines, content = add(records)
    assert content["languages"] == languages
    assert f"languages: {languages[0]} (guessed by the texts)" in lines


def test_html_that_most_answers_hold_is_named_with_the_key_that_makes_it_text(add: Add) -> None:
    lines, _ = add([{**record, "response": f"<p>{record['response']}</p>"} for record in pairs(32)])
    assert (
        "32 of 32 answers hold HTML, which is learnt as it stands; data.html_to_text: true makes it text"
        in lines
    )


def test_a_format_can_be_given_where_the_name_does_not_say_it(add: Add) -> None:
    with pytest.raises(DataError, match="--format"):
        add(pairs(32), "new.txt")
    _, content = add(pairs(32), "new.txt", form="jsonl")
    assert content["sources"][0]["format"] == "jsonl"


def test_a_format_that_there_is_not_is_refused(add: Add) -> None:
    with pytest.raises(ConfigError, match="--format: unknown format 'jsn'; did you mean 'jsonl'"):
        add(pairs(32), "new.txt", form="jsn")


def test_columns_that_are_given_need_no_guess(add: Add) -> None:
    table = "a,b\n" + "".join(f"{n * 7919},{n * 104729}\n" for n in range(40))
    with pytest.raises(DataError, match="cannot tell which columns"):
        add(table, "new.csv")
    _, content = add(table, "new.csv", prompt="a", response="b")
    assert content["sources"][0]["columns"] == {"prompt": "a", "response": "b"}


def test_a_command_that_fails_while_it_prints_leaves_no_file(
    on_a_folder: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(on_a_folder)
    with (
        contextlib.suppress(OSError),
        Path("/dev/full").open("w", buffering=1) as full,
    ):  # closing it fails too
        monkeypatch.setattr("sys.stdout", full)
        with pytest.raises(OSError, match="No space left"):
            add_domain("broken", data)
        monkeypatch.undo()
    assert not (on_a_folder / "conf" / "domain" / "broken.yaml").exists()


def test_a_column_that_is_not_there_leaves_no_file(add: Add, on_a_folder: Path) -> None:
    with pytest.raises(DataError, match="no column 'reply'"):
        add(pairs(32), prompt="prompt", response="reply")
    assert not (on_a_folder / "conf" / "domain" / "new.yaml").exists()
