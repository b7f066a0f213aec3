"""Trainings that share a trainer: the same bytes alone, in company and after a kill; faults stay
with whom they belong to."""

import itertools
import json
import socket
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from commands import until

from meetara_build import sockets
from meetara_build.errors import NotFiniteError
from meetara_build.training.settings import Action, Progress, Settings
from meetara_build.training.slots.messages import Reader, make_file, send

DOMAINS = ("nutrition", "legal", "music")
SETTINGS = Settings(epochs=2, batch_tokens=48, learning_rate=5e-3, seed=7)


class Killed(Exception):
    """Stands for a kill."""


def digests(found: dict[str, Any]) -> dict[str, str]:
    return {domain: one.digest for domain, one in found.items()}


def test_a_domain_s_bytes_do_not_depend_on_its_company(house: Any) -> None:
    trainer = house.start()
    alone = {domain: house.train(domain) for domain in DOMAINS}
    assert len(set(digests(alone).values())) == 3
    assert all(one.company == {"company": "any"} for one in alone.values())
    assert all(one.history.computed["shared_passes"] == 0 for one in alone.values())
    orders = [*itertools.combinations(DOMAINS, 2), *itertools.permutations(DOMAINS)]
    for order in orders:
        before = trainer.passes
        found = house.train_together(order)
        assert digests(found) == {domain: alone[domain].digest for domain in order}, order
        answers = sum(found[domain].history.computed["passes"] for domain in order)
        assert trainer.passes - before < answers, "some passes were shared"
        assert all(found[domain].history.computed["shared_passes"] for domain in order)
        for domain in order:
            assert found[domain].history.curve == alone[domain].history.curve
            assert found[domain].history.losses == alone[domain].history.losses


def test_more_domains_than_slots_take_turns(house: Any) -> None:
    house.base = house.base._replace(slots=2)
    house.start()
    expected = digests({domain: house.train(domain) for domain in DOMAINS})
    assert digests(house.train_together(DOMAINS)) == expected


def test_a_killed_domain_goes_on_to_the_same_bytes_in_other_company(
    house: Any, tmp_path: Path
) -> None:
    house.start()
    expected = digests({domain: house.train(domain) for domain in DOMAINS})

    def kill(progress: Progress) -> Action | None:
        if progress.step == 5:
            raise Killed
        return Action.CHECKPOINT if progress.step == 3 else None

    checkpoints = tmp_path / "checkpoint"
    found = house.train_together(DOMAINS, legal={"checkpoints": checkpoints, "observe": kill})
    assert isinstance(found.pop("legal"), Killed)
    assert digests(found) == {name: expected[name] for name in ("nutrition", "music")}
    seen: list[int] = []
    again = house.train_together(
        ["music", "legal"],
        legal={"checkpoints": checkpoints, "observe": lambda one: seen.append(one.step)},
    )
    assert seen[0] == 4
    assert digests(again) == {name: expected[name] for name in ("music", "legal")}


def test_a_domain_whose_numbers_run_away_leaves_the_others_alone(house: Any) -> None:
    """Its weights and its gradients are no numbers from some step on, in passes that all share."""
    house.start()
    expected = digests({domain: house.train(domain) for domain in DOMAINS})
    wild = replace(SETTINGS, learning_rate=1e20, clip_norm=0.0)
    found = house.train_together(DOMAINS, legal={"settings": wild})
    assert isinstance(found.pop("legal"), NotFiniteError)
    assert digests(found) == {name: expected[name] for name in ("nutrition", "music")}


@pytest.mark.parametrize("action", list(Action), ids=str)
def test_what_an_observer_does_to_one_domain_is_that_domain_s_alone(
    action: Action, house: Any, tmp_path: Path
) -> None:
    house.start()

    def act(progress: Progress) -> Action | None:
        return action if progress.step == 3 else None

    more = {"observe": act, "checkpoints": tmp_path / "checkpoint"}
    plain = digests({domain: house.train(domain) for domain in DOMAINS})
    found = house.train_together(DOMAINS, legal=more)
    acted = found.pop("legal")
    assert digests(found) == {name: plain[name] for name in ("nutrition", "music")}
    if action == Action.ABORT:
        assert "an observer aborted" in str(acted)
        return
    alone = house.train("legal", observe=act)
    assert acted.digest == alone.digest
    assert acted.history.actions == alone.history.actions
    assert (acted.digest == plain["legal"]) == (action == Action.CHECKPOINT)


def test_an_observer_rolls_a_wild_domain_back(house: Any) -> None:
    house.start()
    wild = replace(SETTINGS, learning_rate=1e20, clip_norm=0.0)
    expected = house.train("music").digest

    def guard(progress: Progress) -> Action | None:
        return Action.ROLL_BACK if progress.fault else None

    found = house.train_together(["music", "legal"], legal={"settings": wild, "observe": guard})
    assert found["music"].digest == expected


def talk(house: Any) -> tuple[Reader, int]:
    """A connection to the trainer, and the file of an adapter's memory."""
    connection = socket.socket(socket.AF_UNIX)
    sockets.connect(connection, house.socket)
    connection.settimeout(10.0)
    return Reader(connection), make_file(house.start_numbers)


def wait_for_answer(reader: Reader) -> dict[str, Any]:
    while (said := reader.read()) is None:
        pass
    return said


def ask(**changes: Any) -> dict[str, Any]:
    record = [[1, 2, 3], [0, 1, 1], []]
    return {"records": [record], "counted_tokens": 2, "every_token": False, **changes}


def test_a_training_that_goes_away_in_the_middle_of_a_pass_is_forgotten(house: Any) -> None:
    trainer = house.start()
    expected = house.train("nutrition").digest
    house.start_numbers = trainer.company.model.numbers
    for _ in range(3):
        reader, file = talk(house)
        send(reader.connection, {"numbers": house.start_numbers}, file)
        wait_for_answer(reader)
        send(reader.connection, ask())
        reader.close()
    assert house.train("nutrition").digest == expected
    until(lambda: not trainer.guests)


def test_one_that_is_silent_holds_no_one_up(house: Any) -> None:
    """It is there, with half a message said, and asks nothing."""
    trainer = house.start()
    house.start_numbers = trainer.company.model.numbers
    silent, file = talk(house)
    send(silent.connection, {"numbers": house.start_numbers}, file)
    wait_for_answer(silent)
    silent.connection.sendall(json.dumps(ask()).encode()[:20])
    trained = house.train("nutrition", replace(SETTINGS, max_steps=2))
    assert trained.history.curve
    silent.close()


@pytest.mark.parametrize(
    "said",
    [
        {"numbers": 3},
        {},
        ask(records=[[[1] * 65, [1] * 65, []]]),
        ask(records="none"),
        ask(records=[[1, 2]]),
        {"records": []},
    ],
    ids=str,
)
def test_who_says_what_makes_no_sense_is_dropped(said: dict[str, Any], house: Any) -> None:
    trainer = house.start()
    house.start_numbers = trainer.company.model.numbers
    reader, file = talk(house)
    if "numbers" not in said and said:
        send(reader.connection, {"numbers": house.start_numbers}, file)
        wait_for_answer(reader)
        file = None
    send(reader.connection, said, file)
    with pytest.raises(ConnectionError):
        wait_for_answer(reader)
    assert house.train("nutrition").company == {"company": "any"}
