"""Trainings that share a trainer: the same bytes alone, in company and after a kill; faults stay
with whom they belong to."""

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from meetara_build.training.settings import Action, Progress

DOMAINS = ("nutrition", "legal", "music")


class Killed(Exception):
    """Stands for a kill."""


def test_a_domain_s_bytes_do_not_depend_on_its_company(house: Any) -> None:
    trainer = house.start()
    alone = {domain: house.train(domain) for domain in DOMAINS}
    assert len({one.digest for one in alone.values()}) == 3
    assert all(one.company == {"company": "any"} for one in alone.values())
    assert all(one.history.computed["shared_passes"] == 0 for one in alone.values())
    orders = [*itertools.combinations(DOMAINS, 2), *itertools.permutations(DOMAINS)]
    for order in orders:
        before = trainer.passes
        found = house.train_together(order)
        assert {domain: found[domain].digest for domain in order} == {
            domain: alone[domain].digest for domain in order
        }, order
        answers = sum(found[domain].history.computed["passes"] for domain in order)
        assert trainer.passes - before < answers, "some passes were shared"
        assert all(found[domain].history.computed["shared_passes"] for domain in order)
