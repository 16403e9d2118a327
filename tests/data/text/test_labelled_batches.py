"""Labelled texts: each once an epoch, filled rows, the same batches on any number of processes."""

import json

import numpy as np
import pytest

from vmoe_inform.config import TextDataConfig
from vmoe_inform.data.skipped import SkippedRecords
from vmoe_inform.data.text import labelled_batches
from vmoe_inform.data.text.labelled_batches import LabelledTokens

DATA = TextDataConfig(num_threads=0, prefetch_batches=2)
# Text i has i % 4 + 1 tokens, 100 * i + 1, 100 * i + 2, ...
TEXTS = [100 * number + np.arange(1, number % 4 + 2, dtype=np.int32) for number in range(10)]
SET = LabelledTokens.of(TEXTS, list(range(10)))


@pytest.fixture
def start():
    """labelled_batches.training_batches, closed at the end."""
    started = []

    def make(texts=SET, *, num_tokens=6, batch_size=4, seed=0, skipped=None, **options):
        skipped = skipped or SkippedRecords(0.0)
        arguments = {"num_tokens": num_tokens, "batch_size": batch_size, "seed": seed, "data": DATA}
        started.append(labelled_batches.training_batches(texts, skipped=skipped, **arguments, **options))
        return started[-1]

    yield make
    for iterator in started:
        iterator.close()


def take(iterator, count):
    return [next(iterator) for _ in range(count)]


def whole(batches):
    return {name: np.concatenate([batch[name] for batch in batches]) for name in batches[0]}


def assert_rows_hold_their_texts(batch):
    for tokens, mask, label in zip(batch["tokens"], batch["token_mask"], batch["label"], strict=True):
        np.testing.assert_array_equal(tokens[mask], TEXTS[label])
        assert mask[: len(TEXTS[label])].all()
        assert not tokens[~mask].any()


def test_training_reads_every_text_once_an_epoch_in_a_new_order(start):
    skipped = SkippedRecords(0.0)
    batch = whole(take(start(skipped=skipped), 10))
    assert {name: (values.shape, values.dtype) for name, values in batch.items()} == {
        "tokens": ((40, 6), np.int32),
        "token_mask": ((40, 6), np.bool_),
        "label": ((40,), np.int32),
    }
    assert_rows_hold_their_texts(batch)
    order = batch["label"].reshape(4, 10)
    np.testing.assert_array_equal(np.sort(order, axis=1), np.tile(np.arange(10), (4, 1)))
    assert len({tuple(epoch) for epoch in order}) == 4
    assert (skipped.count, skipped.read) == (0, 40)
    assert (whole(take(start(seed=1), 10))["label"] != batch["label"]).any()


@pytest.mark.parametrize("count", [1, 2, 4])
def test_processes_resume_anywhere_with_the_batches_of_one(start, count):
    expected = whole(take(start(), 7)[4:])
    parts = [start(batch_size=4 // count, process_index=index, process_count=count) for index in range(count)]
    for part in parts:
        take(part, 4)
    states = [json.loads(json.dumps(part.get_state())) for part in parts]
    for part, state in zip(parts, states, strict=True):
        part.skip_to(4)  # as from another number of processes
        assert part.get_state() == state
    found = [
        whole([{name: np.concatenate([part[name] for part in each]) for name in each[0]}])
        for each in zip(*(take(part, 3) for part in parts), strict=True)
    ]
    for name, values in whole(found).items():
        np.testing.assert_array_equal(values, expected[name])


@pytest.mark.parametrize("count", [1, 2])
def test_evaluation_reads_every_text_once_in_order_with_filler_at_the_end(count):
    skipped = SkippedRecords(0.0)
    parts = [
        list(
            labelled_batches.evaluation_batches(
                SET, num_tokens=4, batch_size=4 // count, skipped=skipped, process_index=index, process_count=count
            )
        )
        for index in range(count)
    ]
    batch = whole([part[number] for number in range(3) for part in parts])
    assert batch["mask"].tolist() == [True] * 10 + [False] * 2
    assert batch["index"].tolist() == batch["label"].tolist() == [*range(10), 0, 0]
    assert_rows_hold_their_texts({name: values[:10] for name, values in batch.items()})
    assert not batch["token_mask"][10:].any()
    assert not batch["tokens"][10:].any()
    assert (skipped.count, skipped.read) == (0, 10)


def test_texts_are_found_by_number():
    assert len(SET) == 10
    assert [SET[number].tolist() for number in (0, 3, 9)] == [[1], [301, 302, 303, 304], [901, 902]]


@pytest.mark.parametrize(
    ("texts", "options", "message"),
    [
        (LabelledTokens.of([], []), {}, "data: expected at least one text; received nothing"),
        (LabelledTokens.of([[1], []], [0, 1]), {}, r"data: expected texts of at least one token; received 'text 1 "),
        (SET, {"num_tokens": 3}, r"model.num_tokens: expected at least the 4 tokens of .*; received '3, and text 3 "),
        (SET, {"seed": -1}, r"seed: expected 0 to 2\^32 - 1"),
    ],
)
def test_bad_arguments(start, texts, options, message):
    with pytest.raises(ValueError, match=message):
        start(texts, **options)


def test_evaluation_refuses_long_texts_too():
    with pytest.raises(ValueError, match=r"model.num_tokens: expected at least the 4 tokens"):
        labelled_batches.evaluation_batches(SET, num_tokens=3, batch_size=2, skipped=SkippedRecords(0.0))


def test_labels_are_as_many_as_texts():
    with pytest.raises(ValueError, match=r"labels: expected 2, one for each text; received '3'"):
        LabelledTokens.of([[1], [2]], [0, 1, 2])
