"""data check, verify and doctor."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from commands import damage, models, outcomes
from fast_stages import build as fast_build
from fast_stages import fast_project
from projects import (
    REPOSITORY,
    choose,
    copy_built,
    edit,
    override,
    read_yaml,
    small_project,
    write_yaml,
)
from small_models import train_tokenizer

from meetara_build.cli import checking
from meetara_build.cli.checking import check_data
from meetara_build.errors import ConfigError
from meetara_build.graph import load


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
    """``checked(records)``: whether all is well with a domain of these records, and what `data check` prints; its base is a folder
    with a tokenizer, and nothing is built."""
    train_tokenizer(tmp_path)
    project = small_project(tmp_path / "project", ("storytelling",))
    about = {
        "description": "Mine",
        "licence": "mit",
        "chat_template": "chatml",
        "parameters": 100_000,
    }
    write_yaml(project / "conf" / "base" / "own.yaml", {**about, "folder": str(tmp_path)})
    choose(project, base="own")
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
        well = check_data([], as_json=as_json)
        return well, capsys.readouterr().out

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
    assert check_data([], as_json=False)
    said = capsys.readouterr().out
    assert said.startswith(
        "base mini is not here yet, so no lengths were measured: `meetara-build build` drops records"
    )
    assert said.endswith("1 domains read, 0 faults\n")


def test_a_finished_build_is_verified(built_project: Path, command: Any) -> None:
    done = command(built_project, "verify")
    assert done.returncode == 0
    assert done.stdout.endswith(" artifacts checked, 0 faults\n")


def test_nothing_built_is_nothing_to_verify(project: Path, command: Any) -> None:
    shutil.rmtree(project / "artifacts")
    done = command(project, "verify")
    assert done.returncode == 1
    assert "nothing built yet; run `meetara-build build`" in done.stderr


@pytest.mark.parametrize("words", [["nutrition"], []])
def test_a_changed_byte_is_found_by_file(project: Path, command: Any, words: list[str]) -> None:
    model = project / "artifacts" / "nutrition" / "gguf" / "nutrition-Q8_0.gguf"
    damage(model)
    done = command(project, "verify", *words)
    assert done.returncode == 1
    assert f"{model}: its content is not what was built" in done.stdout
    assert done.stdout.endswith("1 faults; mend it with `meetara-build verify --repair`\n")
    content = json.loads(command(project, "verify", *words, "--json").stdout)
    assert list(content["faults"]) == ["nutrition/gguf"]
    assert command(project, "verify", "programming").returncode == 0


def test_repair_brings_back_what_was_built(snakemade: Path, tmp_path: Path, command: Any) -> None:
    """A model of a domain and a file of the base, the store's own copy of the model damaged with it."""
    project = copy_built(snakemade, tmp_path / "project")
    before = models(project)
    model = project / "artifacts" / "nutrition" / "gguf" / "nutrition-Q8_0.gguf"
    for path in (project / "artifacts" / "store" / "blobs").rglob("*"):
        if path.is_file() and path.stat().st_ino == model.stat().st_ino:
            damage(path)
    damage(model)
    (project / "artifacts" / "base" / "mini" / "config.json").unlink()
    done = command(project, "verify", "--repair")
    assert done.returncode == 0, done.stderr
    assert models(project) == before
    assert command(project, "verify").returncode == 0
    assert ("gguf", "nutrition", "built") in outcomes(project)
    assert ("base", "base/mini", "restored") in outcomes(project)


def test_a_base_is_verified_by_its_name(project: Path, command: Any) -> None:
    assert command(project, "verify", "base/mini").returncode == 0
    damage(project / "artifacts" / "base" / "mini" / "model.safetensors")
    done = command(project, "verify", "base/mini")
    assert done.returncode == 1
    assert "model.safetensors: its content is not what was built" in done.stdout
    assert command(project, "verify", "base/tiny").returncode == 1


def test_the_message_about_a_damaged_base_names_a_command_that_works(
    project: Path, command: Any
) -> None:
    damage(project / "artifacts" / "base" / "mini" / "model.safetensors")
    shutil.rmtree(project / "artifacts" / "store")
    said = command(project, "stage", "adapter", "nutrition").stderr
    assert "repair it with `meetara-build verify --repair base/mini`" in said
    assert "model.safetensors" in command(project, "verify", "base/mini").stdout


def test_an_action_that_is_another_work_s_is_named_and_dropped(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(project)
    actions = sorted((project / "artifacts" / "store" / "actions").rglob("*.json"))
    actions[0].unlink()
    shutil.copy(actions[1], actions[0])
    assert not checking.verify([], None, repair=False, as_json=True)
    assert json.loads(capsys.readouterr().out)["faults"] == {
        "store": [f"{actions[0]}: its content is not what was stored"]
    }
    assert checking.verify([], None, repair=True, as_json=True)
    assert not actions[0].exists()


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with a profile for a larger machine, with which all was built."""
    project = fast_project(tmp_path / "project")
    shutil.copytree(
        project / "conf" / "profile" / "local", project / "conf" / "profile" / "cluster"
    )
    (profile,) = (project / "conf" / "profile" / "cluster").glob("config*.yaml")
    profile.write_text(profile.read_text() + "config: [hardware=big]\n")
    choose(project, hardware="big")
    fast_build(project)
    choose(project)
    monkeypatch.chdir(project)
    return project


def test_what_was_built_for_another_machine_is_repaired_with_its_profile(elsewhere: Path) -> None:
    graph = load(elsewhere)
    assert checking._profile_of(graph) == "cluster"
    override(elsewhere, "nutrition", {"training.epochs": 3})
    assert checking._profile_of(load(elsewhere)) == "cluster", (
        "an edit since then is no other machine"
    )
    shutil.rmtree(elsewhere / "artifacts")
    assert checking._profile_of(graph) == "local"


def test_where_several_profiles_are_for_that_machine_one_has_to_be_named(elsewhere: Path) -> None:
    shutil.copytree(
        elsewhere / "conf" / "profile" / "cluster", elsewhere / "conf" / "profile" / "cloud"
    )
    card = elsewhere / "artifacts" / "nutrition" / "package" / "README.md"
    damage(card)
    said = "was built for big; say where to build it again: --profile cloud or --profile cluster"
    with pytest.raises(ConfigError, match=said):
        checking.verify(["nutrition"], None, repair=True, as_json=True)
    assert card.with_name("manifest.json").exists(), "nothing is forgotten before that"


@pytest.fixture
def package(built_project: Path, tmp_path: Path) -> Path:
    """A package's folder, handed to someone who has no project."""
    folder = tmp_path / "handed" / "nutrition"
    shutil.copytree(built_project / "artifacts" / "nutrition" / "package", folder)
    for path in (built_project / "artifacts" / "nutrition" / "gguf").glob("*.gguf"):
        shutil.copyfile(path, folder / path.name)
    sums = (folder / "SHA256SUMS").read_text().replace("../gguf/", "")
    (folder / "SHA256SUMS").chmod(0o644)
    (folder / "SHA256SUMS").write_text(sums)
    return folder


def test_a_folder_is_verified_against_its_sums_anywhere(package: Path, command: Any) -> None:
    assert (
        command(package.parent, "verify", "nutrition").stdout == "1 artifacts checked, 0 faults\n"
    )
    damage(package / "nutrition-Q8_0.gguf")
    (package / "Modelfile").unlink()
    done = command(package.parent, "verify", "nutrition")
    assert done.returncode == 1
    assert "nutrition-Q8_0.gguf: its content is not what was built" in done.stdout
    assert "Modelfile: missing" in done.stdout


def test_sums_that_are_none_are_refused_by_line(package: Path, command: Any) -> None:
    (package / "SHA256SUMS").write_text("abc  Modelfile\n")
    done = command(package.parent, "verify", "nutrition")
    assert done.returncode == 1
    assert "SHA256SUMS:1: not a line of sha256sum" in done.stderr
    done = command(package.parent, "verify", "./elsewhere")
    assert (
        "SHA256SUMS: cannot be read; name a folder that `package` made, or a domain" in done.stderr
    )


def test_the_doctor_names_each_part_and_how_to_mend_it(
    built_project: Path, tmp_path: Path, command: Any
) -> None:
    done = command(built_project, "doctor", "--json", XDG_CONFIG_HOME=str(tmp_path))
    content = json.loads(done.stdout)
    checks = {check["name"]: check for check in content["checks"]}
    assert {"Python", "torch", "llama.cpp", "configuration", "profiles", "memory", "disk"} <= set(
        checks
    )
    assert checks["configuration"]["found"].startswith("3 domains, ")
    assert checks["profiles"]["mend"].startswith("run `meetara-build profiles install`")
    assert (done.returncode, content["well"]) == (1, False)
    said = command(built_project, "doctor", XDG_CONFIG_HOME=str(tmp_path)).stdout
    assert "→ run `meetara-build profiles install`" in said


def test_the_doctor_is_content_once_profiles_are_installed(
    built_project: Path, tmp_path: Path, command: Any
) -> None:
    assert (
        command(built_project, "profiles", "install", XDG_CONFIG_HOME=str(tmp_path)).returncode == 0
    )
    checks = json.loads(
        command(built_project, "doctor", "--json", XDG_CONFIG_HOME=str(tmp_path)).stdout
    )["checks"]
    assert [check["mend"] for check in checks if check["name"] == "profiles"] == [None]


def test_the_doctor_of_a_broken_project_names_the_fault(project: Path, command: Any) -> None:
    (project / "conf" / "domain" / "nutrition.yaml").write_text("category: [")
    done = command(project, "doctor")
    assert done.returncode == 1
    assert "nutrition.yaml" in done.stdout
    assert "mend the file it names" in done.stdout
