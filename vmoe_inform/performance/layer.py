"""Cost of a MoE layer, over a dense MLP that does the same activated work.

The MoE layer is the module of a model: router, auxiliary losses and metrics, dispatch and experts, in training mode.
Tokens are random and LayerNormed, and the router's weights fresh, so loads are mildly uneven. The experts are MLPs, and
every token meets K of them. So the same activated work is one dense MLP of their width on K times as many tokens. The
rest is the price of sparsity: routing, moving tokens, empty slots, more weights to read.
"""

import dataclasses
import functools
import pathlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal, TypeAlias

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from vmoe_inform import checks
from vmoe_inform import config as config_lib
from vmoe_inform.axes import Array, Tree
from vmoe_inform.config import ModelConfig
from vmoe_inform.nn.auxiliary_losses import auxiliary_loss
from vmoe_inform.nn.mlp import Mlp
from vmoe_inform.nn.moe import MoeLayer
from vmoe_inform.nn.router import Surroundings
from vmoe_inform.performance import timing
from vmoe_inform.performance.compiled import Compiled, bytes_without_cycles, compile_for
from vmoe_inform.performance.timing import Spread

_DENSE = "dense"  # the reference among the names of dispatchers


@dataclasses.dataclass(frozen=True)
class LayerRow:
    """One dispatcher in one setting, over the dense MLP; what was not timed or has no estimate is None.

    Attributes:
      experts: E.
      images_per_group: images whose tokens share the experts' slots.
      dispatch: name of the dispatcher.
      forward: time of the forward pass, over the dense MLP's.
      forward_backward: time of forward and backward pass (gradients of tokens and all parameters), over the MLP's.
      forward_processor, forward_backward_processor: the same two for the time of all threads of this process, which
        other programs do not lengthen.
      forward_flops, forward_backward_flops: the same for operations, as compiled.
      forward_cycles, forward_backward_cycles: the same for the cycles that the compiler of a TPU estimates.
      forward_longest, forward_backward_longest: the same for the least cycles by its final schedules, see
        :class:`vmoe_inform.performance.costs.schedules.Schedule`.
      bytes_without_cycles: that instructions read and write in forward and backward pass for which the compiler states
        no cycles (gathers, sorts).
      dropped: share of the choices that found no slot.
      forward_milliseconds, forward_backward_milliseconds: of the MoE layer.
    """

    experts: int
    images_per_group: int
    dispatch: str
    forward: Spread | None
    forward_backward: Spread | None
    forward_processor: Spread | None
    forward_backward_processor: Spread | None
    forward_flops: float
    forward_backward_flops: float
    forward_cycles: float | None
    forward_backward_cycles: float | None
    forward_longest: float | None
    forward_backward_longest: float | None
    bytes_without_cycles: int | None
    dropped: float | None
    forward_milliseconds: Spread | None
    forward_backward_milliseconds: Spread | None


def measure(
    model: ModelConfig,
    *,
    experts: Sequence[int],
    images_per_group: Sequence[int],
    dispatchers: Sequence[str],
    images: int,
    repeats: int,
    timed_up_to: float = float("inf"),
    topology: jax.Device | None = None,
    schedules_in: pathlib.Path | None = None,
) -> Iterator[LayerRow]:
    """Compares the MoE layer of a model with a dense MLP.

    Args:
      model: sizes, type, K, capacity factor and a router that needs nothing but the tokens.
      experts, images_per_group, dispatchers: there is a row for every combination of them.
      images: B.
      repeats: rounds that count.
      timed_up_to: a dispatcher that compiles to more than this multiple of the MLP's operations is not timed.
      topology: a device to compile for instead of one of this machine; then nothing is timed.
      schedules_in: folder of :func:`vmoe_inform.performance.costs.schedules.write_to`; None: none are looked at.

    Yields:
      a row as soon as it is there.

    Raises:
      ValueError: an impossible combination, or groups that do not divide the images.
    """
    settings = [
        [_variant(model, num_experts, group, name, images) for name in dispatchers]
        for num_experts in experts
        for group in images_per_group
    ]
    device = jax.devices()[0] if topology is None else topology
    compile_ = functools.partial(compile_for, device, schedules_in=schedules_in)
    dense, arrays = _dense(model, images, compile_), _Arrays()
    for variants in settings:
        layers = {variant.moe.dispatch: _sparse(variant, images, compile_) for variant in variants}
        limit = 0.0 if topology is not None else timed_up_to * dense.forward_backward.costs.flops
        affordable = {n: layer for n, layer in layers.items() if layer.forward_backward.costs.flops <= limit}
        times = _time({_DENSE: dense} | affordable, arrays, repeats) if affordable else {}
        for variant in variants:
            name = variant.moe.dispatch
            yield _row(variant, layers[name], dense, times.get(name), times.get(_DENSE))


def _variant(model: ModelConfig, experts: int, group: int, dispatch: str, images: int) -> ModelConfig:
    if images % group:
        raise checks.error("images of a group", f"a divisor of the {images} images", group)
    moe = dataclasses.replace(model.moe, num_experts=experts, group_size_sequences=group, dispatch=dispatch)
    return config_lib.parse_model(dataclasses.replace(model, moe=moe))


_Compile: TypeAlias = Callable[..., Compiled]  # a function and its arguments


@dataclasses.dataclass(frozen=True)
class _Layer:
    """A layer made ready.

    Attributes:
      initialize: (key) -> params.
      shape, dtype: of the tokens.
      forward: (params, tokens, seed) -> ((outputs, auxiliary loss), metrics).
      forward_backward: (params, tokens, seed, gradient) -> ((outputs, auxiliary loss), metrics, gradients of params
        and tokens).
    """

    initialize: Callable[[Array], Tree]
    shape: tuple[int, int, int]
    dtype: jnp.dtype
    forward: Compiled
    forward_backward: Compiled


def _prepare(
    module: nn.Module,
    apply: Callable[[Tree, Array, Array], tuple[Tree, Tree]],
    shape: tuple[int, int, int],
    dtype: str,
    compile_: _Compile,
    **arguments: Any,
) -> _Layer:
    """Compiles a layer.

    Args:
      module: the layer.
      apply: (params, tokens, seed) -> ((outputs, auxiliary loss), metrics).
      shape: of the tokens.
      dtype: of tokens and outputs.
      compile_: compiles a function for arguments.
      **arguments: that the module takes besides tokens.
    """

    def initialize(key: Array) -> Tree:
        return module.init(key, jnp.zeros(shape, dtype), train=False, **arguments)["params"]

    def forward_backward(params: Tree, tokens: Array, seed: Array, gradient: Array) -> tuple[Tree, Tree, Tree]:
        def forward(params: Tree, tokens: Array) -> tuple[Tree, Tree]:
            return apply(params, tokens, seed)

        results, pull_back, metrics = jax.vjp(forward, params, tokens, has_aux=True)
        return results, metrics, pull_back((gradient, jnp.ones((), jnp.float32)))

    params = jax.eval_shape(initialize, jax.random.key(0))
    tokens, seed = jax.ShapeDtypeStruct(shape, dtype), jax.ShapeDtypeStruct((), jnp.uint32)
    return _Layer(
        initialize,
        shape,
        jnp.dtype(dtype),
        forward=compile_(apply, params, tokens, seed),
        forward_backward=compile_(forward_backward, params, tokens, seed, tokens),
    )


def _dense(model: ModelConfig, images: int, compile_: _Compile) -> _Layer:
    """The MLP, on as many times the tokens of the MoE layer as each has experts."""
    mlp = Mlp(model.mlp_size, dtype=jnp.dtype(model.dtype))

    def apply(params: Tree, tokens: Array, seed: Array) -> tuple[Tree, Tree]:
        del seed
        return (mlp.apply({"params": params}, tokens, train=True), jnp.zeros(())), {}

    of_token = model.moe.num_selected_experts + model.moe.shared_experts
    shape = (of_token * images, model.num_tokens, model.hidden_size)
    return _prepare(mlp, apply, shape, model.dtype, compile_)


def _sparse(model: ModelConfig, images: int, compile_: _Compile) -> _Layer:
    """The MoE layer with its router; the auxiliary losses are part of what is differentiated, as in training."""
    layer, around = MoeLayer(model), Surroundings()

    def apply(params: Tree, tokens: Array, seed: Array) -> tuple[Tree, Tree]:
        rngs = {"routing": jax.random.key(seed)}
        results: Any = layer.apply({"params": params}, tokens, around, train=True, rngs=rngs)
        outputs, metrics, _ = results
        return (outputs, auxiliary_loss([metrics["losses"]], model.router)), metrics

    shape = (images, model.num_tokens, model.hidden_size)
    return _prepare(layer, apply, shape, model.dtype, compile_, around=around)


class _Arrays:
    """Inputs of layers; layers with parameters of the same shapes share them."""

    def __init__(self) -> None:
        self._params: dict[tuple, Tree] = {}

    def of(self, layer: _Layer) -> tuple[Tree, Array, Array, Array]:
        """params, LayerNormed tokens, a seed, and gradients of the outputs."""
        key = jax.random.key(0)
        shapes = tuple(leaf.shape for leaf in jax.tree.leaves(jax.eval_shape(layer.initialize, key)))
        if shapes not in self._params:
            self._params[shapes] = jax.jit(layer.initialize)(key)
        tokens, gradient = np.random.default_rng(0).standard_normal((2, *layer.shape), np.float32)
        tokens = (tokens - tokens.mean(axis=-1, keepdims=True)) / tokens.std(axis=-1, keepdims=True)
        arrays = (tokens.astype(layer.dtype), np.uint32(0), gradient.astype(layer.dtype))
        return self._params[shapes], *jax.device_put(arrays)


@dataclasses.dataclass(frozen=True)
class _Times:
    """Times of each round, and the metrics of the layer."""

    forward: list[timing.Times]
    forward_backward: list[timing.Times]
    metrics: Tree


def _time(layers: Mapping[str, _Layer], made: _Arrays, repeats: int) -> dict[str, _Times]:
    arrays = {name: made.of(layer) for name, layer in layers.items()}
    measures: dict[tuple[str, str], Callable[[], timing.Times]] = {}
    for name, layer in layers.items():
        forward = functools.partial(layer.forward.run, *arrays[name][:3])
        both = functools.partial(layer.forward_backward.run, *arrays[name])
        measures[name, "forward"] = functools.partial(timing.times, forward)
        measures[name, "forward_backward"] = functools.partial(timing.times, both)
    found = timing.interleave(measures, repeats)
    return {
        name: _Times(found[name, "forward"], found[name, "forward_backward"], layer.forward.run(*arrays[name][:3])[1])
        for name, layer in layers.items()
    }


def _row(
    model: ModelConfig, layer: _Layer, dense: _Layer, times: _Times | None, dense_times: _Times | None
) -> LayerRow:
    forward, both = layer.forward.costs, layer.forward_backward.costs
    dense_forward, dense_both = dense.forward.costs, dense.forward_backward.costs

    def longest(program: Compiled, of_dense: Compiled) -> float | None:
        if program.schedule is None or of_dense.schedule is None:
            return None
        return program.schedule.longest / of_dense.schedule.longest

    moe = model.moe
    row = LayerRow(
        experts=moe.num_experts,
        images_per_group=moe.group_size_sequences,
        dispatch=moe.dispatch,
        forward=None,
        forward_backward=None,
        forward_processor=None,
        forward_backward_processor=None,
        forward_flops=forward.flops / dense_forward.flops,
        forward_backward_flops=both.flops / dense_both.flops,
        forward_cycles=timing.quotient(forward.estimated_cycles, dense_forward.estimated_cycles),
        forward_backward_cycles=timing.quotient(both.estimated_cycles, dense_both.estimated_cycles),
        forward_longest=longest(layer.forward, dense.forward),
        forward_backward_longest=longest(layer.forward_backward, dense.forward_backward),
        bytes_without_cycles=bytes_without_cycles(both),
        dropped=None,
        forward_milliseconds=None,
        forward_backward_milliseconds=None,
    )
    if times is None or dense_times is None:
        return row
    wall, dense_wall = _seconds(times, "wall"), _seconds(dense_times, "wall")
    processor, dense_processor = _seconds(times, "processor"), _seconds(dense_times, "processor")
    return dataclasses.replace(
        row,
        forward=timing.ratio(wall[0], dense_wall[0]),
        forward_backward=timing.ratio(wall[1], dense_wall[1]),
        forward_processor=timing.ratio(processor[0], dense_processor[0]),
        forward_backward_processor=timing.ratio(processor[1], dense_processor[1]),
        dropped=float(times.metrics["dropped"]),
        forward_milliseconds=timing.spread([1e3 * seconds for seconds in wall[0]]),
        forward_backward_milliseconds=timing.spread([1e3 * seconds for seconds in wall[1]]),
    )


def _seconds(times: _Times, kind: Literal["wall", "processor"]) -> tuple[list[float], list[float]]:
    """Of each round: forward pass, and forward and backward pass."""
    return [getattr(each, kind) for each in times.forward], [getattr(each, kind) for each in times.forward_backward]
