"""Sparse upcycling (arXiv 2212.05055): experts that begin as copies, of a dense model's MLP or of fewer experts."""

import functools
from collections.abc import Callable
from typing import Any

import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np
from absl import logging

from vmoe_inform import checks
from vmoe_inform.axes import Array, Tree

_Flat = dict[str, Array]  # arrays by path
_NOISE = 2**31  # random numbers of the noise: no step has this number, which int32 does not hold


def with_copied_experts(saved: dict[str, Tree], fresh: dict[str, Tree], *, noise: float, seed: int) -> dict[str, Tree]:
    """Another model's variables, with as many experts as this model has.

    Expert i is a copy of expert i modulo N, where a block of the other model has N experts. The router's rows and
    columns of an expert are copied with it. If other sizes of the router depend on the number of experts, it is fresh.
    A dense block counts as one expert without a router. States of router steps are left out; shared experts stay.

    Args:
      saved: variables of the other model.
      fresh: variables of this model.
      noise: standard deviation of the noise on copies, in units of the copied array's own.
      seed: of that noise.

    Returns:
      ``saved`` itself where both have the same experts. Blocks of other widths stay as they are: what compares the
      models next names them.

    Raises:
      ValueError: noise, and no expert that is a copy; or shared experts next to copies of a dense MLP.
    """
    given, wanted = (flax.traverse_util.flatten_dict(tree, sep="/") for tree in (saved, fresh))
    blocks = dict.fromkeys(path.split("/")[1] for path in wanted if "/moe/experts/" in path)
    changed = False
    for number, block in enumerate(blocks):
        arrays = _moe_layer(given, wanted, block, noise, np.array([seed, _NOISE, number], np.uint32))
        if arrays is not None:
            changed = True
            before = (f"params/{block}/mlp/", f"params/{block}/moe/", f"routing/{block}/")
            given = {path: leaf for path, leaf in given.items() if not path.startswith(before)} | arrays
    if noise and not changed:
        raise checks.error("train.upcycling_noise", "0 where no expert is a copy", noise)
    return flax.traverse_util.unflatten_dict(given, sep="/") if changed else saved


def _moe_layer(given: _Flat, wanted: _Flat, block: str, noise: float, random: np.ndarray) -> _Flat | None:
    """Parameters of a block's MoE layer with experts that are copies; None where there is nothing to copy."""
    place = f"params/{block}/moe"
    experts, router = _below(wanted, f"{place}/experts/"), _below(wanted, f"{place}/router/")
    sources = {name: leaf[None] for name, leaf in _below(given, f"params/{block}/mlp/").items()}
    is_dense = bool(sources)
    sources = sources or _below(given, f"{place}/experts/")
    if _widths(sources) != _widths(experts):
        return None
    before, after = (next(iter(bank.values())).shape[0] for bank in (sources, experts))
    if before == after and not is_dense:
        return None
    shared = _below(wanted, f"{place}/shared/")
    if is_dense and shared:
        expected = "0 where experts are copies of a dense MLP, which the sum would count twice"
        raise checks.error("model.moe.shared_experts", expected, next(iter(shared.values())).shape[0])
    copies = _copied(sources, experts, noise, random)
    moved = None if is_dense else _grown_router(_below(given, f"{place}/router/"), router, before, after)
    origin = "the checkpoint's MLP" if is_dense else f"the checkpoint's {before}"
    fate = "starts anew" if moved is None else "has their rows and columns"
    logging.warning("%s: %d experts are copies of %s; the router %s", block, after, origin, fate)
    parts = {"experts": copies, "router": router if moved is None else moved}
    parts["shared"] = _below(given, f"{place}/shared/")
    return {f"{place}/{part}/{name}": leaf for part, arrays in parts.items() for name, leaf in arrays.items()}


def _below(flat: _Flat, prefix: str) -> _Flat:
    return {path.removeprefix(prefix): leaf for path, leaf in flat.items() if path.startswith(prefix)}


def _widths(experts: _Flat) -> dict[str, tuple[int, ...]]:
    return {name: leaf.shape[1:] for name, leaf in experts.items()}


def _copied(sources: _Flat, wanted: _Flat, noise: float, random: np.ndarray) -> _Flat:
    """Experts [E, ...] from [N, ...], where the wanted ones lie."""

    def copy(sources: _Flat, random: Array) -> _Flat:
        copies = {name: _cycled(sources[name], like.shape) for name, like in wanted.items()}
        if not noise:
            return copies
        key = functools.reduce(jax.random.fold_in, random[1:], jax.random.key(random[0]))
        return {
            name: copied
            + noise * jnp.std(sources[name]) * jax.random.normal(jax.random.fold_in(key, number), copied.shape)
            for number, (name, copied) in enumerate(copies.items())
        }

    return _made(copy, wanted, sources, random)


def _made(make: Callable[..., _Flat], like: _Flat, *given: Any) -> _Flat:
    """What a function makes of arrays, which may be spread over processes, where others lie."""
    return jax.jit(make, out_shardings={name: leaf.sharding for name, leaf in like.items()})(*given)


def _cycled(array: Array, shape: tuple[int, ...]) -> Array:
    """The array with its parts along each axis repeated in turn, or the first of them, up to this shape."""
    for axis, size in enumerate(shape):
        if size != array.shape[axis]:
            array = jnp.take(array, np.arange(size) % array.shape[axis], axis=axis)
    return array


def _grown_router(given: _Flat, wanted: _Flat, before: int, after: int) -> _Flat | None:
    """A router of ``before`` experts for ``after``; None if its arrays are not made of parts for each expert."""
    if given.keys() != wanted.keys():
        return given  # of other steps, which what compares the models next names
    if not all(_is_cycled(given[name].shape, like.shape, before, after) for name, like in wanted.items()):
        return None

    def grow(given: _Flat) -> _Flat:
        return {name: _cycled(given[name], like.shape) for name, like in wanted.items()}

    return _made(grow, wanted, given)


def _is_cycled(old: tuple[int, ...], new: tuple[int, ...], before: int, after: int) -> bool:
    """Whether only axes of experts differ."""
    return len(old) == len(new) and all(
        pair[0] == pair[1] or pair == (before, after) for pair in zip(old, new, strict=True)
    )
