"""conf/ is typed: what is unknown, missing or of the wrong kind is refused with file, line, key and
what to write."""

import datetime
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from projects import REPOSITORY, mini_base

from meetara_build.config.resolve import Configuration
from meetara_build.config.schema import Base, Build, Domain, Hardware, Overlay, Shape, check
from meetara_build.config.yaml_files import Place, read_yaml
from meetara_build.errors import ConfigError

CONF = REPOSITORY / "conf"


def domain(**changes: Any) -> dict[str, Any]:
    return {**read_yaml(CONF / "domain" / "nutrition.yaml"), **changes}


def build(**changes: Any) -> dict[str, Any]:
    content = read_yaml(CONF / "build.yaml")
    del content["defaults"]
    return {**content, **changes}


def refused(path: Path, shape: type[Shape], content: dict[str, Any]) -> str:
    path.write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
    with pytest.raises(ConfigError) as fault:
        check(shape, read_yaml(path), path)
    return str(fault.value)


def line_of(path: Path, start: str) -> int:
    return next(
        number
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if line.strip().startswith(start)
    )


def test_a_gpu_s_precision_is_named(tmp_path: Path) -> None:
    gpu = {**read_yaml(CONF / "hardware" / "t4.yaml"), "precision": "auto"}
    said = refused(tmp_path / "t4.yaml", Hardware, gpu)
    assert "precision: auto is found out on the machine that plans" in said
    assert "name bfloat16, or float32" in said


@pytest.mark.parametrize("slots", [0, 65, "many", 1.5, None])
def test_slots_are_a_number_of_trainings(slots: Any, tmp_path: Path) -> None:
    path = tmp_path / "t4.yaml"
    said = refused(path, Hardware, {**read_yaml(CONF / "hardware" / "t4.yaml"), "slots": slots})
    assert said.startswith(f"{path}:{line_of(path, 'slots')}: slots: should be")
    assert "\n" not in said


def test_every_shipped_file_fits_its_shape() -> None:
    for group, names in list_groups().items():
        assert names, group
    shipped = Configuration(REPOSITORY)
    for name in shipped.domains:
        shipped.resolve(name)
    for name in shipped.files["base"]:
        shipped.common(name)
    for name in shipped.files["hardware"]:
        Configuration(REPOSITORY, name)


def list_groups() -> dict[str, list[Path]]:
    return {group: list(CONF.glob(f"{group}/*.yaml")) for group in ("base", "domain", "hardware")}


@pytest.mark.parametrize(
    ("shape", "content", "key", "meant"),
    [
        (Domain, domain(saftey="strict"), "saftey", "safety"),
        (Domain, domain(evaluation={"beat_base": 0.1}), "evaluation.beat_base", "beat_base_by"),
        (Domain, domain(sources=[{"path": "a.csv", "colums": {}}]), "sources.0.colums", "columns"),
        (
            Domain,
            domain(sources=[{"path": "a.csv", "columns": {"promt": "q"}}]),
            "sources.0.columns.promt",
            "prompt",
        ),
        (Build, build(trainig={}), "trainig", "training"),
        (Build, build(gguf={**build()["gguf"], "imatrx": 1}), "gguf.imatrx", "imatrix"),
        (
            Base,
            {**mini_base(), "model": {**mini_base()["model"], "head": 4}},
            "model.head",
            "heads",
        ),
        (
            Overlay,
            {"decisions": [{"key": "a", "value": 1, "agent": "b", "reasn": "c"}]},
            "decisions.0.reasn",
            "reason",
        ),
    ],
)
def test_an_unknown_key_is_refused_with_file_line_path_and_the_nearest_known_key(
    tmp_path: Path, shape: type[Shape], content: dict[str, Any], key: str, meant: str
) -> None:
    path = tmp_path / "x.yaml"
    said = refused(path, shape, content)
    line = line_of(path, f"{key.rpartition('.')[2]}:")
    assert f"{path}:{line}: unknown key '{key}'; did you mean '{meant}'?" in said


@given(
    st.from_regex(r"[a-z_]{1,12}", fullmatch=True).filter(
        lambda key: key not in Domain.model_fields
    )
)
def test_no_unknown_key_is_ever_accepted(key: str) -> None:
    path = CONF / "domain" / "nutrition.yaml"
    with pytest.raises(
        ConfigError, match=rf"nutrition\.yaml: unknown key '{key}'; (did you mean|known: )"
    ):
        check(Domain, domain(**{key: 1}), path)


def test_all_faults_are_named_at_once(tmp_path: Path) -> None:
    content = domain(safety="strickt", quants=["Q4KM"], topic=["a"])
    del content["description"]
    said = refused(tmp_path / "x.yaml", Domain, content).splitlines()
    assert len(said) == 4
    assert any("key 'description' is missing; add it" in line for line in said)
    assert any("safety: should be 'strict' or 'standard', not 'strickt'" in line for line in said)
    assert any("unknown quant type 'Q4KM'; did you mean 'Q4_K_M'?" in line for line in said)
    assert any("unknown key 'topic'; did you mean 'topics'?" in line for line in said)


def test_one_wrong_value_is_one_fault_whatever_it_might_have_been(tmp_path: Path) -> None:
    said = refused(
        tmp_path / "x.yaml",
        Domain,
        domain(evaluation={"beat_base_by": datetime.date(2026, 1, 1)}),
    )
    assert len(said.splitlines()) == 1
    said = refused(tmp_path / "x.yaml", Build, build(domains="nutrition"))
    assert said.endswith("domains: should be 'all' or a valid list, not 'nutrition'")


@pytest.mark.parametrize("value", ["3", 3.0, True, None, 0, -1])
def test_a_count_is_a_whole_number_above_zero(tmp_path: Path, value: Any) -> None:
    said = refused(
        tmp_path / "x.yaml", Build, build(training={**build()["training"], "epochs": value})
    )
    assert "training.epochs: should be" in said


@pytest.mark.parametrize("value", [float("nan"), float("inf"), "0.1", 0.0])
def test_a_learning_rate_is_a_finite_number_above_zero(tmp_path: Path, value: Any) -> None:
    said = refused(
        tmp_path / "x.yaml", Build, build(training={**build()["training"], "learning_rate": value})
    )
    assert "training.learning_rate: should be" in said


def test_the_split_leaves_enough_to_train_on(tmp_path: Path) -> None:
    said = refused(
        tmp_path / "x.yaml", Build, build(data={**build()["data"], "validation": 0.5, "test": 0.4})
    )
    assert (
        "data: validation and test together leave too little to train on: keep them below 0.9"
        in said
    )


def test_the_length_limits_are_in_order(tmp_path: Path) -> None:
    said = refused(tmp_path / "x.yaml", Build, build(data={**build()["data"], "min_tokens": 512}))
    assert "data.min_tokens must be below data.max_tokens" in said


@pytest.mark.parametrize("source", [{"split": "train"}, {"path": "a.csv", "hub": "b/c"}])
def test_a_source_is_a_file_or_a_hub_s(tmp_path: Path, source: dict[str, str]) -> None:
    assert "a source has either a path or a hub id" in refused(
        tmp_path / "x.yaml", Domain, domain(sources=[source])
    )


def test_a_domain_has_a_source_and_a_quant_type(tmp_path: Path) -> None:
    assert "sources: needs at least one entry" in refused(
        tmp_path / "x.yaml", Domain, domain(sources=[])
    )
    assert "quants: needs at least one entry" in refused(
        tmp_path / "x.yaml", Domain, domain(quants=[])
    )
    assert "listed twice" in refused(tmp_path / "x.yaml", Domain, domain(quants=["F16", "F16"]))


def test_a_source_that_is_a_mere_word_is_told_its_keys(tmp_path: Path) -> None:
    said = refused(tmp_path / "x.yaml", Domain, domain(sources=["records.jsonl"]))
    assert "sources.0: expected `key: value` lines of path, hub" in said


def test_a_bound_is_for_a_known_quant_type(tmp_path: Path) -> None:
    said = refused(
        tmp_path / "x.yaml", Build, build(evaluation={"max_records": None, "max_kl": {"q8": 0.1}})
    )
    assert "evaluation.max_kl: unknown quant type 'q8'" in said


def test_a_base_is_made_here_or_comes_from_somewhere(tmp_path: Path) -> None:
    content = mini_base()
    del content["tokenizer"]
    assert "has all of tokenizer, model and pretraining" in refused(
        tmp_path / "x.yaml", Base, content
    )
    for key in ("model", "pretraining"):
        del content[key]
    assert "a base has a hub_id, a folder, a gguf file, or is made here" in refused(
        tmp_path / "x.yaml", Base, content
    )
    assert not check(Base, {**content, "folder": "models/mine"}, tmp_path).made_here
    assert check(Base, mini_base(), tmp_path).made_here


LOADED = {"description": "x", "licence": "mit", "chat_template": "chatml", "parameters": 1}
COMMIT, DIGEST = "0" * 40, "0" * 64


@pytest.mark.parametrize(
    ("origin", "said"),
    [
        (
            {"hub_id": "a/b"},
            "a base of a hub is pinned to a commit: add `revision:` with its 40 hex digits",
        ),
        (
            {"hub_id": "a/b", "revision": "main"},
            "revision: should be a commit's 40 hex digits, as the hub lists them under Files, not 'main'",
        ),
        ({"gguf": "x.gguf", "folder": "models/x"}, "gguf goes with no other"),
        ({"gguf": {"file": "x.gguf"}}, "a path, a package or a hub_id, and only one of them"),
        (
            {"gguf": {"package": "a==1", "hub_id": "a/b", "file": "x", "sha256": DIGEST}},
            "and only one of them",
        ),
        (
            {"gguf": {"package": "a==1", "file": "x.gguf"}},
            "a GGUF file of a package has a sha256 too",
        ),
        (
            {"gguf": {"package": "a>=1", "file": "x.gguf", "sha256": DIGEST}},
            "gguf.package: should be a package and one version of it, NAME==VERSION, not 'a>=1'",
        ),
        ({"gguf": {"package": "a==1", "file": "x.gguf", "sha256": "12"}}, "gguf.sha256: "),
        ({"gguf": {"hub_id": "a/b"}}, "a GGUF file of a hub has a file and a revision too"),
        (
            {"gguf": {"path": "x.gguf", "sha256": DIGEST}},
            "sha256 mean nothing for a GGUF file with a path",
        ),
    ],
)
def test_where_a_base_comes_from_is_pinned(
    origin: dict[str, Any], said: str, tmp_path: Path
) -> None:
    assert said in refused(tmp_path / "x.yaml", Base, {**LOADED, **origin})


@pytest.mark.parametrize(
    "origin",
    [
        {"hub_id": "a/b", "revision": COMMIT},
        {"hub_id": "a/b", "folder": "models/x"},
        {"gguf": "models/x.gguf"},
        {"gguf": {"path": "models/x.gguf"}},
        {"gguf": {"package": "a==1.0", "file": "a/x.gguf", "sha256": DIGEST}},
        {"gguf": {"hub_id": "a/b", "revision": COMMIT, "file": "x.gguf"}},
    ],
)
def test_every_place_that_a_base_may_come_from(origin: dict[str, Any], tmp_path: Path) -> None:
    assert not check(Base, {**LOADED, **origin}, tmp_path / "x.yaml").made_here


def test_every_shipped_base_is_pinned() -> None:
    shipped = Configuration(REPOSITORY)
    for name in shipped.files["base"]:
        base = shipped.common(name).base
        file = base.gguf
        assert base.made_here or base.revision or (file and file.sha256), name


def test_a_value_set_elsewhere_is_blamed_on_the_file_that_sets_it() -> None:
    content = build(training={**build()["training"], "epochs": -1})

    def locate(at: Place) -> tuple[str, str]:
        return "other.yaml:3", ".".join(map(str, at))

    with pytest.raises(ConfigError) as fault:
        check(Build, content, CONF / "build.yaml", locate)
    assert str(fault.value) == "other.yaml:3: training.epochs: should be greater than 0, not -1"
