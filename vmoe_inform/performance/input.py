"""Rate at which training batches are made, over the rate at which the train step consumes them."""

import dataclasses
import time
from typing import Any

import jax

from vmoe_inform import tasks
from vmoe_inform.config import Config, VisionModelConfig
from vmoe_inform.data.skipped import SkippedRecords
from vmoe_inform.performance import timing
from vmoe_inform.performance.step import TrainStep
from vmoe_inform.performance.timing import Clock, Spread
from vmoe_inform.tasks import Task


@dataclasses.dataclass(frozen=True)
class InputRow:
    """The input pipeline of a run, compared with its step.

    Attributes:
      source: of the data.
      image_size_px: that images are brought to; None for text.
      tokens: of a sequence of text; None for images.
      num_threads: that read and decode.
      batch_size: images, sequences or texts of a batch.
      counted: what the rates count: images, tokens or texts.
      over_step: rate of the pipeline over that of the step; above 1 the step never waits.
      input_rate: a second, of the pipeline by itself.
      step_rate: of the step by itself, on all devices of this process.
    """

    source: str
    image_size_px: int | None
    tokens: int | None
    num_threads: int
    batch_size: int
    counted: str
    over_step: Spread
    input_rate: Spread
    step_rate: Spread


def measure(config: Config, *, repeats: int, seconds: float = 3.0) -> list[InputRow]:
    """Measures pipeline and step in turns, each by itself: the pipeline's threads rest while a step runs.

    Args:
      config: of the run.
      repeats: rounds that count.
      seconds: least time for which the pipeline is drained in a round.

    Raises:
      ValueError: no or too many unreadable records; devices that do not fit the batch.
      FileNotFoundError: data that are not where the config says.
    """
    task = tasks.from_config(config).opened()
    step = TrainStep(config, jax.devices())
    counted = config.train.batch_size * task.counted_per_example
    step_seconds = timing.stopwatch(step)
    rates = timing.interleave(
        {
            "input": lambda: drain(task, seconds),
            "step": lambda: counted / step_seconds(),
        },
        repeats,
    )
    model = config.model
    is_images = isinstance(model, VisionModelConfig)
    row = InputRow(
        source=config.data.source,
        image_size_px=model.image_size_px if isinstance(model, VisionModelConfig) else None,
        tokens=None if is_images else model.num_tokens,
        num_threads=config.data.num_threads,
        batch_size=config.train.batch_size,
        counted=task.counted,
        over_step=timing.ratio(rates["input"], rates["step"]),
        input_rate=timing.spread(rates["input"]),
        step_rate=timing.spread(rates["step"]),
    )
    return [row]


def drain(task: Task[Any, Any], seconds: float, clock: Clock = time.perf_counter) -> float:
    """What the task counts, per second of a training pipeline whose batches are taken as fast as they come.

    The clock starts at the first batch, so starting threads does not count. Batches are taken at once, so none is
    counted that was made before.

    Args:
      task: opened; its seed decides the order.
      seconds: least time.
      clock: in seconds.
    """
    batches = task.training_batches(SkippedRecords(task.config.data.max_skipped_share), 0, 1)
    try:
        next(batches)
        examples, start, elapsed = 0, clock(), 0.0
        while elapsed < seconds:
            examples += len(next(iter(next(batches).values())))
            elapsed = clock() - start
        return examples * task.counted_per_example / elapsed
    finally:
        batches.close()
