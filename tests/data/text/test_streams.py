"""Contiguous streams: which token is where, for any number of processes and after any restart."""

import dataclasses
import json
import multiprocessing

import numpy as np
import pytest

from vmoe_inform.config import TextDataConfig
from vmoe_inform.data.skipped import SkippedRecords
from vmoe_inform.data.text import streams

DATA = TextDataConfig(num_threads=2, prefetch_batches=2)
IDS = np.arange(1000, 1103, dtype=np.int32)  # every token names its place


@pytest.fixture
def start():
    """streams.training_batches, closed at the end."""
    started = []

    def make(ids=IDS, *, num_tokens=5, batch_size=4, seed=0, data=DATA, skipped=None, **options):
        skipped = skipped or SkippedRecords(0.0)
        arguments = {"num_tokens": num_tokens, "batch_size": batch_size, "seed": seed, "data": data}
        iterator = streams.training_batches(ids, skipped=skipped, **arguments, **options)
        started.append(iterator)
        return iterator

    yield make
    for iterator in started:
        iterator.close()


def take(iterator, count):
    return [next(iterator) for _ in range(count)]


def assert_same(batches, others):
    for batch, other in zip(batches, others, strict=True):
        assert batch.keys() == other.keys()
        for name in batch:
            np.testing.assert_array_equal(batch[name], other[name])


def joined(parts):
    """Batches of all processes, from those of each."""
    return [
        {name: np.concatenate([part[name] for part in batch]) for name in batch[0]}
        for batch in zip(*parts, strict=True)
    ]


# ------------------------------------------------------------------------------------------------------------ training


def test_a_row_continues_where_it_ended_and_targets_are_the_next_tokens(start):
    skipped = SkippedRecords(0.0)
    batches = take(start(skipped=skipped), 50)  # 9.7 epochs
    assert (batches[0]["tokens"].shape, batches[0]["tokens"].dtype) == ((4, 5), np.int32)
    assert (batches[0]["targets"].shape, batches[0]["targets"].dtype) == ((4, 5), np.int32)
    assert (skipped.count, skipped.read) == (0, 200)
    tokens, targets = (np.concatenate([batch[name] for batch in batches], axis=1) for name in ("tokens", "targets"))
    np.testing.assert_array_equal(tokens[:, 1:], targets[:, :-1])
    np.testing.assert_array_equal((targets - 1000) % 103, (tokens - 1000 + 1) % 103)  # the end is before the beginning


@pytest.mark.parametrize("num_tokens", [1, 5, 25])
def test_every_token_is_read_equally_often_across_the_ends_of_epochs(start, num_tokens):
    """With 103 tokens, a prime number, no epoch ends with a batch."""
    counts = np.zeros(103, int)
    for number, batch in enumerate(take(start(num_tokens=num_tokens), 60)):
        np.add.at(counts, batch["tokens"].ravel() - 1000, 1)
        # Rows are 25 or 26 tokens apart, so that one may be a token further in the next row's part than another.
        assert np.ptp(counts) <= 2, f"after batch {number}"
    assert counts.min() >= 60 * 4 * num_tokens // 103 - 1


def test_windows_differ_from_epoch_to_epoch(start):
    """Windows of 3 tokens on a circle of 10 begin at each of them once in 10 batches."""
    batches = take(start(np.arange(10, dtype=np.int32), num_tokens=3, batch_size=2), 10)
    begins = [int(batch["tokens"][0, 0]) for batch in batches]
    assert sorted(begins) == list(range(10))


def test_the_seed_decides_where_the_rows_begin(start):
    first, again, other = (take(start(seed=seed), 3) for seed in (3, 3, 4))
    assert_same(first, again)
    assert (first[0]["tokens"] != other[0]["tokens"]).any()


@pytest.mark.parametrize("num_threads", [0, 2])
@pytest.mark.parametrize("position", [0, 1, 5, 13])
def test_a_restored_stream_continues_bit_for_bit(start, position, num_threads):
    data = dataclasses.replace(DATA, num_threads=num_threads)
    through = start(data=data)
    take(through, position)
    state = json.loads(json.dumps(through.get_state()))  # as a checkpoint keeps it
    expected = take(through, 9)
    fresh = start(data=data)
    take(fresh, 2)  # restoring has to forget what was read ahead
    fresh.set_state(state)
    assert_same(take(fresh, 9), expected)


@pytest.mark.parametrize("count", [1, 2, 4])
def test_all_processes_make_the_batches_of_one_and_resume_on_another_number(start, count):
    expected = take(start(), 12)
    parts = [start(batch_size=4 // count, process_index=index, process_count=count) for index in range(count)]
    assert_same(joined([take(part, 4) for part in parts]), expected[:4])
    for part in parts:  # from the position of any other number of processes, after 7 batches
        part.skip_to(7)
    assert_same(joined([take(part, 5) for part in parts]), expected[7:])


def test_a_worker_process_makes_the_same_batches(start):
    expected = take(start(), 8)
    before = set(multiprocessing.active_children())
    iterator = start(data=dataclasses.replace(DATA, num_workers=1, num_threads=0))
    assert len(set(multiprocessing.active_children()) - before) == 1
    assert_same(take(iterator, 3), expected[:3])
    state = iterator.get_state()
    assert_same(take(iterator, 5), expected[3:])
    iterator.set_state(state)
    assert_same(take(iterator, 2), expected[3:5])
    iterator.skip_to(1)  # as after a run without workers
    assert_same(take(iterator, 2), expected[1:3])


def test_a_corpus_that_just_suffices(start):
    batches = take(start(IDS[:20]), 2)
    np.testing.assert_array_equal(np.sort(batches[0]["tokens"].ravel()), IDS[:20])


@pytest.mark.parametrize(
    ("ids", "options", "message"),
    [
        (IDS[:19], {}, r"data: expected a corpus of at least .* = 4 x 5 tokens; received '19 tokens'"),
        (IDS[:39], {"process_count": 2}, r"at least .* = 8 x 5 tokens; received '39 tokens'"),
        (IDS[:1], {"batch_size": 1, "num_tokens": 1}, r"at least .* tokens; received '1 tokens'"),
        (IDS[:0], {}, r"received '0 tokens'"),
        (IDS, {"seed": 2**32}, r"seed: expected 0 to 2\^32 - 1"),
        (IDS, {"process_index": 2, "process_count": 2}, "process_index: expected 0 to 1; received 2"),
    ],
)
def test_bad_arguments_of_training(start, ids, options, message):
    with pytest.raises(ValueError, match=message):
        start(ids, **options)


# ---------------------------------------------------------------------------------------------------------- evaluation


def evaluate(ids, batch_size, *, num_tokens=3, skipped=None, **options):
    skipped = skipped or SkippedRecords(0.0)
    return list(
        streams.evaluation_batches(
            ids, before=7, num_tokens=num_tokens, batch_size=batch_size, skipped=skipped, **options
        )
    )


def test_evaluation_by_hand():
    """11 tokens in two rows of 6 and 5, in two windows of 4."""
    skipped = SkippedRecords(0.0)
    first, second = evaluate(np.arange(10, 21, dtype=np.int32), 2, num_tokens=4, skipped=skipped)
    assert first["tokens"].tolist() == [[7, 10, 11, 12], [15, 16, 17, 18]]
    assert first["targets"].tolist() == [[10, 11, 12, 13], [16, 17, 18, 19]]
    assert first["target_mask"].all()
    assert second["tokens"].tolist() == [[13, 14, 0, 0], [19, 0, 0, 0]]
    assert second["targets"].tolist() == [[14, 15, 0, 0], [20, 0, 0, 0]]
    assert second["target_mask"].tolist() == [[True, True, False, False], [True, False, False, False]]
    assert (first["index"].tolist(), second["index"].tolist()) == ([0, 2], [1, 3])
    assert first["mask"].all()
    assert second["mask"].all()
    assert {name: values.dtype for name, values in first.items()} == {
        "tokens": np.int32,
        "targets": np.int32,
        "target_mask": np.bool_,
        "index": np.int32,
        "mask": np.bool_,
    }
    assert (skipped.count, skipped.read) == (0, 4)


@pytest.mark.parametrize("num_threads", [0, 2])
@pytest.mark.parametrize(("length", "rows"), [(103, 1), (103, 4), (103, 8), (103, 103), (12, 4), (9, 8)])
def test_every_token_is_a_target_once_after_the_token_before_it(length, rows, num_threads):
    batches = evaluate(IDS[:length], rows, num_threads=num_threads)
    assert len(batches) == streams.num_windows(length, rows, 3)
    mask = np.stack([batch["target_mask"] for batch in batches])
    tokens, targets = (np.stack([batch[name] for batch in batches]) for name in ("tokens", "targets"))
    order = np.argsort(targets[mask])
    np.testing.assert_array_equal(targets[mask][order], IDS[:length])
    np.testing.assert_array_equal(tokens[mask][order], [7, *IDS[: length - 1]])
    assert not tokens[~mask].any()
    np.testing.assert_array_equal(np.stack([batch["mask"] for batch in batches]), mask.any(axis=-1))
    # In the order of the indices, the windows of a row follow each other, and the rows too.
    index = np.stack([batch["index"] for batch in batches])
    assert sorted(index.ravel()) == list(range(index.size))
    by_index = np.argsort(index.ravel())
    np.testing.assert_array_equal(targets.reshape(-1, 3)[by_index][mask.reshape(-1, 3)[by_index]], IDS[:length])


@pytest.mark.parametrize("count", [2, 4])
def test_all_processes_evaluate_the_batches_of_one(count):
    parts = [evaluate(IDS[:37], 8 // count, process_index=index, process_count=count) for index in range(count)]
    assert_same(joined(parts), evaluate(IDS[:37], 8))


def test_other_inputs_leave_the_targets_as_they_are():
    inputs = IDS.copy()
    inputs[[3, 50]] = 5
    for batch, clean in zip(evaluate(IDS, 4, inputs=inputs), evaluate(IDS, 4), strict=True):
        np.testing.assert_array_equal(batch["targets"], clean["targets"])
        np.testing.assert_array_equal(
            batch["tokens"], np.where(np.isin(clean["tokens"], [1003, 1050]), 5, clean["tokens"])
        )


@pytest.mark.parametrize(
    ("ids", "options", "message"),
    [
        (IDS[:3], {}, r"evaluation.batch_size: expected at most 3, .*; received 4"),
        (IDS[:3], {"process_count": 2}, r"evaluation.batch_size: expected at most 3, .*; received 8"),
        (IDS, {"inputs": IDS[1:]}, r"inputs: expected shape \(103,\), .*; received \(102,\)"),
    ],
)
def test_bad_arguments_of_evaluation(ids, options, message):
    with pytest.raises(ValueError, match=message):
        evaluate(ids, 4, **options)
