"""Which key of conf/ reaches which stage's recipe: the table of what a person's edit can make run again."""

from pathlib import Path
from typing import Any

import pytest
from projects import REPOSITORY, mini_base

from meetara_build.config.resolve import Configuration
from meetara_build.config.schema import Base, Build, Domain, GgufFile, Hardware, check
from meetara_build.config.yaml_files import read_yaml
from meetara_build.graph import recipes
from meetara_build.store.manifest import digest_json

CONF = REPOSITORY / "conf"


def contents() -> dict[str, dict[str, Any]]:
    build = read_yaml(CONF / "build.yaml")
    del build["defaults"]
    return {
        "build": build,
        "domain": read_yaml(CONF / "domain" / "nutrition.yaml"),
        "base": mini_base(["nutrition"]),
        "hardware": read_yaml(CONF / "hardware" / "cpu.yaml"),
    }


def slices(given: dict[str, dict[str, Any]]) -> dict[str, recipes.Slice]:
    build = check(Build, given["build"], CONF)
    domain = check(Domain, given["domain"], CONF)
    base = check(Base, given["base"], CONF)
    hardware = check(Hardware, given["hardware"], CONF)
    found = {
        "corpus": recipes.corpus(base, {"nutrition": (domain, build)}),
        "base": recipes.base("mini", base, build),
        "base_gguf": recipes.base_gguf("mini", base, build, hardware),
        "dataset": recipes.dataset("nutrition", domain, build),
        "adapter": recipes.adapter("nutrition", build, hardware),
        "merge": recipes.merge("nutrition", build, hardware),
    }
    above = {stage: found[stage] for stage in ("base", "dataset", "adapter", "merge")}
    found["gguf"] = recipes.gguf("nutrition", "mini", base, domain, build, hardware, above)
    found["evaluate"] = recipes.evaluate("nutrition", "mini", domain, build, hardware)
    found["package"] = recipes.package("nutrition", "mini", base, domain, build)
    return found


def reached(file: str, key: str, value: Any) -> set[str]:
    """The stages whose recipes differ once a dotted key has another value."""
    before, given = slices(contents()), contents()
    *above, last = key.split(".")
    place = given[file]
    for part in above:
        place = place[part]
    place[last] = value
    after = slices(given)
    return {stage for stage in before if before[stage] != after[stage]}


# A GGUF file's metadata name the recipe of all that it was made by, so whatever reaches a stage before reaches gguf.
DATA = {"corpus", "dataset", "gguf"}
TRAINING = {"adapter", "gguf"}
BASE = {"base", "gguf"}
SAYS = {"package"}
NOTHING: set[str] = set()

BUILD_KEYS = {
    "keep_merged": (True, NOTHING),
    "root": ("elsewhere", NOTHING),
    "store": ("/somewhere/shared", NOTHING),
    "context.url": ("postgresql://somewhere/context", NOTHING),
    "context.keep_days": (10, NOTHING),
    "context.keep_samples_days": (1, NOTHING),
    "domains": (["nutrition"], NOTHING),
    "seed": (3, {"base", "adapter", "gguf"}),
    "data.min_tokens": (9, {"dataset", "gguf"}),
    "data.max_tokens": (400, {"dataset", "adapter", "gguf", "evaluate"}),
    "data.near_duplicate": (0.9, DATA),
    "data.near_group": (0.5, DATA),
    "data.validation": (0.2, DATA),
    "data.test": (0.15, DATA),
    "data.max_bad_share": (0.5, DATA),
    "data.max_drop_share": (0.9, {"dataset", "gguf"}),
    "data.repair_text": (False, DATA),
    "data.html_to_text": (True, DATA),
    "data.drop": (["0123456789abcdef"], {"dataset", "gguf"}),
    "lora.rank": (8, TRAINING),
    "lora.alpha": (8, TRAINING),
    "lora.dropout": (0.1, TRAINING),
    "lora.targets": (["q_proj"], TRAINING),
    "lora.rslora": (True, TRAINING),
    "lora.dora": (True, TRAINING),
    "training.epochs": (9, TRAINING),
    "training.max_steps": (9, TRAINING),
    "training.batch_tokens": (999, TRAINING),
    "training.micro_batch_tokens": (99, TRAINING),
    "training.gradient_checkpointing": (True, TRAINING),
    "training.learning_rate": (0.5, TRAINING),
    "training.warmup_share": (0.5, TRAINING),
    "training.weight_decay": (0.5, TRAINING),
    "training.clip_norm": (0.5, TRAINING),
    "training.patience": (9, TRAINING),
    "training.validations_per_epoch": (9, TRAINING),
    "training.warm_start": ("programming@" + "a" * 64, TRAINING),
    "training.loss_on_prompt": (True, TRAINING),
    "training.joint": (["programming"], TRAINING),
    "training.topic_weights": ({"allergies": 2}, TRAINING),
    "training.observers": (["quality_assurance"], TRAINING),
    "merge.bound": (0.5, {"merge", "gguf"}),
    "gguf.imatrix.enabled": (False, {"gguf"}),
    "gguf.imatrix.tokens": (99, {"gguf"}),
    "gguf.lora": (False, {"gguf", "package"}),
    "gguf.logits_bound": (0.5, {"gguf", "base_gguf"}),
    "gguf.tensor_types": ({"ffn_down": "Q6_K"}, {"gguf"}),
    "evaluation.max_records": (9, {"evaluate"}),
    "evaluation.max_loss": (5.0, SAYS),
    "priority": (3, NOTHING),
    "evaluation.max_kl.Q8_0": (0.5, SAYS),
}
DOMAIN_KEYS = {
    "topics": (["another"], NOTHING),
    "description": ("Another", SAYS),
    "category": ("own", SAYS),
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
    "licence": ("mit", {"base_gguf", "gguf", "package"}),
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
    "device": ("cuda", TRAINING),
    "precision": ("bfloat16", TRAINING),
    "threads": (2, {"adapter", "merge", "gguf", "base_gguf", "evaluate"}),
}


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
    bounds = {key for key in keys if key.startswith("evaluation.max_kl.")}
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
    for recipe in slices(contents()).values():
        assert digest_json(recipe) == digest_json(dict(reversed(list(recipe.items()))))


def test_types_of_single_tensors_are_in_no_recipe_where_nothing_is_quantized() -> None:
    given = contents()
    given["build"]["gguf"]["tensor_types"] = {"ffn_down": "Q6_K"}
    assert slices(given)["gguf"]["tensor_types"] == {"ffn_down": "Q6_K"}
    given["domain"]["quants"] = ["F16", "BF16"]
    assert slices(given)["gguf"]["tensor_types"] == {}


def test_where_a_checkout_lies_is_in_no_recipe() -> None:
    assert str(REPOSITORY) not in str(slices(contents()))


@pytest.mark.parametrize("path", ["a.jsonl", "../data/a.jsonl", "/home/someone/a.jsonl"])
def test_a_source_goes_by_its_own_name(path: str) -> None:
    given = contents()["domain"]
    domain = check(Domain, {**given, "sources": [{"path": path}]}, Path("x.yaml"))
    assert recipes.source_slices(domain)[0]["name"] == "a.jsonl"


def test_a_loaded_base_is_known_by_its_place_on_the_hub_and_a_folder_by_its_content() -> None:
    build = check(Build, contents()["build"], CONF)
    loaded = Configuration(REPOSITORY).common("smollm2_135m_hub").base
    assert recipes.base("smollm2_135m", loaded, build) == {
        "name": "smollm2_135m",
        "hub_id": "HuggingFaceTB/SmolLM2-135M-Instruct",
        "revision": "12fd25f77366fa6b3b4b768ec3050bf629380bac",
    }
    assert recipes.base("mine", loaded.model_copy(update={"folder": "../models/mine"}), build) == {
        "name": "mine"
    }


def test_a_base_out_of_a_package_is_known_by_what_pins_its_file() -> None:
    build, hardware = (
        check(Build, contents()["build"], CONF),
        check(Hardware, contents()["hardware"], CONF),
    )
    shipped = Configuration(REPOSITORY).common("smollm2_135m").base
    slice_ = recipes.base("smollm2_135m", shipped, build)
    assert set(slice_) == {"name", "gguf"}
    assert set(slice_["gguf"]) == {"package", "file", "sha256"}
    assert recipes.base_gguf("smollm2_135m", shipped, build, hardware)["original"] == slice_["gguf"]
    moved = shipped.model_copy(update={"gguf": GgufFile(path="/another/place/mine.gguf")})
    assert recipes.base("mine", moved, build) == {"name": "mine", "gguf": {"file": "mine.gguf"}}
