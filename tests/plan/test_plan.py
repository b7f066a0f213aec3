"""A plan says what a build would do and why: everything at first, nothing afterwards, and what an
edit reaches in between."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from projects import date_all, edit, override, read_yaml, small_project, write_yaml

from meetara_build.engine.stage_run import run
from meetara_build.errors import ConfigError
from meetara_build.graph import load
from meetara_build.plan import FRESH, MAYBE, RESTORE, RUN, Plan, plan
from meetara_build.store.manifest import digest_file


def actions(made: Plan) -> dict[str, str]:
    return {item.step.name: item.action for item in made.to_do()}


def planned(project: Path, *domains: str) -> dict[str, str]:
    return actions(plan(load(project), domains))


def reasons(project: Path, step: str) -> list[str]:
    item = next(item for item in plan(load(project)).items if item.step.name == step)
    return [cause.text() for cause in item.causes]


def state(folder: Path) -> dict[str, tuple[int, int, int]]:
    return {
        str(path.relative_to(folder)): (
            path.stat().st_size,
            path.stat().st_mtime_ns,
            path.stat().st_ino,
        )
        for path in folder.rglob("*")
    }


def test_where_nothing_is_built_everything_runs(tmp_path: Path) -> None:
    project = small_project(tmp_path / "project", ["nutrition", "programming"])
    graph = load(project)
    made = plan(graph)
    assert actions(made) == {step.name: RUN for step in graph.steps.values()}
    assert {cause.text() for item in made.items for cause in item.causes} == {"not built yet"}
    assert made.summary() == f"Plan: {len(graph.steps)} to run, 0 to restore, 0 maybe, 0 fresh."
    assert not (project / "artifacts").exists(), "a plan only reads"


def test_a_plan_for_one_domain_holds_what_it_needs_and_no_neighbour(tmp_path: Path) -> None:
    project = small_project(tmp_path / "project", ["nutrition", "programming"])
    assert {name.rpartition("/")[0] for name in planned(project, "nutrition")} == {
        "nutrition",
        "base/mini",
    }
    with pytest.raises(ConfigError, match="did you mean 'nutrition'"):
        planned(project, "nutritoin")


def test_after_a_build_there_is_nothing_to_do(built_project: Path) -> None:
    made = plan(load(built_project))
    assert actions(made) == {}
    assert made.summary() == f"Plan: 0 to run, 0 to restore, 0 maybe, {len(made.items)} fresh."


def test_a_plan_changes_no_file(project: Path) -> None:
    override(project, "nutrition", {"lora.rank": 8})
    graph = load(project)
    before = state(project)
    plan(graph)
    plan(graph, ["nutrition"])
    assert state(project) == before


def of(domain: str, **stages: str) -> dict[str, str]:
    return {f"{domain}/{stage}": action for stage, action in stages.items()}


RETRAINED = of("nutrition", adapter=RUN, merge=RUN, gguf=RUN, evaluate=MAYBE, package=MAYBE)
REPORT = {"report/report": MAYBE}


def everything_after(base: dict[str, str]) -> dict[str, str]:
    found = dict(base)
    for domain in ("nutrition", "programming", "storytelling"):
        found |= of(
            domain,
            dataset=MAYBE,
            adapter=MAYBE,
            baseline=MAYBE,
            merge=MAYBE,
            gguf=MAYBE,
            evaluate=MAYBE,
            package=MAYBE,
        )
    return {**found, **REPORT}


def domain_file(key: str, value: Any) -> Callable[[Path], None]:
    return lambda project: edit(project / "conf" / "domain" / "nutrition.yaml", key, value)


def overriding(key: str, value: Any) -> Callable[[Path], None]:
    return lambda project: override(project, "nutrition", {key: value})


def base_file(key: str, value: Any) -> Callable[[Path], None]:
    return lambda project: edit(project / "conf" / "base" / "mini.yaml", key, value)


def add_record(project: Path) -> None:
    with (project / "conf" / "domain" / "nutrition.jsonl").open("a", encoding="utf-8") as file:
        file.write(
            json.dumps(
                {"topic": "nutrients", "prompt": "Is it new?", "response": "Yes, this one is."}
            )
            + "\n"
        )


def comment(project: Path) -> None:
    path = project / "conf" / "domain" / "nutrition.yaml"
    path.write_text("# a comment\n" + path.read_text())


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        pytest.param(comment, {}, id="a comment"),
        pytest.param(date_all, {}, id="touched files"),
        pytest.param(domain_file("topics", ["another"]), {}, id="topics"),
        pytest.param(
            domain_file("description", "Another"),
            of("nutrition", package=RUN) | REPORT,
            id="description",
        ),
        pytest.param(
            domain_file("evaluation.beat_base_by", 0.001),
            of("nutrition", package=RUN) | REPORT,
            id="a gate's bound",
        ),
        pytest.param(
            overriding("evaluation.max_records", 2),
            {**of("nutrition", baseline=RUN, evaluate=RUN, package=MAYBE), **REPORT},
            id="evaluation",
        ),
        pytest.param(
            overriding("gguf.imatrix.enabled", False),
            {**of("nutrition", merge=RUN, gguf=RUN, evaluate=MAYBE, package=MAYBE), **REPORT},
            id="imatrix",
        ),
        pytest.param(
            domain_file("quants", ["F16", "Q8_0"]),
            {**of("nutrition", merge=RUN, gguf=RUN, evaluate=RUN, package=RUN), **REPORT},
            id="quants",
        ),
        pytest.param(overriding("lora.rank", 8), {**RETRAINED, **REPORT}, id="rank"),
        pytest.param(overriding("training.epochs", 1), {**RETRAINED, **REPORT}, id="epochs"),
        pytest.param(
            add_record,
            everything_after(
                {
                    "base/mini/corpus": RUN,
                    **of("base/mini", base=MAYBE, gguf=MAYBE, imatrix=MAYBE),
                }
            )
            | {"nutrition/dataset": RUN},
            id="a record",
        ),
        pytest.param(
            base_file("pretraining.epochs", 2),
            everything_after(of("base/mini", base=RUN, gguf=MAYBE, imatrix=MAYBE))
            | {
                f"{domain}/{stage}": RUN
                for domain in ("nutrition", "programming", "storytelling")
                for stage in ("merge", "gguf")
            },
            id="pretraining",
        ),
        pytest.param(
            base_file("licence", "mit"),
            {"base/mini/gguf": RUN}
            | {
                f"{domain}/{stage}": RUN if stage not in ("baseline", "evaluate") else MAYBE
                for domain in ("nutrition", "programming", "storytelling")
                for stage in ("baseline", "merge", "gguf", "evaluate", "package")
            }
            | REPORT,
            id="licence",
        ),
    ],
)
def test_an_edit_is_planned_for_exactly_the_steps_it_reaches(
    project: Path, change: Callable[[Path], None], expected: dict[str, str]
) -> None:
    change(project)
    assert planned(project) == expected


def test_the_reason_is_the_key_with_its_old_and_new_value(project: Path) -> None:
    override(project, "nutrition", {"lora.rank": 8, "training.epochs": 1})
    file = "conf/domain/nutrition.yaml"
    assert reasons(project, "nutrition/adapter") == [
        f"{file} lora.rank: 16 → 8",
        f"{file} training.epochs: 2 → 1",
    ]
    evaluate = next(
        item for item in plan(load(project)).items if item.step.name == "nutrition/evaluate"
    )
    assert evaluate.causes == ()
    assert [cause.key for cause in evaluate.inherited] == ["lora.rank", "training.epochs"]
    assert evaluate.waits == ("nutrition/gguf",)


def test_an_edit_of_a_neighbour_reaches_no_other_domain(project: Path) -> None:
    override(project, "nutrition", {"lora.rank": 8})
    assert planned(project, "programming") == {}


def test_what_is_built_and_then_reverted_is_restored(project: Path) -> None:
    path = project / "conf" / "domain" / "nutrition.yaml"
    written = path.read_text()
    edit(path, "description", "Another")
    graph = load(project)
    assert run(graph, graph.step("package", "nutrition"), cold=True) == "built"
    assert planned(project) == {}
    path.write_text(written)
    assert planned(project) == {"nutrition/package": RESTORE}
    graph = load(project)
    assert run(graph, graph.step("package", "nutrition"), cold=True) == "restored"
    assert planned(project) == {}


@pytest.mark.parametrize(
    ("step", "file", "said"),
    [
        ("nutrition/gguf", "nutrition/gguf/nutrition-Q8_0.gguf", "nutrition-Q8_0.gguf: missing"),
        (
            "nutrition/adapter",
            "nutrition/adapter/adapter_model.safetensors",
            "adapter_model.safetensors: missing",
        ),
        ("nutrition/gguf", "nutrition/gguf/manifest.json", "manifest.json: missing"),
        ("base/mini/base", "base/mini/model/model.safetensors", "model.safetensors: missing"),
        ("nutrition/evaluate", "nutrition/evaluation/evaluation.json", "evaluation.json: missing"),
    ],
)
def test_what_someone_deleted_is_restored_and_nothing_else(
    project: Path, step: str, file: str, said: str
) -> None:
    (project / "artifacts" / file).unlink()
    merged = {"nutrition/merge": RESTORE} if step == "nutrition/gguf" else {}
    assert planned(project) == {**merged, step: RESTORE}, (
        "Snakemake asks for the merged model for whatever reads it"
    )
    assert [reason.rpartition("/")[2] for reason in reasons(project, step)] == [said]
    graph = load(project)
    stage = step.rpartition("/")[2]
    assert run(graph, graph.step(stage, step.rpartition("/")[0]), cold=True) == "restored"
    assert planned(project) == {}


@pytest.mark.parametrize("text", ["rewritten by hand", None])
def test_a_changed_file_is_noticed_also_at_the_same_size_and_with_its_old_times(
    project: Path, text: str | None
) -> None:
    path = project / "artifacts" / "nutrition" / "package" / "README.md"
    before = path.stat()
    content = path.read_bytes()
    path.unlink()  # the store keeps its own name of the old bytes
    path.write_bytes(text.encode() if text else content.replace(b"e", b"3"))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert planned(project) == {"nutrition/package": RESTORE}
    said = "artifacts/nutrition/package/README.md: its content is not what was built"
    assert reasons(project, "nutrition/package") == [said]


def test_what_was_changed_within_the_file_that_the_store_shares_is_worked_out_again(
    project: Path,
) -> None:
    path = project / "artifacts" / "nutrition" / "package" / "README.md"
    blob = next((project / "artifacts" / "store").glob(f"blobs/*/{digest_file(path)}"))
    path.unlink()
    shutil.copy(blob, path)
    blob.unlink()  # shared with other tests until here
    os.link(path, blob)
    path.chmod(0o644)
    path.write_bytes(path.read_bytes().replace(b"e", b"3"))
    assert planned(project) == {"nutrition/package": RUN} | REPORT


def test_without_the_store_what_was_deleted_runs_again_and_its_users_may(project: Path) -> None:
    shutil.rmtree(project / "artifacts" / "store")
    assert planned(project) == {}, "what is there needs no store"
    (project / "artifacts" / "nutrition" / "dataset" / "train.jsonl").unlink()
    assert planned(project) == {
        **of(
            "nutrition",
            dataset=RUN,
            adapter=MAYBE,
            baseline=MAYBE,
            merge=MAYBE,
            gguf=MAYBE,
            evaluate=MAYBE,
            package=MAYBE,
        ),
        **REPORT,
    }


def test_all_artifacts_come_back_from_the_store_alone(project: Path) -> None:
    for path in (project / "artifacts").iterdir():
        if path.name not in ("store", ".temporaries", ".locks"):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    made = plan(load(project))
    assert {item.action for item in made.items if item.step.keep} == {RESTORE}
    assert {item.action for item in made.items if not item.step.keep} == {RESTORE}, (
        "a manifest is enough for its readers"
    )


def test_a_broken_manifest_is_none(project: Path) -> None:
    (project / "artifacts" / "nutrition" / "dataset" / "manifest.json").write_text("{")
    assert planned(project) == {"nutrition/dataset": RESTORE}


def test_a_run_whose_result_is_as_before_ends_what_may_run(project: Path) -> None:
    """A source edit that leaves the records as they are: the dataset's run ends the plan's
    MAYBEs."""
    path = project / "conf" / "domain" / "nutrition.jsonl"
    path.write_text(path.read_text() + "\n\n")
    expected = planned(project)
    assert expected["nutrition/dataset"] == RUN
    assert expected["nutrition/adapter"] == expected["base/mini/base"] == MAYBE
    graph = load(project)
    for stage, target in (
        ("corpus", "base/mini"),
        ("dataset", "nutrition"),
    ):
        assert run(graph, graph.step(stage, target), cold=True) == "built"
    assert planned(project) == {}


def test_a_domain_added_later_runs_alone(project: Path) -> None:
    conf = project / "conf" / "domain"
    shutil.copy(conf / "nutrition.jsonl", conf / "mine.jsonl")
    write_yaml(
        conf / "mine.yaml",
        {**read_yaml(conf / "nutrition.yaml"), "sources": [{"path": "mine.jsonl"}]},
    )
    assert planned(project) == {
        **of(
            "mine",
            dataset=RUN,
            adapter=RUN,
            baseline=RUN,
            merge=RUN,
            gguf=RUN,
            evaluate=RUN,
            package=RUN,
        ),
        "report/report": RUN,
    }
    assert planned(project, "nutrition") == {}


def test_every_item_has_a_reason_unless_it_is_fresh(project: Path) -> None:
    add_record(project)
    (project / "artifacts" / "programming" / "evaluation" / "evaluation.json").unlink()
    for item in plan(load(project)).items:
        assert bool(item.roots()) == (item.action != FRESH)
