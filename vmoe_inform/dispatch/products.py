"""Products of rows with the matrix of their expert, whose gradients cost as much as the product.

Each is written once as a loop over experts, which is fastest on CPUs, and once for the compilers and kernels of
accelerators. The choice is made when the program is compiled.
"""

import functools
import math

import jax
import jax.numpy as jnp
from jax import lax

from vmoe_inform.axes import Array, Float, Int
from vmoe_inform.dispatch import grouped

# Below this size of one expert's matrix the steps of a loop cost more than the loop saves. (CPU libraries lay out all
# matrices of a batched product anew before they multiply, which for few rows an expert takes longer than to multiply.)
LEAST_FOR_LOOP = 2**16


def _loop_pays(kernels: Float[Array, "E D M"]) -> bool:
    return math.prod(kernels.shape[1:]) >= LEAST_FOR_LOOP


def expert_products(rows: Float[Array, "E T D"], kernels: Float[Array, "E D M"]) -> Float[Array, "E T M"]:
    """rows[e] @ kernels[e] for equally many rows of every expert.

    Args:
      rows, kernels: of the same type.
    """
    return _looped_products(rows, kernels) if _loop_pays(kernels) else _batched(rows, kernels)


def _batched(rows: Float[Array, "E T D"], kernels: Float[Array, "E D M"]) -> Float[Array, "E T M"]:
    return jnp.einsum("etd,edm->etm", rows, kernels)


def _one_by_one(rows: Float[Array, "E T D"], kernels: Float[Array, "E D M"]) -> Float[Array, "E T M"]:
    return lax.map(lambda pair: pair[0] @ pair[1], (rows, kernels))


@jax.custom_vjp
def _looped_products(rows: Float[Array, "E T D"], kernels: Float[Array, "E D M"]) -> Float[Array, "E T M"]:
    return lax.platform_dependent(rows, kernels, cpu=_one_by_one, default=_batched)


def _looped_forward(rows: Array, kernels: Array) -> tuple[Array, tuple[Array, Array]]:
    return _looped_products(rows, kernels), (rows, kernels)


def _looped_backward(residuals: tuple[Array, Array], gradient: Float[Array, "E T M"]) -> tuple[Array, Array]:
    rows, kernels = residuals
    to_rows = lax.platform_dependent(
        gradient,
        kernels,
        cpu=lambda gradient, kernels: lax.map(lambda pair: pair[0] @ pair[1].T, (gradient, kernels)),
        default=lambda gradient, kernels: jnp.einsum("etm,edm->etd", gradient, kernels),
    )
    return to_rows, jnp.einsum("etd,etm->edm", rows, gradient)


_looped_products.defvjp(_looped_forward, _looped_backward)


@jax.custom_vjp
def block_products(
    blocks: Float[Array, "X T D"], kernels: Float[Array, "E D M"], expert_of_block: Int[Array, " X"]
) -> Float[Array, "X T M"]:
    """blocks[x] @ kernels[expert_of_block[x]]: unequally many rows of the experts, in blocks of T rows.

    Both gradients do the same work as the product itself; neither is dense over experts.

    Args:
      blocks: rows of one expert each; blocks of the same expert follow each other, experts ascend.
      kernels: of the same type.
      expert_of_block: E for a block of no expert, which must come after all others; its product is zero.
    """
    return lax.platform_dependent(
        blocks,
        kernels,
        expert_of_block,
        cpu=_block_loop,
        default=functools.partial(_ragged_product, transpose=False),
    )


def _block_loop(
    blocks: Float[Array, "X T D"], kernels: Float[Array, "E D M"], expert_of_block: Int[Array, " X"]
) -> Float[Array, "X T M"]:
    def product(block: Float[Array, "T D"], expert: Int[Array, ""]) -> Float[Array, "T M"]:
        return lax.cond(
            expert < kernels.shape[0],
            lambda: block @ lax.dynamic_index_in_dim(kernels, expert, keepdims=False),
            lambda: jnp.zeros((block.shape[0], kernels.shape[-1]), block.dtype),
        )

    return lax.map(lambda pair: product(*pair), (blocks, expert_of_block))


def _rows_of_experts(expert_of_block: Int[Array, " X"], num_experts: int, block_rows: int) -> Int[Array, " E"]:
    return block_rows * jnp.sum(expert_of_block[:, None] == jnp.arange(num_experts)[None], axis=0, dtype=jnp.int32)


def grouped_products(
    rows: Float[Array, "R D"],
    kernels: Float[Array, "E D M"] | Float[Array, "E M D"],
    sizes: Int[Array, " E"],
    *,
    transpose: bool,
) -> Float[Array, "R M"]:
    """Each row with the kernel of its expert, whose rows follow each other, ``sizes`` of each.

    Rows of no expert, behind all others, give whatever is in memory. With ``transpose`` the kernels are [E, M, D] and
    contract with M.
    """
    dimensions = lax.RaggedDotDimensionNumbers(
        dot_dimension_numbers=(((1,), (2 if transpose else 1,)), ((), ())),
        lhs_ragged_dimensions=[0],
        rhs_group_dimensions=[0],
    )
    product = grouped.ragged_dot_general(rows.dtype, *kernels.shape[1:])
    return product(rows, kernels, sizes, dimensions)


def _ragged_product(
    blocks: Float[Array, "X T D"],
    kernels: Float[Array, "E D M"] | Float[Array, "E M D"],
    expert_of_block: Int[Array, " X"],
    *,
    transpose: bool,
) -> Float[Array, "X T M"]:
    num_blocks, block_rows, width = blocks.shape
    sizes = _rows_of_experts(expert_of_block, kernels.shape[0], block_rows)
    products = grouped_products(blocks.reshape(-1, width), kernels, sizes, transpose=transpose)
    # A gradient of 0 times what is in memory need not be 0
    real = (expert_of_block < kernels.shape[0])[:, None, None]
    return jnp.where(real, products.reshape(num_blocks, block_rows, -1), 0)


def _block_forward(blocks: Array, kernels: Array, expert_of_block: Array) -> tuple[Array, tuple]:
    return block_products(blocks, kernels, expert_of_block), (blocks, kernels, expert_of_block)


def _block_backward(residuals: tuple, gradient: Float[Array, "X T M"]) -> tuple[Array, Array, None]:
    blocks, kernels, expert_of_block = residuals
    to_blocks = lax.platform_dependent(
        gradient,
        kernels,
        expert_of_block,
        cpu=lambda gradient, kernels, experts: _block_loop(gradient, jnp.swapaxes(kernels, 1, 2), experts),
        default=functools.partial(_ragged_product, transpose=True),
    )
    to_kernels = lax.platform_dependent(
        blocks,
        gradient,
        expert_of_block,
        cpu=functools.partial(_kernel_gradient_loop, num_experts=kernels.shape[0]),
        tpu=functools.partial(_kernel_gradient_tpu, num_experts=kernels.shape[0]),
        default=functools.partial(_kernel_gradient_batched, num_experts=kernels.shape[0]),
    )
    return to_blocks, to_kernels.astype(kernels.dtype), None


block_products.defvjp(_block_forward, _block_backward)


def _kernel_gradient_loop(
    blocks: Float[Array, "X T D"],
    gradient: Float[Array, "X T M"],
    expert_of_block: Int[Array, " X"],
    *,
    num_experts: int,
) -> Float[Array, "E D M"]:
    def add(total: Float[Array, "E D M"], block: tuple[Array, Array, Array]) -> tuple[Float[Array, "E D M"], None]:
        rows, to_products, expert = block

        def with_block() -> Float[Array, "E D M"]:
            mine = lax.dynamic_index_in_dim(total, expert, keepdims=False) + (rows.T @ to_products).astype(total.dtype)
            return lax.dynamic_update_index_in_dim(total, mine, expert, 0)

        return lax.cond(expert < num_experts, with_block, lambda: total), None

    zeros = jnp.zeros((num_experts, blocks.shape[-1], gradient.shape[-1]), jnp.float32)
    return lax.scan(add, zeros, (blocks, gradient, expert_of_block))[0]


def _kernel_gradient_batched(
    blocks: Float[Array, "X T D"],
    gradient: Float[Array, "X T M"],
    expert_of_block: Int[Array, " X"],
    *,
    num_experts: int,
) -> Float[Array, "E D M"]:
    """Batched products of blocks, and their sums: for GPUs, whose compiler makes a grouped product dense over experts.

    At most 2 E blocks at a time: what they need is at most twice the size of the result.
    """
    at_a_time = 2 * num_experts
    whole = len(blocks) // at_a_time
    arrays = (blocks, gradient, expert_of_block)

    def sums(rows: Float[Array, "x T D"], to_products: Float[Array, "x T M"], experts: Int[Array, " x"]) -> Array:
        products = jnp.einsum("xtd,xtm->xdm", rows, to_products, preferred_element_type=jnp.float32)
        return jax.ops.segment_sum(products, experts, num_experts, indices_are_sorted=True)

    def add(total: Float[Array, "E D M"], chunk: tuple[Array, ...]) -> tuple[Float[Array, "E D M"], None]:
        return total + sums(*chunk), None

    rest = sums(*(array[whole * at_a_time :] for array in arrays))
    chunks = tuple(array[: whole * at_a_time].reshape(whole, at_a_time, *array.shape[1:]) for array in arrays)
    return lax.scan(add, rest, chunks)[0]


def _kernel_gradient_tpu(
    blocks: Float[Array, "X T D"],
    gradient: Float[Array, "X T M"],
    expert_of_block: Int[Array, " X"],
    *,
    num_experts: int,
) -> Float[Array, "E D M"]:
    # The compiler makes this ragged contraction dense over experts (E times the work); JAX's kernel library does not.
    from jax.experimental.pallas.ops.tpu.megablox.gmm import tgmm

    sizes = _rows_of_experts(expert_of_block, num_experts, blocks.shape[1])
    rows, gradient = (array.reshape(-1, array.shape[-1]) for array in (blocks, gradient))

    def tile(size: int) -> int:
        return next((t for t in (512, 256, 128) if size % t == 0), size)

    tiles = (tile(rows.shape[0]), tile(rows.shape[1]), tile(gradient.shape[1]))
    return tgmm(rows.T, gradient, sizes, jnp.float32, tiling=tiles)
