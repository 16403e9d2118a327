"""Rate of reading and decoding images, over the rate at which the train step consumes them."""

import dataclasses
import time

import jax

from vmoe_inform.config import ImageConfig
from vmoe_inform.data import sources
from vmoe_inform.data.images import pipeline
from vmoe_inform.data.sources import Source
from vmoe_inform.performance import timing
from vmoe_inform.performance.step import TrainStep
from vmoe_inform.performance.timing import Clock, Spread


@dataclasses.dataclass(frozen=True)
class InputRow:
    """The input pipeline of a run, compared with its step.

    Attributes:
      source: of the data.
      image_size_px: that images are brought to.
      num_threads: that read and decode.
      batch_size: images of a batch.
      over_step: images a second of the pipeline over those of the step; above 1 the step never waits.
      input_images_per_second: of the pipeline by itself.
      step_images_per_second: of the step by itself, on all devices of this process.
    """

    source: str
    image_size_px: int
    num_threads: int
    batch_size: int
    over_step: Spread
    input_images_per_second: Spread
    step_images_per_second: Spread


def measure(config: ImageConfig, *, repeats: int, seconds: float = 3.0) -> list[InputRow]:
    """Measures pipeline and step in turns, each by itself: the pipeline's threads rest while a step runs.

    Args:
      config: of the run.
      repeats: rounds that count.
      seconds: least time for which the pipeline is drained in a round.

    Raises:
      ValueError: no or too many unreadable records; devices that do not fit the batch.
      FileNotFoundError: data that are not where the config says.
    """
    source = sources.training(config.data)
    step = TrainStep(config, jax.devices())
    batch_size = config.train.batch_size
    step_seconds = timing.stopwatch(step)
    rates = timing.interleave(
        {
            "input": lambda: drain(source, config, seconds),
            "step": lambda: batch_size / step_seconds(),
        },
        repeats,
    )
    row = InputRow(
        source=config.data.source,
        image_size_px=config.model.image_size_px,
        num_threads=config.data.num_threads,
        batch_size=batch_size,
        over_step=timing.ratio(rates["input"], rates["step"]),
        input_images_per_second=timing.spread(rates["input"]),
        step_images_per_second=timing.spread(rates["step"]),
    )
    return [row]


def drain(source: Source, config: ImageConfig, seconds: float, clock: Clock = time.perf_counter) -> float:
    """Images per second of a training pipeline whose batches are taken as fast as they come.

    The clock starts at the first batch, so starting threads does not count. Batches are taken at once, so none is
    counted that was made before.

    Args:
      source: of the data.
      config: of the run; its seed decides the order.
      seconds: least time.
      clock: in seconds.
    """
    batches = pipeline.train_iterator(
        source,
        image_size_px=config.model.image_size_px,
        batch_size=config.train.batch_size,
        seed=config.seed,
        data=config.data,
        skipped=pipeline.SkippedRecords(config.data.max_skipped_share),
    )
    try:
        next(batches)
        images, start, elapsed = 0, clock(), 0.0
        while elapsed < seconds:
            images += len(next(batches)["label"])
            elapsed = clock() - start
        return images / elapsed
    finally:
        batches.close()
