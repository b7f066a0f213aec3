"""The steps of a build: complete, in order, the same wherever a project lies, and never out of
date."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from projects import DOMAINS, edit, override, read_yaml, small_project, write_yaml

from meetara_build.config.overrides import split_words
from meetara_build.errors import ConfigError
from meetara_build.graph import Graph, compose, load
from meetara_build.graph.stages import NAMES as STAGES
from meetara_build.project import find_project

OF_A_DOMAIN = ("dataset", "adapter", "baseline", "merge", "gguf", "evaluate", "package")


@pytest.fixture
def project(tmp_path: Path) -> Path:
    return small_project(tmp_path / "project", ["nutrition", "programming"])


@pytest.fixture(scope="module")
def fixed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project that no test edits."""
    return small_project(tmp_path_factory.mktemp("graph") / "project")


def fingerprints(graph: Graph) -> dict[str, str]:
    return {step.name: step.fingerprint for step in graph.steps.values()}


def changed(project: Path, before: Graph) -> set[str]:
    """Names of the steps whose fingerprints differ now."""
    old, new = fingerprints(before), fingerprints(load(project))
    return {name for name in {*old, *new} if old.get(name) != new.get(name)}


def refused(project: Path) -> str:
    with pytest.raises(ConfigError) as fault:
        load(project)
    return str(fault.value)


def test_every_domain_has_every_stage_and_the_base_is_there_once(fixed: Path) -> None:
    graph = load(fixed)
    expected = {(stage, domain) for stage in OF_A_DOMAIN for domain in DOMAINS}
    expected |= {(stage, "base/mini") for stage in ("corpus", "base", "gguf", "imatrix")} | {
        ("report", "report")
    }
    assert set(graph.steps) == expected
    # Of a base what its domains read alone: none begins from a common start here, and none is an
    # adapter alone.
    assert {stage for stage, _ in graph.steps} == set(STAGES) - {"start", "quantize", "bundle"}
    assert graph.domains == sorted(DOMAINS)


@pytest.mark.parametrize("name", ["base", "store", "report", "adapter"])
def test_a_domain_s_name_that_a_rule_or_a_folder_has_is_refused(project: Path, name: str) -> None:
    conf = project / "conf" / "domain"
    (conf / f"{name}.yaml").write_bytes((conf / "nutrition.yaml").read_bytes())
    assert f"conf/domain/{name}.yaml: '{name}' cannot name a domain" in refused(project)


def test_each_step_comes_after_those_it_needs(fixed: Path) -> None:
    graph = load(fixed)
    order = list(graph.steps)
    for key, step in graph.steps.items():
        for given in step.inputs.values():
            assert order.index((given.stage, given.target)) < order.index(key)


def test_each_step_s_inputs_lie_where_the_steps_before_put_them(fixed: Path) -> None:
    graph = load(fixed)
    for step in graph.steps.values():
        for given in step.inputs.values():
            assert given.place == graph.step(given.stage, given.target).place


def test_above_a_step_is_all_that_it_needs_and_no_more(fixed: Path) -> None:
    graph = load(fixed)
    names = [step.name for step in graph.above([("evaluate", "nutrition")])]
    assert set(names) == {
        "base/mini/corpus",
        "base/mini/base",
        "base/mini/gguf",
        "base/mini/imatrix",
        "nutrition/dataset",
        "nutrition/adapter",
        "nutrition/baseline",
        "nutrition/merge",
        "nutrition/gguf",
        "nutrition/evaluate",
    }
    assert names.index("base/mini/corpus") == 0
    assert names[-1] == "nutrition/evaluate"


def test_a_build_of_everything_ends_with_the_report_and_one_of_some_domains_without(
    fixed: Path,
) -> None:
    graph = load(fixed)
    assert ("report", "report") in graph.ends()
    assert graph.ends(["nutrition"]) == [("package", "nutrition")]


def test_unknown_stages_and_domains_are_refused_with_the_nearest(fixed: Path) -> None:
    graph = load(fixed)
    with pytest.raises(ConfigError, match=r"unknown stage 'marge'; known: corpus, base, start"):
        graph.step("marge", "nutrition")
    with pytest.raises(
        ConfigError,
        match=r"'nutritoin' has no stage 'gguf' in this build; did you mean 'nutrition'\?",
    ):
        graph.step("gguf", "nutritoin")


def test_a_project_is_found_from_any_folder_below(project: Path, tmp_path: Path) -> None:
    assert find_project(project / "conf" / "domain") == project.resolve()
    (tmp_path / "elsewhere").mkdir()
    with pytest.raises(
        ConfigError,
        match=r"elsewhere: no conf/build.yaml here or above; go to a project, or make one",
    ):
        find_project(tmp_path / "elsewhere")


def test_a_moved_project_has_the_same_fingerprints(project: Path, tmp_path: Path) -> None:
    before = load(project)
    shutil.move(project, tmp_path / "moved")
    assert fingerprints(load(tmp_path / "moved")) == fingerprints(before)


def test_what_else_is_built_changes_no_domain_s_fingerprints(project: Path) -> None:
    whole = fingerprints(load(project))
    edit(project / "conf" / "build.yaml", "domains", ["nutrition"])
    alone = fingerprints(load(project))
    del alone["report/report"]
    assert alone.items() <= whole.items()
    assert not any(name.startswith("programming/") for name in alone)


def test_a_graph_from_the_cache_is_the_graph_that_was_kept(project: Path) -> None:
    first = load(project)
    kept = (project / ".meetara" / "graph-default.json").stat()
    assert load(project) == first
    assert (project / ".meetara" / "graph-default.json").stat().st_mtime_ns == kept.st_mtime_ns
    shutil.rmtree(project / ".meetara")
    assert load(project) == first


def test_a_graph_from_the_cache_needs_no_heavy_import(fixed: Path) -> None:
    load(fixed)
    code = (
        "import sys; from meetara_build.graph import load; from meetara_build.project import find_project; load(find_project()); "
        "print(*{'hydra', 'omegaconf', 'pydantic', 'yaml', 'torch', 'snakemake', 'numpy'} & set(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=fixed, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == []


def test_a_graph_with_overrides_is_one_of_its_own_and_the_last_few_are_kept(project: Path) -> None:
    before = load(project)
    for epochs in range(3, 13):
        said = split_words(["nutrition", f"training.epochs={epochs}"])
        found = load(project, None, said)
        assert found.step("adapter", "nutrition").recipe["training"]["epochs"] == epochs
        assert found.overrides == load(project, None, said).overrides == said
    assert load(project) == before
    assert len(list((project / ".meetara" / "overridden").iterdir())) == 8


@pytest.mark.parametrize("broken", ["", "{", "null", "[]", '{"signature": 1}'])
def test_a_broken_cache_is_made_again(project: Path, broken: str) -> None:
    before = load(project)
    (project / ".meetara" / "graph-default.json").write_text(broken)
    (project / ".meetara" / "digests.json").write_text(broken)
    assert load(project) == before


def test_what_changes_while_it_is_read_is_read_again(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Several accept decisions at the same moment: each is told what it asked, with all of them."""
    real, patience = compose.compose_graph, iter(range(3, 100))

    def disturbed(times: int) -> Any:
        left = iter(range(times))

        def composed(*given: Any) -> Any:
            made = real(*given)
            if next(left, None) is not None:
                edit(project / "conf" / "build.yaml", "training.patience", next(patience))
            return made

        return composed

    monkeypatch.setattr(compose, "compose_graph", disturbed(2))
    assert load(project).step("adapter", "nutrition").recipe["training"]["patience"] == 4
    edit(project / "conf" / "build.yaml", "seed", 99)
    monkeypatch.setattr(compose, "compose_graph", disturbed(100))
    with pytest.raises(ConfigError, match="changed while it was read; run the command again"):
        load(project)


def test_another_machine_has_a_graph_of_its_own(project: Path) -> None:
    mine = load(project)
    theirs = load(project, "h100")
    assert load(project) == mine
    assert theirs.gpus == 1
    assert theirs.step("adapter", "nutrition").gpus == 1
    assert theirs.step("dataset", "nutrition").gpus == 0
    assert theirs.step("adapter", "nutrition").threads == 8
    assert (
        theirs.step("adapter", "nutrition").fingerprint
        != mine.step("adapter", "nutrition").fingerprint
    )
    assert (
        theirs.step("dataset", "nutrition").fingerprint
        == mine.step("dataset", "nutrition").fingerprint
    )


def test_comments_and_the_order_of_keys_change_nothing(project: Path) -> None:
    before = load(project)
    for path in (project / "conf").rglob("*.yaml"):
        content = read_yaml(path)
        if path.parent.name != "profile" and "defaults" not in content:
            write_yaml(path, dict(reversed(list(content.items()))))
            first, *others = path.read_text().splitlines(keepends=True)
            path.write_text("".join([first, "# a comment\n", *others]))
    assert changed(project, before) == set()


def test_an_edit_is_seen_even_under_an_older_time(project: Path) -> None:
    before = load(project)
    path = project / "conf" / "build.yaml"
    old = path.stat()
    path.write_text(path.read_text().replace("seed: 17", "seed: 71"))
    os.utime(path, ns=(old.st_atime_ns, old.st_mtime_ns - 10**12))
    assert {"nutrition/adapter", "base/mini/base"} <= changed(project, before)


def test_a_source_s_new_content_is_seen_even_under_the_same_time_and_size(project: Path) -> None:
    before = load(project)
    path = project / "conf" / "domain" / "programming.jsonl"
    old, text = path.stat(), path.read_text()
    path.write_text(text[:-3].replace("the", "teh", 1) + text[-3:])
    os.utime(path, ns=(old.st_atime_ns, old.st_mtime_ns))
    assert path.stat().st_size == old.st_size
    assert changed(project, before) == {
        "base/mini/corpus",
        "programming/dataset",
    }


def test_a_touched_source_changes_nothing(project: Path) -> None:
    before = load(project)
    (project / "conf" / "domain" / "programming.jsonl").touch()
    assert changed(project, before) == set()


def test_a_domain_of_one_s_own_does_not_reach_the_base_or_its_neighbours(project: Path) -> None:
    before = load(project)
    conf = project / "conf" / "domain"
    records = [
        {"prompt": f"Question {number}?", "response": f"Answer {number}."} for number in range(30)
    ]
    (conf / "mine.jsonl").write_text("\n".join(json.dumps(record) for record in records))
    write_yaml(
        conf / "mine.yaml",
        {**read_yaml(conf / "nutrition.yaml"), "sources": [{"path": "mine.jsonl"}]},
    )
    assert changed(project, before) == {f"mine/{stage}" for stage in OF_A_DOMAIN} | {
        "report/report"
    }


def test_a_missing_source_is_named_with_file_and_line(project: Path) -> None:
    path = project / "conf" / "domain" / "nutrition.yaml"
    edit(path, "sources", [{"path": "nutrition.jsonl"}, {"path": "gone.csv"}])
    line = next(
        number for number, text in enumerate(path.read_text().splitlines(), 1) if "gone.csv" in text
    )
    assert refused(project) == (
        f"{path}:{line}: source 'gone.csv' is not there (looked at {path.parent / 'gone.csv'}); "
        "mend the path, or put the file there"
    )


def test_a_source_s_path_may_start_anywhere(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    records = (project / "conf" / "domain" / "nutrition.jsonl").read_bytes()
    (tmp_path / "home" / "data").mkdir(parents=True)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    before = load(project)
    for written in ("~/data/nutrition.jsonl", str(tmp_path / "home" / "data" / "nutrition.jsonl")):
        (tmp_path / "home" / "data" / "nutrition.jsonl").write_bytes(records)
        edit(project / "conf" / "domain" / "nutrition.yaml", "sources", [{"path": written}])
        assert changed(project, before) == set()
    edit(project / "conf" / "domain" / "nutrition.yaml", "sources", [{"path": "~nutrition.jsonl"}])
    assert "source '~nutrition.jsonl' is not there" in refused(project)


def test_a_base_that_learns_from_a_domain_that_is_gone_says_so(project: Path) -> None:
    (project / "conf" / "domain" / "programming.yaml").unlink()
    said = refused(project)
    assert "base/mini.yaml: pretraining.domains: no conf/domain/programming.yaml" in said
    assert said.endswith("remove the name, or add the file")


def test_a_base_from_a_folder_is_known_by_its_files(project: Path, tmp_path: Path) -> None:
    conf = project / "conf" / "base" / "mine.yaml"
    write_yaml(
        conf,
        {
            "description": "x",
            "licence": "mit",
            "chat_template": "chatml",
            "parameters": 1,
            "folder": "models/a",
        },
    )
    override(project, "nutrition", {"base": "mine"})
    assert (
        f"{conf}: folder: 'models/a' is no folder (looked at {project / 'models' / 'a'})"
        in refused(project)
    )
    folder = project / "models" / "a"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    before = load(project)
    assert ("corpus", "base/mine") not in before.steps
    assert {
        step.inputs["base"].target for step in before.steps.values() if step.stage == "adapter"
    } == {
        "base/mine",
        "base/mini",
    }
    (folder / "config.json").write_text('{"a": 1}')
    assert changed(project, before) == {"base/mine/base"}


def test_a_base_from_a_gguf_file_is_known_by_its_content(project: Path) -> None:
    conf, file = project / "conf" / "base" / "mine.yaml", project / "models" / "mine.gguf"
    write_yaml(
        conf,
        {
            "description": "x",
            "licence": "mit",
            "chat_template": "chatml",
            "parameters": 1,
            "gguf": "models/mine.gguf",
        },
    )
    override(project, "nutrition", {"base": "mine"})
    assert f"{conf}: gguf: 'models/mine.gguf' is no file (looked at {file})" in refused(project)
    file.parent.mkdir()
    file.write_bytes(b"GGUF one")
    before = load(project)
    file.write_bytes(b"GGUF two")
    assert changed(project, before) == {"base/mine/base", "base/mine/gguf"}


def test_a_data_set_of_a_hub_is_pinned_to_a_commit(project: Path) -> None:
    path = project / "conf" / "domain" / "nutrition.yaml"
    edit(path, "sources", [{"path": "nutrition.jsonl"}, {"hub": "owner/name"}])
    said = refused(project)
    assert f"{path}:" in said
    assert "source 'owner/name' of a hub is not pinned; add `revision:`" in said
    edit(
        path, "sources", [{"path": "nutrition.jsonl"}, {"hub": "owner/name", "revision": "0" * 40}]
    )
    one = load(project)
    edit(
        path, "sources", [{"path": "nutrition.jsonl"}, {"hub": "owner/name", "revision": "1" * 40}]
    )
    assert "nutrition/dataset" in changed(project, one)


def test_a_base_whose_own_proof_has_failed_is_not_trained_on(fixed: Path) -> None:
    graph = load(fixed)
    for domain in DOMAINS:
        assert ("gguf", "base/mini") in [
            (step.stage, step.target) for step in graph.above([("adapter", domain)])
        ]


def test_a_project_without_domains_says_how_to_add_one(project: Path) -> None:
    for path in (project / "conf" / "domain").iterdir():
        path.unlink()
    assert "no domain yet; add one with `meetara-build add-domain NAME --from FILE`" in refused(
        project
    )


@pytest.mark.parametrize("keep", [True, False])
def test_the_merged_model_is_temporary_unless_asked_for(project: Path, keep: bool) -> None:
    edit(project / "conf" / "build.yaml", "keep_merged", keep)
    assert {step.name for step in load(project).steps.values() if not step.keep} == (
        set() if keep else {"nutrition/merge", "programming/merge"}
    )


def test_the_root_may_lie_elsewhere(project: Path, tmp_path: Path) -> None:
    before = load(project)
    assert before.root == project / "artifacts"
    edit(project / "conf" / "build.yaml", "root", str(tmp_path / "big disk"))
    assert load(project).root == tmp_path / "big disk"
    assert changed(project, before) == set()


def test_changes_say_which_key_has_which_value_by_whom(project: Path) -> None:
    override(project, "nutrition", {"lora.rank": 8})
    found: dict[str, Any] = {change["key"]: change for change in load(project).changes["nutrition"]}
    assert found["lora.rank"]["value"] == 8
    assert found["lora.rank"]["path"] == "conf/domain/nutrition.yaml"
    assert "lora.rank" not in {change["key"] for change in load(project).changes["programming"]}


# The pinned sample, and the common start that is made of it


def test_a_sample_that_is_not_there_is_named(project: Path) -> None:
    edit(project / "conf" / "build.yaml", "sample", "gone.jsonl")
    assert "conf/build.yaml: sample: 'gone.jsonl' is no file (looked at " in refused(project)


def test_what_is_made_of_a_sample_is_refused_without_one(project: Path) -> None:
    edit(project / "conf" / "build.yaml", "sample", None)
    said = "there is no sample to make it of; name one in conf/build.yaml (sample: "
    assert f"conf/build.yaml: gguf.imatrix.enabled: {said}" in refused(project)
    edit(project / "conf" / "build.yaml", "gguf.imatrix.enabled", False)
    load(project)
    override(project, "nutrition", {"start.enabled": True})
    assert f"conf/domain/nutrition.yaml: start.enabled: {said}" in refused(project)


def test_a_domain_begins_from_the_start_of_its_base_if_its_lora_is_alike(project: Path) -> None:
    edit(project / "conf" / "build.yaml", "start.enabled", True)
    first, *_ = load(project).domains
    assert "start" in load(project).step("adapter", first).inputs
    override(project, first, {"lora.rank": 2})
    graph = load(project)
    assert "start" not in graph.step("adapter", first).inputs
    assert graph.step("start", "base/mini").recipe["lora"]["rank"] != 2


def test_one_domain_cannot_say_how_its_base_s_matrix_is_made(project: Path) -> None:
    override(project, "nutrition", {"gguf.imatrix.tokens": 9})
    assert refused(project).startswith(
        "conf/domain/nutrition.yaml: gguf.imatrix.tokens: the matrix is made once for all domains "
        "of mini; set the key in conf/build.yaml or conf/base/mini.yaml"
    )
    override(project, "base/mini", {"gguf.imatrix.tokens": 9})
    load(project)


def test_a_base_has_a_matrix_where_a_type_of_a_domain_uses_one(project: Path) -> None:
    assert ("imatrix", "base/mini") in load(project).steps
    for domain in ("nutrition", "programming"):
        edit(project / "conf" / "domain" / f"{domain}.yaml", "quants", ["F16", "Q8_0"])
    assert ("imatrix", "base/mini") not in load(project).steps


# Adapters alone, on their base's files


def test_an_adapter_alone_needs_no_merged_model_and_its_base_s_files_of_its_types(
    project: Path,
) -> None:
    edit(project / "conf" / "domain" / "nutrition.yaml", "quants", ["Q8_0"])
    override(project, "nutrition", {"gguf.files": "lora"})
    graph = load(project)
    assert ("merge", "nutrition") not in graph.steps
    assert graph.step("gguf", "nutrition").files == ("nutrition-lora.gguf",)
    assert set(graph.step("quantize", "base/mini").files) == {"mini-Q8_0.gguf", "mini-Q4_K_M.gguf"}
    for stage in ("evaluate", "package"):
        given = graph.step(stage, "nutrition").inputs
        assert given["quantized"].reads == ("mini-Q8_0.gguf",)
        assert given["base_gguf"].reads == ("*-F16.gguf",)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"domain.quants": ["Q8_0", "Q5_K_M"]}, "mini has no Q5_K_M; add it to base.quants in"),
        ({"keep_merged": True}, "lora makes no merged model to keep; set keep_merged to false"),
        ({"gguf.tensor_types": {"ffn_down": "Q6_K"}}, "with gguf.files: lora the files are the"),
        ({"gguf.imatrix.enabled": False}, "with gguf.files: lora the files are the"),
    ],
)
def test_what_an_adapter_alone_cannot_have_is_refused_with_the_way_out(
    project: Path, given: dict[str, Any], said: str
) -> None:
    override(project, "nutrition", {"gguf.files": "lora", **given})
    found = refused(project)
    assert found.startswith("conf/domain/nutrition.yaml: ")
    assert said in found
    override(project, "nutrition", {"gguf.files": "both", **given})
    load(project)


def test_a_base_s_quantized_files_are_refused_without_a_sample_for_their_matrix(
    project: Path,
) -> None:
    edit(project / "conf" / "build.yaml", "gguf.files", "lora")
    edit(project / "conf" / "build.yaml", "sample", None)
    assert "gguf.imatrix.enabled: there is no sample to make it of" in refused(project)
    edit(project / "conf" / "build.yaml", "gguf.imatrix.enabled", False)
    load(project)


@pytest.mark.parametrize(
    ("quants", "said"),
    [
        (["F16"], "a base's quants are quantized types, which F16 is not; it has its F16 file"),
        (["Q4_K"], "unknown quant type 'Q4_K'; did you mean 'Q4_K_"),
        (["Q8_0", "Q8_0"], "a quant type is listed twice"),
        ([], "quants"),
    ],
)
def test_a_base_s_quants_are_quantized_types(project: Path, quants: list[str], said: str) -> None:
    edit(project / "conf" / "base" / "mini.yaml", "quants", quants)
    found = refused(project)
    assert "conf/base/mini.yaml" in found
    assert said in found
