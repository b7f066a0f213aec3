"""Which key of conf/ reaches which stage's recipe: the table of what a person's edit can make run
again."""

import json
from typing import Any

import pytest
from projects import REPOSITORY, mini_base
from pydantic import ValidationError

from meetara_build.config import auto_precision
from meetara_build.config.resolve import Common, Configuration, Resolved
from meetara_build.config.schema import Base, Build, Domain, GgufFile, Hardware, check
from meetara_build.config.yaml_files import read_yaml
from meetara_build.graph.recipes import MAKERS, Scope, make_recipe, source_recipe
from meetara_build.graph.stages import BUNDLE, RULES, STAGE, STAGES, Key
from meetara_build.store.manifest import digest_json

CONF = REPOSITORY / "conf"


def contents() -> dict[str, dict[str, Any]]:
    build = read_yaml(CONF / "build.yaml")
    del build["defaults"]
    return {
        "build": build,
        "domain": read_yaml(CONF / "domain" / "nutrition.yaml"),
        "base": mini_base(["nutrition"]),
        "hardware": {**read_yaml(CONF / "hardware" / "cpu.yaml"), "precision": "float32"},
    }


def recipes(given: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """The recipe of each rule's stage, as it is hashed."""
    build = check(Build, given["build"], CONF)
    domain = check(Domain, given["domain"], CONF)
    base = check(Base, given["base"], CONF)
    hardware = check(Hardware, given["hardware"], CONF)
    item = Resolved("nutrition", domain, "mini", base, "cpu", hardware, build, [])
    found: dict[str, dict[str, Any]] = {}
    for rule, row in RULES.items():
        if row.of == BUNDLE:  # it has no domain's configuration
            continue
        made = make_recipe(row, Scope(item, {"nutrition": item}, found)).model_dump(mode="json")
        found[rule] = {key: value for key, value in made.items() if key not in row.settings}
    return found


def base_recipe(name: str, base: Base) -> dict[str, Any]:
    """What is hashed of a base that is not made here: the fields that say something."""
    build = check(Build, contents()["build"], CONF)
    hardware = check(Hardware, contents()["hardware"], CONF)
    item = Common(name, base, hardware, build, [])
    made = make_recipe(STAGE["base"], Scope(item)).model_dump(mode="json")
    return {key: value for key, value in made.items() if value is not None}


def reached(file: str, key: str, value: Any) -> set[str]:
    """The stages whose recipes differ once a dotted key has another value."""
    before, given = recipes(contents()), contents()
    *above, last = key.split(".")
    place = given[file]
    for part in above:
        place = place[part]
    place[last] = value
    after = recipes(given)
    return {stage for stage in before if before[stage] != after[stage]}


# A GGUF file's metadata name the recipe of all that it was made by, so whatever reaches a stage
# before reaches gguf.
DATA = {"corpus", "dataset", "merge", "gguf"}
TRAINING = {"adapter", "merge", "gguf"}
ALIKE = {"start", *TRAINING}  # a common start is of the shape that adapters have
BASE = {"base", "merge", "gguf"}
SAYS = {"package"}
MAP = {"report"}
NOTHING: set[str] = set()

BUILD_KEYS = {
    "keep_merged": (True, {"merge"}),
    "sample": ("other.jsonl", NOTHING),
    "root": ("elsewhere", NOTHING),
    "store": ("/somewhere/shared", NOTHING),
    "context.url": ("postgresql://somewhere/context", NOTHING),
    "context.keep_days": (10, NOTHING),
    "context.keep_samples_days": (1, NOTHING),
    "domains": (["nutrition"], NOTHING),
    "seed": (3, {"base", *ALIKE}),
    "data.min_tokens": (9, {"dataset", "merge", "gguf"}),
    "data.max_tokens": (400, {"dataset", "baseline", "evaluate", *ALIKE}),
    "data.near_duplicate": (0.9, DATA),
    "data.near_group": (0.5, DATA),
    "data.validation": (0.2, DATA),
    "data.test": (0.15, DATA),
    "data.max_bad_share": (0.5, DATA),
    "data.max_drop_share": (0.9, {"dataset", "merge", "gguf"}),
    "data.repair_text": (False, DATA),
    "data.html_to_text": (True, DATA),
    "data.drop": (["0123456789abcdef"], {"dataset", "merge", "gguf"}),
    "lora.rank": (8, ALIKE),
    "lora.alpha": (8, ALIKE),
    "lora.dropout": (0.1, ALIKE),
    "lora.targets": (["q_proj"], ALIKE),
    "lora.rslora": (True, ALIKE),
    "lora.dora": (True, ALIKE),
    "start.enabled": (True, TRAINING),
    "start.threads": (1, {"start", "merge", "gguf"}),
    "start.epochs": (9, {"start", "merge", "gguf"}),
    "start.batch_tokens": (999, {"start", "merge", "gguf"}),
    "start.learning_rate": (0.5, {"start", "merge", "gguf"}),
    "training.epochs": (9, TRAINING),
    "training.max_steps": (9, TRAINING),
    "training.batch_tokens": (999, TRAINING),
    "training.micro_batch_tokens": (99, ALIKE),
    "training.gradient_checkpointing": (True, TRAINING),
    "training.learning_rate": (0.5, TRAINING),
    "training.warmup_share": (0.5, TRAINING),
    "training.weight_decay": (0.5, TRAINING),
    "training.clip_norm": (0.5, TRAINING),
    "training.patience": (9, TRAINING),
    "training.validations_per_epoch": (9, TRAINING),
    "training.warm_start": ("programming@" + "a" * 64, TRAINING | MAP),
    "training.loss_on_prompt": (True, TRAINING),
    "training.joint": (["programming"], TRAINING | MAP),
    "training.topic_weights": ({"allergies": 2}, TRAINING),
    "training.observers": (["quality_assurance"], TRAINING),
    "merge.bound": (0.5, {"merge"}),
    "gguf.imatrix.enabled": (False, {"gguf", "quantize"}),
    "gguf.imatrix.tokens": (99, {"imatrix"}),
    "gguf.files": ("merged", {"gguf", "package"}),
    "gguf.logits_bound": (0.5, {"merge", "gguf", "base_gguf"}),
    "gguf.tensor_types": ({"ffn_down": "Q6_K"}, {"gguf", "quantize"}),
    "evaluation.max_records": (9, {"baseline", "evaluate"}),
    "evaluation.kl_tokens": (9, {"evaluate"}),
    "evaluation.max_loss": (5.0, SAYS),
    "evaluation.worse_by": (0.5, SAYS),
    "answers.prompts": (9, {"baseline", "evaluate"}),
    "answers.tokens": (9, {"baseline", "evaluate"}),
    "answers.choice_tokens": (9, {"baseline", "evaluate"}),
    "answers.bounds.strict.calls": (0.5, SAYS),
    "answers.bounds.standard": ({"phones": 0.5}, NOTHING),  # nutrition is strict
    "priority": (3, NOTHING),
    "evaluation.max_kl.Q8_0": (0.5, SAYS),
}
DOMAIN_KEYS = {
    "topics": (["another"], NOTHING),
    "description": ("Another", SAYS),
    "category": ("own", SAYS | MAP),
    "safety": ("standard", SAYS),
    "evaluation.beat_base_by": (0.5, SAYS),
    "languages": (["en"], DATA | SAYS),
    "system_prompt": ("Another", DATA | SAYS),
    "sources": ([{"path": "other.jsonl"}], DATA),
    "quants": (["F16"], {"gguf", "evaluate", "package"}),
}
BASE_KEYS = {
    "description": ("Another", NOTHING),
    "parameters": (5, NOTHING),
    "quants": (["Q6_K"], {"quantize"}),
    "licence": ("mit", {"base_gguf", "merge", "gguf", "package"}),
    "pretraining.share": (0.9, {"corpus"}),
    "pretraining.epochs": (9, BASE),
    "pretraining.threads": (2, BASE),
    "tokenizer.vocab_size": (2048, BASE),
    "model.layers": (2, BASE),
}
HARDWARE_KEYS = {
    "description": ("Another", NOTHING),
    "memory_gb": (64, NOTHING),
    "gpus": (2, NOTHING),
    "gpu_memory_gb": (8, NOTHING),
    "device": ("cuda", ALIKE),
    "precision": ("bfloat16", ALIKE),
    "slots": (3, {"adapter", "merge", "gguf"}),
    "threads": (
        2,
        {"merge", "base_gguf", "imatrix", "quantize", "baseline", "evaluate", *TRAINING},
    ),
}


@pytest.mark.parametrize("found", ["float32", "bfloat16"])
def test_a_recipe_holds_the_precision_that_auto_became(
    found: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(auto_precision, "_find_best", lambda: found)
    given = contents()
    given["hardware"]["precision"] = found
    named = recipes(given)
    given["hardware"]["precision"] = "auto"
    assert recipes(given) == named
    assert named["adapter"]["precision"] == found


@pytest.mark.parametrize(
    ("file", "key", "value", "stages"),
    [
        (file, key, value, stages)
        for file, keys in (
            ("build", BUILD_KEYS),
            ("domain", DOMAIN_KEYS),
            ("base", BASE_KEYS),
            ("hardware", HARDWARE_KEYS),
        )
        for key, (value, stages) in keys.items()
    ],
)
def test_a_key_reaches_the_stages_that_read_it_and_no_other(
    file: str, key: str, value: Any, stages: set[str]
) -> None:
    assert reached(file, key, value) == stages


def test_the_table_above_is_complete() -> None:
    def dotted(content: dict[str, Any], above: str = "") -> set[str]:
        found = set()
        for key, value in content.items():
            found |= (
                dotted(value, f"{above}{key}.")
                if isinstance(value, dict) and value
                else {f"{above}{key}"}
            )
        return found

    keys = dotted(contents()["build"])
    bounds = {
        key for key in keys if key.startswith(("evaluation.max_kl.", "answers.bounds.strict."))
    }
    unlisted = {
        "training.schedule",
        "training.checkpoint_seconds",
    }  # one has a single value, the other reaches no recipe
    beside = {
        key for key in keys if key.startswith(("agents.", "tuning."))
    }  # what decides between builds is in no recipe
    assert keys - bounds - unlisted - beside == set(BUILD_KEYS) - bounds


def test_recipes_are_plain_json() -> None:
    """The same bytes whatever process or order they were made in."""
    for recipe in recipes(contents()).values():
        assert digest_json(recipe) == digest_json(dict(reversed(list(recipe.items()))))


def test_types_of_single_tensors_are_in_no_recipe_where_nothing_is_quantized() -> None:
    given = contents()
    given["build"]["gguf"]["tensor_types"] = {"ffn_down": "Q6_K"}
    assert recipes(given)["gguf"]["tensor_types"] == {"ffn_down": "Q6_K"}
    given["domain"]["quants"] = ["F16", "BF16"]
    assert recipes(given)["gguf"]["tensor_types"] == {}


def test_where_a_checkout_lies_is_in_no_recipe() -> None:
    assert str(REPOSITORY) not in str(recipes(contents()))


@pytest.mark.parametrize("path", ["a.jsonl", "../data/a.jsonl", "/home/someone/a.jsonl"])
def test_a_source_goes_by_its_own_name(path: str) -> None:
    assert (
        source_recipe(
            check(Domain, {**contents()["domain"], "sources": [{"path": path}]}, CONF).sources[0]
        ).name
        == "a.jsonl"
    )


def test_a_loaded_base_is_known_by_its_place_on_the_hub_and_a_folder_by_its_content() -> None:
    loaded = Configuration(REPOSITORY).common("smollm2_135m_hub").base
    assert base_recipe("smollm2_135m", loaded) == {
        "name": "smollm2_135m",
        "hub_id": "HuggingFaceTB/SmolLM2-135M-Instruct",
        "revision": "12fd25f77366fa6b3b4b768ec3050bf629380bac",
    }
    assert base_recipe("mine", loaded.model_copy(update={"folder": "../models/mine"})) == {
        "name": "mine"
    }


def test_a_base_out_of_a_package_is_known_by_what_pins_its_file() -> None:
    build, hardware = (
        check(Build, contents()["build"], CONF),
        check(Hardware, contents()["hardware"], CONF),
    )
    shipped = Configuration(REPOSITORY).common("smollm2_135m").base
    made = base_recipe("smollm2_135m", shipped)
    assert set(made) == {"name", "gguf"}
    assert {key for key, value in made["gguf"].items() if value} == {"package", "file", "sha256"}
    own = make_recipe(
        RULES["base_gguf"], Scope(Common("smollm2_135m", shipped, hardware, build, []))
    )
    assert own.model_dump(mode="json")["original"] == made["gguf"]
    moved = base_recipe(
        "mine", shipped.model_copy(update={"gguf": GgufFile(path="/another/place/mine.gguf")})
    )
    assert {key: value for key, value in moved["gguf"].items() if value} == {"file": "mine.gguf"}


# The table says where every field comes from


@pytest.mark.parametrize("row", STAGES, ids=lambda row: row.rule)
def test_what_the_table_says_of_a_recipe_is_a_field_of_its_model(row: Any) -> None:
    model = row.load_model()
    assert {*row.fields, *row.settings} <= set(model.model_fields)
    needed = {name for name, field in model.model_fields.items() if field.is_required()}
    assert needed <= set(row.fields)


def test_every_function_that_the_table_names_is_there_and_used() -> None:
    named = {
        key.by
        for row in STAGES
        for field in row.fields.values()
        for key in (
            [field]
            if isinstance(field, Key)
            else [field.of]
            if isinstance(field.of, Key)
            else [key for key in field.of.values() if isinstance(key, Key)]
        )
    }
    assert named - {""} == set(MAKERS)


@pytest.mark.parametrize(
    "row", [row for row in STAGES if row.of != BUNDLE], ids=lambda row: row.rule
)
def test_a_recipe_comes_back_from_its_json_as_it_was(row: Any) -> None:
    """A job reads what the graph keeps as JSON."""
    made = recipes(contents())[row.rule]
    model = row.load_model()
    again = model.model_validate(json.loads(json.dumps(made)))
    dumped = again.model_dump(mode="json")
    assert {key: value for key, value in dumped.items() if key not in row.settings} == made
    with pytest.raises(ValidationError):
        model.model_validate({**made, "unknown": 1})
