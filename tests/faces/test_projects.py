"""init, add-domain and profiles install."""

import csv
import json
import os
import shlex
from pathlib import Path
from typing import Any

import pytest
from projects import DOMAINS, read_yaml, small_project

from meetara_build.errors import ConfigError, DataError
from meetara_build.faces.projects import add_domain, init
from meetara_build.graph import load
from meetara_build.resolve import Configuration

RESERVED = ("base", "store", "logs", "all_domains", "package", "dataset", "report")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A table of questions and answers, its columns named in someone's own way."""
    path = tmp_path / "faq.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(["id", "Question", "Answer"])
        rows.writerows(
            (n, f"How do I do thing number {n}?", f"Take tool {n}, and turn it {n} times.") for n in range(40)
        )
    return path


@pytest.fixture
def fresh(tmp_path: Path) -> Path:
    """A project in which nothing is built."""
    return small_project(tmp_path / "project")


def test_a_new_project_holds_all_that_a_build_needs(tmp_path: Path, command: Any) -> None:
    done = command(tmp_path, "init", "models")
    assert done.returncode == 0
    assert "cd models" in done.stdout
    folder = tmp_path / "models"
    assert {path.name for path in folder.iterdir()} == {".gitignore", "Snakefile", "conf", "plugins", "rules"}
    assert len(load(folder).domains) == 62
    assert "artifacts/" in (folder / ".gitignore").read_text()
    assert not list(folder.rglob("__pycache__"))


def test_an_empty_folder_may_become_a_project(tmp_path: Path, command: Any) -> None:
    (tmp_path / "models").mkdir()
    assert command(tmp_path / "models", "init", ".").returncode == 0
    assert (tmp_path / "models" / "Snakefile").exists()


def test_a_folder_that_holds_something_is_left_alone(tmp_path: Path, command: Any) -> None:
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "precious").write_text("mine")
    (tmp_path / "file").write_text("mine")
    for name in ("models", "file"):
        done = command(tmp_path, "init", name)
        assert done.returncode == 1
        assert f"{name}: is there already and not empty; name a new folder" in done.stderr
    assert [path.name for path in (tmp_path / "models").iterdir()] == ["precious"]


def test_a_project_that_cannot_be_written_is_one_message(tmp_path: Path, command: Any) -> None:
    (tmp_path / "file").write_text("")
    done = command(tmp_path, "init", "file/models")
    assert done.returncode == 1
    assert done.stderr.startswith("meetara-build: ")
    assert "Traceback" not in done.stderr


def test_a_domain_is_added_from_a_file_with_its_columns_guessed(fresh: Path, data: Path, command: Any) -> None:
    done = command(fresh, "add-domain", "repairs", "--from", str(data))
    assert done.returncode == 0, done.stderr
    assert "Next: meetara-build data check repairs, meetara-build build repairs" in done.stdout
    content = read_yaml(fresh / "conf" / "domain" / "repairs.yaml")
    assert content["sources"][0]["columns"] == {"prompt": "Question", "response": "Answer"}
    assert "repairs" in load(fresh).domains
    assert command(fresh, "data", "check", "repairs").returncode == 0


def test_given_columns_win_over_guesses(fresh: Path, data: Path, command: Any) -> None:
    done = command(
        fresh, "add-domain", "repairs", "--from", str(data), "--prompt", "Answer", "--response", "Question",
        "--category", "home", "--description", "Repairs at home", "--json",
    )  # fmt: skip
    domain = json.loads(done.stdout)["domain"]
    assert domain["sources"][0]["columns"] == {"prompt": "Answer", "response": "Question"}
    assert (domain["category"], domain["description"]) == ("home", "Repairs at home")


def test_a_column_that_looks_like_a_number_is_written_as_a_name(
    fresh: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = ["1e3,Answer", *(f"How do I do thing {n}?,Take tool {n}; turn it {n} times." for n in range(40))]
    (tmp_path / "faq.csv").write_text("\n".join(rows), encoding="utf-8")
    monkeypatch.chdir(fresh)
    add_domain(
        "repairs", tmp_path / "faq.csv",
        description="1e9", category="home", prompt="1e3", response="Answer", as_json=True,
    )  # fmt: skip
    assert Configuration(fresh).domain("repairs").description == "1e9"
    assert "repairs" in load(fresh).domains


@pytest.mark.parametrize("name", ["x" * 65, "x" * 300])
def test_a_name_that_no_folder_rule_and_report_can_have_is_refused(
    fresh: Path, data: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(fresh)
    with pytest.raises(ConfigError, match=r"cannot name a domain; use lower-case letters, digits and _, .* 64 at most"):
        add_domain(name, data, description=None, category="home", prompt=None, response=None, as_json=True)


def test_a_pipe_is_no_data_file(fresh: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.mkfifo(tmp_path / "pipe.csv")
    monkeypatch.chdir(fresh)
    with pytest.raises(DataError, match=r"pipe\.csv: no regular file; name a JSONL, CSV or Parquet file"):
        add_domain(
            "repairs", tmp_path / "pipe.csv",
            description=None, category="home", prompt=None, response=None, as_json=True,
        )  # fmt: skip


def test_the_way_into_a_new_project_is_printed_as_a_shell_takes_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    init(tmp_path / "my models/it's {x}")
    line = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("  cd "))
    assert shlex.split(line) == ["cd", f"{tmp_path}/my models/it's {{x}}"]


def test_a_taken_name_is_refused_and_its_file_left_alone(fresh: Path, data: Path, command: Any) -> None:
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
    assert f"'{name}' cannot name a domain; use lower-case letters, digits and _, such as 'my_domain'" in done.stderr


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


def test_profiles_are_linked_to_where_snakemake_looks(fresh: Path, tmp_path: Path, command: Any) -> None:
    for _ in range(2):
        done = command(fresh, "profiles", "install", XDG_CONFIG_HOME=str(tmp_path / "config"))
        assert done.returncode == 0, done.stderr
    link = tmp_path / "config" / "snakemake" / "local"
    assert link.resolve() == fresh / "conf" / "profile" / "local"
    assert (link / "config.yaml").exists()


def test_a_profile_of_the_user_s_own_is_left_alone(fresh: Path, tmp_path: Path, command: Any) -> None:
    own = tmp_path / "config" / "snakemake" / "local"
    own.mkdir(parents=True)
    done = command(fresh, "profiles", "install", XDG_CONFIG_HOME=str(tmp_path / "config"))
    assert done.returncode == 1
    assert f"{own}: a profile of yours has this name; rename it, or use `--profile conf/profile/local`" in done.stderr
    assert own.is_dir()
    assert not own.is_symlink()
