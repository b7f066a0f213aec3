"""conf/ and overlays → one configuration for each domain: who wins, and what is refused."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import Phase, example, given, settings
from hypothesis import strategies as st
from projects import choose, edit, override, read_yaml, small_project, write_yaml
from pydantic import TypeAdapter

from meetara_build.config.overrides import split_words
from meetara_build.config.resolve import Configuration, Resolved
from meetara_build.config.schema import NAME
from meetara_build.config.yaml_files import render_yaml
from meetara_build.context.reports import Target
from meetara_build.errors import ConfigError


@pytest.fixture
def project(tmp_path: Path) -> Path:
    return small_project(tmp_path / "project", ["nutrition", "programming"])


def resolve(project: Path, domain: str = "nutrition", hardware: str | None = None) -> Resolved:
    return Configuration(project, hardware).resolve(domain)


def decide(project: Path, domain: str, **values: Any) -> Path:
    """Write an overlay; ``training__epochs=3`` decides ``training.epochs``."""
    path = project / "conf" / "overlay" / f"{domain}.yaml"
    decisions = [
        {
            "key": key.replace("__", "."),
            "value": value,
            "agent": "tuner",
            "reason": "it was better before",
        }
        for key, value in values.items()
    ]
    path.parent.mkdir(exist_ok=True)
    path.write_text(render_yaml({"decisions": decisions}, path.name), encoding="utf-8")
    return path


def refused(project: Path, domain: str = "nutrition") -> str:
    with pytest.raises(ConfigError) as fault:
        resolve(project, domain)
    return str(fault.value)


def test_each_layer_wins_over_the_one_below(project: Path) -> None:
    """build.yaml < base < machine < domain < overlay < command line."""
    conf = project / "conf"
    layers = [
        (lambda: edit(conf / "build.yaml", "lora.alpha", 21), 21),
        (lambda: override(project, "base/mini", {"lora.alpha": 22}), 22),
        (lambda: override(project, "hardware/cpu", {"lora.alpha": 23}), 23),
        (lambda: override(project, "nutrition", {"lora.alpha": 24}), 24),
        (lambda: decide(project, "nutrition", lora__alpha=25), 25),
    ]
    for lay, alpha in layers:
        lay()
        assert resolve(project).build.lora.alpha == alpha
    said = split_words(["nutrition", "lora.alpha=26"])
    assert Configuration(project, None, said).resolve("nutrition").build.lora.alpha == 26
    assert Configuration(project, None, said).resolve("programming").build.lora.alpha == 23
    assert resolve(project, "programming").build.lora.alpha == 23


def test_each_change_names_its_file_and_an_agent_s_its_reason(project: Path) -> None:
    override(project, "nutrition", {"training.patience": 5})
    decide(project, "nutrition", training__epochs=7)
    changes = {change.key: change for change in resolve(project).changes}
    assert changes["training.epochs"]._asdict() == {
        "key": "training.epochs",
        "value": 7,
        "below": 2,
        "path": "conf/overlay/nutrition.yaml",
        "agent": "tuner",
        "reason": "it was better before",
    }
    assert changes["training.patience"].path == "conf/domain/nutrition.yaml"
    assert changes["training.patience"].agent is None
    assert changes["training.patience"].below == 3, "build.yaml's"
    assert changes["data.max_tokens"].path == "conf/base/mini.yaml"


def test_base_and_machine_can_be_chosen_for_one_domain(project: Path) -> None:
    override(project, "programming", {"base": "smollm2_135m", "hardware": "t4"})
    chosen, other = resolve(project, "programming"), resolve(project)
    assert (chosen.base_name, chosen.hardware.device) == ("smollm2_135m", "cuda")
    assert (other.base_name, other.hardware_name) == ("mini", "cpu")
    assert chosen.build.training.learning_rate == 1e-3, "the chosen base's own overrides hold"


def test_a_choice_of_base_or_machine_is_a_change_like_any_other(project: Path) -> None:
    override(project, "programming", {"base": "smollm2_135m"})
    changes = {change.key: change for change in resolve(project, "programming").changes}
    assert (changes["base"].below, changes["base"].value) == ("mini", "smollm2_135m")
    assert changes["base"].path == "conf/domain/programming.yaml"


def test_what_a_base_is_made_with_is_no_matter_of_one_domain(project: Path) -> None:
    """The last domain's overrides once reached the base, and with it all the others."""
    before = Configuration(project).common("mini")
    for domain in ("nutrition", "programming"):
        override(project, domain, {"seed": 99, "hardware": "t4", "gguf.logits_bound": 0.5})
    assert Configuration(project).common("mini") == before


def test_the_machine_of_the_command_line_wins_over_all(project: Path) -> None:
    override(project, "programming", {"hardware": "t4"})
    assert resolve(project, "programming", "h100").hardware_name == "h100"


def test_quants_and_sources_can_be_decided_by_an_overlay(project: Path) -> None:
    decide(project, "nutrition", domain__quants=["F16", "Q6_K"])
    assert resolve(project).domain.quants == ["F16", "Q6_K"]
    decide(project, "nutrition", domain__quants=["F16", "Q6K"])
    said = refused(project)
    assert "conf/overlay/nutrition.yaml" in said
    assert "did you mean 'Q6_K'?" in said


def test_a_bound_can_be_added_for_a_known_quant_type_only(project: Path) -> None:
    override(project, "nutrition", {"evaluation.max_kl.Q3_K_M": 0.4})
    assert resolve(project).build.evaluation.max_kl["Q3_K_M"] == 0.4
    override(project, "nutrition", {"evaluation.max_kl.Q3KM": 0.4})
    assert "unknown quant type 'Q3KM'" in refused(project)
    decide(project, "programming", **{"evaluation.max_kl.Q3 K=M": 0.4})
    assert "unknown key 'evaluation.max_kl.Q3 K=M'" in refused(project, "programming")


def test_an_unknown_key_of_an_override_is_refused_with_its_file(project: Path) -> None:
    override(project, "nutrition", {"training.epoch": 3})
    said = refused(project)
    line = line_of(project / "conf" / "domain" / "nutrition.yaml", "epoch:")
    assert f"conf/domain/nutrition.yaml:{line}: unknown key 'training.epoch'" in said
    assert "did you mean 'epochs'?" in said


def line_of(path: Path, start: str) -> int:
    lines = path.read_text().splitlines()
    return next(number for number, line in enumerate(lines, 1) if line.strip().startswith(start))


@pytest.mark.parametrize(
    "key", ["root", "store", "domains", "locked", "agents.at_most_times", "context.url"]
)
@pytest.mark.parametrize("file", ["nutrition", "base/mini", "hardware/cpu"])
def test_an_override_may_not_reach_what_belongs_to_the_whole_build(
    project: Path, file: str, key: str
) -> None:
    override(project, file, {key: 1})
    section = key.partition(".")[0]
    said = f"unknown key '{section}'; it belongs to the whole build: set it in conf/build.yaml"
    assert refused(project).endswith(said)


@pytest.mark.parametrize(
    ("file", "key"),
    [
        ("nutrition", "base.parameters"),
        ("base/mini", "hardware.threads"),
        ("base/mini", "domain.quants"),
        ("hardware/cpu", "base.parameters"),
        ("hardware/cpu", "hydra.run"),
    ],
)
def test_a_file_sets_its_own_keys_and_no_other_s(project: Path, file: str, key: str) -> None:
    override(project, file, {key: 1})
    assert f"unknown key '{key.partition('.')[0]}'; " in refused(project).splitlines()[0]


def test_build_yaml_chooses_a_base_and_says_nothing_of_what_it_is(project: Path) -> None:
    edit(project / "conf" / "build.yaml", "base", {"parameters": 3})
    assert refused(project).endswith(
        "unknown key 'base'; write `- base: NAME` in `defaults:`, and its keys in conf/base/NAME.yaml"
    )


def test_a_domain_may_use_its_machine_in_its_own_way(project: Path) -> None:
    override(project, "nutrition", {"hardware.threads": 3})
    assert resolve(project).hardware.threads == 3
    assert resolve(project, "programming").hardware.threads == 1


@pytest.mark.parametrize("file", ["nutrition", "base/mini", "hardware/cpu"])
def test_a_list_in_the_place_of_a_mapping_is_refused_with_its_line(
    project: Path, file: str
) -> None:
    override(project, file, {"lora": [1]})
    path = project / "conf" / (f"{file}.yaml" if "/" in file else f"domain/{file}.yaml")
    said = f"{path}:{line_of(path, 'lora:')}: lora: expected `key: value` lines of rank, alpha"
    assert refused(project).startswith(said)
    edit(project / "conf" / "build.yaml", "seed", "${data.min_tokens}")
    assert said in refused(project), "whoever merges it"


def test_a_wrong_value_is_refused_where_it_stands_though_another_layer_sets_the_key_too(
    project: Path,
) -> None:
    build, own = project / "conf" / "build.yaml", project / "conf" / "domain" / "nutrition.yaml"
    edit(build, "training.epochs", "three")
    edit(build, "lora.alpha", "${lora.rank}")
    said = refused(project)
    line = line_of(build, "epochs: three")
    assert said == f"{build}:{line}: training.epochs: should be a valid integer, not 'three'"
    edit(build, "training.epochs", 3)
    edit(own, "quants", ["Q4KM"])
    decide(project, "nutrition", domain__quants=["F16"])
    assert f"{own}:{line_of(own, 'quants:')}: quants: unknown quant type 'Q4KM'" in refused(project)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"training": 1}, "training: expected `key: value` lines of epochs"),
        ({"seed.x": 1}, "seed: should be a valid integer, not {'x': 1}"),
        ({"domain.safety": "strickt"}, "domain.safety: should be 'strict' or 'standard'"),
    ],
)
def test_a_value_of_the_wrong_kind_is_refused_with_its_line(
    project: Path, wrong: dict[str, Any], said: str
) -> None:
    override(project, "nutrition", wrong)
    line = line_of(
        project / "conf" / "domain" / "nutrition.yaml", f"{next(iter(wrong)).split('.')[-1]}:"
    )
    if "seed.x" in wrong:
        line -= 1
    assert f"conf/domain/nutrition.yaml:{line}: {said}" in refused(project)


def test_a_wrong_value_is_blamed_on_the_file_and_line_that_set_it(project: Path) -> None:
    override(project, "nutrition", {"training.epochs": "many"})
    decide(project, "nutrition", lora__rank=4)
    path = project / "conf" / "domain" / "nutrition.yaml"
    line = line_of(path, "epochs:")
    assert (
        refused(project) == f"{path}:{line}: training.epochs: should be a valid integer, not 'many'"
    )


def test_values_that_only_together_are_wrong_are_refused(project: Path) -> None:
    override(project, "nutrition", {"data.min_tokens": 2000})
    assert "data.min_tokens must be below data.max_tokens" in refused(project)


def test_an_overlay_for_no_domain_is_refused(project: Path) -> None:
    decide(project, "nutritoin", lora__rank=4)
    assert (
        "overlay/nutritoin.yaml: decides for an unknown domain; did you mean 'nutrition'?"
        in refused(project)
    )


@pytest.mark.parametrize("lock", ["training.epochs", "training"])
@pytest.mark.parametrize("where", ["build", "domain"])
def test_a_locked_key_cannot_be_decided(project: Path, lock: str, where: str) -> None:
    path = project / "conf" / ("build.yaml" if where == "build" else "domain/nutrition.yaml")
    edit(path, "locked", [lock])
    override(project, "nutrition", {"training.epochs": 4})
    assert resolve(project).build.training.epochs == 4, "a person may set it"
    decide(project, "nutrition", training__epochs=5)
    said = refused(project)
    assert f"'training.epochs' is locked; remove the decision, or the lock '{lock}'" in said


def test_a_lock_with_a_typo_is_refused(project: Path) -> None:
    edit(project / "conf" / "domain" / "nutrition.yaml", "locked", ["training.epoch"])
    assert "locked: unknown key 'training.epoch'; did you mean 'training.epochs'?" in refused(
        project
    )


def test_domains_are_chosen_by_name_and_by_category(project: Path) -> None:
    def selected(words: Any) -> list[str]:
        edit(project / "conf" / "build.yaml", "domains", words)
        return Configuration(project).list_selected()

    assert selected("all") == ["nutrition", "programming"]
    assert selected(["technology"]) == ["programming"]
    assert selected(["programming", "healthcare", "nutrition"]) == ["nutrition", "programming"]
    with pytest.raises(
        ConfigError, match=r"unknown domain 'nutritoin'; did you mean 'nutrition'\?"
    ):
        selected(["nutritoin"])


def test_unknown_names_are_refused_with_the_nearest(project: Path) -> None:
    build = project / "conf" / "build.yaml"
    assert "unknown domain 'nutrtion'; did you mean 'nutrition'?" in refused(project, "nutrtion")
    choose(project, base="minni")
    line = line_of(build, "- base:")
    assert f"{build}:{line}: unknown base 'minni'; did you mean 'mini'?" in refused(project)
    choose(project)
    override(project, "nutrition", {"base": "smollm2_135"})
    assert (
        "domain/nutrition.yaml:3: unknown base 'smollm2_135'; did you mean 'smollm2_135m'?"
        in refused(project)
    )


def test_the_defaults_list_chooses_a_base_and_a_machine(project: Path) -> None:
    build = project / "conf" / "build.yaml"
    edit(build, "defaults", ["_self_", {"base": "mini"}, {"domain": "???"}])
    assert "defaults: no hardware is chosen; add `- hardware: NAME`" in refused(project)
    edit(build, "defaults", ["_self_", {"base": "mini"}, {"hardware": "cpu"}])
    assert "defaults: no domain is chosen; add `- domain: ???`" in refused(project)
    edit(build, "defaults", ["_self_", {"base": "mini"}, {"hardwear": "cpu"}, {"domain": "???"}])
    assert "unknown group 'hardwear'; did you mean 'hardware'?" in refused(project)


def test_a_defaults_list_in_which_build_yaml_would_win_over_its_base_is_refused(
    project: Path,
) -> None:
    chosen = [{"base": "mini"}, {"hardware": "cpu"}, {"domain": "???"}, "_self_"]
    edit(project / "conf" / "build.yaml", "defaults", chosen)
    assert (
        "build.yaml:1: defaults: each wins over those before it; write _self_, base, hardware, domain "
        "once each, in this order" in refused(project)
    )


@pytest.mark.parametrize("name", ["My-Domain", "2nd"])
def test_a_name_that_cannot_be_a_folder_s_is_refused(project: Path, name: str) -> None:
    conf = project / "conf" / "domain"
    (conf / f"{name}.yaml").write_bytes((conf / "nutrition.yaml").read_bytes())
    assert f"'{name}' cannot name a domain" in refused(project)


@pytest.mark.parametrize("group", ["base", "hardware", "provider", "safety", "domain"])
@pytest.mark.parametrize("name", ["my-model", "Model", "x" * 65, "1st", "mödel"])
def test_every_file_that_stands_for_something_has_a_name_that_reports_can_have(
    project: Path, group: str, name: str
) -> None:
    """A base called my-model was built, and every report of its steps was put aside unseen."""
    known = next(iter(sorted((project / "conf" / group).glob("*.yaml"))))
    (known.parent / f"{name}.yaml").write_bytes(known.read_bytes())
    said = refused(project)
    assert (
        f"conf/{group}/{name}.yaml: '{name}' cannot name a {group}; use lower-case letters, digits and _"
        in said
    )
    assert "64 at most" in said


@given(st.from_regex(NAME, fullmatch=True))
def test_a_name_that_is_allowed_can_be_a_report_s_target(name: str) -> None:
    assert TypeAdapter(Target).validate_python(name) == name
    assert TypeAdapter(Target).validate_python(f"base/{name}") == f"base/{name}"


def test_a_base_is_a_file_of_its_folder_and_no_path(project: Path) -> None:
    (project / "x.yaml").write_bytes((project / "conf" / "base" / "mini.yaml").read_bytes())
    override(project, "nutrition", {"base": "../../x"})
    assert "conf/domain/nutrition.yaml:3: unknown base '../../x'" in refused(project)


@pytest.mark.parametrize("key", ["base", "hardware"])
@pytest.mark.parametrize("file", ["base/mini", "hardware/cpu"])
def test_a_base_and_a_machine_do_not_choose_each_other(project: Path, file: str, key: str) -> None:
    """What nobody follows is refused, not passed over."""
    override(project, file, {key: "t4"})
    assert (
        f"conf/{file}.yaml:2: unknown key 'defaults'; base and hardware are chosen in conf/build.yaml"
        in refused(project)
    )


# The old form


@pytest.mark.parametrize("file", ["domain/nutrition", "base/other", "hardware/t4"])
def test_a_key_of_the_old_form_is_unknown_and_the_message_shows_the_new_form(
    project: Path, file: str
) -> None:
    group = file.partition("/")[0]
    path = project / "conf" / f"{file}.yaml"
    about = {"description": "x", "licence": "mit", "chat_template": "chatml", "parameters": 1}
    content = read_yaml(path) if path.exists() else {**about, "folder": "models/x"}
    path.write_text(yaml.safe_dump({**content, "overrides": {"training.epochs": 4}}))
    if group != "domain":
        choose(project, **{group: file.partition("/")[2]})
    said = (
        f"{path}:{line_of(path, 'overrides:')}: unknown key 'overrides'; begin the file with "
        f"`# @package _global_`, write its own keys below `{group}:` and build.yaml's beside it, like "
        "`training: {epochs: 4}`"
    )
    assert refused(project).startswith(said)


def test_a_key_of_build_yaml_among_a_domain_s_own_is_told_the_form_in_which_it_can_stand(
    project: Path,
) -> None:
    path = project / "conf" / "domain" / "nutrition.yaml"
    written = read_yaml(path)
    path.write_text(yaml.safe_dump({**written, "training": {"epochs": 4}, "quants": ["Q4KM"]}))
    first, second = refused(project).splitlines()
    assert "unknown key 'training'; begin the file with `# @package _global_`" in first
    assert "quants: unknown quant type 'Q4KM'" in second, "all faults at once"
    text = "# a comment\n# @package _global_\n" + yaml.safe_dump({"domain": written})
    path.write_text(text)
    assert "unknown key 'domain'" in refused(project), "Hydra looks at the first line alone"


def test_own_keys_beside_the_group_s_name_are_told_where_to_stand(project: Path) -> None:
    override(project, "nutrition", {"quants": ["F16"], "trainig.epochs": 3})
    said = refused(project)
    assert "unknown key 'quants'; write it below `domain:`" in said
    assert "unknown key 'trainig'; did you mean 'training'?" in said


@pytest.mark.parametrize(
    ("entry", "line"),
    [
        ({"override /bse": "mini"}, 3),
        ({"base": "mini"}, 3),
        ("other", 3),
        ({"override /base": 3}, 3),
    ],
)
def test_a_domain_chooses_base_and_machine_and_nothing_else(
    project: Path, entry: Any, line: int
) -> None:
    override(project, "nutrition", {"defaults": [entry]})
    content = read_yaml(project / "conf" / "domain" / "nutrition.yaml")
    write_yaml(
        project / "conf" / "domain" / "nutrition.yaml",
        {"defaults": content.pop("defaults"), **content},
    )
    assert f"nutrition.yaml:{line}: defaults: " in refused(project)
    assert "a domain chooses `- override /base: NAME`" in refused(project)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("training: {topic_weights: {3: 2}}", "key '3' is no text to YAML; put it in quotes"),
        ("description: 2026-01-01", "description: 2026-01-01 is a date to YAML; put it in quotes"),
        (
            "hydra: {run: {dir: x}}",
            "unknown key 'hydra'; Hydra itself is set up by the tool: remove it",
        ),
    ],
)
def test_what_is_no_value_of_a_configuration_is_refused(
    project: Path, text: str, said: str
) -> None:
    path = project / "conf" / "hardware" / "cpu.yaml"
    override(project, "hardware/cpu", {"seed": 3})
    path.write_text(f"{path.read_text()}{text}\n")
    assert f"{path}:{len(path.read_text().splitlines())}: {said}" in refused(project)


def test_a_value_that_is_still_to_be_given_is_asked_for(project: Path) -> None:
    path = project / "conf" / "build.yaml"
    edit(path, "keep_merged", "???")
    line = line_of(path, "keep_merged:")
    assert refused(project) == f"{path}:{line}: keep_merged: is still to be given; write its value"
    override(project, "hardware/cpu", {"keep_merged": True})
    assert resolve(project).build.keep_merged


def test_a_share_of_nothing_to_test_by_is_refused_before_anything_is_trained(project: Path) -> None:
    override(project, "nutrition", {"data.test": 0.0})
    assert (
        "data.test: should be above 0: a model that no held-out record is kept for cannot be evaluated"
        in refused(project)
    )
    override(project, "nutrition", {"data.test": 0.1, "data.validation": 0.0})
    assert resolve(project).build.data.validation == 0


def test_an_edit_is_seen_by_the_next_configuration_and_projects_do_not_mix(
    project: Path, tmp_path: Path
) -> None:
    other = small_project(tmp_path / "other", ["nutrition"])
    edit(other / "conf" / "build.yaml", "training.patience", 9)
    first, second = Configuration(project), Configuration(other)
    assert second.resolve("nutrition").build.training.patience == 9
    assert first.resolve("nutrition").build.training.patience == 3
    edit(project / "conf" / "build.yaml", "training.patience", 8)
    assert resolve(project).build.training.patience == 8


@pytest.fixture(scope="module")
def fixed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_project(tmp_path_factory.mktemp("resolve") / "project", ["nutrition"])


SLOW = settings(deadline=None, max_examples=20, phases=[Phase.explicit, Phase.generate])
"""Each example reads a whole configuration."""

TEXT = st.text(st.characters(blacklist_categories=["Cs", "Cc"]), max_size=12)


@SLOW
@example(texts=["1e100"], rate=0.35, alpha=1053, rslora=False)
@example(texts=[r"a\.b\\'c\\", "\\", "it's", "${x}", ""], rate=1e-7, alpha=1, rslora=True)
@given(
    texts=st.lists(TEXT, max_size=3, unique=True),
    rate=st.floats(1e-9, 0.9),
    alpha=st.integers(1, 10**9),
    rslora=st.booleans(),
)
def test_any_value_passes_through_unchanged(
    fixed: Path, texts: list[str], rate: float, alpha: int, rslora: bool
) -> None:
    decide(
        fixed,
        "nutrition",
        training__topic_weights=dict.fromkeys(texts, 2),
        training__learning_rate=rate,
        lora__alpha=alpha,
        lora__rslora=rslora,
        training__max_steps=None,
    )
    build = resolve(fixed).build
    assert (list(build.training.topic_weights), build.training.learning_rate) == (texts, rate)
    assert (build.lora.alpha, build.lora.rslora, build.training.max_steps) == (alpha, rslora, None)


@SLOW
@given(
    st.permutations([("training.epochs", 4), ("lora.rank", 8), ("seed", 3), ("data.test", 0.25)])
)
def test_the_order_of_decisions_and_keys_does_not_matter(
    fixed: Path, values: list[tuple[str, Any]]
) -> None:
    decide(fixed, "nutrition", **{key.replace(".", "__"): value for key, value in values})
    build = resolve(fixed).build
    assert (build.training.epochs, build.lora.rank, build.seed, build.data.test) == (4, 8, 3, 0.25)
