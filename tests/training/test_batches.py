"""Batches hold every record once, whole, in an order that seed and epoch decide."""

from hypothesis import given
from hypothesis import strategies as st

from meetara_build.training.batches import batches
from meetara_build.training.chat import Encoded


def of_lengths(lengths: list[int]) -> list[Encoded]:
    return [Encoded([0] * length, [True] * length) for length in lengths]


@given(st.lists(st.integers(1, 60), max_size=40), st.integers(1, 100), st.integers(0, 5))
def test_every_record_once_and_no_batch_too_long(
    lengths: list[int], tokens: int, epoch: int
) -> None:
    made = batches(of_lengths(lengths), tokens, seed=3, epoch=epoch)
    assert sorted(index for batch in made for index in batch) == list(range(len(lengths)))
    assert all(
        len(batch) == 1 or sum(lengths[index] for index in batch) <= tokens for batch in made
    )


def test_the_same_seed_and_epoch_give_the_same_batches() -> None:
    examples = of_lengths(list(range(1, 30)))
    assert batches(examples, 64, seed=1, epoch=2) == batches(examples, 64, seed=1, epoch=2)


def test_epochs_and_seeds_differ() -> None:
    examples = of_lengths(list(range(1, 30)))
    first = batches(examples, 64, seed=1, epoch=0)
    assert first != batches(examples, 64, seed=1, epoch=1)
    assert first != batches(examples, 64, seed=2, epoch=0)
