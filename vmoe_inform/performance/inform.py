"""Cost of informing: the forward pass of a model with an inform step, over the same model without it.

Both have the same sizes, router, K, renormalisation and slots. The pass is that of evaluation, up to the logits.
That of text ends before the head, since a large vocabulary would hide the cost. From ``block_size`` on, neither has an
N x N matrix. The attention of all blocks, and the steps with an option ``block_size``, then process the tokens in
blocks.
"""

import dataclasses
import pathlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from vmoe_inform import checks
from vmoe_inform import config as config_lib
from vmoe_inform.axes import Array, Tree
from vmoe_inform.config import ModelConfig
from vmoe_inform.nn import models
from vmoe_inform.performance import timing
from vmoe_inform.performance.compiled import bytes_without_cycles, compile_for
from vmoe_inform.performance.costs import Costs
from vmoe_inform.performance.timing import Spread
from vmoe_inform.routing.steps import INFORM_STEPS

PLAIN = "none"  # the reference among the names of steps
_DEFAULTS: Mapping[str, Mapping[str, Any]] = {}


@dataclasses.dataclass(frozen=True)
class Size:
    """Sequences of one length, as a model sees them.

    Attributes:
      settings: of the model that make the length: ``image_size_px`` and ``patch_size_px``, or ``num_tokens``.
      sequences: B, images or rows of text. N grows with the square of an image's size, so that large images come in
        small batches.
      block_size: tokens of a block of attention and of the token graphs; None: each in one piece.
    """

    settings: Mapping[str, Any]
    sequences: int
    block_size: int | None = None


@dataclasses.dataclass(frozen=True)
class InformRow:
    """One inform step at one number of tokens, over the model without it; what was not timed or estimated is None.

    Attributes:
      tokens: N, a class token included.
      sequences: B, images or rows of text.
      block_size: as in :class:`Size`.
      inform: name of the step.
      time: of the forward pass.
      flops: as compiled; None if there are loops of which nobody can tell how often they run.
      cycles: that the compiler of a TPU estimates; None as for ``flops``.
      scheduled, longest: cycles by its final schedules, see :class:`vmoe_inform.performance.costs.schedules.Schedule`;
        None without them.
      temporary: temporary memory; None where the model without the step needs none.
      bytes_without_cycles: that instructions without an estimate, such as gathers, read and write more than those of
        the model without the step. None where the compiler states no estimates at all.
      temp_bytes: temporary memory of the informed model.
      plain_temp_bytes: that of the model without the step.
      plain_milliseconds: time of the model without the step.
    """

    tokens: int
    sequences: int
    block_size: int | None
    inform: str
    time: Spread | None
    flops: float | None
    cycles: float | None
    scheduled: float | None
    longest: float | None
    temporary: float | None
    bytes_without_cycles: int | None
    temp_bytes: int
    plain_temp_bytes: int
    plain_milliseconds: Spread | None


def measure(
    model: ModelConfig,
    *,
    steps: Sequence[str],
    sizes: Sequence[Size],
    repeats: int,
    options: Mapping[str, Mapping[str, Any]] = _DEFAULTS,
    timed_up_to_seconds: float = float("inf"),
    topology: jax.Device | None = None,
    schedules_in: pathlib.Path | None = None,
) -> Iterator[InformRow]:
    """Compares informed models with the one that is not.

    Args:
      model: any, without inform steps; a class token or none, as many MoE layers as the steps need.
      steps: names of inform steps.
      sizes: of the sequences.
      repeats: rounds that count.
      options: of the steps by name; otherwise the defaults.
      timed_up_to_seconds: no times are taken at a size where one forward pass of the plain model takes longer.
      topology: a device to compile for instead of one of this machine; then nothing is timed.
      schedules_in: folder of :func:`vmoe_inform.performance.costs.schedules.write_to`; None: none are looked at.

    Yields:
      a row for each step at each size, as soon as it is there.

    Raises:
      ValueError: an impossible combination, see :func:`vmoe_inform.config.parse_model`.
    """
    if model.router.inform_steps:
        raise checks.error("model.router.inform", "'none', to compare with", model.router.inform_steps)
    device = jax.devices()[0] if topology is None else topology
    variants = [
        {name: _variant(model, name, size, options.get(name, {})) for name in (PLAIN, *steps)} for size in sizes
    ]
    leaves: dict[str, Array] = {}
    for size, configs in zip(sizes, variants, strict=True):
        forwards = {name: _Forward(config, size.sequences, device, schedules_in) for name, config in configs.items()}
        seconds = {} if topology else _time(forwards, repeats, timed_up_to_seconds, leaves)
        for name in steps:
            yield _row(name, configs[name], size, forwards, seconds)


def _variant(model: ModelConfig, step: str, size: Size, of_step: Mapping[str, Any]) -> ModelConfig:
    """The model for sequences of that size, with the step, and in blocks if the size says so."""
    options: dict[str, Mapping[str, Any]] = dict(model.router.options)
    if step != PLAIN:
        in_blocks = {"block_size": size.block_size} if "block_size" in INFORM_STEPS[step].option_types else {}
        options[step] = {**of_step, **in_blocks}
    return config_lib.parse_model(
        dataclasses.replace(
            model,
            **size.settings,
            attention_block_size=size.block_size,
            router=dataclasses.replace(model.router, inform=step, options=options),
        )
    )


class _Forward:
    """A forward pass, compiled."""

    def __init__(
        self, config: ModelConfig, sequences: int, device: jax.Device, schedules_in: pathlib.Path | None = None
    ):
        """Compiles for ``sequences`` sequences and a device, which may be one of a topology."""
        self._model = models.from_config(config)
        self._num_words = config.vocabulary_size  # of text
        self._inputs = self._model.input_shape(sequences)
        self._shapes = jax.eval_shape(self._initialize)
        self._compiled = compile_for(device, self._outputs, self._shapes, self._inputs, schedules_in=schedules_in)
        self.schedule = self._compiled.schedule

    @property
    def costs(self) -> Costs:
        """As compiled."""
        return self._compiled.costs

    def _initialize(self) -> Tree:
        inputs = jnp.zeros(self._inputs.shape, self._inputs.dtype)
        return self._model.init(jax.random.key(0), inputs, train=False)

    def _outputs(self, variables: Tree, inputs: Array) -> Array:
        logits, aux = self._model.apply(variables, inputs)
        return logits if self._num_words is None else aux["features"]

    def ready(self, leaves: dict[str, Array]) -> Callable[[], Array]:
        """The pass with its arguments made.

        Args:
          leaves: variables of other models by path, which this one shares where they fit; missing ones are made and
            added.
        """
        paths, structure = jax.tree_util.tree_flatten_with_path(self._shapes)
        shapes = {jax.tree_util.keystr(path): leaf.shape for path, leaf in paths}
        missing = [path for path, shape in shapes.items() if path not in leaves or leaves[path].shape != shape]

        def make() -> dict[str, Array]:
            made = dict(zip(shapes, jax.tree.leaves(self._initialize()), strict=True))
            return {path: made[path] for path in missing}  # nothing else is computed

        leaves.update(jax.jit(make)())
        variables = jax.tree.unflatten(structure, [leaves[path] for path in shapes])
        key, shape = jax.random.key(1), self._inputs.shape
        words = self._num_words
        inputs = jax.random.normal(key, shape) if words is None else jax.random.randint(key, shape, 0, words)
        return lambda: self._compiled.run(variables, inputs)


def _time(
    forwards: Mapping[str, _Forward], repeats: int, timed_up_to_seconds: float, leaves: dict[str, Array]
) -> dict[str, list[float]]:
    """Seconds of each round by name; empty if the plain model takes too long."""
    plain = forwards[PLAIN].ready(leaves)
    if timing.seconds(plain) > timed_up_to_seconds:
        return {}
    passes = {name: plain if name == PLAIN else forward.ready(leaves) for name, forward in forwards.items()}
    return timing.interleave({name: timing.stopwatch(function) for name, function in passes.items()}, repeats)


def _row(
    name: str,
    model: ModelConfig,
    size: Size,
    forwards: Mapping[str, _Forward],
    seconds: Mapping[str, list[float]],
) -> InformRow:
    informed, plain = forwards[name].costs, forwards[PLAIN].costs
    counted = not informed.unknown_loops and not plain.unknown_loops
    schedule, plain_schedule = forwards[name].schedule, forwards[PLAIN].schedule
    without, plain_without = map(bytes_without_cycles, (informed, plain))
    return InformRow(
        tokens=model.num_tokens,
        sequences=size.sequences,
        block_size=size.block_size,
        inform=name,
        time=timing.ratio(seconds[name], seconds[PLAIN]) if seconds else None,
        flops=informed.flops / plain.flops if counted else None,
        cycles=timing.quotient(informed.estimated_cycles, plain.estimated_cycles) if counted else None,
        scheduled=schedule.scheduled / plain_schedule.scheduled if schedule and plain_schedule else None,
        longest=schedule.longest / plain_schedule.longest if schedule and plain_schedule else None,
        bytes_without_cycles=None if without is None or plain_without is None else without - plain_without,
        temporary=timing.quotient(informed.temp_bytes, plain.temp_bytes),
        temp_bytes=informed.temp_bytes,
        plain_temp_bytes=plain.temp_bytes,
        plain_milliseconds=timing.spread([1e3 * s for s in seconds[PLAIN]]) if seconds else None,
    )
