"""Linear layers of experts on segments of rows, whose gradients cost as much as the layer.

On CPUs they are loops over the experts, and over chunks of each expert's rows. The last chunk of a segment reaches into
the next one. What it writes there is overwritten: experts ascend. In sums over rows, the rows of others are left out.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import TypeAlias, TypeVar

import jax
import jax.numpy as jnp
from jax import lax

from vmoe_inform.axes import Array, Bool, Float, Int
from vmoe_inform.dispatch.products import grouped_products

_LARGEST_CHUNK, _SMALLEST_CHUNK = 64, 8
_Carried = TypeVar("_Carried")
_Sums: TypeAlias = tuple[Array, Array, Array]  # gradients of rows, kernel and bias


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Segments:
    """Where the rows of each expert are; segments follow each other in the order of the experts.

    Attributes:
      starts: first row.
      counts: number of rows.
      chunk: T, rows of a chunk; as many spare ones lie behind the last segment, for its last chunk.
    """

    starts: Int[Array, " E"]
    counts: Int[Array, " E"]
    chunk: int = dataclasses.field(metadata={"static": True})


def chunk_rows(num_rows: int, num_experts: int) -> int:
    """Rows of a chunk: a power of two, so small that half a chunk is at most an eighth of an expert's mean rows."""
    rows = _LARGEST_CHUNK
    while rows > _SMALLEST_CHUNK and 4 * rows * num_experts > num_rows:
        rows //= 2
    return rows


def segment_linear(
    rows: Float[Array, "R D"], kernels: Float[Array, "E D M"], biases: Float[Array, "E M"], segments: Segments
) -> Float[Array, "R M"]:
    """rows[r] @ kernels[e] + biases[e] for the expert e of each row.

    Both gradients of the product do the same work as the product itself; neither is dense over experts.

    Args:
      rows: of the segments, and spare ones. The results of those behind the last segment mean nothing, and their
        gradients are not looked at.
      kernels, biases: of the same type.
      segments: of the experts.
    """
    return _linear(segments.chunk, rows, kernels, biases, segments.starts, segments.counts)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _linear(chunk: int, rows: Array, kernels: Array, biases: Array, starts: Array, counts: Array) -> Array:
    return lax.platform_dependent(
        rows, kernels, biases, starts, counts, cpu=functools.partial(_looped, chunk), default=_grouped
    )


def _forward(
    chunk: int, rows: Array, kernels: Array, biases: Array, starts: Array, counts: Array
) -> tuple[Array, tuple[Array, ...]]:
    return _linear(chunk, rows, kernels, biases, starts, counts), (rows, kernels, starts, counts)


def _backward(chunk: int, residuals: tuple[Array, ...], gradient: Array) -> tuple[Array | None, ...]:
    kernels = residuals[1]
    to_rows, *to_parameters = lax.platform_dependent(
        gradient, *residuals, cpu=functools.partial(_looped_gradients, chunk), default=_grouped_gradients
    )
    return to_rows, *(array.astype(kernels.dtype) for array in to_parameters), None, None


_linear.defvjp(_forward, _backward)


# Loops


def _over_chunks(
    sizes: tuple[int, ...],
    count: Int[Array, ""],
    mean_rows: int,
    body: Callable[[Int[Array, ""], Bool[Array, " T"] | int, _Carried], _Carried],
    carried: _Carried,
) -> _Carried:
    """Runs ``body(first row, which rows are real or how many there are, carried)`` for every chunk of a segment.

    Args:
      sizes: of chunks, descending; as many of each as fit into what the larger ones leave, one more of the last.
      count: rows of the segment.
      mean_rows: of a segment, by which the program states how often its loops run (``performance/costs``).
      body: what a chunk does; of the last size, not all rows need be real.
      carried: its first.
    """
    done, stated = jnp.zeros_like(count), mean_rows + sizes[-1] // 2
    for size in sizes:
        last = size == sizes[-1]

        def chunk(
            number: Array, carried: _Carried, size: int = size, first: Array = done, last: bool = last
        ) -> _Carried:
            begin = first + number * size
            return body(begin, jnp.arange(size) < count - begin if last else size, carried)

        fits = (count - done + (size - 1 if last else 0)) // size
        stated_fits = -(-stated // size) if last else stated // size
        with jax.named_scope(f"runs={stated_fits}"):
            carried = lax.fori_loop(0, fits, chunk, carried)
        done, stated = done + fits * size, stated - stated_fits * size
    return carried


def _slice(array: Float[Array, "R D"], begin: Int[Array, ""], size: int) -> Float[Array, "T D"]:
    return lax.dynamic_slice_in_dim(array, begin, size)


def _looped(size: int, rows: Array, kernels: Array, biases: Array, starts: Array, counts: Array) -> Float[Array, "R M"]:
    # Chunks of one size: what comes out for a row does not depend on how many rows the expert has. So no token sees,
    # not even in its last bits, what later ones choose.
    mean_rows = (len(rows) - size) // len(kernels)

    def expert(outputs: Array, of_expert: tuple[Array, ...]) -> tuple[Array, None]:
        kernel, bias, start, count = of_expert

        def chunk(begin: Array, _: Array | int, outputs: Array) -> Array:
            products = _slice(rows, start + begin, size) @ kernel + bias[None]
            return lax.dynamic_update_slice_in_dim(outputs, products, start + begin, axis=0)

        return _over_chunks((size,), count, mean_rows, chunk, outputs), None

    outputs = jnp.zeros((len(rows), kernels.shape[-1]), rows.dtype)
    return lax.scan(expert, outputs, (kernels, biases, starts, counts))[0]


def _looped_gradients(
    size: int, gradient: Array, rows: Array, kernels: Array, starts: Array, counts: Array
) -> tuple[Float[Array, "R D"], Float[Array, "E D M"], Float[Array, "E M"]]:
    num_experts, width, features = kernels.shape
    mean_rows = (len(rows) - size) // num_experts
    sizes = (4 * size, size) if 4 * size <= len(rows) else (size,)  # smaller ones would not save what they cost

    def expert(to_rows: Array, of_expert: tuple[Array, ...]) -> tuple[Array, tuple[Array, Array]]:
        kernel, start, count = of_expert

        def chunk(begin: Array, real: Array | int, carried: _Sums) -> _Sums:
            to_rows, to_kernel, to_bias = carried
            length = real if isinstance(real, int) else len(real)
            of_rows, of_products = _slice(rows, start + begin, length), _slice(gradient, start + begin, length)
            if not isinstance(real, int):
                of_rows, of_products = (jnp.where(real[:, None], array, 0) for array in (of_rows, of_products))
            to_these = lax.dot_general(of_products, kernel, (((1,), (1,)), ((), ())))
            to_kernel += lax.dot_general(
                of_rows, of_products, (((0,), (0,)), ((), ())), preferred_element_type=jnp.float32
            )
            to_bias += jnp.sum(of_products, axis=0, dtype=jnp.float32)
            return lax.dynamic_update_slice_in_dim(to_rows, to_these, start + begin, axis=0), to_kernel, to_bias

        zeros = jnp.zeros((width, features), jnp.float32), jnp.zeros(features, jnp.float32)
        to_rows, to_kernel, to_bias = _over_chunks(sizes, count, mean_rows, chunk, (to_rows, *zeros))
        return to_rows, (to_kernel, to_bias)

    to_rows, (to_kernels, to_biases) = lax.scan(expert, jnp.zeros_like(rows), (kernels, starts, counts))
    return to_rows, to_kernels, to_biases


# The compiler's own grouped products


def _one_hot(counts: Int[Array, " E"], num_rows: int, dtype: jnp.dtype) -> Float[Array, "R E"]:
    """The expert of each row; all zeros behind the last segment."""
    experts = jnp.sum(jnp.arange(num_rows)[:, None] >= jnp.cumsum(counts)[None], axis=1, dtype=jnp.int32)
    return jax.nn.one_hot(experts, len(counts), dtype=dtype)


def _real(counts: Int[Array, " E"], rows: Float[Array, "R D"]) -> Float[Array, "R D"]:
    """The rows, and zeros behind the last segment."""
    return jnp.where((jnp.arange(len(rows)) < jnp.sum(counts))[:, None], rows, 0)


def _sums_of_experts(
    rows: Float[Array, "R D"], gradient: Float[Array, "R M"], counts: Int[Array, " E"]
) -> Float[Array, "E D M"]:
    """The products' gradient of each expert's kernel, in float32."""
    dimensions = lax.RaggedDotDimensionNumbers(
        dot_dimension_numbers=(((0,), (0,)), ((), ())), lhs_ragged_dimensions=[0], rhs_group_dimensions=[]
    )
    return lax.ragged_dot_general(rows, gradient, counts, dimensions, preferred_element_type=jnp.float32)


def _grouped(rows: Array, kernels: Array, biases: Array, starts: Array, counts: Array) -> Float[Array, "R M"]:
    del starts
    products = grouped_products(rows, kernels, counts, transpose=False)
    return _real(counts, products) + _one_hot(counts, len(rows), biases.dtype) @ biases


def _grouped_gradients(
    gradient: Array, rows: Array, kernels: Array, starts: Array, counts: Array
) -> tuple[Float[Array, "R D"], Float[Array, "E D M"], Float[Array, "E M"]]:
    del starts
    gradient = _real(counts, gradient)
    to_rows = _real(counts, grouped_products(gradient, kernels, counts, transpose=True))
    to_kernels = _sums_of_experts(_real(counts, rows), gradient, counts)
    one_hot = _one_hot(counts, len(rows), gradient.dtype)
    return to_rows, to_kernels, jnp.einsum("re,rm->em", one_hot, gradient, preferred_element_type=jnp.float32)
