"""The MLPs of all experts as one TPU kernel each way: the hidden layer never leaves the chip.

Experts have equally many rows [E, T, D], as ``gather`` and slots give them. A program of a kernel has one expert, a
part of its hidden layer, and a part of its rows. It makes that part of the hidden layer, and adds its share to the
outputs. These stay on the chip until all parts are done. So each parameter is read once, in float32, and cast on the
chip. The backward pass makes the hidden layer anew, and writes the gradients of the parameters in float32.

A mask of dropout is not kept either: both passes make it from counters, see :mod:`vmoe_inform.nn.counted_dropout`.
"""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from vmoe_inform import checks
from vmoe_inform.axes import Array, Float, Int
from vmoe_inform.nn import counted_dropout
from vmoe_inform.nn._expert_kernels import Blocks, Options, backward, forward

_LANES = 128
VMEM_BYTES = 48 * 2**20  # which the compiler is told to let a kernel have


def fits(num_rows: int, width: int, hidden_size: int, dtype: Any, dropout_rate: float = 0.0) -> bool:
    """Whether the kernels support these sizes.

    Both widths must be multiples of 128, the hidden one of 512 with dropout. The outputs of an expert's rows must fit
    into the chip's memory, next to parameters and their gradients.

    Args:
      num_rows: T of an expert.
      width: D.
      hidden_size: M.
      dtype: of rows and products.
      dropout_rate: of the hidden layer.
    """
    if num_rows < 1 or width % _LANES or hidden_size % _LANES:
        return False
    if dropout_rate > 0 and hidden_size % counted_dropout.COLUMNS:
        return False
    blocks = Blocks.of(num_rows, width, hidden_size)
    return blocks.vmem_bytes(jnp.dtype(dtype).itemsize) <= VMEM_BYTES


def fused_experts(
    rows: Float[Array, "E T D"],
    hidden: tuple[Float[Array, "E D M"], Float[Array, "E M"]],
    output: tuple[Float[Array, "E M D"], Float[Array, "E D"]],
    *,
    activation: Callable[[Array], Array],
    dropout_rate: float = 0.0,
    seed: Int[Array, " 2"] | None = None,
    interpret: bool = False,
) -> Float[Array, "E T D"]:
    """Outputs of each expert's MLP for its rows, without a dropout of these.

    Products of bfloat16 rows are of parameters cast to bfloat16, with float32 sums; products of float32 are exact. The
    hidden layer is float32 until it is a factor of a product.

    Args:
      rows: of each expert.
      hidden, output: kernel and bias of the two layers, float32; so are their gradients.
      activation: between the layers, of float32 numbers.
      dropout_rate: of the hidden layer.
      seed: of the dropout, uint32; None for no dropout.
      interpret: works the kernels out step by step on any platform instead of compiling them for a TPU.

    Raises:
      ValueError: shapes or types that do not belong together, or sizes that do not fit (see :func:`fits`).
    """
    arrays = rows, *hidden, *output
    received = [f"{array.dtype}{list(array.shape)}" for array in arrays]
    num_experts, num_rows, width = rows.shape
    hidden_size = hidden[0].shape[-1]
    shapes = [(width, hidden_size), (hidden_size,), (hidden_size, width), (width,)]
    if [array.shape for array in arrays[1:]] != [(num_experts, *shape) for shape in shapes] or any(
        array.dtype != jnp.float32 for array in arrays[1:]
    ):
        raise checks.error("rows, hidden, output", "[E, T, D] and float32 parameters of E experts", received)
    rate = 0.0 if seed is None else dropout_rate
    if not fits(num_rows, width, hidden_size, rows.dtype, rate):
        raise checks.error("rows", "sizes that the kernel can do (see fits)", received[:2])
    seed = jnp.zeros(2, jnp.uint32) if seed is None else seed
    return _experts(rows, *hidden, *output, seed, Options(activation, rate, interpret))


@functools.partial(jax.custom_vjp, nondiff_argnums=(6,))
def _experts(
    rows: Array, kernel: Array, bias: Array, output_kernel: Array, output_bias: Array, seed: Array, options: Options
) -> Array:
    arrays = (rows, kernel, bias[:, None], output_kernel, output_bias[:, None])
    specs = _specs(_blocks_of(rows, kernel))
    inputs = (specs.rows, specs.kernel, specs.bias, specs.output_kernel, specs.output_bias)
    (outputs,) = _call(forward, arrays, inputs, (rows,), (specs.summed_rows,), seed, options, name="experts")
    return outputs


def _experts_forward(*arguments: Any) -> tuple[Array, tuple[Array, ...]]:
    return _experts(*arguments), arguments[:-1]


def _experts_backward(
    options: Options, saved: tuple[Array, ...], gradient: Float[Array, "E T D"]
) -> tuple[Array | None, ...]:
    rows, kernel, bias, output_kernel, output_bias, seed = saved
    arrays = (rows, kernel, bias[:, None], output_kernel, gradient)
    specs = _specs(_blocks_of(rows, kernel))
    inputs = (specs.rows, specs.kernel, specs.bias, specs.output_kernel, specs.rows)
    like = (rows, kernel, bias[:, None], output_kernel, output_bias[:, None])
    outputs = (specs.summed_rows, specs.kernel, specs.bias, specs.output_kernel, specs.output_bias)
    to_rows, to_kernel, to_bias, to_output_kernel, to_output_bias = _call(
        backward, arrays, inputs, like, outputs, seed, options, name="experts_gradient"
    )
    return to_rows, to_kernel, to_bias[:, 0], to_output_kernel, to_output_bias[:, 0], None


_experts.defvjp(_experts_forward, _experts_backward)


class _Specs(NamedTuple):
    """Parts of arrays that a program has; ``summed_rows`` are of outputs that are summed over the hidden layer."""

    rows: pl.BlockSpec
    summed_rows: pl.BlockSpec
    kernel: pl.BlockSpec
    bias: pl.BlockSpec
    output_kernel: pl.BlockSpec
    output_bias: pl.BlockSpec


def _specs(blocks: Blocks) -> _Specs:
    """For programs of expert e, part j of the hidden layer and part i of the rows."""
    last, width, hidden = blocks.num_hidden_blocks - 1, blocks.width, blocks.hidden
    of_rows = (None, blocks.rows, width)
    return _Specs(
        rows=pl.BlockSpec(of_rows, lambda e, j, i, _: (e, i, 0)),
        # Before the last part of the hidden layer there is nothing to be written, so nothing moves.
        summed_rows=pl.BlockSpec(of_rows, lambda e, j, i, _: (e, jnp.where(j == last, i, 0), 0)),
        kernel=pl.BlockSpec((None, width, hidden), lambda e, j, i, _: (e, 0, j)),
        bias=pl.BlockSpec((None, 1, hidden), lambda e, j, i, _: (e, 0, j)),
        output_kernel=pl.BlockSpec((None, hidden, width), lambda e, j, i, _: (e, j, 0)),
        output_bias=pl.BlockSpec((None, 1, width), lambda e, j, i, _: (e, 0, 0)),
    )


def _call(
    kernel: Callable[..., None],
    arrays: Sequence[Array],
    inputs: Sequence[pl.BlockSpec],
    like: Sequence[Array],
    outputs: Sequence[pl.BlockSpec],
    seed: Array,
    options: Options,
    *,
    name: str,
) -> Sequence[Array]:
    """Runs a kernel for every expert, part of the hidden layer and part of the rows.

    Args:
      kernel: gets references to the seed, the parts of inputs and outputs, and room for float32 sums of all rows.
      arrays, inputs: what goes in.
      like, outputs: what comes out has these shapes and types.
      seed: of the dropout.
      options: of the kernel.
      name: of the kernel, in profiles.
    """
    (num_experts, num_rows, width), hidden_size = arrays[0].shape, arrays[1].shape[-1]
    blocks = _blocks_of(*arrays[:2])
    grid = (num_experts, blocks.num_hidden_blocks, blocks.num_row_blocks)
    num_products = 2 if kernel is forward else 5
    run = pl.pallas_call(
        functools.partial(kernel, blocks=blocks, options=options),
        out_shape=[jax.ShapeDtypeStruct(array.shape, array.dtype) for array in like],
        grid_spec=pltpu.PrefetchScalarGridSpec(
            num_scalar_prefetch=1,
            grid=grid,
            in_specs=inputs,
            out_specs=outputs,
            scratch_shapes=[pltpu.VMEM((blocks.num_row_blocks, blocks.rows, width), jnp.float32)],
        ),
        compiler_params=pltpu.CompilerParams(
            dimension_semantics=("parallel", "arbitrary", "arbitrary"), vmem_limit_bytes=VMEM_BYTES
        ),
        cost_estimate=pl.CostEstimate(
            flops=2 * num_products * num_experts * num_rows * width * hidden_size,
            transcendentals=num_experts * num_rows * hidden_size,
            bytes_accessed=sum(array.size * array.dtype.itemsize for array in (*arrays, *like)),
        ),
        interpret=options.interpret,
        name=name,
    )
    with jax.named_scope(f"runs={math.prod(grid)}"):  # is in the program, for vmoe_inform.performance.costs.schedules
        return run(seed, *arrays)


def _blocks_of(rows: Float[Array, "E T D"], kernel: Float[Array, "E D M"]) -> Blocks:
    _, num_rows, width = rows.shape
    return Blocks.of(num_rows, width, kernel.shape[-1])
