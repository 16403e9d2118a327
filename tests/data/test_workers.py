"""The pipeline with worker processes. Starting one takes seconds, so that few tests share what they start."""

import contextlib
import dataclasses
import functools
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time

import grain
import numpy as np
import pytest

from tests.data.images.test_pipeline import numbered
from tests.processes import ROOT
from vmoe_inform import exit_codes
from vmoe_inform.config import ImageDataConfig
from vmoe_inform.data import batches as batches_lib
from vmoe_inform.data import workers
from vmoe_inform.data.images import pipeline
from vmoe_inform.data.images.framing import WHOLE
from vmoe_inform.data.images.readers import EvaluationReader
from vmoe_inform.data.sources import Source

DATA = ImageDataConfig(
    num_threads=0, num_workers=2, prefetch_batches=2, crop="inception", randaugment_layers=2, max_skipped_share=1.0
)
BROKEN = (3, 14, 15)
COUNT = 37


@dataclasses.dataclass(frozen=True)
class NoiseRecords:
    """Record i is its own noise with label i; those in BROKEN are no images."""

    broken: tuple[int, ...] = BROKEN

    def __len__(self):
        return COUNT

    def __getitem__(self, index):
        image = np.random.default_rng(index).integers(0, 256, (9, 12, 3), np.uint8)
        return {"image": b"broken" if index in self.broken else image, "label": index}

    def name(self, index):
        return f"file{index}.jpg"


def start(records, skipped, **changes):
    return pipeline.train_iterator(
        Source(records, ("any",)),
        image_size_px=6,
        batch_size=4,
        seed=5,
        data=dataclasses.replace(DATA, **changes),
        skipped=skipped,
    )


def take(iterator, count):
    return [next(iterator) for _ in range(count)]


def assert_same(batches, others):
    for batch, other in zip(batches, others, strict=True):
        np.testing.assert_array_equal(batch["label"], other["label"])
        np.testing.assert_array_equal(batch["image"], other["image"])


@pytest.fixture(scope="module")
def without_workers():
    """The batches of this process alone, and its count of what could not be read."""
    skipped = pipeline.SkippedRecords(1.0)
    iterator = start(NoiseRecords(), skipped, num_workers=0)
    batches = take(iterator, 40)
    iterator.close()
    return batches, skipped


def test_training(without_workers):
    skipped = pipeline.SkippedRecords(1.0)
    iterator = start(NoiseRecords(), skipped)
    try:
        workers = {process.pid for process in multiprocessing.active_children()}
        assert len(workers) == 2  # before the first batch is asked for
        states, batches = [], []
        for _ in range(40):
            states.append(json.loads(json.dumps(iterator.get_state())))
            batches += take(iterator, 1)

        # Workers make the batches that this process would make, broken records and augmentation included.
        assert_same(batches, without_workers[0])
        assert (skipped.count, skipped.read) == (without_workers[1].count, without_workers[1].read)
        assert skipped.count > 10  # three in each of the 4.3 epochs

        # Where another number of processes has been: workers take chunks of 4 records in turn.
        for count, records in ((7, [16, 12]), (12, [24, 24])):
            iterator.skip_to(count)
            state = iterator.get_state()
            assert [part["next_index"] for part in state["iterators_in_use_states"]] == records
            assert state["next_index_in_cycle"] == count % 2

        # Both workers have made the same number of batches, one of them one more, and the very start.
        for position in (12, 17, 0):
            iterator.set_state(states[position])
            assert iterator.get_state() == states[position]
            assert_same(take(iterator, 6), batches[position : position + 6])

        # A signal to the whole group of processes is for the parent; and the workers were the same all the time.
        assert {process.pid for process in multiprocessing.active_children()} == workers
        for pid in workers:
            os.kill(pid, signal.SIGINT)
            os.kill(pid, signal.SIGTERM)
        assert_same(take(iterator, 20), batches[6:26])
    finally:
        iterator.close()
    assert not {process.pid for process in multiprocessing.active_children()} & workers


def test_a_worker_that_finds_nothing_readable_ends_with_the_error():
    with pytest.raises(ValueError, match=r"some readable ones; received '100 unreadable of 100, the last one file\d+"):
        start(NoiseRecords(broken=tuple(range(COUNT))), pipeline.SkippedRecords(1.0), num_workers=1)


def evaluated(source, **options):
    return pipeline.evaluation_batches(source, image_size_px=4, batch_size=16, **options)


def evaluated_again_and_again(source, kept):
    while True:
        list(evaluated(source, skipped=pipeline.SkippedRecords(0.0), num_workers=2, workers=kept))


class OneWithoutImage(NoiseRecords):
    def __getitem__(self, index):
        return {} if index == 20 else super().__getitem__(index)


def test_evaluation_with_workers_that_are_kept_over_sets():
    with pipeline.kept_workers() as processes:
        kept = functools.partial(contextlib.nullcontext, processes)
        for number, num_threads in ((75, 0), (75, 2), (33, 0)):
            source, skipped = numbered(number, broken=(1, 74)), pipeline.SkippedRecords(1.0)
            batches = list(evaluated(source, skipped=skipped, num_workers=2, num_threads=num_threads, workers=kept))
            here = list(evaluated(source, skipped=pipeline.SkippedRecords(1.0)))
            for batch, other in zip(batches, here, strict=True):
                assert batch.keys() == other.keys()
                for name, values in other.items():
                    np.testing.assert_array_equal(batch[name], values, strict=True)
            assert (skipped.count, skipped.read) == (len({1, 74} & set(range(number))), number)
        workers = {process.pid for process in multiprocessing.active_children()}
        assert len(workers) == 2

        # With workers an image is copied twice, without once, also where a batch has many chunks.
        for num_workers, times in ((0, 1), (2, 2)):
            copied: list[int] = []
            (batch,) = batches_lib.evaluation_batches(
                EvaluationReader(NoiseRecords(()), 4, WHOLE), num_examples=COUNT, batch_size=640,
                skipped=pipeline.SkippedRecords(0.0), num_threads=0, num_workers=num_workers, process_index=0,
                process_count=1, total=int, workers=kept, copied=copied.append,
            )  # fmt: skip
            assert sum(copied) == times * sum(values.nbytes for values in batch.values())

        # A pass that is not finished, and one that fails, leave nothing to the next.
        left = evaluated(numbered(75), skipped=pipeline.SkippedRecords(0.0), num_workers=1, workers=kept)
        first = next(left)
        left.close()
        np.testing.assert_array_equal(first["index"], np.arange(16))
        broken = Source(OneWithoutImage(()), ("any",))
        with pytest.raises(KeyError, match="image"):
            list(evaluated(broken, skipped=pipeline.SkippedRecords(0.0), num_workers=2, workers=kept))
        (batch,) = evaluated(numbered(9), skipped=pipeline.SkippedRecords(0.0), num_workers=2, workers=kept)
        np.testing.assert_array_equal(batch["index"][batch["mask"]], np.arange(9))

        # Signals to the whole group of processes are for the parent; whoever kills one means it.
        for pid in workers:
            os.kill(pid, signal.SIGINT)
            os.kill(pid, signal.SIGTERM)
        assert {process.pid for process in multiprocessing.active_children()} == workers
        os.kill(workers.pop(), signal.SIGKILL)
        with pytest.raises(ChildProcessError, match=r"data: expected worker processes .* that keep running"):
            evaluated_again_and_again(numbered(75), kept)  # the other may read all of a pass before this is noticed
    assert not {process.pid for process in multiprocessing.active_children()} & workers


def test_a_worker_that_is_killed_is_one_clear_error():
    iterator = start(NoiseRecords(), pipeline.SkippedRecords(1.0), num_workers=1)
    try:
        (worker,) = multiprocessing.active_children()
        os.kill(worker.pid, signal.SIGKILL)
        with pytest.raises(ChildProcessError, match=r"data: expected worker .* that keep running; .*exit code -9"):
            take(iterator, 100)
    finally:
        iterator.close()


# A worker is stopped, and then the watchdog waits for the next batch.
_STOPPED = """
import multiprocessing, os, signal
from tests.data.test_workers import NoiseRecords, start
from vmoe_inform.data import workers
from vmoe_inform.data.images import pipeline
from vmoe_inform.sharding.watchdog import Watchdog
if __name__ == "__main__":
    iterator = start(NoiseRecords(), pipeline.SkippedRecords(1.0), num_workers=1)
    (worker,) = multiprocessing.active_children()
    print(worker.pid, flush=True)
    os.kill(worker.pid, signal.SIGSTOP)
    with Watchdog(1.0, 1.0) as watchdog:
        while True:
            next(iterator)
            watchdog.finished("a batch")
"""


def test_the_watchdog_ends_a_run_whose_worker_is_stopped(tmp_path):
    script = tmp_path / "stopped.py"
    script.write_text(_STOPPED)
    with subprocess.Popen(
        [sys.executable, str(script)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        worker = int(process.stdout.readline())
        assert process.wait() == exit_codes.STUCK
        os.kill(worker, signal.SIGKILL)  # stopped, it does not notice that its parent has gone, and keeps the pipes
        assert "error: watchdog: expected something to be finished within 1 s" in process.stderr.read()


_PARENT = """
import multiprocessing, sys
from tests.data.test_workers import NoiseRecords, start
from vmoe_inform.data import workers
from vmoe_inform.data.images import pipeline
if __name__ == "__main__":
    iterator = start(NoiseRecords(), pipeline.SkippedRecords(1.0), num_workers=1)
    print(multiprocessing.active_children()[0].pid, flush=True)
    sys.stdin.read()
"""


def test_workers_do_not_outlive_a_parent_that_was_killed(tmp_path):
    script = tmp_path / "parent.py"
    script.write_text(_PARENT)
    parent = subprocess.Popen(
        [sys.executable, str(script)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    worker = int(parent.stdout.readline())
    parent.kill()
    parent.communicate()
    while _is_running(worker):
        time.sleep(0.05)


def _is_running(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"  # not even a zombie that nobody waits for
    except FileNotFoundError:
        return False


def test_too_little_shared_memory_is_one_line_before_a_worker_starts():
    """Of any machine: with more workers than fit."""
    chunk_bytes = 32 * 384**2 * 3
    free = os.statvfs("/dev/shm")
    number = free.f_bavail * free.f_frsize // (workers.CHUNKS_OF_A_WORKER * chunk_bytes) + 100
    with pytest.raises(
        ValueError, match=rf"data.num_workers: expected at most \d+, .* /dev/shm .*; received {number}$"
    ):
        workers.in_workers(grain.MapDataset.range(1).to_iter_dataset(), number, chunk_bytes)
