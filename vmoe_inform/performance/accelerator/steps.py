"""The train step on one device: steps until it is warm, then rounds of steps that are timed."""

import math
import time
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vmoe_inform.axes import Array, Tree
from vmoe_inform.config import Config
from vmoe_inform.dispatch import DISPATCHERS
from vmoe_inform.nn.operations import training_flops_per_sequence
from vmoe_inform.performance import timing
from vmoe_inform.performance.accelerator.clock import Clock
from vmoe_inform.performance.accelerator.comparing import in_short
from vmoe_inform.performance.accelerator.results import StepRow
from vmoe_inform.performance.accelerator.sizes import Sizes
from vmoe_inform.performance.step import dropped_share, evenly_routed
from vmoe_inform.performance.timing import Spread
from vmoe_inform.runs.state import TrainState
from vmoe_inform.sharding.chips import chip_of
from vmoe_inform.training import program as program_lib
from vmoe_inform.training.measurements import peak_flops, peak_memory_bytes

_LEAST_BATCH = 4
_SECONDS_OF_A_STEP = 30.0  # to compile one; fewer are not begun


class Step:
    """A compiled train step with its state, on a batch of random pixels that stays the same.

    Attributes:
      config: of the run, with even loads (:func:`vmoe_inform.performance.step.evenly_routed`).
      program: that the step is of.
      compile_seconds: tracing included.
      state: after the steps so far.
      losses: of all steps so far, on the device.
      metrics: of the last step.
    """

    def __init__(self, config: Config):
        """Compiles, and makes the state before the first step."""
        self.config = evenly_routed(config)
        assert config.train.steps is not None  # see Sizes.config
        self.device = jax.devices()[0]
        self.program = program_lib.build(self.config, config.train.steps, [self.device])
        start = time.perf_counter()
        with self.program.in_use():
            lowered = self.program.train_step.lower(self.program.state_shapes, self.program.batch_shapes)
            self._compiled = lowered.compile()
        self.compile_seconds = time.perf_counter() - start
        batch = self.program.task.random_batch(np.random.default_rng(0), config.train.batch_size)
        self._batch = self.program.to_devices(batch)
        self.losses: list[Array] = []
        self.metrics: dict[str, Array] = {}
        self.state = self.first_state()

    def first_state(self) -> TrainState:
        """The state before the first step."""
        with self.program.in_use():
            return self.program.initialize()

    def take(self, count: int) -> TrainState:
        """Takes steps, and returns the state after them, without waiting for the device."""
        for _ in range(count):
            with self.program.in_use():
                self.state, self.metrics = self._compiled(self.state, self._batch)
            self.losses.append(self.metrics["loss"])
        return self.state

    @property
    def program_bytes(self) -> int:
        """Memory of the compiled step; what is donated counts once."""
        memory: Any = self._compiled.memory_analysis()
        results = memory.output_size_in_bytes - memory.alias_size_in_bytes
        return memory.argument_size_in_bytes + results + memory.temp_size_in_bytes

    def row(self, router: str, seconds: list[float], steps_of_round: int, against: Spread | None) -> StepRow:
        """What the measured rounds say.

        Args:
          router: preset of the config.
          seconds: of each round.
          steps_of_round: steps of a round.
          against: times over those of another step.
        """
        model, images = self.config.model, self.config.train.batch_size
        each = timing.spread([1e3 * value / steps_of_round for value in seconds])
        rate = 1e3 * images / each.median
        dropped = dropped_share(model, self.metrics)
        peak = peak_flops(chip_of(self.device.device_kind), model.dtype)
        useful = training_flops_per_sequence(model, kept=1.0 - dropped)
        first, last = (_finite(loss) for loss in (self.losses[0], self.losses[-1]))
        return StepRow(
            router=router,
            dispatch=model.moe.dispatch,
            attention=model.attention,
            images=images,
            timed_steps=len(seconds) * steps_of_round,
            milliseconds=each,
            images_per_second=rate,
            mfu=None if peak is None else rate * useful / peak,
            against_first=against,
            dropped=dropped,
            program_bytes=self.program_bytes,
            peak_bytes=peak_memory_bytes([self.device]),
            compile_seconds=self.compile_seconds,
            first_loss=first,
            last_loss=last,
            learns=first is not None and last is not None and last < first,
        )


def _finite(loss: Array) -> float | None:
    value = float(loss)
    return value if math.isfinite(value) else None


def train(sizes: Sizes, clock: Clock) -> tuple[Step, StepRow, str]:
    """The step with automatic choices, of the largest batch that fits; warmed up and timed.

    Returns:
      the step, its row, and what could not be done, such as larger batches.
    """
    clock.need(_SECONDS_OF_A_STEP if sizes.batch_size > _LEAST_BATCH else 0.0, "training")
    notes: list[str] = []
    while True:
        try:
            step = Step(sizes.config())
            step.take(sizes.warm_up_steps)
            round_of_steps = timing.stopwatch(step.take, sizes.steps_of_round)
            seconds = [round_of_steps() for _ in range(sizes.rounds)]
            return step, step.row("vmoe", seconds, sizes.steps_of_round, None), "; ".join(notes)
        except jax.errors.JaxRuntimeError as problem:
            if "RESOURCE_EXHAUSTED" not in str(problem) or sizes.batch_size <= _LEAST_BATCH:
                raise
            notes.append(f"{sizes.batch_size} images do not fit")
            sizes = sizes.with_batch(sizes.batch_size // 2)


def side_by_side(sizes: Sizes, first: Step, clock: Clock) -> Iterator[StepRow | str]:
    """Other dispatchers, attentions and routers, each in turns with the first step.

    Yields:
      a row, or in words what could not be done.
    """
    sizes = sizes.with_batch(first.config.train.batch_size)
    others = _others()
    longest = _SECONDS_OF_A_STEP if sizes.batch_size > _LEAST_BATCH else 0.0
    for number, (router, options) in enumerate(others):
        words = [" ".join((name, *chosen.values())) for name, chosen in others[number:]]
        clock.need(longest, ", ".join(words))
        start = time.perf_counter()
        try:
            step = Step(sizes.config(router, **options))
            step.take(1)
            measures = {
                name: timing.stopwatch(each.take, sizes.steps_of_round)
                for name, each in (("first", first), ("other", step))
            }
            seconds = timing.interleave(measures, max(2, sizes.rounds // 2))
            yield step.row(
                router, seconds["other"], sizes.steps_of_round, timing.ratio(seconds["other"], seconds["first"])
            )
        except Exception as problem:  # what a kernel or compiler cannot do must not keep the others from running
            yield f"{words[0]}: {in_short(problem)}"
        longest = max(longest, time.perf_counter() - start)


def _others() -> list[tuple[str, dict[str, str]]]:
    """Routers with what of the config differs from automatic choices; those that cannot be done here are left out."""
    return [
        *(("vmoe", {"dispatch": name}) for name in DISPATCHERS if name != "reference"),
        ("vmoe", {"attention": "xla"}),
        ("attention_vmoe", {}),
        ("similarity_vmoe", {}),
        ("symphony_vmoe", {}),
    ]


def copies(state: Tree) -> Tree:
    """Arrays of their own with the same numbers: a step uses up those that it is given."""
    return jax.tree.map(jnp.copy, state)
