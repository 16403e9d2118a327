import dataclasses
import json

import grain
import numpy as np
import pytest
from absl import logging

from vmoe_inform.config import ImageDataConfig
from vmoe_inform.data.images import pipeline
from vmoe_inform.data.shares import ChunksInTurn
from vmoe_inform.data.sources import ArrayRecords, Source

DATA = ImageDataConfig(num_threads=2, prefetch_batches=2)


@dataclasses.dataclass(frozen=True)
class NumberedRecords:
    """Record i is an image of gray value i (modulo 256) with label i; those in ``broken`` are no images."""

    count: int
    broken: frozenset = frozenset()

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        if index in self.broken:
            return {"image": b"broken", "label": index}
        return {"image": np.full((4, 4, 1), index % 256, np.uint8), "label": index}

    def name(self, index):
        return f"file{index}.jpg"


def numbered(count, broken=()):
    return Source(NumberedRecords(count, frozenset(broken)), ("any",))


@pytest.fixture
def start():
    """train_iterator, closed at the end."""
    started = []

    def make(source, *, skipped=None, seed=0, data=DATA, **options):
        skipped = skipped or pipeline.SkippedRecords(1.0)
        iterator = pipeline.train_iterator(source, image_size_px=4, seed=seed, data=data, skipped=skipped, **options)
        started.append(iterator)
        return iterator

    yield make
    for iterator in started:
        iterator.close()


def take(iterator, count):
    return [next(iterator) for _ in range(count)]


def labels(batches):
    return np.concatenate([batch["label"] for batch in batches])


# ---------------------------------------------------------------------------------------------------------- training


def test_batches_have_the_promised_types_and_images_fit_their_labels(start):
    batch = next(start(numbered(10), batch_size=4))
    assert (batch["image"].shape, batch["image"].dtype) == ((4, 4, 4, 3), np.uint8)
    assert (batch["label"].shape, batch["label"].dtype) == ((4,), np.int32)
    np.testing.assert_array_equal(batch["image"], np.broadcast_to(batch["label"][:, None, None, None], (4, 4, 4, 3)))


def test_every_epoch_holds_every_record_once_in_a_new_order(start):
    # 10 batches of 4 are 4 epochs of 10 records: batches run on over the ends of epochs.
    order = labels(take(start(numbered(10), batch_size=4), 10)).reshape(4, 10)
    np.testing.assert_array_equal(np.sort(order, axis=1), np.tile(np.arange(10), (4, 1)))
    assert len({tuple(epoch) for epoch in order}) == 4


def test_order_is_decided_by_the_seed_not_by_threads(start):
    first, again, other = (
        labels(take(start(numbered(50), batch_size=5, seed=seed, data=data), 20))
        for seed, data in ((3, DATA), (3, dataclasses.replace(DATA, num_threads=0, prefetch_batches=1)), (4, DATA))
    )
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


def test_processes_share_each_epoch_out(start):
    shares = [
        labels(take(start(numbered(9), batch_size=3, process_index=index, process_count=3), 4)) for index in range(3)
    ]
    # Three processes of 12 records: 4 epochs of 9, each of which is one batch that they make together.
    order = np.stack([np.reshape(share, (4, 3)) for share in shares], axis=1).reshape(4, 9)
    np.testing.assert_array_equal(np.sort(order, axis=1), np.tile(np.arange(9), (4, 1)))
    np.testing.assert_array_equal(order.ravel(), labels(take(start(numbered(9), batch_size=9), 4)))


@pytest.mark.parametrize("num_threads", [0, 2])
@pytest.mark.parametrize("position", [0, 1, 5, 13])
def test_restored_iterator_goes_on_bit_for_bit(start, position, num_threads):
    data = dataclasses.replace(DATA, num_threads=num_threads)
    source = numbered(11, broken=(0, 4, 5))
    through = start(source, batch_size=4, data=data)
    take(through, position)
    state = json.loads(json.dumps(through.get_state()))  # as a checkpoint keeps it
    expected = take(through, 9)

    fresh = start(source, batch_size=4, data=data)
    take(fresh, 2)  # restoring has to forget what was read ahead
    fresh.set_state(state)
    for restored, original in zip(take(fresh, 9), expected, strict=True):
        np.testing.assert_array_equal(restored["image"], original["image"])
        np.testing.assert_array_equal(restored["label"], original["label"])


def test_broken_records_are_replaced_and_counted(start):
    skipped = pipeline.SkippedRecords(1.0)
    seen = labels(take(start(numbered(10, broken=(2, 7)), batch_size=4, skipped=skipped), 10))
    whole = labels(take(start(numbered(10), batch_size=4), 10))
    readable = ~np.isin(whole, (2, 7))
    np.testing.assert_array_equal(seen[readable], whole[readable])  # each epoch has every readable record
    assert not np.isin(seen, (2, 7)).any()
    assert len(set(seen[~readable])) > 2  # drawn, not always the same
    assert 8 <= skipped.count < 16  # two in each of the four epochs, and what was drawn in vain
    assert skipped.read == 40 + skipped.count


@pytest.mark.parametrize("count", [2, 4])
def test_broken_records_move_nothing_however_many_processes_share_them_out(start, count):
    source = numbered(30, broken=(3, 4, 20))
    whole = take(start(source, batch_size=8), 6)
    parts = [
        take(start(source, batch_size=8 // count, process_index=index, process_count=count), 6)
        for index in range(count)
    ]
    for number, batch in enumerate(whole):
        for name, values in batch.items():
            np.testing.assert_array_equal(np.concatenate([part[number][name] for part in parts]), values)


def test_too_many_broken_records_stop_training(start):
    iterator = start(numbered(1000, broken=range(100)), batch_size=10, skipped=pipeline.SkippedRecords(0.02))
    with pytest.raises(ValueError, match=r"at most 2\.00% unreadable records .*the last one file\d+\.jpg"):
        take(iterator, 90)


def test_nothing_but_broken_records_stops_even_if_all_may_be_skipped(start):
    with pytest.raises(ValueError, match=r"some readable ones; received '\d+ unreadable"):
        next(start(numbered(3, broken=range(3)), batch_size=1, skipped=pipeline.SkippedRecords(1.0)))


@pytest.mark.parametrize(
    ("source", "options", "message"),
    [
        (Source(ArrayRecords(np.zeros((0, 4, 4, 1), np.uint8), np.zeros(0, int)), ()), {}, "at least one record"),
        (numbered(3), {"seed": 2**32}, r"seed: expected 0 to 2\^32 - 1"),
        (numbered(3), {"process_index": 2, "process_count": 2}, "process_index: expected 0 to 1; received 2"),
    ],
)
def test_bad_arguments(start, source, options, message):
    with pytest.raises(ValueError, match=message):
        start(source, batch_size=1, **options)


# -------------------------------------------------------------------------------------------------------- evaluation


def evaluate(source, batch_size, skipped, **options):
    return list(pipeline.evaluation_batches(source, image_size_px=4, batch_size=batch_size, skipped=skipped, **options))


@pytest.mark.parametrize("num_threads", [0, 2])
def test_evaluation_goes_once_through_in_order_and_filler_takes_the_places_of_what_is_not_there(num_threads):
    skipped = pipeline.SkippedRecords(1.0)
    batches = evaluate(numbered(7, broken=(1,)), 4, skipped, num_threads=num_threads)
    assert [batch["label"].tolist() for batch in batches] == [[0, 0, 2, 3], [4, 5, 6, 0]]
    assert [batch["mask"].tolist() for batch in batches] == [[True, False, True, True], [True, True, True, False]]
    assert [batch["index"].tolist() for batch in batches] == [[0, 0, 2, 3], [4, 5, 6, 0]]
    assert batches[0]["index"].dtype == np.int32
    assert batches[1]["image"].shape == (4, 4, 4, 3)
    assert batches[1]["image"][:, 0, 0, 0].tolist() == [4, 5, 6, 0]
    assert (skipped.count, skipped.read) == (1, 7)


@pytest.mark.parametrize("count", [1, 2, 3])
@pytest.mark.parametrize("batch_size", [6, 12, 30])
def test_all_processes_evaluate_the_batches_of_one(batch_size, count):
    source, skipped = numbered(25, broken=(0, 13)), pipeline.SkippedRecords(1.0)
    parts = [
        evaluate(source, batch_size // count, skipped, process_index=index, process_count=count)
        for index in range(count)
    ]
    places = np.arange(-(-25 // batch_size) * batch_size)
    real = (places < 25) & ~np.isin(places, (0, 13))
    for name, expected in (("mask", real), ("index", np.where(real, places, 0)), ("label", np.where(real, places, 0))):
        whole = np.concatenate([part[name] for batch in zip(*parts, strict=True) for part in batch])
        np.testing.assert_array_equal(whole, expected)
    assert (skipped.count, skipped.read) == (2, 25)


def test_evaluation_of_whole_batches_has_no_extra_one():
    batches = evaluate(numbered(8), 4, pipeline.SkippedRecords(0.0))
    assert [batch["mask"].all() for batch in batches] == [True, True]


def test_evaluation_of_broken_records_only_is_an_error():
    with pytest.raises(ValueError, match="received '3 unreadable of 3"):
        evaluate(numbered(3, broken=range(3)), 2, pipeline.SkippedRecords(1.0))


# --------------------------------------------------------------------------------------------------- SkippedRecords


def test_share_is_judged_after_a_hundred_records():
    skipped = pipeline.SkippedRecords(0.5)
    for index in range(60):
        skipped.skip(str(index), OSError("gone"))
    for _ in range(39):
        skipped.readable()
    with pytest.raises(ValueError, match=r"received '61 unreadable of 100, the last one here: gone'"):
        skipped.skip("here", OSError("gone"))


def test_the_first_few_are_logged_by_name(caplog):
    logging.use_python_logging(quiet=True)
    skipped = pipeline.SkippedRecords(1.0)
    with caplog.at_level("WARNING"):
        for index in range(9):
            skipped.skip(f"file{index}", OSError("gone"))
    messages = [record.getMessage() for record in caplog.records]
    assert len(messages) == 5
    assert "file0: gone" in messages[0]
    assert "further ones are only counted" in messages[4]


@pytest.mark.parametrize(("count", "workers"), [(1999, 0), (2000, 1), (7999, 3), (10**6, 8)])
def test_one_pass_starts_a_process_for_each_two_thousand_records(count, workers):
    data = dataclasses.replace(DATA, num_workers=8)
    assert pipeline.workers_for_one_pass(numbered(count), data) == workers


def test_arrays_in_memory_are_not_sent_to_processes():
    records = ArrayRecords(np.zeros((10_000, 1, 1, 1), np.uint8), np.zeros(10_000, np.int32))
    assert pipeline.workers_for_one_pass(Source(records, ("any",)), dataclasses.replace(DATA, num_workers=8)) == 0


def test_other_numbers_of_processes_go_on_with_the_same_batch():
    whole = start_share(0, 1)
    expected = [next(whole) for _ in range(4)][3]
    for count in (1, 2, 4):
        parts = []
        for index in range(count):
            iterator = start_share(index, count)
            iterator.skip_to(3)
            parts.append(next(iterator))
        for name, values in expected.items():
            np.testing.assert_array_equal(np.concatenate([part[name] for part in parts]), values)


def start_share(index, count):
    return pipeline.train_iterator(
        numbered(30),
        image_size_px=4,
        batch_size=8 // count,
        seed=3,
        data=ImageDataConfig(num_threads=0),
        skipped=pipeline.SkippedRecords(0.0),
        process_index=index,
        process_count=count,
    )


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_chunks_from_workers_in_turn_are_the_records_in_order(workers):
    order = grain.MapDataset.range(workers * 4 * 5)
    dealt = ChunksInTurn(order, chunk=4, num_workers=workers)
    of_workers = [np.reshape(list(dealt[worker::workers]), (5, 4)) for worker in range(workers)]
    np.testing.assert_array_equal(np.stack(of_workers, axis=1).ravel(), np.arange(len(order)))
