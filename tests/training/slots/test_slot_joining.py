"""Who joins others in a trainer's passes, and who is trained alone: with its reason, and as ever."""

import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
import torch
from transformers import PreTrainedModel

from meetara_build.errors import SetupError, TrainingError
from meetara_build.training.chat import Encoded
from meetara_build.training.kernels.lora import attach
from meetara_build.training.loop import train
from meetara_build.training.race import race
from meetara_build.training.settings import Settings
from meetara_build.training.slots import joining
from meetara_build.training.slots.joining import Sharing
from meetara_build.training.state import copy_tensors, put, trainable

Make = Callable[..., PreTrainedModel]
SETTINGS = Settings(epochs=2, batch_tokens=48, learning_rate=5e-3, seed=7)


def train_plainly(house: Any, domain: str, data: Any) -> str:
    """The same on a model of its own."""
    model = house.make(domain)
    train(model, *data, SETTINGS)
    return str(house.digest(model))


def test_a_record_that_is_longer_than_a_slot_is_trained_alone(house: Any) -> None:
    house.start()
    training, validation = house.data("legal")
    long = Encoded([1] * 70, [False] * 35 + [True] * 35)
    for data in (([*training, long], validation), (training, [*validation, long])):
        found = house.train("legal", data=data)
        assert found.company == {
            "company": "none",
            "company_reason": "a record has 70 tokens, and a slot 64",
        }
        assert found.history.computed["packs"] is True
        assert found.digest == train_plainly(house, "legal", data)


def test_who_is_refused_is_trained_alone_with_the_trainer_s_reason(house: Any) -> None:
    def refuse(trainer: Any) -> None:
        trainer.company, trainer.refusal = None, "there is no room"

    house.start(refuse)
    found = house.train("legal")
    assert found.company == {"company": "none", "company_reason": "there is no room"}
    assert found.digest == train_plainly(house, "legal", house.data("legal"))


def test_a_base_that_cannot_be_shared_is_refused_by_name(house: Any, tiny: Make) -> None:
    tiny("mamba").save_pretrained(house.base_folder)
    trainer = house.start()
    assert trainer.company is None
    assert trainer.refusal.startswith("MambaForCausalLM: its layers do not keep records")


def test_a_base_that_cannot_be_loaded_is_refused_with_what_is_wrong(house: Any) -> None:
    (house.base_folder / "config.json").unlink()
    trainer = house.start()
    assert "could not begin" in trainer.refusal
    assert "no base that can be loaded" in trainer.refusal


def test_layers_that_are_more_than_plain_lora_are_trained_alone(house: Any, tiny: Make) -> None:
    model = attach(tiny("gpt2"), house.base.lora, 0)
    training, validation = house.data("legal")
    sharing = house.share(training)
    train(model, training, validation, SETTINGS, prepare=sharing.prepare)
    assert "more than LoRA" in sharing.describe()["company_reason"]


def test_those_alone_take_turns(house: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The build begins as many as there are slots, and each would take the whole device."""
    inside, most = [0], [0]
    plain = joining.prepare_model

    def prepare(*given: Any) -> Any:
        inside[0] += 1
        most[0] = max(most[0], inside[0])
        time.sleep(0.3)
        inside[0] -= 1
        return plain(*given)

    monkeypatch.setattr(joining, "prepare_model", prepare)
    monkeypatch.setattr(Sharing, "_find_hindrance", lambda *_: "for this test")
    found = house.train_together(["nutrition", "legal"])
    assert most[0] == 1
    assert all(one.company["company"] == "none" for one in found.values())
    assert threading.active_count() < 50


def test_without_the_device_it_is_said_what_to_choose(house: Any) -> None:
    """By the trainer, which is begun on the device; and by the training that is refused so."""
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    house.base = house.base._replace(device="cuda")
    assert "torch sees none here" in house.start().refusal
    training, validation = house.data("legal")
    sharing = Sharing(house.base_folder, "float32", "cuda", house.base.lora, 1, 3, training)
    with pytest.raises(SetupError, match="torch sees none here: choose `hardware: cpu`"):
        train(house.make("legal"), training, validation, SETTINGS, prepare=sharing.prepare)


def test_nothing_to_learn_from_is_an_error_before_any_trainer_begins(house: Any) -> None:
    silent = [Encoded([1, 2, 3], [False] * 3)]
    with pytest.raises(TrainingError, match="zero trainable tokens"):
        train(house.make("legal"), silent, [], SETTINGS, prepare=house.share(silent).prepare)


def test_a_training_in_slots_holds_none_of_the_base_s_weights(house: Any) -> None:
    house.start()
    model = house.make("legal")
    training, validation = house.data("legal")
    train(model, training, validation, SETTINGS, prepare=house.share(training).prepare)
    frozen = [weight for weight in model.parameters() if not weight.requires_grad]
    assert all(weight.untyped_storage().nbytes() <= 4 for weight in frozen)
    assert all(weight.isnan().all() for weight in frozen)


def test_a_race_is_two_trainings_of_one_slot(house: Any, tmp_path: Any) -> None:
    house.start()
    training, validation = house.data("legal")
    results = []
    for name in ("one", "two"):
        model = house.make("legal")
        warm = {key: value + 0.01 for key, value in copy_tensors(trainable(model)).items()}

        def begin(model: Any = model, warm: Any = warm) -> None:
            put(trainable(model), warm)

        _, outcome = race(
            model,
            begin,
            training,
            validation,
            SETTINGS,
            tmp_path / name,
            prepare=house.share(training).prepare,
        )
        results.append((house.digest(model), outcome))
    assert results[0] == results[1]
    assert results[0][1].cold != results[0][1].warm


def test_another_shape_of_passes_does_not_take_up_a_checkpoint(house: Any) -> None:
    """Other slots give other rounding: the training's name says which it is of."""
    house.start()
    model = house.make("legal")
    training, _ = house.data("legal")
    with house.share(training).prepare(model, training, SETTINGS) as one:
        name = one.origin
    house.base = house.base._replace(slots=2)
    house.start()
    with house.share(training).prepare(house.make("legal"), training, SETTINGS) as other:
        assert other.origin != name
