"""One stage run: built, restored or refused, and never anything in between."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from commands import damage, filled, outcomes, small_disk
from projects import edit, override, read_yaml

from meetara_build.context.outbox import parcels
from meetara_build.engine import job, stage_run
from meetara_build.engine.stage_run import run
from meetara_build.errors import ArtifactError, BuildError
from meetara_build.graph import load, work_folder
from meetara_build.store import journal, manifest
from meetara_build.store.content import Store, find_work_key
from meetara_build.store.manifest import digest_file, read_manifest


def package(project: Path) -> str:
    """Run nutrition's package stage in this process."""
    graph = load(project)
    return run(graph, graph.step("package", "nutrition"), cold=True)


def ask_more(project: Path, share: float = 0.001) -> None:
    """Change what nutrition has to reach, so that its package is new work."""
    edit(project / "conf" / "domain" / "nutrition.yaml", "evaluation.beat_base_by", share)


def test_new_work_is_built_and_its_manifest_proves_every_file(project: Path) -> None:
    ask_more(project)
    assert package(project) == "built"
    folder = project / "artifacts" / "nutrition" / "package"
    manifest = read_manifest(folder / "manifest.json")
    assert manifest.fingerprint == load(project).step("package", "nutrition").fingerprint
    assert set(manifest.files) == {path.name for path in folder.iterdir()} - {"manifest.json"}
    assert all(
        entry["sha256"] == digest_file(folder / name) for name, entry in manifest.files.items()
    )
    written = (folder / "manifest.json").stat().st_mtime_ns
    assert all((folder / name).stat().st_mtime_ns <= written for name in manifest.files)
    assert outcomes(project)[-1] == ("package", "nutrition", "built")


def test_known_work_is_restored_from_the_store(project: Path) -> None:
    folder = project / "artifacts" / "nutrition" / "package"
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    shutil.rmtree(folder)
    assert package(project) == "restored"
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert outcomes(project)[-1] == ("package", "nutrition", "restored")


def test_a_damaged_store_is_noticed_and_the_work_done_again(project: Path) -> None:
    folder = project / "artifacts" / "nutrition" / "package"
    blob = digest_file(folder / "Modelfile")
    shutil.rmtree(folder)
    damage(project / "artifacts" / "store" / "blobs" / blob[:2] / blob)
    assert package(project) == "built"
    assert digest_file(folder / "Modelfile") == blob


def test_what_is_built_or_restored_is_read_only(project: Path) -> None:
    folder = project / "artifacts" / "nutrition" / "package"
    for before, outcome in (
        (lambda: ask_more(project), "built"),
        (lambda: shutil.rmtree(folder), "restored"),
    ):
        before()
        assert package(project) == outcome
        modes = {
            (folder / name).stat().st_mode & 0o777
            for name in read_manifest(folder / "manifest.json").files
        }
        assert modes == {0o444}


def test_a_finished_build_leaves_no_work_behind(built_project: Path) -> None:
    work = built_project / "artifacts" / ".work"
    assert not work.exists() or not any(work.iterdir())


def test_a_crash_before_the_manifest_leaves_nothing_that_looks_finished(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ask_more(project)

    write = manifest.write_text

    def power_cut(path: Path, text: str) -> None:
        if path.name == "manifest.json":
            raise KeyboardInterrupt
        write(path, text)

    with monkeypatch.context() as patch:
        patch.setattr(manifest, "write_text", power_cut)
        with pytest.raises(KeyboardInterrupt):
            package(project)
    assert not (project / "artifacts" / "nutrition" / "package" / "manifest.json").exists()
    assert package(project) == "restored"


def test_an_input_that_is_not_built_is_refused(project: Path) -> None:
    (project / "artifacts" / "nutrition" / "gguf" / "manifest.json").unlink()
    ask_more(project)
    with pytest.raises(
        ArtifactError, match=r"gguf/manifest.json: not built yet; run `meetara-build build`"
    ):
        package(project)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"stage": "gguf"}'])
def test_an_input_with_a_damaged_manifest_is_refused(project: Path, text: str) -> None:
    (project / "artifacts" / "nutrition" / "gguf" / "manifest.json").write_text(text)
    with pytest.raises(
        ArtifactError, match=r"gguf/manifest.json: damaged manifest; delete it and run"
    ):
        package(project)


def test_a_damaged_input_is_refused_by_name_with_the_command_that_mends_it(project: Path) -> None:
    damage(project / "artifacts" / "nutrition" / "evaluation" / "evaluation.json")
    ask_more(project)
    with pytest.raises(
        ArtifactError, match=r"evaluation.json: its content is not what was built; repair it with"
    ) as error:
        package(project)
    assert "meetara-build verify --repair nutrition" in str(error.value)
    assert outcomes(project)[-1] == ("package", "nutrition", "failed")


def test_a_missing_file_of_an_input_is_refused(project: Path) -> None:
    (project / "artifacts" / "nutrition" / "gguf" / "nutrition-Q8_0.gguf").unlink()
    ask_more(project)
    with pytest.raises(ArtifactError, match=r"nutrition-Q8_0.gguf: missing"):
        package(project)


def after_the_job(monkeypatch: pytest.MonkeyPatch, change: Any) -> None:
    """Have something change while a job runs: right after it has read its inputs."""
    perform = job.perform

    def performed(request: Mapping[str, Any]) -> int:
        status = perform(request)
        change()
        return status

    monkeypatch.setattr(job, "perform", performed)


def test_an_input_edited_during_the_job_is_noticed(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ask_more(project)
    after_the_job(
        monkeypatch,
        lambda: damage(project / "artifacts" / "nutrition" / "evaluation" / "evaluation.json"),
    )
    with pytest.raises(ArtifactError, match=r"evaluation.json: its content is not what was built"):
        package(project)
    assert not_kept(project)


def test_an_input_built_anew_during_the_job_is_noticed(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = project / "artifacts" / "nutrition" / "gguf" / "manifest.json"

    def built_anew() -> None:
        content = json.loads(path.read_text())
        model = path.parent / "nutrition-Q8_0.gguf"
        damage(model)
        content["files"][model.name]["sha256"] = digest_file(model)
        path.write_text(json.dumps(content))

    ask_more(project)
    after_the_job(monkeypatch, built_anew)
    with pytest.raises(
        BuildError, match=r"nutrition/package: an input changed during the job.*build again"
    ):
        package(project)
    assert not_kept(project)


def test_a_source_edited_during_the_job_is_noticed(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = project / "conf" / "domain" / "nutrition.jsonl"
    source.write_text(source.read_text().replace("protein", "proteins"))
    graph = load(project)
    after_the_job(
        monkeypatch, lambda: source.write_text(source.read_text().replace("salt", "sodium"))
    )
    with pytest.raises(
        BuildError, match=r"nutrition/dataset: an input changed during the job.*build again"
    ):
        run(graph, graph.step("dataset", "nutrition"), cold=True)


def test_a_source_that_was_another_for_a_moment_is_noticed(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = project / "conf" / "domain" / "nutrition.jsonl"
    written = source.read_text()
    source.write_text(written.replace("protein", "proteins"))
    graph, during = load(project), source.read_text()

    def there_and_back() -> None:
        source.write_text(written)
        source.write_text(during)

    after_the_job(monkeypatch, there_and_back)
    with pytest.raises(
        BuildError, match=r"nutrition/dataset: an input changed during the job.*build again"
    ):
        run(graph, graph.step("dataset", "nutrition"), cold=True)


def test_what_is_in_its_place_already_needs_no_store(project: Path) -> None:
    shutil.rmtree(project / "artifacts" / "store")
    assert package(project) == "restored"
    shutil.rmtree(project / "artifacts" / "nutrition" / "package")
    assert package(project) == "restored", "and is kept in it again"


def test_a_temporary_whose_result_is_known_is_a_manifest_until_a_reader_needs_its_files(
    project: Path,
) -> None:
    merged = project / "artifacts" / "nutrition" / "merged"
    shutil.rmtree(merged, ignore_errors=True)
    graph = load(project)
    assert run(graph, graph.step("merge", "nutrition"), cold=True) == "restored"
    assert [path.name for path in merged.iterdir()] == ["manifest.json"]
    assert run(graph, graph.step("gguf", "nutrition"), cold=True) == "restored"
    assert [path.name for path in merged.iterdir()] == ["manifest.json"]
    edit(project / "conf" / "domain" / "nutrition.yaml", "quants", ["Q8_0"])
    graph = load(project)
    assert run(graph, graph.step("merge", "nutrition"), cold=True, whole=True) == "built"
    damage(merged / "nutrition-F16.gguf")
    assert run(graph, graph.step("gguf", "nutrition"), cold=True) == "built", (
        "from a merged model made anew"
    )
    assert (merged / "nutrition-F16.gguf").exists()


def test_a_temporary_is_made_at_once_where_its_reader_has_to_be_worked_out(project: Path) -> None:
    """As after a build that the gguf stage refused: it is not said to be there first, and then
    made."""
    merged, before = project / "artifacts" / "nutrition" / "merged", len(outcomes(project))
    shutil.rmtree(merged, ignore_errors=True)
    edit(project / "conf" / "domain" / "nutrition.yaml", "quants", ["Q8_0"])
    graph = load(project)
    assert run(graph, graph.step("merge", "nutrition"), cold=True) == "built"
    assert (merged / "nutrition-F16.gguf").exists()
    assert run(graph, graph.step("merge", "nutrition"), cold=True) == "restored", (
        "its files are there"
    )
    assert outcomes(project)[before:] == [
        ("merge", "nutrition", "built"),
        ("merge", "nutrition", "restored"),
    ]


def test_what_another_work_gave_is_not_taken_from_the_store(project: Path) -> None:
    """A store whose files were mixed up: each is asked what work it is the result of."""
    folder = project / "artifacts" / "nutrition" / "package"
    key = find_work_key(read_manifest(folder / "manifest.json"))
    ask_more(project)
    assert package(project) == "built"
    store = Store(project / "artifacts" / "store", project / "artifacts")
    other = find_work_key(read_manifest(folder / "manifest.json"))
    store.action(key).unlink()
    shutil.copy(store.action(other), store.action(key))
    ask_more(
        project,
        read_yaml(project / "conf" / "domain" / "programming.yaml")["evaluation"]["beat_base_by"],
    )
    assert package(project) == "built"
    assert (
        load(project).step("package", "nutrition").fingerprint
        == read_manifest(folder / "manifest.json").fingerprint
    )


def not_kept(project: Path) -> bool:
    """Whether there is no finished package of the current configuration."""
    manifest = project / "artifacts" / "nutrition" / "package" / "manifest.json"
    wanted = load(project).step("package", "nutrition").fingerprint
    return not manifest.exists() or read_manifest(manifest).fingerprint != wanted


def fail(project: Path) -> None:
    """Run a training that cannot begin, in this process."""
    override(project, "nutrition", {"lora.targets": ["no_such_layer"]})
    graph = load(project)
    with pytest.raises(BuildError):
        run(graph, graph.step("adapter", "nutrition"), cold=True)


def test_a_job_that_fails_says_why_and_leaves_the_result_before(
    project: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = project / "artifacts" / "nutrition" / "adapter" / "manifest.json"
    before = path.read_bytes()
    fail(project)
    said = capfd.readouterr().err
    assert "nutrition/adapter: " in said
    assert "lora.targets" in said
    assert path.read_bytes() == before
    assert outcomes(project)[-1] == ("adapter", "nutrition", "failed")


def test_the_code_of_what_the_job_failed_of_is_in_the_run_s_records(project: Path) -> None:
    fail(project)
    root = load(project).root
    failed = list(journal.runs(root))[-1]
    assert (failed.outcome, failed.code, failed.size) == ("failed", "training-targets", 0)
    reports = [report for parcel in parcels(root) for report in parcel.reports]
    assert [one["code"] for one in reports if one["kind"] == "run"][-1] == "training-targets"


def test_a_file_that_may_not_grow_is_one_message(project: Path) -> None:
    ask_more(project)
    load(project)  # so that the graph is composed already
    limited = "import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (200, 200)); "
    start = "sys.argv[0] = 'meetara-build'; from meetara_build.__main__ import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", limited + start, "stage", "package", "nutrition", "--cold"],
        cwd=project,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert (
        "cannot be written (File too large); a limit of the shell is the likely cause (`ulimit -f` is 1): raise it, then"
        in done.stderr
    )
    assert not_kept(project)
    assert package(project) == "built"


@pytest.mark.parametrize(
    ("stage", "left"), [("dataset", 8_000), ("adapter", 60_000), ("gguf", 900_000)]
)
def test_a_full_disk_is_one_message_and_nothing_half_written(
    project: Path, command: Any, stage: str, left: int
) -> None:
    shutil.rmtree(project / "artifacts" / "store")
    place = load(project).step(stage, "nutrition").place
    manifest, folder = project / "artifacts" / place.manifest, project / "artifacts" / place.folder
    before = {path.name: digest_file(path) for path in folder.iterdir() if path.suffix != ".json"}
    with small_disk(project / "artifacts", 64):
        shutil.rmtree(folder)
        with filled(project / "artifacts", but=left):
            done = command(project, "stage", stage, "nutrition")
        assert done.returncode == 1
        assert "cannot be written (No space left on device); make room" in done.stderr
        assert len(done.stderr.strip().splitlines()) == 1
        assert not manifest.exists()
        assert not list(project.glob("artifacts/.work/*/out-*"))
        assert command(project, "stage", stage, "nutrition").returncode == 0
        assert {
            path.name: digest_file(path) for path in folder.iterdir() if path.suffix != ".json"
        } == before


def test_a_read_only_root_is_one_message(project: Path) -> None:
    ask_more(project)
    load(project)
    with small_disk(project / "artifacts", 64) as disk:
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        with pytest.raises(
            ArtifactError,
            match=r"cannot be written \(Read-only file system\); make room or mend the rights",
        ):
            package(project)


def test_two_runs_of_one_step_work_once(project: Path) -> None:
    ask_more(project)
    load(project)
    words = [sys.executable, "-m", "meetara_build", "stage", "package", "nutrition", "--cold"]
    running = [
        subprocess.Popen(words, cwd=project, stdout=subprocess.PIPE, text=True) for _ in range(3)
    ]
    said = sorted(process.communicate()[0].strip() for process in running)
    assert said == ["nutrition/package: built", *["nutrition/package: restored"] * 2]


def test_what_a_killed_run_left_is_cleared_by_the_next(project: Path) -> None:
    ask_more(project)
    graph = load(project)
    step = graph.step("package", "nutrition")
    inputs = read_manifest(graph.root / step.place.manifest).inputs
    key = stage_run.work_key(step.stage, step.target, step.fingerprint, inputs)
    left = work_folder(graph, step, key) / f"out-{os.getpid() + 1}"
    left.mkdir(parents=True)
    (left / "README.md").write_text("half a file")
    assert package(project) == "built"
    assert not left.parent.exists()


# A model that is held back


def last_run(project: Path) -> journal.Run:
    return list(journal.runs(project / "artifacts"))[-1]


def test_what_held_a_model_back_is_a_result_that_is_kept(project: Path) -> None:
    ask_more(project, 0.9)
    assert package(project) == "held back"
    folder = project / "artifacts" / "nutrition" / "package"
    made = read_manifest(folder / "manifest.json")
    assert made.held_back is not None
    assert made.held_back["code"] == "gate-loss"
    assert set(made.files) == {"README.md", "answers.jsonl", "verdict.json"}
    assert {path.name for path in folder.iterdir()} == {*made.files, "manifest.json"}
    step = load(project).step("package", "nutrition")
    assert step.fingerprint == made.fingerprint
    store = Store(load(project).store, project / "artifacts")
    assert store.look_up(find_work_key(made)) == made
    assert store.read_reference(step.reference) == find_work_key(made)


def test_its_run_counts_as_failed_with_code_message_and_size(project: Path) -> None:
    ask_more(project, 0.9)
    package(project)
    run = last_run(project)
    made = read_manifest(project / "artifacts" / "nutrition" / "package" / "manifest.json")
    assert (run.stage, run.target, run.outcome) == ("package", "nutrition", "failed")
    assert made.held_back == {"code": run.code, "message": run.error}
    assert run.size == sum(entry["size"] for entry in made.files.values()) > 0
    assert run.key == find_work_key(made)
    assert run.is_kept


def test_it_is_restored_and_not_judged_again(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ask_more(project, 0.9)
    package(project)
    before = last_run(project)
    folder = project / "artifacts" / "nutrition" / "package"
    files = {path.name: path.read_bytes() for path in folder.iterdir()}
    shutil.rmtree(folder)

    def judge_again(_: object) -> int:
        raise AssertionError("judged again")

    monkeypatch.setattr(job, "perform", judge_again)
    assert package(project) == "held back"
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == files
    again = last_run(project)
    assert (again.outcome, again.code, again.error, again.size, again.key) == (
        "failed",
        before.code,
        before.error,
        before.size,
        before.key,
    )


def test_a_model_that_is_good_after_all_leaves_nothing_of_it(project: Path) -> None:
    for share, outcome in (
        (0.9, "held back"),
        (0.001, "built"),
        (0.9, "held back"),
        (0.001, "restored"),
    ):
        ask_more(project, share)
        assert package(project) == outcome
        folder = project / "artifacts" / "nutrition" / "package"
        assert (folder / "Modelfile").exists() == (outcome != "held back")


def test_agents_are_told_of_it_as_of_a_failure(project: Path) -> None:
    ask_more(project, 0.9)
    package(project)
    reports = [report for parcel in parcels(project / "artifacts") for report in parcel.reports]
    told = [one for one in reports if one["kind"] == "run"][-1]
    assert (told["outcome"], told["code"]) == ("failed", "gate-loss")
    assert told["error"].startswith("nutrition: not packaged:")
    assert told["metrics"]["held_back"]["code"] == "gate-loss"
