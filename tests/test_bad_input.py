"""What people get wrong, each through the real command line: one clear message that says what to
do, and nothing left that a later build would take for finished."""

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from commands import filled, outcomes, small_disk
from projects import choose, edit, override, read_yaml, small_project, write_yaml
from small_models import make_model, train_tokenizer

NUTRITION = Path("conf") / "domain" / "nutrition.yaml"
BUILD = Path("conf") / "build.yaml"

Complaint = Callable[..., str]


@pytest.fixture
def fresh(tmp_path: Path) -> Path:
    """A project in which nothing is built."""
    return small_project(tmp_path / "project")


@pytest.fixture
def complaint(command: Any) -> Complaint:
    """What a command complains of: exit code 1, nothing for programs to read, no traceback."""

    def complained(project: Path, *words: str) -> str:
        done = command(project, *words)
        assert done.returncode == 1, done.stdout + done.stderr
        assert "Traceback" not in done.stderr
        assert "unexpected" not in done.stderr
        assert done.stderr.startswith("meetara-build: ")
        said: str = done.stderr
        return said

    return complained


def replace(path: Path, old: str, new: str) -> int:
    """Replace a text that stands once in a file; its line."""
    text = path.read_text(encoding="utf-8")
    assert text.count(old) == 1
    path.write_text(text.replace(old, new), encoding="utf-8")
    return text[: text.index(old)].count("\n") + 1


@pytest.mark.parametrize(
    "command_words",
    [["plan"], ["build"], ["status"], ["data", "check"], ["stage", "dataset", "nutrition"]],
)
def test_a_typo_in_a_domain_s_file(
    fresh: Path, complaint: Complaint, command_words: list[str]
) -> None:
    line = replace(fresh / NUTRITION, "safety:", "saftey:")
    said = complaint(fresh, *command_words)
    assert f"{fresh / NUTRITION}:{line}: unknown key 'saftey'; did you mean 'safety'?" in said
    assert "key 'safety' is missing" in said  # all faults at once
    assert not (fresh / "artifacts").exists()


def test_a_typo_deep_in_build_yaml(fresh: Path, complaint: Complaint) -> None:
    line = replace(fresh / BUILD, "  warmup_share:", "  warmup_shre:")
    said = complaint(fresh, "plan")
    assert (
        f"{fresh / BUILD}:{line}: unknown key 'training.warmup_shre'; did you mean 'warmup_share'?"
        in said
    )


def test_a_typo_in_an_override(fresh: Path, complaint: Complaint) -> None:
    override(fresh, "nutrition", {"training.epoch": 3})
    said = complaint(fresh, "plan")
    assert str(fresh / NUTRITION) in said
    assert "unknown key 'training.epoch'; did you mean 'epochs'?" in said


def test_a_key_of_the_old_form(fresh: Path, complaint: Complaint) -> None:
    content = read_yaml(fresh / NUTRITION)
    write_yaml(fresh / NUTRITION, {**content, "overrides": {"training.epochs": 3}})
    line = 1 + (fresh / NUTRITION).read_text().splitlines().index("overrides:")
    said = complaint(fresh, "plan")
    assert f"{fresh / NUTRITION}:{line}: unknown key 'overrides'; begin the file with" in said
    assert "like `training: {epochs: 4}`" in said


@pytest.mark.parametrize("command_words", [("plan",), ("config", "nutrition")])
def test_a_variable_that_is_not_set(
    fresh: Path, complaint: Complaint, command_words: tuple[str, ...]
) -> None:
    edit(fresh / BUILD, "root", "${oc.env:NO_SUCH_SCRATCH}/a")
    line = 1 + (fresh / BUILD).read_text().splitlines().index("root: ${oc.env:NO_SUCH_SCRATCH}/a")
    said = complaint(fresh, *command_words)
    assert f"{fresh / BUILD}:{line}: root: '${{oc.env:NO_SUCH_SCRATCH}}/a' leads nowhere" in said
    assert "set the variable" in said
    assert not list(fresh.glob("$*"))


def test_a_value_of_the_wrong_kind(fresh: Path, complaint: Complaint) -> None:
    edit(fresh / BUILD, "training.epochs", "three")
    said = complaint(fresh, "plan")
    assert f"{fresh / BUILD}:" in said
    assert "training.epochs: " in said
    assert "'three'" in said


def test_an_override_of_the_wrong_kind_names_the_file_that_sets_it(
    fresh: Path, complaint: Complaint
) -> None:
    override(fresh, "nutrition", {"training.epochs": -3})
    said = complaint(fresh, "plan")
    assert str(fresh / NUTRITION) in said
    assert "training.epochs" in said


def test_yaml_that_is_none(fresh: Path, complaint: Complaint) -> None:
    line = replace(fresh / NUTRITION, "topics: [", "topics: [[")
    said = complaint(fresh, "plan")
    assert f"{fresh / NUTRITION}:" in said
    assert "not valid YAML" in said
    assert "mend that line" in said
    assert line


def test_a_key_that_stands_twice(fresh: Path, complaint: Complaint) -> None:
    path = fresh / NUTRITION
    path.write_text(path.read_text(encoding="utf-8") + "safety: standard\n", encoding="utf-8")
    line = len(path.read_text(encoding="utf-8").splitlines())
    assert f"{path}:{line}: key 'safety' stands twice; keep one of them" in complaint(fresh, "plan")


def test_an_unknown_quant_type(fresh: Path, complaint: Complaint) -> None:
    content = read_yaml(fresh / NUTRITION)
    write_yaml(fresh / NUTRITION, {**content, "quants": ["F16", "Q8_1"]})
    said = complaint(fresh, "build")
    assert f"{fresh / NUTRITION}:" in said
    assert "unknown quant type 'Q8_1'; did you mean 'Q8_0'?" in said


def test_a_missing_source(fresh: Path, complaint: Complaint) -> None:
    line = replace(fresh / NUTRITION, "path: nutrition.jsonl", "path: nutritoin.jsonl")
    said = complaint(fresh, "build", "nutrition")
    looked = fresh / "conf" / "domain" / "nutritoin.jsonl"
    assert (
        f"{fresh / NUTRITION}:{line}: source 'nutritoin.jsonl' is not there (looked at {looked}); mend the path"
        in said
    )


@pytest.mark.parametrize("name", ["base", "hardware"])
def test_an_unknown_base_or_machine(fresh: Path, complaint: Complaint, name: str) -> None:
    choose(fresh, **{name: "minni"})
    line = 1 + (fresh / BUILD).read_text().splitlines().index(f"- {name}: minni")
    assert f"{fresh / BUILD}:{line}: unknown {name} 'minni'" in complaint(fresh, "plan")


def test_an_unknown_domain_in_build_yaml(fresh: Path, complaint: Complaint) -> None:
    edit(fresh / BUILD, "domains", ["nutritoin"])
    assert (
        f"{fresh / BUILD}: domains: unknown domain 'nutritoin'; did you mean 'nutrition'?"
        in complaint(fresh, "plan")
    )


@pytest.mark.parametrize("name", ["package", "my-domain"])
def test_a_domain_s_file_with_a_name_that_cannot_be(
    fresh: Path, complaint: Complaint, name: str
) -> None:
    path = fresh / "conf" / "domain" / f"{name}.yaml"
    shutil.copyfile(fresh / NUTRITION, path)
    assert f"{path}: '{name}' cannot name a domain" in complaint(fresh, "plan")


def overlay(project: Path, key: str, value: Any, domain: str = "nutrition") -> Path:
    """An agent's decision."""
    path = project / "conf" / "overlay" / f"{domain}.yaml"
    write_yaml(
        path,
        {
            "decisions": [
                {"key": key, "value": value, "agent": "tuner", "reason": "it seemed better"}
            ]
        },
    )
    return path


def test_an_overlay_with_an_unknown_key(fresh: Path, complaint: Complaint) -> None:
    path = overlay(fresh, "training.learning_rte", 1e-3)
    said = complaint(fresh, "plan")
    assert str(path) in said
    assert "'training.learning_rte'; did you mean 'training.learning_rate'?" in said


def test_an_overlay_that_decides_a_locked_key(fresh: Path, complaint: Complaint) -> None:
    content = read_yaml(fresh / BUILD)
    write_yaml(fresh / BUILD, {**content, "locked": ["training.learning_rate"]})
    path = overlay(fresh, "training.learning_rate", 1e-3)
    said = complaint(fresh, "plan")
    assert str(path) in said
    assert "'training.learning_rate' is locked; remove the decision, or the lock" in said


def test_an_overlay_for_a_domain_that_is_not_there(fresh: Path, complaint: Complaint) -> None:
    path = overlay(fresh, "training.learning_rate", 1e-3, "nutritoin")
    said = complaint(fresh, "plan")
    assert str(path) in said
    assert "did you mean 'nutrition'?" in said


def test_a_table_without_the_mapped_column(
    project: Path, complaint: Complaint, command: Any
) -> None:
    """In a domain that the base is not made from."""
    folder = project / "conf" / "domain"
    (folder / "faq.csv").write_text(
        "Question,Reply\n" + "Why is it so?,Because it is so in the whole world.\n" * 9
    )
    source = {"path": "faq.csv", "columns": {"prompt": "Question", "response": "Answer"}}
    write_yaml(folder / "faq.yaml", {**read_yaml(project / NUTRITION), "sources": [source]})
    words = ("faq.csv", "Answer", "Question", "Reply")
    done = command(project, "data", "check", "faq")
    assert done.returncode == 1
    assert all(word in done.stdout for word in words), done.stdout
    said = complaint(project, "build", "faq")
    assert all(word in said for word in ("faq/dataset: ", *words, "what is finished is kept")), said
    assert ("dataset", "faq", "failed") in outcomes(project)
    assert not (project / "artifacts" / "faq" / "dataset" / "manifest.json").exists()


def test_a_record_with_an_empty_answer(project: Path, complaint: Complaint, command: Any) -> None:
    path = project / "conf" / "domain" / "nutrition.jsonl"
    lines = path.read_text(encoding="utf-8").splitlines()
    for number in (1, 4, 9):
        lines[number] = json.dumps(
            {"prompt": f"Is this question number {number}?", "response": "  "}
        )
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    said = command(project, "data", "check", "nutrition").stdout
    assert [f" {number + 1} " in said for number in (1, 4, 9)] == [True] * 3
    assert "response" in said
    said = complaint(project, "build")
    assert "nutrition.jsonl" in said
    assert "max_bad_share" in said


def test_one_bad_record_of_many_does_not_stop_a_build(project: Path, command: Any) -> None:
    path = project / "conf" / "domain" / "nutrition.jsonl"
    path.write_text(
        path.read_text(encoding="utf-8") + '{"prompt": "And?", "response": ""}\n', encoding="utf-8"
    )
    assert command(project, "stage", "dataset", "nutrition").returncode == 0
    card = json.loads((project / "artifacts" / "nutrition" / "dataset" / "card.json").read_text())
    assert card["counts"]["bad"] == 1


def test_a_base_folder_without_tokenizer(fresh: Path, tmp_path: Path, complaint: Complaint) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    train_tokenizer(folder)
    make_model(folder)
    for path in [*folder.glob("*token*"), *folder.glob("*.jinja")]:
        path.unlink()
    base(fresh, {"folder": str(folder)})
    said = complaint(fresh, "build", "nutrition")
    assert "base/own/base: " in said
    assert str(folder) in said
    assert "tokenizer" in said
    assert not (fresh / "artifacts" / "base" / "own" / "model" / "manifest.json").exists()


def test_a_base_folder_that_is_not_there(fresh: Path, complaint: Complaint) -> None:
    base(fresh, {"folder": "models/none"})
    said = complaint(fresh, "plan")
    assert "conf/base/own.yaml" in said
    assert (
        f"'models/none' is no folder (looked at {fresh / 'models' / 'none'}); mend the path, or use hub_id"
        in said
    )


def base(project: Path, origin: dict[str, Any]) -> None:
    """Build on a base of one's own."""
    about = {
        "description": "My model",
        "licence": "mit",
        "chat_template": "chatml",
        "parameters": 100_000,
    }
    write_yaml(project / "conf" / "base" / "own.yaml", {**about, **origin})
    choose(project, base="own")


def test_a_full_disk(project: Path, complaint: Complaint, command: Any) -> None:
    """Wherever it hits: the job, Snakemake's log, or the command itself."""
    override(project, "nutrition", {"training.max_steps": 3})
    for name in ("nutrition", "store"):
        shutil.rmtree(project / "artifacts" / name)
    with small_disk(project, 96) as disk:
        for left in (400_000, 0):
            with filled(disk, but=left):
                said = complaint(project, "build", "nutrition")
            assert "No space left on device" in said or "the disk is full; make room" in said
            assert len(said.strip().splitlines()) <= 3
        done = command(project, "build", "nutrition")
        assert done.returncode == 0, done.stderr
        assert command(project, "verify").returncode == 0


def test_a_read_only_project(project: Path, complaint: Complaint) -> None:
    edit(project / NUTRITION, "evaluation.beat_base_by", 0.001)
    with small_disk(project, 96) as disk:
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        assert "Read-only file system" in complaint(project, "build", "nutrition")


def test_artifacts_that_someone_edited_are_built_again(project: Path, command: Any) -> None:
    train = project / "artifacts" / "nutrition" / "dataset" / "train.jsonl"
    content = train.read_bytes()
    train.unlink()
    train.write_bytes(content + content.splitlines()[0] + b"\n")
    said = command(project, "plan").stdout
    assert "train.jsonl: its content is not what was built" in said
    assert command(project, "stage", "dataset", "nutrition").returncode == 0
    assert train.read_bytes() == content
