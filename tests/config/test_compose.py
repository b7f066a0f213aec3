"""What is composed once for many domains is what Hydra composes for each; interpolations and a
command line's overrides too."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from hydra.errors import HydraException
from hypothesis import Phase, example, given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from projects import edit, override, small_project, write_yaml

from meetara_build.config.overrides import NO_OVERRIDES, read_overrides, split_words
from meetara_build.config.resolve import Configuration
from meetara_build.config.schema import Base, Build, Domain, Hardware, check
from meetara_build.errors import ConfigError
from meetara_build.graph import load

Typed = tuple[Build, Base, Hardware, Domain]
NAMES = ("nutrition", "programming", "music")


@pytest.fixture(scope="module")
def fixed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project on two bases, whose files interpolate."""
    project = small_project(tmp_path_factory.mktemp("compose") / "project", NAMES)
    edit(project / "conf" / "build.yaml", "lora.alpha", "${lora.rank}")
    edit(project / "conf" / "build.yaml", "training.patience", "${oc.decode:${oc.env:PATIENCE,4}}")
    override(project, "hardware/cpu", {"training.micro_batch_tokens": "${training.batch_tokens}"})
    override(project, "base/smollm2_360m", {"evaluation.max_kl.Q8_0": 0.5, "data.drop": ["a" * 16]})
    return project


def by_hydra(project: Path, domain: str, words: list[str]) -> Typed:
    """What Hydra composes for a domain, whole, in its shapes."""
    with initialize_config_dir(str(project / "conf"), version_base="1.3"):
        composed = compose("build", [f"domain={domain}", *words])
    content: Any = OmegaConf.to_container(composed, resolve=True)
    base, hardware, own = (content.pop(group) for group in ("base", "hardware", "domain"))
    path = project / "conf" / "build.yaml"
    return (
        check(Build, content, path),
        check(Base, base, path),
        check(Hardware, hardware, path),
        check(Domain, own, path),
    )


def by_us(project: Path, domain: str, words: list[str]) -> Typed:
    found = Configuration(project, None, split_words([domain, *words])).resolve(domain)
    return found.build, found.base, found.hardware, found.domain


SETS = st.fixed_dictionaries(
    {},
    optional={
        "base": st.sampled_from(["smollm2_360m", "qwen2_5_0_5b", "mini"]),
        "hardware": st.sampled_from(["a10", "cpu"]),
        "training.epochs": st.integers(1, 9) | st.just("${lora.rank}"),
        "training.max_steps": st.none() | st.integers(1, 9),
        "training.joint": st.lists(st.sampled_from(NAMES), max_size=2),
        "training.topic_weights": st.dictionaries(
            st.text(max_size=5), st.integers(1, 9), max_size=2
        ),
        "lora.rank": st.integers(1, 64),
        "lora.targets": st.just(["q_proj", "v_proj"]) | st.just("all-linear"),
        "lora.dropout": st.floats(0, 0.9),
        "evaluation.max_kl.Q3_K_M": st.just(0.5),
        "evaluation.max_kl.Q8_0": st.just("${evaluation.max_kl.Q6_K}"),
        "hardware.threads": st.integers(1, 4),
        "domain.quants": st.just(["F16", "Q8_0"]) | st.just(["${domain.languages.0}", "Q8_0"]),
        "domain.description": st.just("${domain.category}, ${seed}") | st.just(r"\${seed} and 1e3"),
        "domain.languages": st.just(["F16"]) | st.just(["en", "${domain.category}"]),
        "domain.evaluation.beat_base_by": st.just("${data.validation}"),
    },
)
WORDS = st.lists(
    st.sampled_from(
        [
            "training.epochs=4",
            "training.epochs=${lora.rank}",
            "training.max_steps=null",
            "lora.targets=[q_proj, v_proj]",
            "lora.dropout=1e-3",
            "training.topic_weights={a: 2, 'b c': 3}",
            "training.topic_weights.a=2",
            "+training.topic_weights.a=2",
            "++training.joint=[music]",
            "+training.joint=[music]",
            "+training.epochs=3",
            "~training.topic_weights",
            "~training.patience",
            "~training.max_steps=7",
            "~nothing.there",
            "+evaluation.max_kl.Q3_K_M=0.4",
            "evaluation.max_kl.IQ4_XS=0.4",
            "evaluation.max_kl={Q8_0: 0.1}",
            "gguf.tensor_types={ffn_down: Q6_K}",
            "domain.description='a, b: {c}'",
            'domain.system_prompt="she said \\"so\\""',
            "domain.quants=[F16]",
            "domain.sources=[{path: music.jsonl, limit: 3}]",
            "hardware.threads=2",
            "base=smollm2_360m",
            "hardware=a10",
            "seed=yes",
            "merge.bound=.5",
        ]
    ),
    max_size=4,
)


@settings(max_examples=25, phases=[Phase.explicit, Phase.generate])
@example(sets={}, words=[])
@example(sets={"base": "smollm2_360m", "lora.rank": 3}, words=["training.epochs=${lora.rank}"])
@example(
    sets={"training.topic_weights": {"a": 1}}, words=["training.topic_weights={a: 2, 'b c': 3}"]
)
@given(sets=SETS, words=WORDS)
def test_a_domain_is_what_hydra_composes_for_it(
    fixed: Path, sets: dict[str, Any], words: list[str]
) -> None:
    path = fixed / "conf" / "domain" / "nutrition.yaml"
    before = path.read_bytes()
    try:
        if sets:
            override(fixed, "nutrition", sets)
        for name in NAMES:
            try:
                wanted = by_hydra(fixed, name, words)
            except (HydraException, OmegaConfBaseException, ConfigError):
                with pytest.raises(ConfigError):
                    by_us(fixed, name, words)
            else:
                assert by_us(fixed, name, words) == wanted
    finally:
        path.write_bytes(before)


def test_every_shipped_domain_is_what_hydra_composes_for_it(tmp_path: Path) -> None:
    from projects import REPOSITORY

    shipped = Configuration(REPOSITORY)
    for name in sorted(shipped.domains)[::12]:
        found = shipped.resolve(name)
        assert (found.build, found.base, found.hardware, found.domain) == by_hydra(
            REPOSITORY, name, []
        )


@pytest.mark.parametrize(
    "header", ["# @package _global_", "\n  #@package _global_", "# @author me\n# @package _global_"]
)
@pytest.mark.parametrize("file", ["domain/nutrition", "base/mini"])
def test_a_header_is_read_as_hydra_reads_it(project: Path, file: str, header: str) -> None:
    override(project, file.removeprefix("domain/"), {"seed": 99})
    path = project / "conf" / f"{file}.yaml"
    path.write_text(path.read_text().replace("# @package _global_", header))
    assert by_us(project, "nutrition", []) == by_hydra(project, "nutrition", [])
    assert by_us(project, "nutrition", [])[0].seed == 99


# Interpolations


@pytest.fixture
def project(tmp_path: Path) -> Path:
    return small_project(tmp_path / "project", ["nutrition", "programming"])


def refused(project: Path, *words: str) -> str:
    with pytest.raises(ConfigError) as fault:
        Configuration(project, None, split_words(words)).resolve("nutrition")
    return str(fault.value)


def line_of(path: Path, start: str) -> int:
    lines = path.read_text().splitlines()
    return next(number for number, line in enumerate(lines, 1) if line.strip().startswith(start))


def test_a_root_below_a_variable_of_the_environment(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It once made a folder of that name; and the graph that is kept is another's for another
    value."""
    edit(project / "conf" / "build.yaml", "root", "${oc.env:SCRATCH}/a")
    for name in ("one", "two"):
        monkeypatch.setenv("SCRATCH", str(tmp_path / name))
        assert load(project).root == tmp_path / name / "a"
    secret = "sesame"
    edit(project / "conf" / "build.yaml", "seed", "${oc.decode:${oc.env:SEED}}")
    monkeypatch.setenv("SEED", "12345678")
    monkeypatch.setenv("SCRATCH", secret)
    load(project)
    assert json.loads((project / ".meetara" / "graph-default.json").read_text())["environment"] == [
        "SCRATCH",
        "SEED",
    ]


def test_a_missing_variable_is_one_message_with_file_line_and_key(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SCRATCH", raising=False)
    path = project / "conf" / "build.yaml"
    edit(path, "root", "${oc.env:SCRATCH}/a")
    said = refused(project)
    assert said.startswith(
        f"{path}:{line_of(path, 'root:')}: root: '${{oc.env:SCRATCH}}/a' leads nowhere"
    )
    assert "Environment variable 'SCRATCH' not found" in said
    assert said.endswith(
        "give a default: `${oc.env:NAME,DEFAULT}`, or write `\\${` where the text itself is meant"
    )
    edit(path, "root", "${oc.env:SCRATCH,artifacts}")
    assert Configuration(project).build.root == "artifacts"


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("${lora.rnk}", "Interpolation key 'lora.rnk' not found"),
        ("${training.patience}", ""),
        ("${now:%Y}", "calls an unknown 'now'; known: oc.create"),
        ("${oc.enf:HOME}", "calls an unknown 'oc.enf'; did you mean 'oc.env'?"),
        ("${hydra:runtime.cwd}", "calls an unknown 'hydra'"),
    ],
)
def test_an_interpolation_that_leads_nowhere_is_refused_where_it_stands(
    project: Path, text: str, why: str
) -> None:
    path = project / "conf" / "domain" / "nutrition.yaml"
    override(project, "nutrition", {"training.patience": text, "lora.alpha": "${no.where}"})
    said = refused(project).splitlines()
    assert len(said) == 2, "all of them at once"
    (own,) = [
        line for line in said if f":{line_of(path, 'patience:')}: training.patience: " in line
    ]
    assert own.startswith(str(path))
    assert why in own


@pytest.mark.parametrize("file", ["nutrition", "base/mini", "hardware/cpu"])
def test_what_only_begins_like_an_interpolation_is_refused(project: Path, file: str) -> None:
    override(project, file, {"lora.alpha": "${lora.rank", "lora.rank": "${}"})
    first, second = refused(project).splitlines()
    assert "lora.alpha: '${lora.rank' is no interpolation (" in first
    assert "lora.rank: '${}' is no interpolation (" in second
    override(project, file, {"lora.alpha": 3, "lora.rank": 4})
    assert Configuration(project).resolve("nutrition").build.lora.rank == 4


def test_an_agent_s_text_is_never_an_interpolation(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It could tell a secret to whoever reads the model card."""
    monkeypatch.setenv("TOKEN", "sesame")
    edit(project / "conf" / "build.yaml", "lora.alpha", "${lora.rank}")
    paths = ["${oc.env:TOKEN}", r"\${lora.rank}", "???", r"a\\${x}"]
    decided = [
        {"key": "domain.sources", "value": [{"path": path} for path in paths]},
        {"key": "lora.rank", "value": 5},
    ]
    taken = [{**one, "agent": "tuner", "reason": "so"} for one in decided]
    write_yaml(project / "conf" / "overlay" / "nutrition.yaml", {"decisions": taken})
    found = Configuration(project).resolve("nutrition")
    assert [source.path for source in found.domain.sources] == paths
    assert found.build.lora.alpha == 5, "but others' interpolations see what it decides"


# The command line


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("training.epoch=4", "unknown key 'training.epoch'; did you mean 'training.epochs'?"),
        ("trainig.epochs=4", "unknown key 'trainig.epochs'; did you mean 'training'?"),
        ("training.epochs=many", "training.epochs: should be a valid integer, not 'many'"),
        ("training.epochs=1,2", "give one value"),
        ("training.epochs=range(1,3)", "give one value"),
        ("training.epochs=[1", "write KEY=VALUE, +KEY=VALUE or ~KEY"),
        ("+training.epochs=4", "it is there already: write `training.epochs=4`"),
        ("~training.epochs", "key 'training.epochs' is missing"),
        ("~training.epochs=9", "it is 2: write `~training.epochs`"),
        ("~training.nothing", "unknown key 'training.nothing'; "),
        (
            "evaluation.max_kl.Q3_K_M=1.0",
            "To add a key to a mapping, write `+evaluation.max_kl.Q3_K_M=1.0`",
        ),
        ("domain.quants.0=F16", "give the whole list: KEY=[a,b]"),
        ("+domain.sources.0.limit=3", "give the whole list: KEY=[a,b]"),
        ("training=[1]", "it is {'epochs': 2"),
        ("training=3", "training: expected `key: value` lines"),
        ("root=elsewhere", "it belongs to the whole build: set it in conf/build.yaml"),
        ("agents.seconds=3", "it belongs to the whole build: set it in conf/build.yaml"),
        ("base.parameters=3", "choose another base, or set it in conf/base/NAME.yaml"),
        ("base=minni", "unknown base 'minni'; did you mean 'mini'?"),
        ("base@x=mini", "leave out what begins with @"),
        ("~base", "choose one: `base=NAME`"),
        ("+base=mini", "choose one: `base=NAME`"),
        ("domain=programming", "name domains without it"),
        ("hydra.run.dir=x", "unknown key 'hydra.run.dir'"),
        ("lora.alpha=${oc.env:NO_SUCH}", "lora.alpha: '${oc.env:NO_SUCH}' leads nowhere"),
    ],
)
def test_an_override_that_cannot_be_is_refused_and_says_what_can(
    fixed: Path, word: str, said: str
) -> None:
    text = refused(fixed, word)
    assert text.startswith("command line: ")
    assert said in text


def test_an_override_reaches_the_domains_that_are_named_and_all_if_none_is(project: Path) -> None:
    def epochs(*words: str) -> list[int]:
        configuration = Configuration(project, None, split_words(words))
        return [
            configuration.resolve(name).build.training.epochs
            for name in ("nutrition", "programming")
        ]

    assert epochs("nutrition", "training.epochs=7") == [7, 2]
    assert epochs("training.epochs=7") == [7, 7]
    assert epochs() == [2, 2]


def test_an_override_is_a_change_by_the_command_line_and_a_lock_is_for_agents(
    project: Path,
) -> None:
    edit(project / "conf" / "build.yaml", "locked", ["training"])
    said = split_words(["nutrition", "training.epochs=7", "hardware=t4"])
    changes = {
        change.key: change
        for change in Configuration(project, None, said).resolve("nutrition").changes
    }
    assert changes["training.epochs"][1:4] == (7, 2, "command line")
    assert changes["hardware"][1:4] == ("t4", "cpu", "command line")


def test_the_machine_of_the_command_line_wins_over_the_profile_s(project: Path) -> None:
    said = split_words(["hardware=h100"])
    assert Configuration(project, "t4", said).resolve("nutrition").hardware_name == "h100"
    assert Configuration(project, "t4", said).common("mini").hardware.device == "cuda"


# Once for many


def test_what_was_composed_is_kept_and_an_edit_composes_no_more_than_it_touches(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from meetara_build.config import compose as module

    made: list[str] = []
    for name in ("compose_pair", "lay_over"):
        real = getattr(module, name)
        monkeypatch.setattr(
            module, name, lambda *given, real=real, name=name: made.append(name) or real(*given)
        )

    def composed() -> list[str]:
        made.clear()
        configuration = Configuration(project)
        for name in configuration.domains:
            configuration.resolve(name)
        configuration.save()
        return list(made)

    assert composed() == ["compose_pair", "lay_over", "lay_over"]
    assert composed() == []
    override(project, "nutrition", {"training.epochs": 5})
    assert composed() == ["lay_over"]
    edit(project / "conf" / "build.yaml", "seed", 3)
    assert composed() == ["compose_pair", "lay_over", "lay_over"]
    (project / "conf" / "build.yaml").touch()
    assert composed() == []


def test_after_an_edit_of_a_domain_neither_hydra_nor_omegaconf_is_imported(project: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from meetara_build.config.resolve import Configuration\n"
        "found = Configuration(Path()); [found.resolve(name) for name in found.domains]; found.save()\n"
        "print(*{'hydra', 'omegaconf'} & set(sys.modules))"
    )

    def imported() -> list[str]:
        words = [sys.executable, "-c", code]
        done = subprocess.run(words, cwd=project, capture_output=True, text=True, check=True)
        return sorted(done.stdout.split())

    assert imported() == ["hydra", "omegaconf"]
    override(project, "nutrition", {"training.epochs": 5})
    assert imported() == []


def test_an_edit_while_hydra_reads_is_not_kept_under_the_text_before(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from meetara_build.config import compose as module

    real = module.compose_pair

    def interrupted(*given: Any) -> Any:
        edit(project / "conf" / "build.yaml", "seed", 99)
        return real(*given)

    monkeypatch.setattr(module, "compose_pair", interrupted)
    with pytest.raises(ConfigError, match="changed while it was read; run the command again"):
        Configuration(project)


@given(st.lists(st.text(), min_size=1))
def test_words_are_handed_on_as_one_in_which_no_one_sees_anything_but_text(
    values: list[str],
) -> None:
    said = split_words(["nutrition", *(f"domain.description={value}" for value in values)])
    text = said.as_text()
    assert re.fullmatch(r"[\w.~,%-]+", text, re.ASCII)
    assert read_overrides(text) == said


def test_overrides_are_two_kinds_of_words() -> None:
    said = split_words(["nutrition", "+a.b=3", "~c", "music", "hardware=a10"])
    assert said.domains == ("nutrition", "music")
    assert said.words == ("+a.b=3", "~c", "hardware=a10")
    assert read_overrides(said.as_text()) == said
    assert read_overrides(None) == NO_OVERRIDES
    assert not NO_OVERRIDES.reaches("nutrition")
