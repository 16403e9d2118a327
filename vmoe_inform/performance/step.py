"""How fast the train step is: images a second, and useful operations a second over those of a plain matrix product.

Useful are the operations that :mod:`vmoe_inform.nn.operations` counts, without those of choices that found no slot.
"""

import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from vmoe_inform import checks
from vmoe_inform import config as config_lib
from vmoe_inform.axes import Array, Tree
from vmoe_inform.config import Config, ModelConfig
from vmoe_inform.nn.operations import training_flops_per_sequence
from vmoe_inform.performance import costs, timing
from vmoe_inform.performance.compiled import bytes_without_cycles
from vmoe_inform.performance.timing import Spread
from vmoe_inform.routing.steps import SCORE_STEPS, SELECT_STEPS
from vmoe_inform.runs.state import TrainState
from vmoe_inform.training import program as program_lib

NUM_STEPS = 10_000  # length of the run that the step is from, where the config does not say
_MATMUL = "matmul"  # the reference among the names of dispatchers


@dataclasses.dataclass(frozen=True)
class StepRow:
    """The train step with one dispatcher; what was not timed or has no estimate is None.

    Attributes:
      dispatch: name of the dispatcher.
      images_per_second: trained on.
      useful_gflops: useful operations of a second, in 10^9.
      of_matmul: these over the operations of a second of the plain matrix product.
      against: dispatcher that the next two compare with.
      speedup: useful operations of a second, over those with ``against``.
      cycles: that the compiler of a TPU estimates, over those with ``against``.
      matmul_gflops: operations of a second of the plain product, in 10^9.
      dropped: share of the choices that found no slot, mean over MoE layers.
      useful_flops: of one step; as if nothing were dropped where nothing was timed.
      compiled_flops: of one step, as compiled.
      temp_bytes: temporary memory of the step.
      estimated_cycles: of the step.
      bytes_without_cycles: that instructions read and write for which the compiler states no cycles (gathers, sorts).
      compile_seconds: tracing included; short where a compilation cache of JAX has the step.
      compilations: programs that the step was compiled to by the end of all rounds; 1 if nothing was compiled twice.
    """

    dispatch: str
    images_per_second: Spread | None
    useful_gflops: Spread | None
    of_matmul: Spread | None
    against: str
    speedup: Spread | None
    cycles: float | None
    matmul_gflops: Spread | None
    dropped: float | None
    useful_flops: float
    compiled_flops: float
    temp_bytes: int
    estimated_cycles: int | None
    bytes_without_cycles: int | None
    compile_seconds: float
    compilations: int | None


def measure(
    config: Config,
    *,
    dispatchers: Sequence[str],
    against: str,
    repeats: int,
    matmul_size: int = 4096,
    topology: jax.Device | None = None,
) -> list[StepRow]:
    """Times the train step of a run on one device, on a batch of random pixels that stays the same.

    Args:
      config: of the run. Nothing is read from its data source.
      dispatchers: one row each.
      against: the one of them that the others are compared with.
      repeats: rounds that count.
      matmul_size: n of the plain product of two n x n matrices, of the model's type.
      topology: a device to compile for instead of one of this machine; then nothing is timed.

    Raises:
      ValueError: an unknown dispatcher, or a batch that one device cannot work on in whole groups.
    """
    if against not in dispatchers:
        raise checks.error("against", f"one of {', '.join(dispatchers)}", against)
    devices = [jax.devices()[0] if topology is None else topology]
    steps = {name: TrainStep(_with_dispatcher(config, name), devices) for name in dispatchers}
    rows = [
        StepRow(
            dispatch=name,
            images_per_second=None,
            useful_gflops=None,
            of_matmul=None,
            against=against,
            speedup=None,
            cycles=timing.quotient(step.costs.estimated_cycles, steps[against].costs.estimated_cycles),
            matmul_gflops=None,
            dropped=None,
            useful_flops=useful_flops(config, dropped=0.0),
            compiled_flops=step.costs.flops,
            temp_bytes=step.costs.temp_bytes,
            estimated_cycles=step.costs.estimated_cycles,
            bytes_without_cycles=bytes_without_cycles(step.costs),
            compile_seconds=step.compile_seconds,
            compilations=None,
        )
        for name, step in steps.items()
    ]
    return rows if topology else _time(rows, steps, config, repeats=repeats, matmul_size=matmul_size)


def _with_dispatcher(config: Config, dispatch: str) -> Config:
    moe = dataclasses.replace(config.model.moe, dispatch=dispatch)
    return config_lib.parse(dataclasses.replace(config, model=dataclasses.replace(config.model, moe=moe)))


def evenly_routed(config: Config) -> Config:
    """The same run with routing that is mostly noise, if its router has any.

    A trained router drops few choices. A fresh one prefers some experts and drops half of them, which would be another
    step: less useful work in the same slots. Noise of ten times the logits' own spread makes loads even, and costs what
    the usual noise costs.
    """
    model = config.model
    if model.router.noise_std == 0:
        return config
    router = dataclasses.replace(model.router, noise_std=10.0 * model.moe.num_experts)  # in units of 1/E
    return dataclasses.replace(config, model=dataclasses.replace(model, router=router))


class TrainStep:
    """The compiled train step of a run, ready to be called again and again.

    Attributes:
      program: that it is part of.
      costs: of one step on one device, as compiled.
      compile_seconds: tracing included.
      metrics: of the last step; empty before the first.
    """

    def __init__(self, config: Config, devices: Sequence[jax.Device]):
        """Compiles.

        Args:
          config: of the run; its router's noise, if there is any, is made so large that loads are even.
          devices: may be those of a topology; then the step cannot be called.
        """
        config = evenly_routed(config)
        self.program = program_lib.build(config, config.train.steps or NUM_STEPS, devices)
        start = time.perf_counter()
        with self.program.in_use():
            compiled = self.program.train_step.lower(self.program.state_shapes, self.program.batch_shapes).compile()
        self.compile_seconds = time.perf_counter() - start
        self.costs = costs.of(compiled)
        self.metrics: dict[str, Array] = {}
        self._state: TrainState | None = None
        self._batch: dict[str, Array] = {}

    def __call__(self) -> Tree:
        """Takes one step, always on the same random batch; returns the state, whose memory the next step uses."""
        with self.program.in_use():
            if self._state is None:
                self._state, self._batch = self.program.initialize(), self.program.to_devices(self._random_batch())
            self._state, self.metrics = self.program.train_step(self._state, self._batch)
        return self._state

    def _random_batch(self) -> dict[str, np.ndarray]:
        task = self.program.task
        return task.random_batch(np.random.default_rng(0), task.config.train.batch_size)

    @property
    def compilations(self) -> int:
        """Programs that the step has been compiled to."""
        return self.program.train_step._cache_size()


def _matmul(size: int, dtype: str, device: jax.Device) -> Callable[[], Array]:
    matrix = jax.device_put(jax.random.normal(jax.random.key(0), (size, size)).astype(dtype), device)
    product = jax.jit(jnp.matmul)
    return lambda: product(matrix, matrix)


def _time(
    rows: Sequence[StepRow], steps: Mapping[str, TrainStep], config: Config, *, repeats: int, matmul_size: int
) -> list[StepRow]:
    """The rows with their measured fields."""
    product = _matmul(matmul_size, config.model.dtype, jax.devices()[0])
    measures = {name: timing.stopwatch(step) for name, step in steps.items()} | {_MATMUL: timing.stopwatch(product)}
    seconds = timing.interleave(measures, repeats)
    matmul_rates = [2 * matmul_size**3 / s for s in seconds.pop(_MATMUL)]
    dropped = {name: dropped_share(config.model, step.metrics) for name, step in steps.items()}
    useful = {name: useful_flops(config, dropped=dropped[name]) for name in steps}
    rates = {name: [useful[name] / s for s in of_step] for name, of_step in seconds.items()}
    return [
        dataclasses.replace(
            row,
            images_per_second=timing.spread([config.train.batch_size / s for s in seconds[row.dispatch]]),
            useful_gflops=timing.spread([rate / 1e9 for rate in rates[row.dispatch]]),
            of_matmul=timing.ratio(rates[row.dispatch], matmul_rates),
            speedup=timing.ratio(rates[row.dispatch], rates[row.against]),
            matmul_gflops=timing.spread([rate / 1e9 for rate in matmul_rates]),
            dropped=dropped[row.dispatch],
            useful_flops=useful[row.dispatch],
            compilations=steps[row.dispatch].compilations,
        )
        for row in rows
    ]


def dropped_share(model: ModelConfig, metrics: Mapping[str, Array]) -> float:
    """Share of the choices without a slot, mean over the MoE layers; none where experts fill all their slots.

    Args:
      model: of the step.
      metrics: of the step.
    """
    if SELECT_STEPS[model.router.select].fills_slots or not model.moe_layers:
        return 0.0
    return float(np.mean([metrics[f"routing/block_{layer}/dropped"] for layer in model.moe_layers]))


def useful_flops(config: Config, *, dropped: float) -> float:
    """Useful operations of one step at the beginning of a run, where K may still have to grow.

    Args:
      config: of the run.
      dropped: share of the choices that found no slot.
    """
    model = config.model
    score = SCORE_STEPS[model.router.score]
    growth = score.growth(model.layer_sizes, **config_lib.options_of(model.router, score)) if score.growth else None
    k = model.moe.num_selected_experts if growth is None else growth.k_start
    return config.train.batch_size * training_flops_per_sequence(model, kept=1.0 - dropped, k=k)
