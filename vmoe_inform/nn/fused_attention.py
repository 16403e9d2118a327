"""Attention of all heads as one TPU kernel each way: weights of N x N numbers never leave the chip.

Queries, keys and values come as the projections give them, [B, N, D] with the heads side by side. So no array is made
for each head. One program of a kernel has one image and one head, or the heads that share the 128 lanes of a register.
Such a head's product is a product of all these lanes, with those of the other heads set to zero. The matrix unit takes
128 lanes in any case, and nothing moves from lane to lane.

Weights lie as [N keys, R queries]. So the maximum, sum and entropy of a query lie along the lanes. They need no sums
across lanes, and are stored as they are. The backward pass recomputes the weights from the logarithms of the sums
(FlashAttention-2, arXiv 2307.08691, Algorithm 2). All keys of an image are on the chip, so a softmax sees its whole row
at once. Unlike there, nothing has to be corrected afterwards.
"""

import functools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from vmoe_inform import checks
from vmoe_inform.axes import Array, Float
from vmoe_inform.nn._kernel_products import product

Reference = Any  # a block of an array in the chip's memory
Kernel = Callable[..., None]

_LANES = 128
_WEIGHTS_BYTES = 2**19  # of one head's weights at a time, in the type of their products
_VMEM_BYTES = 14 * 2**20  # of the 16 MiB that the compiler lets a kernel have unless it is told otherwise


def fits(num_tokens: int, width: int, num_heads: int, dtype: Any) -> bool:
    """Whether the kernels support these sizes.

    The width D must be a multiple of 128. The width of a head must be a multiple of 128, or a divisor of it that is at
    least 16. Narrower heads would each take the work of one of 128. An image's tokens in the lanes of one program must
    fit into the chip's memory, next to the results.

    Args:
      num_tokens: N.
      width: D.
      num_heads: H.
      dtype: of queries, keys and values.
    """
    head_size, rest = divmod(width, num_heads)
    if rest or width % _LANES or head_size < 16 or (_LANES % head_size and head_size % _LANES):
        return False
    return _vmem_bytes(num_tokens, max(head_size, _LANES), jnp.dtype(dtype).itemsize) <= _VMEM_BYTES


def _vmem_bytes(num_tokens: int, lanes: int, item_bytes: int, heads: int = 1) -> int:
    """At most so much memory the backward pass takes, which takes more than the forward pass.

    ``heads`` are worked on together.
    """
    tokens = -(-num_tokens // _LANES) * _LANES
    # Seven arrays go in or out, the next program's while this one's are worked on; three sums are float32.
    blocks = tokens * lanes * (7 * 2 * item_bytes + 3 * 4)
    # Weights, their gradients, those of the logits, and two of them once more as factors of products.
    return blocks + 5 * 4 * heads * tokens * min(tokens, _row_block(num_tokens, item_bytes))


def _row_block(num_tokens: int, item_bytes: int) -> int:
    """R: queries whose weights are worked on at a time."""
    if item_bytes * num_tokens**2 <= _WEIGHTS_BYTES:
        return num_tokens
    return max(1, _WEIGHTS_BYTES // (item_bytes * num_tokens * _LANES)) * _LANES


def fused_attention(
    queries: Float[Array, "B N D"],
    keys: Float[Array, "B N D"],
    values: Float[Array, "B N D"],
    *,
    num_heads: int,
    record: bool,
    interpret: bool = False,
) -> tuple[Float[Array, "B N D"], Float[Array, "B H"] | None]:
    """softmax(q . k / sqrt(F)) v of each head.

    Products of bfloat16 have float32 sums, products of float32 are exact; softmax statistics are float32.

    Args:
      queries, keys, values: heads side by side in D.
      num_heads: H.
      record: whether the entropies are asked for.
      interpret: works the kernels out step by step on any platform instead of compiling them for a TPU.

    Returns:
      what the heads attend to, side by side [B, N, D], and, if ``record``, the mean over a head's queries of the
      entropy of its weights in nats [B, H], float32, without a gradient.

    Raises:
      ValueError: arrays of different shapes or types, or sizes that do not fit (see :func:`fits`).
    """
    shapes = [f"{array.dtype}{list(array.shape)}" for array in (queries, keys, values)]
    if queries.ndim != 3 or len(set(shapes)) > 1:
        raise checks.error("queries, keys, values", "three arrays [B, N, D] of one shape and type", shapes)
    if not fits(queries.shape[1], queries.shape[2], num_heads, queries.dtype):
        raise checks.error("queries", f"sizes that the kernel can do with {num_heads} heads (see fits)", shapes[0])
    attended, entropies = _attention(queries, keys, values, num_heads, record, interpret)
    if entropies is None:
        return attended, None
    # [B, blocks of lanes, heads of a block, N] -> [B, H]
    return attended, jax.lax.stop_gradient(jnp.mean(entropies, axis=-1).reshape(-1, num_heads))


@functools.partial(jax.custom_vjp, nondiff_argnums=(3, 4, 5))
def _attention(
    queries: Array, keys: Array, values: Array, num_heads: int, record: bool, interpret: bool
) -> tuple[Array, Array | None]:
    return _attention_forward(queries, keys, values, num_heads, record, interpret)[0]


def _attention_forward(
    queries: Array, keys: Array, values: Array, num_heads: int, record: bool, interpret: bool
) -> tuple[tuple[Array, Array | None], tuple[Array, ...]]:
    of_tokens = jax.ShapeDtypeStruct(queries.shape, queries.dtype)
    attended, logsumexp, *entropies = _call(
        _forward_kernel,
        (queries, keys, values),
        (of_tokens, *[_of_queries(queries.shape, num_heads)] * (1 + record)),
        num_heads,
        num_products=2,
        interpret=interpret,
        name="attention",
    )
    return (attended, entropies[0] if record else None), (queries, keys, values, logsumexp)


def _attention_backward(
    num_heads: int, record: bool, interpret: bool, saved: tuple[Array, ...], gradients: tuple[Array, Array | None]
) -> tuple[Array, ...]:
    del record  # entropies have no gradient
    of_tokens = jax.ShapeDtypeStruct(saved[0].shape, saved[0].dtype)
    return _call(
        _backward_kernel,
        (*saved, gradients[0]),
        (of_tokens,) * 3,
        num_heads,
        num_products=5,
        interpret=interpret,
        name="attention_gradient",
    )


_attention.defvjp(_attention_forward, _attention_backward)


def _of_queries(shape: tuple[int, ...], num_heads: int) -> jax.ShapeDtypeStruct:
    """An array with a number for each query of each head: [B, blocks of lanes, heads of a block, N]."""
    batch, tokens, width = shape
    blocks = width // max(width // num_heads, _LANES)
    return jax.ShapeDtypeStruct((batch, blocks, num_heads // blocks, tokens), jnp.float32)


def _call(
    kernel: Kernel,
    inputs: Sequence[Array],
    outputs: Sequence[jax.ShapeDtypeStruct],
    num_heads: int,
    *,
    num_products: int,
    interpret: bool,
    name: str,
) -> tuple[Array, ...]:
    """Runs a kernel for every image and block of lanes.

    Args:
      kernel: gets references to these parts of the inputs and outputs, of which those of tokens are [N, lanes], and
        those of queries [heads, N].
      inputs, outputs: arrays of tokens [B, N, D], and of queries, see :func:`_of_queries`.
      num_heads: H.
      num_products: of [N, F] and [F, N] or of that size, for each head.
      interpret: see :func:`fused_attention`.
      name: of the kernel, in profiles.
    """
    batch, tokens, width = inputs[0].shape
    head_size = width // num_heads
    lanes = max(head_size, _LANES)
    grid = (batch, width // lanes)
    of_tokens = pl.BlockSpec((None, tokens, lanes), lambda image, block: (image, 0, block))
    of_queries = pl.BlockSpec((None, None, lanes // head_size, tokens), lambda image, block: (image, block, 0, 0))

    arrays: tuple[Any, ...] = (*inputs, *outputs)

    def blocks(arrays: Sequence[Any]) -> list[pl.BlockSpec]:
        return [of_tokens if len(array.shape) == 3 else of_queries for array in arrays]

    run = pl.pallas_call(
        functools.partial(kernel, head_size=head_size),
        out_shape=outputs,
        grid=grid,
        in_specs=blocks(inputs),
        out_specs=blocks(outputs),
        compiler_params=pltpu.CompilerParams(dimension_semantics=("parallel", "parallel")),
        cost_estimate=pl.CostEstimate(
            flops=2 * num_products * batch * tokens**2 * width,
            transcendentals=batch * num_heads * tokens**2,
            bytes_accessed=sum(array.size * array.dtype.itemsize for array in arrays),
        ),
        interpret=interpret,
        name=name,
    )
    with jax.named_scope(f"runs={math.prod(grid)}"):  # is in the program, for vmoe_inform.performance.costs.schedules
        return tuple(run(*inputs))


# Kernels


def _forward_kernel(
    queries_ref: Reference,
    keys_ref: Reference,
    values_ref: Reference,
    attended_ref: Reference,
    logsumexp_ref: Reference,
    *entropies_refs: Reference,
    head_size: int,
) -> None:
    keys, values = keys_ref[...], values_ref[...]
    for rows in _row_blocks(keys):
        queries = queries_ref[rows, :]
        turned: list[Array] = []  # what each head attends to, [F, R]: small matrices are turned, and not its weights
        for heads in _heads_together(keys, head_size):
            logits = [product(keys, _only(lanes, queries), 1, 1) * head_size**-0.5 for _, lanes in heads]  # [N, R]
            largest = [jnp.max(each, axis=0, keepdims=True) for each in logits]
            logits = [each - most for each, most in zip(logits, largest, strict=True)]
            weights = [jnp.exp(each) for each in logits]
            totals = [jnp.sum(each, axis=0, keepdims=True) for each in weights]
            for each, total in zip(weights, totals, strict=True):
                start = len(turned) * head_size
                sums = product(values[:, start : start + head_size], each.astype(values.dtype), 0, 0)
                turned.append(sums * (1.0 / total))
            for (head, _), most, total in zip(heads, largest, totals, strict=True):
                logsumexp_ref[head, rows] = most + jnp.log(total)
            for entropies_ref in entropies_refs:
                for (head, _), each, below, total in zip(heads, weights, logits, totals, strict=True):
                    mean = jnp.sum(each * below, axis=0, keepdims=True) / total
                    entropies_ref[head, rows] = jnp.log(total) - mean
        attended_ref[rows, :] = jnp.concatenate(turned).T.astype(attended_ref.dtype)


def _backward_kernel(
    queries_ref: Reference,
    keys_ref: Reference,
    values_ref: Reference,
    logsumexp_ref: Reference,
    gradient_ref: Reference,
    to_queries_ref: Reference,
    to_keys_ref: Reference,
    to_values_ref: Reference,
    *,
    head_size: int,
) -> None:
    keys, values = keys_ref[...], values_ref[...]
    to_keys = to_values = jnp.zeros(keys.shape, jnp.float32)
    scale = head_size**-0.5
    for rows in _row_blocks(keys):
        queries, gradient = queries_ref[rows, :], gradient_ref[rows, :]
        to_queries = jnp.zeros(queries.shape, jnp.float32)
        for heads in _heads_together(keys, head_size):
            queries_of = [_only(lanes, queries) for _, lanes in heads]
            gradient_of = [_only(lanes, gradient) for _, lanes in heads]
            logits = [product(keys, each, 1, 1) * scale for each in queries_of]  # [N, R]
            to_weights = [product(values, each, 1, 1) for each in gradient_of]
            weights = [jnp.exp(each - logsumexp_ref[head, rows]) for (head, _), each in zip(heads, logits, strict=True)]
            # Gradient . attended (Algorithm 2) is the same. It would be a product with one row, slow in a matrix unit.
            means = [jnp.sum(each * to, axis=0, keepdims=True) for each, to in zip(weights, to_weights, strict=True)]
            to_logits = [
                (each * (to - mean)).astype(keys.dtype)
                for each, to, mean in zip(weights, to_weights, means, strict=True)
            ]
            # Other heads' lanes of the factors are zero here, so that heads add to lanes of their own.
            for each, head_gradient in zip(weights, gradient_of, strict=True):
                to_values += product(each.astype(values.dtype), head_gradient, 1, 0)
            for each, head_queries in zip(to_logits, queries_of, strict=True):
                to_keys += product(each, head_queries, 1, 0)
            for (_, lanes), each in zip(heads, to_logits, strict=True):
                to_queries = jnp.where(lanes, product(each, keys, 0, 0), to_queries)
        to_queries_ref[rows, :] = (to_queries * scale).astype(to_queries_ref.dtype)
    to_keys_ref[...] = (to_keys * scale).astype(to_keys_ref.dtype)
    to_values_ref[...] = to_values.astype(to_values_ref.dtype)


def _row_blocks(tokens: Array) -> list[slice]:
    """Queries that are worked on together: all of them, or multiples of 128 and the rest."""
    num_tokens = len(tokens)
    starts = list(range(0, num_tokens, _row_block(num_tokens, tokens.dtype.itemsize)))
    if len(starts) > 1 and starts[-1] == num_tokens - 1:
        starts.pop()  # a single query goes with those before it: the TPU's compiler fails on a block of one
    return [slice(start, end) for start, end in zip(starts, [*starts[1:], num_tokens], strict=True)]


def _lanes_of_heads(lanes: int, head_size: int) -> Iterator[tuple[Any, Array]]:
    """Of each head of a block, its row of an array of queries, and which lanes are its own [1, lanes]."""
    lane = jax.lax.broadcasted_iota(jnp.int32, (1, lanes), 1)
    for head in range(lanes // head_size):
        yield pl.ds(head, 1), (lane >= head * head_size) & (lane < (head + 1) * head_size)


def _heads_together(keys: Array, head_size: int) -> list[list[tuple[Any, Array]]]:
    """The heads of a block, in pairs if their weights fit into the chip's memory, otherwise one by one.

    The compiler does each step of a pair at the same time. One head waits for the matrix unit while the other has its
    exponentials worked out.
    """
    num_tokens, lanes = keys.shape
    of_block = list(_lanes_of_heads(lanes, head_size))
    number = 2 if _vmem_bytes(num_tokens, lanes, keys.dtype.itemsize, heads=2) <= _VMEM_BYTES else 1
    return [of_block[start : start + number] for start in range(0, len(of_block), number)]


def _only(lanes: Array, array: Array) -> Array:
    return jnp.where(lanes, array, jnp.zeros_like(array))
