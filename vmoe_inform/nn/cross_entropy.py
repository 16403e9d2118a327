"""Cross-entropy over a large vocabulary: never the logits of all tokens at once, nor of all words on one device.

With 24,576 tokens and 267,735 words the logits are 26 GB in float32. Here a chunk of tokens has logits at a time. Over
the mesh axes ``fsdp`` and ``expert`` each device has the logits of its own words, for the tokens of all these devices.

Gradients of a mean are worked out in the forward pass, while the logits are at hand (as in Liger Kernel, arXiv
2410.10989, Sec. 3.2). So no logits are computed twice.
"""

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

from vmoe_inform import checks
from vmoe_inform.axes import Array, Float, Int
from vmoe_inform.sharding.mesh import BATCH, EXPERT, FSDP, REPLICA, axis_size

VOCABULARY_AXES = (FSDP, EXPERT)  # of the mesh, over which the words are


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class HeadInputs:
    """What a language model's logits are made of: ``hidden @ kernel + bias``.

    Attributes:
      hidden: of each token, after the last LayerNorm, in the type of the products.
      kernel, bias: of the words.
    """

    hidden: Float[Array, "B N D"]
    kernel: Float[Array, "D V"]
    bias: Float[Array, " V"]


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def token_losses(head: HeadInputs, targets: Int[Array, "B N"], chunk_tokens: int) -> Float[Array, "B N"]:
    """Cross-entropy of each token in nats.

    Its gradient computes the logits a second time; :func:`mean_loss` does not.

    Args:
      head: see :class:`HeadInputs`.
      targets: words, 0 to V - 1.
      chunk_tokens: tokens whose logits are in memory at a time, of each replica.

    Raises:
      ValueError: targets of another shape, or a chunk below 1.
    """
    return _losses(head, targets, None, chunk_tokens)[0]


def _token_losses_forward(
    head: HeadInputs, targets: Array, chunk_tokens: int
) -> tuple[Array, tuple[HeadInputs, Array]]:
    return token_losses(head, targets, chunk_tokens), (head, targets)


def _token_losses_backward(
    chunk_tokens: int, saved: tuple[HeadInputs, Array], gradient: Float[Array, "B N"]
) -> tuple[HeadInputs, None]:
    return _typed(_losses(*saved, gradient, chunk_tokens)[1], saved[0]), None


token_losses.defvjp(_token_losses_forward, _token_losses_backward)


def mean_loss(
    head: HeadInputs, targets: Int[Array, "B N"], chunk_tokens: int
) -> tuple[Float[Array, ""], Float[Array, "B N"]]:
    """Mean cross-entropy over all tokens, whose gradient costs no second pass over the logits.

    Args and errors as :func:`token_losses`.

    Returns:
      the mean, and the cross-entropy of each token, without a gradient.
    """
    mean, losses = _mean_loss(head, targets, chunk_tokens)
    return mean, jax.lax.stop_gradient(losses)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _mean_loss(head: HeadInputs, targets: Array, chunk_tokens: int) -> tuple[Array, Array]:
    losses, _ = _losses(head, targets, None, chunk_tokens)
    return jnp.mean(losses), losses


def _mean_loss_forward(head: HeadInputs, targets: Array, chunk_tokens: int) -> tuple[tuple[Array, Array], HeadInputs]:
    weights = jnp.full(targets.shape, 1.0 / targets.size, jnp.float32)
    losses, gradients = _losses(head, targets, weights, chunk_tokens)
    return (jnp.mean(losses), losses), _typed(gradients, head)


def _mean_loss_backward(
    chunk_tokens: int, gradients: HeadInputs, outer: tuple[Float[Array, ""], Array]
) -> tuple[HeadInputs, None]:
    del chunk_tokens  # all is done
    return jax.tree.map(lambda leaf: (outer[0] * leaf).astype(leaf.dtype), gradients), None


_mean_loss.defvjp(_mean_loss_forward, _mean_loss_backward)


def _typed(gradients: HeadInputs | None, like: HeadInputs) -> HeadInputs:
    assert gradients is not None  # there were weights
    return jax.tree.map(lambda leaf, other: leaf.astype(other.dtype), gradients, like)


def _losses(
    head: HeadInputs, targets: Int[Array, "B N"], weights: Float[Array, "B N"] | None, chunk_tokens: int
) -> tuple[Float[Array, "B N"], HeadInputs | None]:
    """Cross-entropies, and the gradients of their sum with these weights (None without weights), float32."""
    if chunk_tokens < 1:
        raise checks.error("chunk_tokens", "an integer >= 1", chunk_tokens)
    checks.shape("targets", targets.shape, head.hidden.shape[:2])
    size = head.kernel.shape[1]
    sharded = not jax.sharding.get_abstract_mesh().empty
    missing = -size % axis_size(*VOCABULARY_AXES)  # words that make every device's share as large
    kernel = jnp.pad(head.kernel.astype(head.hidden.dtype), ((0, 0), (0, missing)))
    bias = jnp.pad(head.bias.astype(jnp.float32), (0, missing), constant_values=-jnp.inf)
    work: Callable[..., tuple[Array, HeadInputs | None]] = functools.partial(
        _losses_on_device, chunk_tokens=chunk_tokens, sharded=sharded
    )
    if sharded:
        specs: Any = (BATCH, PartitionSpec(None, VOCABULARY_AXES), PartitionSpec(VOCABULARY_AXES))
        words = HeadInputs(*specs)
        work = jax.shard_map(
            work,
            in_specs=(words, BATCH, BATCH),
            out_specs=(BATCH, None if weights is None else words),
            check_vma=False,
        )
    losses, gradients = work(HeadInputs(head.hidden, kernel, bias), targets, weights)
    if gradients is not None:
        gradients = dataclasses.replace(gradients, kernel=gradients.kernel[:, :size], bias=gradients.bias[:size])
    return losses, gradients


def _losses_on_device(
    head: HeadInputs, targets: Array, weights: Array | None, *, chunk_tokens: int, sharded: bool
) -> tuple[Array, HeadInputs | None]:
    """What :func:`_losses` gives of the sequences of one device, which has a share of the words."""
    axes = VOCABULARY_AXES if sharded else ()
    devices = axis_size(*axes)
    first = head.kernel.shape[1] * (jax.lax.axis_index(axes) if sharded else 0)
    count = targets.size
    chunks = math.ceil(count * devices / chunk_tokens)
    size = math.ceil(count / chunks)

    def split(array: Array) -> Array:
        """[b, N, ...] -> [chunks, tokens, ...], the last ones filled up with zeros."""
        flat = array.reshape(count, *array.shape[2:])
        return jnp.pad(flat, ((0, chunks * size - count), *[(0, 0)] * (flat.ndim - 1))).reshape(
            chunks, size, *flat.shape[1:]
        )

    def add(sums: tuple[Array, Array] | None, rows: tuple[Array, Array, Array | None]) -> tuple:
        losses, of_hidden, of_words = _chunk(head, rows, first, axes)
        return (None if sums is None else jax.tree.map(jnp.add, sums, of_words)), (losses, of_hidden)

    rows = jax.tree.map(split, (head.hidden, targets, weights))
    zeros = None
    if weights is not None:
        zeros = (jnp.zeros(head.kernel.shape, jnp.float32), jnp.zeros(head.bias.shape, jnp.float32))
    left: tuple[Any, tuple[Array, Any]] = jax.lax.scan(add, zeros, rows)
    of_words, (losses, of_hidden) = left
    losses = losses.reshape(-1)[:count].reshape(targets.shape)
    if of_words is None:
        return losses, None
    if sharded:
        of_words = jax.lax.psum(of_words, REPLICA)
    return losses, HeadInputs(of_hidden.reshape(-1, of_hidden.shape[-1])[:count].reshape(head.hidden.shape), *of_words)


def _chunk(
    head: HeadInputs, rows: tuple[Array, Array, Array | None], first: Array | int, axes: tuple[str, ...]
) -> tuple[Float[Array, " T"], Float[Array, "T D"] | None, tuple[Float[Array, "D V"], Float[Array, " V"]] | None]:
    """Cross-entropies of this device's part of a chunk; with weights the gradients of it, and by the device's words.

    Args:
      head: whose kernel and bias are those of the device's words.
      rows: hidden [T, D], targets [T], and weights [T] or None.
      first: number of the device's first word.
      axes: of the mesh, over which tokens and words are.
    """
    if axes:
        gather = functools.partial(jax.lax.all_gather, axis_name=axes, tiled=True)
        rows = jax.tree.map(gather, rows)
    hidden, targets, weights = rows
    total = functools.partial(jax.lax.psum, axis_name=axes) if axes else lambda array: array
    logits = jnp.dot(hidden, head.kernel, preferred_element_type=jnp.float32) + head.bias[None]
    largest = jnp.max(logits, axis=-1, keepdims=True)
    largest = jax.lax.pmax(largest, axes) if axes else largest
    exponentials = jnp.exp(logits - largest)
    sums = total(jnp.sum(exponentials, axis=-1, keepdims=True))
    is_target = jax.lax.broadcasted_iota(jnp.int32, logits.shape, 1) == (targets - first)[:, None]
    of_target = total(jnp.sum(jnp.where(is_target, logits, 0.0), axis=-1))
    losses = _own(jnp.log(sums[:, 0]) + largest[:, 0] - of_target, axes)
    if weights is None:
        return losses, None, None
    of_logits = (weights[:, None] * (exponentials / sums - is_target)).astype(hidden.dtype)
    dot = functools.partial(jnp.einsum, preferred_element_type=jnp.float32)
    of_hidden = dot("tv,dv->td", of_logits, head.kernel)
    if axes:
        of_hidden = jax.lax.psum_scatter(of_hidden, axes, tiled=True)
    return losses, of_hidden, (dot("td,tv->dv", hidden, of_logits), jnp.sum(of_logits, axis=0, dtype=jnp.float32))


def _own(array: Array, axes: tuple[str, ...]) -> Array:
    """This device's part of what all devices along the axes have."""
    if not axes:
        return array
    size = array.shape[0] // axis_size(*axes)
    return jax.lax.dynamic_slice_in_dim(array, jax.lax.axis_index(axes) * size, size)
