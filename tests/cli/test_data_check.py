"""data check: every bad record, what is left out, and what a build would refuse."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import typer
from projects import REPOSITORY, choose, edit, override, read_yaml, small_project, write_yaml
from small_models import train_tokenizer

from meetara_build.cli.data.check import check as check_data


def test_good_data_is_said_to_be_good(built_project: Path, command: Any) -> None:
    done = command(built_project, "data", "check")
    assert (done.returncode, done.stdout) == (0, "3 domains read, 0 faults\n")


def test_every_bad_record_is_listed_by_file_line_and_column(project: Path, command: Any) -> None:
    path = project / "conf" / "domain" / "nutrition.jsonl"
    lines = path.read_text(encoding="utf-8").splitlines()
    lines[2] = json.dumps({"prompt": "Is this a question?", "response": ""})
    lines[4] = "{not JSON"
    lines[6] = json.dumps({"prompt": "Where is the answer?"})
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    done = command(project, "data", "check", "nutrition")
    assert done.returncode == 1
    assert re.search(r"nutrition\.jsonl +3 +response ", done.stdout)
    assert re.search(r"nutrition\.jsonl +5 ", done.stdout)
    assert re.search(r"nutrition\.jsonl +7 +response +is missing", done.stdout)
    assert "3 faults" in done.stdout
    assert done.stdout.strip().endswith("mend the lines above")
    content = json.loads(command(project, "data", "check", "--json").stdout)
    assert content["checked"] == 3
    assert set(content["faults"]) == {"nutrition"}
    assert len(content["faults"]["nutrition"]) == 3


def test_data_that_cannot_be_read_at_all_is_named_and_the_others_are_still_checked(
    project: Path, command: Any
) -> None:
    path = project / "conf" / "domain" / "nutrition.yaml"
    write_yaml(path, {**read_yaml(path), "sources": [{"path": "table.parquet"}]})
    (path.parent / "table.parquet").write_text("no Parquet")
    content = json.loads(command(project, "data", "check", "--json").stdout)
    assert content["checked"] == 3
    assert set(content["errors"]) == {"nutrition"}
    assert "table.parquet" in content["errors"]["nutrition"]


Check = Callable[..., tuple[bool, str]]


@pytest.fixture
def checked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Check:
    """``checked(records)``: whether all is well with a domain of these records, and what
    `data check` prints; its base is a folder with a tokenizer, and nothing is built."""
    train_tokenizer(tmp_path)
    project = small_project(tmp_path / "project", ("storytelling",))
    about = {
        "description": "Mine",
        "licence": "mit",
        "chat_template": "chatml",
        "parameters": 100_000,
    }
    write_yaml(project / "conf" / "base" / "own.yaml", {**about, "folder": str(tmp_path)})
    choose(project, base="own", hardware="cpu")
    edit(project / "conf" / "domain" / "storytelling.yaml", "system_prompt", None)
    monkeypatch.chdir(project)
    capsys.readouterr()

    def check(
        records: list[dict[str, Any]], as_json: bool = False, **overrides: Any
    ) -> tuple[bool, str]:
        values = {key.replace("__", "."): value for key, value in overrides.items()}
        override(project, "storytelling", values)
        lines = [json.dumps(record, ensure_ascii=False) + "\n" for record in records]
        (project / "conf" / "domain" / "storytelling.jsonl").write_text(
            "".join(lines), encoding="utf-8"
        )
        try:
            check_data(as_json=as_json)
        except typer.Exit as end:
            return end.exit_code == 0, capsys.readouterr().out
        return True, capsys.readouterr().out

    return check


def pairs(count: int, times: int = 1) -> list[dict[str, Any]]:
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


def test_what_a_build_would_leave_out_is_said_by_reason_share_and_key_and_is_no_fault(
    checked: Check,
) -> None:
    well, said = checked([*pairs(32), *pairs(36, times=30)[32:], pairs(1)[0]])
    assert well
    assert said == (
        "storytelling: 5 of 37 records (14%) are left out: 4 too long (data.max_tokens 512), 1 duplicate\n"
        "1 domains read, 0 faults\n"
    )


@pytest.mark.parametrize(
    ("records", "overrides", "said"),
    [
        (
            pairs(5),
            {},
            "the 5 usable records are too few to train, validate and test: at least 8 are needed; add records",
        ),
        (
            [{"prompt": "Why?", "response": f"{n * 7919} {n}"} for n in range(5)] * 2,
            {},
            "5 of 10 records (50%) are left out: 5 duplicate; the 5 usable records are too few",
        ),
        (
            [*pairs(12), *pairs(32, times=30)[12:]],
            {},
            "20 of 32 records (62%) are left out: 20 too long (data.max_tokens 512). That is more than data.max_drop_share 0.5 allows",
        ),
        (
            pairs(32, times=30),
            {"data__max_drop_share": 1.0},
            "none of the 19 train records has between data.min_tokens 8 and",
        ),
        (
            pairs(32),
            {"data__drop": ["0123456789abcdef"]},
            "data.drop: 0123456789abcdef: the domain has no such record",
        ),
    ],
)
def test_what_a_build_would_refuse_is_refused_with_the_build_s_own_words(
    checked: Check, records: list[dict[str, Any]], overrides: dict[str, Any], said: str
) -> None:
    well, shown = checked(records, **overrides)
    assert not well
    assert f"storytelling: a build refuses these data: {said}" in shown
    assert shown.endswith("1 domains read, 1 faults; mend the lines above\n")


def test_programs_get_losses_and_refusals_too(checked: Check) -> None:
    well, shown = checked([*pairs(12), *pairs(32, times=30)[12:]], as_json=True)
    content = json.loads(shown)
    assert not well
    assert content["losses"] == {"storytelling": {"read": 32, "by_reason": {"too long": 20}}}
    assert "data.max_drop_share" in content["errors"]["storytelling"]
    assert content["faults"] == {}


def test_what_may_not_be_meant_is_said_and_is_no_fault(checked: Check) -> None:
    html = [{**record, "response": f"<p>{record['response']}</p>\r\n"} for record in pairs(31)]
    well, said = checked(
        [
            *html,
            {
                "prompt": "My export shows Ã© instead of é, why?",
                "response": "Choose another import filter.",
            },
        ]
    )
    assert well
    assert (
        "storytelling: 31 of 32 answers hold HTML, which is learnt as it stands; data.html_to_text: true"
        in said
    )
    assert (
        "storytelling: texts are changed (records): line ends in 31, newlines at the ends in 31; data.repair_text"
        in said
    )
    assert "stays as it is in 1 of 32 records (storytelling.jsonl:32 is the first)" in said


def test_records_in_a_language_that_the_domain_does_not_name_are_told_of(checked: Check) -> None:
    words = [
        "Haus",
        "Garten",
        "Straße",
        "Küche",
        "Brücke",
        "Fenster",
        "Wagen",
        "Schule",
        "Straßenbahn",
        "Zeitung",
    ]
    records = [
        {
            "prompt": f"Wie finde ich {a} neben {b}, wenn ich fremd bin?",
            "response": f"Frag nach {b} und geh zu {a}, dann links.",
        }
        for a in words
        for b in words[:3]
    ]
    said = checked(records, data__near_duplicate=1.0)[1]
    assert "30 of 30 records are in 'de', which the domain's `languages` does not name" in said


def test_where_the_base_is_not_here_lengths_are_said_not_to_be_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(small_project(tmp_path / "project", ("storytelling",)))
    capsys.readouterr()
    check_data()
    said = capsys.readouterr().out
    assert said.startswith(
        "base mini is not here yet, so no lengths were measured: `meetara-build build` drops records"
    )
    assert said.endswith("1 domains read, 0 faults\n")
