"""How fast the train step is: images or tokens a second, and useful operations a second over those of a plain product.

Useful are the operations that :mod:`vmoe_inform.nn.operations` counts, without those of choices that found no slot.

The step can be compared with that of a dense model, which does the same activated work. Its MLPs together are as wide
as the experts of a token. It has no router, no tokens to move, and fewer parameters to update.
"""

import dataclasses
import functools
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
DENSE = "dense"  # the model without MoE, among the names of dispatchers
_MATMUL = "matmul"  # the reference among them


@dataclasses.dataclass(frozen=True)
class StepRow:
    """The train step with one dispatcher, or of the dense model; what was not timed or has no estimate is None.

    Attributes:
      dispatch: name of the dispatcher, or ``"dense"``.
      counted: what the next one counts: images, tokens or texts.
      rate: of these, trained on in a second.
      useful_gflops: useful operations of a second, in 10^9.
      of_matmul: these over the operations of a second of the plain matrix product.
      against: dispatcher that the next five compare with.
      time: of a step, over that with ``against``.
      processor_time: the same for the time of all threads of this process, which other programs do not lengthen.
      operations: as compiled, over those with ``against``.
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
    counted: str
    rate: Spread | None
    useful_gflops: Spread | None
    of_matmul: Spread | None
    against: str
    time: Spread | None
    processor_time: Spread | None
    operations: float
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
    """Times the train step of a run on one device, on a random batch that stays the same.

    Args:
      config: of the run. Nothing is read from its data source.
      dispatchers: one row each; ``"dense"`` is the model without MoE.
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
    configs = {name: dense(config) if name == DENSE else _with_dispatcher(config, name) for name in dispatchers}
    steps = {name: TrainStep(config, devices) for name, config in configs.items()}
    rows = [
        StepRow(
            dispatch=name,
            counted=step.program.task.counted,
            rate=None,
            useful_gflops=None,
            of_matmul=None,
            against=against,
            time=None,
            processor_time=None,
            operations=step.costs.flops / steps[against].costs.flops,
            speedup=None,
            cycles=timing.quotient(step.costs.estimated_cycles, steps[against].costs.estimated_cycles),
            matmul_gflops=None,
            dropped=None,
            useful_flops=useful_flops(configs[name], dropped=0.0),
            compiled_flops=step.costs.flops,
            temp_bytes=step.costs.temp_bytes,
            estimated_cycles=step.costs.estimated_cycles,
            bytes_without_cycles=bytes_without_cycles(step.costs),
            compile_seconds=step.compile_seconds,
            compilations=None,
        )
        for name, step in steps.items()
    ]
    return rows if topology else _time(rows, steps, configs, repeats=repeats, matmul_size=matmul_size)


def _with_dispatcher(config: Config, dispatch: str) -> Config:
    moe = dataclasses.replace(config.model.moe, dispatch=dispatch)
    return config_lib.parse(dataclasses.replace(config, model=dataclasses.replace(config.model, moe=moe)))


def dense(config: Config) -> Config:
    """The run without MoE whose model does the same activated work, rounded up to a whole width.

    All its MLPs are equally wide, and together as wide as the dense ones and the experts of a token.

    Raises:
      ValueError: the model has no MoE layers.
    """
    model = config.model
    if not model.moe_layers:
        raise checks.error("model.moe.layers", "MoE layers, to compare with a dense model", model.moe.layers)
    widths = model.num_layers + len(model.moe_layers) * (model.moe.num_selected_experts + model.moe.shared_experts - 1)
    moe = dataclasses.replace(model.moe, layers="none")
    without = dataclasses.replace(model, moe=moe, mlp_size=-(-model.mlp_size * widths // model.num_layers))
    return config_lib.parse(dataclasses.replace(config, model=without))


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
                self._state, self._batch = self.program.initialize(), self.program.to_devices(self.random_batch())
            self._state, self.metrics = self.program.train_step(self._state, self._batch)
        return self._state

    def random_batch(self) -> dict[str, np.ndarray]:
        """The batch of every step."""
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
    rows: Sequence[StepRow],
    steps: Mapping[str, TrainStep],
    configs: Mapping[str, Config],
    *,
    repeats: int,
    matmul_size: int,
) -> list[StepRow]:
    """The rows with their measured fields."""
    product = _matmul(matmul_size, next(iter(configs.values())).model.dtype, jax.devices()[0])
    functions: dict[str, Callable[[], Tree]] = {**steps, _MATMUL: product}
    times = timing.interleave({name: functools.partial(timing.times, f) for name, f in functions.items()}, repeats)
    seconds = {name: [each.wall for each in of_step] for name, of_step in times.items()}
    processor = {name: [each.processor for each in of_step] for name, of_step in times.items()}
    matmul_rates = [2 * matmul_size**3 / s for s in seconds.pop(_MATMUL)]
    dropped = {name: dropped_share(configs[name].model, step.metrics) for name, step in steps.items()}
    useful = {name: useful_flops(configs[name], dropped=dropped[name]) for name in steps}
    rates = {name: [useful[name] / s for s in of_step] for name, of_step in seconds.items()}
    counted = {
        name: configs[name].train.batch_size * step.program.task.counted_per_example for name, step in steps.items()
    }
    return [
        dataclasses.replace(
            row,
            rate=timing.spread([counted[row.dispatch] / s for s in seconds[row.dispatch]]),
            useful_gflops=timing.spread([rate / 1e9 for rate in rates[row.dispatch]]),
            of_matmul=timing.ratio(rates[row.dispatch], matmul_rates),
            time=timing.ratio(seconds[row.dispatch], seconds[row.against]),
            processor_time=timing.ratio(processor[row.dispatch], processor[row.against]),
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
