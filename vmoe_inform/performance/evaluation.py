"""Rates of evaluation's parts, on the host and on devices, and what the host does besides decoding."""

import collections
import dataclasses
import functools
import math
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np

from vmoe_inform import config as config_lib
from vmoe_inform.axes import Array, Tree
from vmoe_inform.config import ImageConfig
from vmoe_inform.data import batches
from vmoe_inform.data.images import pipeline
from vmoe_inform.data.images.readers import EvaluationReader
from vmoe_inform.data.skipped import SkippedRecords
from vmoe_inform.data.sources import Source
from vmoe_inform.evaluation.runner import AHEAD, Runner
from vmoe_inform.performance import timing
from vmoe_inform.performance.timing import Spread
from vmoe_inform.sharding import processes
from vmoe_inform.tasks.classification import Classification
from vmoe_inform.tasks.task import Batch, HostBatch
from vmoe_inform.training import program as program_lib
from vmoe_inform.training.program import Program

_NUM_STEPS = 10**6  # of a run that is long enough for any warmup: none of them is taken
_READY_IMAGES = 4096  # that are timed
_LEAST_BATCHES, _MOST_BATCHES = 4, 256  # of a round


@dataclasses.dataclass(frozen=True)
class EvaluationRow:
    """Evaluation of images with one model.

    Attributes:
      source: of the data.
      image_size_px: that images are brought to.
      num_workers: processes that read.
      num_threads: of each that read, or of this process.
      batch_size: images of a batch.
      images: of the set that is timed.
      images_per_second: of evaluation as it is, of a set.
      host: images a second that are read and put into batches, with nothing else to do.
      devices: images a second that devices compute, with all batches there.
      device_waits: share of the time of evaluation in which devices have nothing to do.
      milliseconds_besides_decoding: of an image, processor time of this process. The images of that set need no reading
        and decoding, and the devices compute nothing. Batches go to the devices, and results come back.
      copied_over_own: bytes that are copied on the way from the decoded image to the batch, over its own.
    """

    source: str
    image_size_px: int
    num_workers: int
    num_threads: int
    batch_size: int
    images: int
    images_per_second: Spread
    host: Spread
    devices: Spread
    device_waits: Spread
    milliseconds_besides_decoding: Spread
    copied_over_own: float


def measure(config: ImageConfig, *, repeats: int, seconds: float = 3.0) -> list[EvaluationRow]:
    """Times the parts in turns.

    Args:
      config: of the run. Its test images are shown as often as it takes.
      repeats: rounds that count.
      seconds: least time of the devices in a round.

    Raises:
      ValueError: no or too many unreadable records, or devices that do not fit the batch.
      FileNotFoundError: data that are not where the config says.
    """
    task = TimedTask(config)
    program = program_lib.build(config, _NUM_STEPS, task=task)
    config_lib.check_evaluation_batch(config, program.mesh.size)
    runner = Runner(program.model, task, program.mesh)
    with program.in_use():
        variables = program.initialize().variables()
    kept, indices = runner.compiled(functools.partial(_kept, runner)), runner.compiled(_indices)
    size = config.evaluation.batch_size
    (batch,) = task.evaluation_batches(Ready(config.model.image_size_px, size), _skipped(config), 0, 1)
    devices = Devices(program, kept, variables, batch)
    task.copied = task.own = 0
    count = min(max(math.ceil(seconds / devices.seconds(1)), _LEAST_BATCHES), _MOST_BATCHES)
    source = _repeated(task.test_source, count * size)
    task.num_workers = pipeline.workers_for_one_pass(source, config.data)
    ready = Ready(config.model.image_size_px, math.ceil(_READY_IMAGES / size) * size)
    clocks = {"host": time.perf_counter, "whole": time.perf_counter, "besides": time.process_time}
    parts: dict[str, Callable[[], object]] = {
        "host": lambda: collections.deque(task.evaluation_batches(source, _skipped(config), 0, 1), maxlen=0),
        "whole": lambda: runner.collect(kept, variables, source).outputs,
        "besides": lambda: runner.collect(indices, variables, ready).outputs,
    }
    with task.keeps_workers():
        found = timing.interleave(
            {name: functools.partial(timing.seconds, part, clocks[name]) for name, part in parts.items()}
            | {"devices": lambda: devices.seconds(count)},
            repeats,
        )
    rates = {name: timing.spread([count * size / s for s in found[name]]) for name in ("whole", "host", "devices")}
    row = EvaluationRow(
        source=config.data.source,
        image_size_px=config.model.image_size_px,
        num_workers=task.num_workers,
        num_threads=config.data.num_threads,
        batch_size=size,
        images=count * size,
        images_per_second=rates["whole"],
        host=rates["host"],
        devices=rates["devices"],
        device_waits=timing.spread([1 - a / b for a, b in zip(found["devices"], found["whole"], strict=True)]),
        milliseconds_besides_decoding=timing.spread([1e3 * s / ready.count for s in found["besides"]]),
        copied_over_own=task.copied / task.own,
    )
    return [row]


@dataclasses.dataclass(frozen=True)
class Ready:
    """Reads one image over and over, without decoding.

    Attributes:
      image_size_px: of the image.
      count: how often it is in the set.
    """

    image_size_px: int
    count: int

    def __call__(self, position: int) -> dict[str, Any]:
        return EvaluationReader.example(_image(self.image_size_px), 0, position, position < self.count, ())


@functools.lru_cache(maxsize=1)
def _image(image_size_px: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (image_size_px, image_size_px, 3), np.uint8)


class TimedTask(Classification):
    """Evaluates images that need no decoding, too, and counts what of them is copied.

    Attributes:
      num_workers: that read them.
      copied, own: bytes that were copied, and of the examples themselves.
    """

    num_workers = 0
    copied = 0
    own = 0

    def evaluation_batches(
        self, source: Source | Ready, skipped: SkippedRecords, process_index: int, process_count: int
    ) -> Iterator[HostBatch]:
        if not isinstance(source, Ready):
            yield from super().evaluation_batches(source, skipped, process_index, process_count)
            return
        made = batches.evaluation_batches(
            source,
            num_examples=source.count,
            batch_size=self.config.evaluation.batch_size // process_count,
            skipped=skipped,
            num_threads=self.config.data.num_threads,
            num_workers=self.num_workers,
            process_index=process_index,
            process_count=process_count,
            total=processes.total,
            workers=self.workers_in_use,
            copied=self._copied,
        )
        for batch in made:
            self.own += sum(values.nbytes for values in batch.values())
            yield batch

    def _copied(self, number: int) -> None:
        self.copied += number


class Devices:
    """The devices at work on one batch, again and again."""

    def __init__(self, program: Program, function: Any, variables: Tree, batch: HostBatch):
        """Compiles.

        Args:
          program: of the model.
          function: from :meth:`vmoe_inform.evaluation.runner.Runner.compiled`.
          variables: its first argument.
          batch: of evaluation.
        """
        self._batch = program.to_devices(batch)
        self._program = program
        self._function = function
        self._variables = variables
        self.seconds(1)

    def seconds(self, count: int) -> float:
        """Time of ``count`` batches, of which some are in flight, as in evaluation."""
        start = time.perf_counter()
        started: collections.deque[Tree] = collections.deque()
        with self._program.in_use():
            for _ in range(count):
                started.append(self._function(self._variables, self._batch, None)[0])
                if len(started) > AHEAD:
                    jax.block_until_ready(started.popleft())
        jax.block_until_ready(list(started))
        return time.perf_counter() - start


def _kept(runner: Runner, variables: Tree, batch: Batch, memory: Tree | None) -> tuple[Tree, Tree | None]:
    return runner.apply(variables, batch, memory).kept, memory


def _indices(variables: Tree, batch: Batch, memory: Tree | None) -> tuple[Array, Tree | None]:
    return batch["index"], memory


def _repeated(source: Source, number: int) -> Source:
    """The images of a source again and again, ``number`` of them."""
    numbers = np.arange(number) % len(source.records)
    return dataclasses.replace(source, records=source.records.selected(numbers))


def _skipped(config: ImageConfig) -> SkippedRecords:
    return SkippedRecords(config.data.max_skipped_share)
