"""Bundles: which domains are in which, and what is refused where somebody asks for one."""

import shutil
from pathlib import Path
from typing import Any

import pytest
from projects import edit, override, read_yaml, small_project, write_yaml

from meetara_build.config.overrides import split_words
from meetara_build.engine.planning import select_targets
from meetara_build.errors import ConfigError
from meetara_build.graph import load

OTHER = {
    "description": "A model of ours",
    "licence": "mit",
    "chat_template": "chatml",
    "parameters": 900_000,
    "folder": "models/other",
}


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """Three domains, each of its own category."""
    return small_project(tmp_path / "project")


def bundle(project: Path, name: str = "mine", **content: Any) -> None:
    """Write a bundle's file."""
    said = {"description": "Mine", "domains": "all", "quants": ["Q4_K_M"], **content}
    write_yaml(project / "conf" / "bundle" / f"{name}.yaml", said)


def refused(project: Path, name: str = "mine") -> str:
    graph = load(project)
    with pytest.raises(ConfigError) as fault:
        select_targets(graph, [f"bundle/{name}"])
    return str(fault.value)


def test_a_bundle_holds_the_domains_that_it_names_by_name_and_category(project: Path) -> None:
    bundle(project, "everything")
    bundle(project, "some", domains=["healthcare", "storytelling"])
    assert load(project).bundles == {
        "bundle/everything": ["nutrition", "programming", "storytelling"],
        "bundle/some": ["nutrition", "storytelling"],
    }


def test_a_bundle_has_what_build_yaml_builds_and_no_other_domain(project: Path) -> None:
    bundle(project, "everything")
    edit(project / "conf" / "build.yaml", "domains", ["nutrition", "programming"])
    assert load(project).bundles["bundle/everything"] == ["nutrition", "programming"]


def test_a_bundle_needs_its_own_domains_and_their_base(project: Path) -> None:
    bundle(project, domains=["nutrition"])
    graph = load(project)
    targets = {step.target for step in graph.above(graph.ends(["bundle/mine"]))}
    assert targets == {"nutrition", "base/mini", "bundle/mine"}


def test_a_build_of_all_domains_builds_no_bundle(project: Path) -> None:
    bundle(project)
    graph = load(project)
    above = graph.above(graph.ends())
    assert not [step.name for step in above if step.target.startswith("bundle/")]
    assert "quantize" not in {step.stage for step in above}, "only the bundle needs these files"


def test_a_bundle_of_all_types_has_f16_and_what_its_base_is_quantized_to(project: Path) -> None:
    bundle(project, quants="all")
    step = load(project).step("bundle", "bundle/mine")
    assert step.recipe["quants"] == ["F16", "Q8_0", "Q4_K_M"]
    assert step.inputs["base_gguf"].reads == ("mini-F16.gguf",)
    assert step.inputs["quantized"].reads == ("mini-Q8_0.gguf", "mini-Q4_K_M.gguf")


def test_an_edit_of_a_bundle_s_file_changes_that_bundle_alone(project: Path) -> None:
    bundle(project, "one")
    bundle(project, "other")
    before = load(project)
    bundle(project, "one", description="Another word")
    after = load(project)
    changed = {
        step.name
        for key, step in after.steps.items()
        if step.fingerprint != before.steps[key].fingerprint
    }
    assert changed == {"bundle/one/bundle"}


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({"domains": ["nutritoin"]}, r"unknown domain or category 'nutritoin'; did you mean 'nutr"),
        ({"domains": ["health"]}, r"unknown domain or category 'health'; did you mean 'healthc"),
        (
            {"quants": ["Q2_K"]},
            r"quants: mini has no Q2_K; add it to base.quants in conf/base/mini",
        ),
        ({"quants": ["BF16"]}, r"quants: mini has no BF16; name one of F16, Q8_0, Q4_K_M"),
    ],
)
def test_what_a_bundle_names_and_nobody_has_is_refused(
    project: Path, content: dict[str, Any], said: str
) -> None:
    bundle(project, **content)
    assert refused(project).startswith("conf/bundle/mine.yaml: ")
    with pytest.raises(ConfigError, match=said):
        select_targets(load(project), ["bundle/mine"])


def test_a_bundle_that_is_refused_hinders_no_domain(project: Path) -> None:
    bundle(project, domains=["nutritoin"])
    graph = load(project)
    assert select_targets(graph, ["nutrition"]) == ["nutrition"]
    assert graph.bundles == {}


def test_a_named_domain_that_is_not_built_is_refused(project: Path) -> None:
    bundle(project, domains=["nutrition", "storytelling"])
    edit(project / "conf" / "build.yaml", "domains", ["nutrition"])
    assert "domains: 'storytelling' is not built; add it to domains in conf/build.yaml" in refused(
        project
    )


def test_a_bundle_without_any_domain_that_is_built_is_refused(project: Path) -> None:
    bundle(project, domains=["creative"])
    edit(project / "conf" / "build.yaml", "domains", ["nutrition"])
    assert "domains: none of them is built; add some to domains in conf/build" in refused(project)


def test_domains_on_several_bases_are_refused_by_name(project: Path) -> None:
    (project / "models" / "other").mkdir(parents=True)
    write_yaml(project / "conf" / "base" / "other.yaml", OTHER)
    override(project, "storytelling", {"base": "other"})
    bundle(project)
    said = refused(project)
    assert "a bundle has one: nutrition, programming on mini; storytelling on other" in said
    bundle(project, domains=["nutrition", "programming"])
    assert "bundle/mine" in load(project).bundles


def test_a_domain_that_has_no_adapter_is_refused_by_name_with_what_to_do(project: Path) -> None:
    override(project, "storytelling", {"gguf.files": "merged"})
    bundle(project)
    assert (
        "domains: storytelling: gguf.files is merged, which makes no adapter; set it to lora or "
        "both, or leave the domain out"
    ) in refused(project)


def test_a_domain_that_was_judged_on_none_of_the_bundle_s_types_is_refused(project: Path) -> None:
    edit(project / "conf" / "domain" / "nutrition.yaml", "quants", ["F16", "Q8_0"])
    bundle(project)
    assert "nutrition was judged on F16, Q8_0, and on none of Q4_K_M" in refused(project)


def test_an_importance_matrix_without_a_sample_is_refused(project: Path) -> None:
    bundle(project)
    for domain in ("nutrition", "programming", "storytelling"):
        override(project, domain, {"gguf.imatrix.enabled": False})
    edit(project / "conf" / "build.yaml", "sample", None)
    assert "there is no sample to make it of; name one in conf/build.yaml" in refused(project)


@pytest.mark.parametrize("name", ["base", "bundle", "report", "adapter", "my-bundle", "x" * 65])
def test_a_name_that_is_reserved_or_no_name_is_refused(project: Path, name: str) -> None:
    bundle(project, name)
    with pytest.raises(ConfigError, match=f"conf/bundle/{name}.yaml: '{name}' cannot name a bun"):
        load(project)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({"domain": ["nutrition"]}, "unknown key 'domain'; did you mean 'domains'?"),
        ({"domains": []}, "domains: should be 'all' or needs at least one entry"),
        ({"quants": []}, "quants: should be 'all' or needs at least one entry"),
        ({"quants": ["Q4_K_X"]}, "Q4_K_X"),
        ({"quants": "some"}, "quants: should be 'all' or a valid list"),
    ],
)
def test_a_bundle_s_file_that_is_wrong_in_itself_is_refused_with_file_and_key(
    project: Path, content: dict[str, Any], said: str
) -> None:
    bundle(project, **content)
    with pytest.raises(ConfigError) as fault:
        load(project)
    assert "conf/bundle/mine.yaml:" in str(fault.value)
    assert said in str(fault.value)


def test_an_unknown_bundle_is_refused_with_the_nearest(project: Path) -> None:
    bundle(project)
    assert refused(project, "mien") == "unknown bundle 'bundle/mien'; did you mean 'bundle/mine'?"


def test_overrides_are_for_domains(project: Path) -> None:
    bundle(project)
    said = split_words(["bundle/mine", "training.epochs=2"])
    with pytest.raises(ConfigError, match="is for domains, and a bundle holds"):
        select_targets(load(project, None, said), said.domains)


def test_the_shipped_bundles_are_all_domains_full_and_lite_and_one_a_category(
    tmp_path: Path,
) -> None:
    project = small_project(tmp_path / "project")
    repository = Path(__file__).parents[2] / "conf"
    shutil.copytree(repository / "bundle", project / "conf" / "bundle")
    categories = {
        read_yaml(path)["category"] for path in sorted((repository / "domain").glob("*.yaml"))
    }
    graph = load(project)
    names = {name.removeprefix("bundle/") for name in (*graph.bundles, *graph.refused)}
    assert names == {"universal", "universal_lite", *categories}
    full, lite = (
        graph.step("bundle", f"bundle/{name}").recipe for name in ("universal", "universal_lite")
    )
    assert full["members"] == lite["members"] == graph.domains
    assert len(full["quants"]) > len(lite["quants"]) == 1
