"""Records left out by length or by name, and data sets that would lose most of themselves."""

import pytest
from made_sources import pairs, recipe, sentence
from small_models import train_tokenizer

from meetara_build.errors import DataError
from meetara_build.stages.dataset.limits import limit, refuse_losses
from meetara_build.stages.dataset.prepare import prepare
from meetara_build.stages.dataset.tokens import load_tokenizer


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    folder = tmp_path_factory.mktemp("base")
    train_tokenizer(folder)
    return load_tokenizer(folder)


@pytest.fixture
def limited(write, tokenizer):
    def limited(records, *, measured=True, **changes):
        path = write(records)
        given = recipe([path.name], **{"max_drop_share": 0.5, **changes})
        prepared = prepare(given, {"source_0": path})
        kept, lengths = limit(given, prepared, tokenizer if measured else None)
        refuse_losses(given, prepared, kept)
        return kept, lengths

    return limited


def long(count):
    return [{"prompt": sentence(f"l{n}"), "response": sentence(f"m{n}", 400)} for n in range(count)]


def test_a_data_set_of_which_most_is_too_long_is_refused_with_counts_and_keys(limited):
    copies = [{**record, "response": record["response"] + "."} for record in pairs(3)]
    with pytest.raises(DataError) as refused:
        limited([*pairs(30), *long(40), *copies])
    assert str(refused.value) == (
        "nutrition: 43 of 73 records (59%) are left out: 40 too long (data.max_tokens 512), "
        "3 near-duplicate (data.near_duplicate 0.85). That is more than data.max_drop_share 0.5 allows: change the keys that "
        "decide, mend the records, or raise data.max_drop_share to go on with what is left"
    )


def test_with_a_larger_share_it_goes_on_with_what_is_left(limited):
    kept, lengths = limited([*pairs(30), *long(40)], max_drop_share=0.6)
    assert sum(len(side) for side in (kept.train, kept.validation, kept.test)) == 30 == len(lengths)


def test_copies_alone_can_be_too_much(limited):
    with pytest.raises(
        DataError,
        match=r"21 of 41 records \(51%\) are left out: 21 duplicate\. That is more than data\.max",
    ):
        limited([*pairs(20), *[pairs(1)[0]] * 21], measured=False)


def test_records_that_were_named_are_no_loss(limited, write):
    path = write(pairs(40))
    train = prepare(recipe([path.name]), {"source_0": path}).train
    kept, _ = limited(pairs(40), drop=[record.id for record in train[1:]])
    assert [record.id for record in kept.train] == [train[0].id]


def test_without_a_tokenizer_no_length_is_known_and_none_leaves_a_record_out(limited):
    kept, lengths = limited([*pairs(10), *long(40)], measured=False)
    assert (len(kept.drops), lengths) == (0, [])
