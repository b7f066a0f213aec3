"""What the Snakefile's rules are told about the graph."""

import os
import re
import shlex
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from projects import REPOSITORY, edit, override, read_yaml, write_yaml

from meetara_build.config.overrides import read_overrides, split_words
from meetara_build.config.schema import NAME
from meetara_build.engine.rules import Rules
from meetara_build.engine.snakemake import command
from meetara_build.graph import load
from meetara_build.graph.stages import RESERVED, RULES
from meetara_build.plan import plan


class Wildcards(SimpleNamespace):
    """As Snakemake hands them to input functions."""

    def keys(self) -> list[str]:
        """Names of the wildcards."""
        return list(vars(self))


def rules(project: Path, monkeypatch: pytest.MonkeyPatch, **config: Any) -> Rules:
    """The rules' view of a project: Snakemake runs in its folder."""
    monkeypatch.chdir(project)
    return Rules(config)


def test_no_domain_can_have_the_name_of_a_rule() -> None:
    named = {
        name
        for path in [REPOSITORY / "Snakefile", *(REPOSITORY / "rules").glob("*.smk")]
        for name in re.findall(r"^rule (\w+):", path.read_text(), re.MULTILINE)
    }
    assert {"all_domains", "adapter", "package"} <= named <= set(RESERVED)


def test_what_the_command_line_set_reaches_every_job(
    built_project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = split_words(["nutrition", "domain.description='a {b}: c'", "hardware=a10"])
    build = rules(built_project, monkeypatch, overrides=said.as_text())
    assert build.graph.hardware("nutrition") == "a10"
    words = shlex.split(build.shell("package").partition(" > ")[0])
    assert read_overrides(words[words.index("--overrides") + 1]) == said
    assert "{" not in words[words.index("--overrides") + 1]
    assert "--overrides" not in rules(built_project, monkeypatch).shell("package")


def test_files_are_named_as_seen_from_the_project(
    built_project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build = rules(built_project, monkeypatch)
    assert build.root == "artifacts"
    assert build.results("nutrition") == [
        "artifacts/nutrition/gguf/nutrition-F16.gguf",
        "artifacts/nutrition/gguf/nutrition-Q8_0.gguf",
        "artifacts/nutrition/gguf/nutrition-Q4_K_M.gguf",
        "artifacts/nutrition/gguf/nutrition-lora.gguf",
        "artifacts/nutrition/package/manifest.json",
    ]
    base = ["artifacts/base/mini/model/manifest.json", ".meetara/stale"]
    assert build.inputs("dataset")(Wildcards(domain="nutrition")) == base
    assert all(
        file.flags["ancient"] for file in build.inputs("dataset")(Wildcards(domain="nutrition"))
    )
    assert build.everything[-1] == "artifacts/report/manifest.json"
    assert set(build.everything) > {
        file for domain in build.domains for file in build.results(domain)
    }


def test_a_root_elsewhere_is_named_in_full(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    edit(project / "conf" / "build.yaml", "root", str(tmp_path / "elsewhere"))
    assert rules(project, monkeypatch).root == str(tmp_path / "elsewhere")


@pytest.mark.parametrize("name", ["My Drive/it's {x}", "$HOME", "a;b", "{{domain}}", "*"])
def test_a_root_whose_name_means_something_to_a_shell_or_to_snakemake_is_named_by_a_link(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    for root in (f"{tmp_path}/{name}", name):
        edit(project / "conf" / "build.yaml", "root", root)
        assert rules(project, monkeypatch).root == ".meetara/root"
        assert (
            (project / ".meetara" / "root").resolve()
            == load(project).root
            == (project / root).resolve()
        )


def test_what_has_something_to_do_has_inputs_that_are_new_to_snakemake(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    override(project, "nutrition", {"lora.rank": 8})
    build, asked = rules(project, monkeypatch), Wildcards(domain="nutrition")

    def new(stage: str) -> set[str]:
        return {
            str(file)
            for file in build.inputs(stage)(asked)
            if not getattr(file, "flags", {}).get("ancient")
        }

    assert new("dataset") == set()
    assert new("adapter") == {
        "artifacts/base/mini/model/manifest.json",
        "artifacts/base/mini/gguf/manifest.json",
        "artifacts/nutrition/dataset/manifest.json",
        ".meetara/stale",
    }
    assert new("evaluate") >= {"artifacts/nutrition/gguf/manifest.json"}
    assert ".meetara/stale" not in new("evaluate"), (
        "a MAYBE runs because its input is made anew, and for nothing else"
    )


def test_manifests_from_the_future_are_dated_now(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The clock was set back: Snakemake would refuse every output as older than its inputs."""
    override(project, "nutrition", {"lora.rank": 8})
    manifest = project / "artifacts" / "base" / "mini" / "model" / "manifest.json"
    os.utime(manifest, (4e9, 4e9))
    rules(project, monkeypatch)
    assert manifest.stat().st_mtime < time.time()
    assert manifest.stat().st_mtime < (project / ".meetara" / "stale").stat().st_mtime


def test_threads_memory_and_gpus_come_from_the_step(
    built_project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build, step = (
        rules(built_project, monkeypatch),
        load(built_project).step("adapter", "nutrition"),
    )
    asked = Wildcards(domain="nutrition")
    assert build.threads("adapter")(asked) == step.threads == 1
    assert build.memory_mb("adapter")(asked) == step.memory_mb > 600
    assert build.gpus("adapter")(asked) == 0
    assert build.threads("base")(Wildcards(base="mini")) == 1


def shares(build: Rules, rule: str, **wildcards: str) -> tuple[int, int, int]:
    """What a job takes of the GPU, of the trainer's slots and of the cores."""
    asked = Wildcards(**wildcards)
    return tuple(ask(rule)(asked) for ask in (build.gpus, build.slots, build.threads))  # type: ignore[return-value]


def test_with_slots_trainings_take_one_each_and_what_needs_the_device_all(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = project / "conf" / "hardware" / "a10.yaml"
    alone = shares(rules(project, monkeypatch, hardware="a10"), "adapter", domain="nutrition")
    assert alone == (1, 0, read_yaml(machine)["threads"])
    edit(machine, "slots", 4)
    override(project, "programming", {"lora.dropout": 0.1})
    build = rules(project, monkeypatch, hardware="a10")
    assert shares(build, "adapter", domain="nutrition") == (0, 1, 1)
    assert shares(build, "adapter", domain="programming") == (1, 4, 8), "which trains alone"
    assert shares(build, "base", base="mini")[:2] == (1, 4)
    step = build.graph.step("adapter", "nutrition")
    assert (step.slots, step.gpus, step.recipe["threads"]) == (4, 1, 8)
    made = plan(build.graph)
    words = command(build.graph, made, "lambda")
    assert words[words.index("--resources") + 1 :][:3] == ["mem_mb=200000", "gpu=1", "slot=4"]
    edit(machine, "slots", 1)
    graph = rules(project, monkeypatch, hardware="a10").graph
    assert not [word for word in command(graph, plan(graph), "lambda") if word.startswith("slot=")]


def priorities(build: Rules, domain: str, *stages: str) -> list[int]:
    """What Snakemake is told of a domain's jobs."""
    return [build.priority(stage)(Wildcards(domain=domain)) for stage in stages]


def test_without_priorities_what_makes_a_merged_model_superfluous_goes_first(
    built_project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build = rules(built_project, monkeypatch)
    for domain in build.domains:
        assert priorities(
            build, domain, "dataset", "adapter", "baseline", "merge", "gguf", "evaluate", "package"
        ) == [*(0, 0, 0, 1, 2, 2, 2)]
    assert (
        build.priority("base")(Wildcards(base="mini")) == build.priority("report")(Wildcards()) == 0
    )


def test_all_jobs_of_a_domain_with_a_higher_priority_go_before_all_of_others(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    override(project, "storytelling", {"priority": 1})
    override(project, "programming", {"priority": 2})
    build, stages = (
        rules(project, monkeypatch),
        ("dataset", "adapter", "baseline", "merge", "gguf", "evaluate", "package"),
    )
    first, second, last = (
        priorities(build, domain, *stages)
        for domain in ("programming", "storytelling", "nutrition")
    )
    assert min(first) > max(second)
    assert min(second) > max(last)
    assert build.priority("base")(Wildcards(base="mini")) >= min(first), (
        "what an urgent domain needs is as urgent"
    )


def test_a_neighbour_s_records_are_as_urgent_as_the_domain_that_learns_them(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    override(project, "programming", {"priority": 7, "training.joint": ["nutrition"]})
    build = rules(project, monkeypatch)
    assert priorities(build, "nutrition", "dataset") == priorities(build, "programming", "dataset")
    assert priorities(build, "nutrition", "adapter") == [0]


def test_a_priority_changes_no_result(project: Path) -> None:
    before = load(project)
    override(project, "nutrition", {"priority": 9})
    after = load(project)
    assert (before.priorities, after.priorities) == ({}, {"nutrition": 9})
    assert before.steps == after.steps


def test_the_machine_of_a_profile_is_passed_on(
    built_project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build = rules(built_project, monkeypatch, hardware="a10")
    assert build.gpus("adapter")(Wildcards(domain="nutrition")) == 1
    assert "--hardware a10" in build.command
    assert "--cold" not in build.command


def test_the_price_of_the_provider_s_machine_is_passed_on(
    built_project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    price = read_yaml(built_project / "conf" / "provider" / "lambda.yaml")["usd_per_hour"]["a10"]
    assert (
        f"--usd-per-hour {price}"
        in rules(built_project, monkeypatch, hardware="a10", provider="lambda").command
    )
    assert "--usd-per-hour" not in rules(built_project, monkeypatch, hardware="a10").command


@pytest.mark.parametrize("written", [False, "false", "False", "0"])
def test_warm_false_has_jobs_work_by_themselves(
    built_project: Path, monkeypatch: pytest.MonkeyPatch, written: Any
) -> None:
    assert "--cold" in rules(built_project, monkeypatch, warm=written).command


def test_a_job_is_snakemake_s_own_child_and_told_so(
    built_project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shell = rules(built_project, monkeypatch).shell("adapter")
    assert shell.startswith("exec ")
    assert (
        "--parent $PPID adapter {wildcards.domain} --fingerprint {params.fingerprint} > {log:q} 2>&1"
        in shell
    )


def test_braces_in_the_python_s_path_are_not_snakemake_s(
    built_project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.executable", "/odd {place}/python")
    shell = rules(built_project, monkeypatch).shell("adapter")
    assert "/odd {{place}}/python" in shell


def test_domains_are_grouped_by_the_files_they_get(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = project / "conf" / "domain" / "programming.yaml"
    write_yaml(path, {**read_yaml(path), "quants": ["Q8_0"]})
    groups = {tuple(one.targets): one for one in rules(project, monkeypatch).variants("gguf")}
    few, many = groups["programming",], groups["nutrition", "storytelling"]
    folder = "artifacts/{domain}/gguf"
    files = ["manifest.json", "{domain}-F16.gguf", "{domain}-Q8_0.gguf", "{domain}-lora.gguf"]
    assert few.outputs == [f"{folder}/{name}" for name in files]
    assert many.wildcard == "nutrition|storytelling"
    assert few.name != many.name


def test_a_merged_model_goes_unless_it_is_kept(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    override(project, "programming", {"keep_merged": True})
    kept, gone = sorted(rules(project, monkeypatch).variants("merge"), key=lambda one: one.targets)[
        ::-1
    ]
    assert (kept.name, kept.targets) == ("merge_kept", ["programming"])
    assert kept.outputs == ["artifacts/{domain}/merged/manifest.json"]
    assert (gone.name, gone.targets) == ("merge", ["nutrition", "storytelling"])
    assert (kept.temporary, gone.temporary) == (None, "artifacts/{domain}/merged")


def test_no_rule_that_a_build_can_make_has_a_domain_s_name(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    override(project, "programming", {"keep_merged": True})
    build = rules(project, monkeypatch)
    for rule in RULES:
        for one in build.variants(rule):
            assert one.name in RESERVED or not re.fullmatch(NAME, one.name)


def test_rules_take_their_files_and_logs_from_the_table(
    built_project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build = rules(built_project, monkeypatch)
    assert build.outputs("evaluate") == [
        "artifacts/{domain}/evaluation/manifest.json",
        "artifacts/{domain}/evaluation/evaluation.json",
        "artifacts/{domain}/evaluation/answers.jsonl",
    ]
    assert build.outputs("base") == ["artifacts/base/{base}/model/manifest.json"]
    assert build.outputs("base_gguf")[1:] == ["artifacts/base/{base}/gguf/{base}-F16.gguf"]
    assert build.log("base_gguf") == "artifacts/logs/base/{base}/gguf.log"
    assert build.log("report") == "artifacts/logs/report.log"
    assert " gguf base/{wildcards.base} --fingerprint" in build.shell("base_gguf")
    assert " report report --fingerprint" in build.shell("report")
