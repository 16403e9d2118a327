"""The MLP of a transformer block, dense and as a bank of experts."""

import functools
from collections.abc import Callable, Mapping
from typing import TypeAlias

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name
from jax.sharding import PartitionSpec

from vmoe_inform.axes import Array, Float, Int
from vmoe_inform.dispatch import Segments, current_platform
from vmoe_inform.dispatch.products import block_products, expert_products
from vmoe_inform.dispatch.segment_products import segment_linear
from vmoe_inform.nn.dropout import Dropout, dropout, dropout_of_experts
from vmoe_inform.nn.expert_choice import Implementation, check_kernel
from vmoe_inform.nn.fused_experts import fused_experts
from vmoe_inform.sharding.mesh import AXES, EXPERT, FSDP, REPLICA, axis_size, constrain

EXPERT_PRODUCTS = "expert_products"  # their name for rematerialisation, which does not see what they are made by
ExpertParameters: TypeAlias = tuple[tuple[Array, Array], tuple[Array, Array]]

# By ``model.activation``; GELU in its tanh form, as in ViT and V-MoE, or by the error function, as in PyTorch
ACTIVATIONS: Mapping[str, Callable[[Array], Array]] = {
    "gelu": functools.partial(nn.gelu, approximate=True),
    "gelu_exact": functools.partial(nn.gelu, approximate=False),
    "relu": nn.relu,
}

_KERNEL = nn.initializers.xavier_uniform()
_EXPERT_KERNEL = nn.initializers.xavier_uniform(in_axis=-2, out_axis=-1, batch_axis=(0,))
_BIAS = nn.initializers.normal(stddev=1e-6)


class Mlp(nn.Module):
    """Two layers with an activation between them."""

    hidden_size: int
    dropout_rate: float = 0.0
    dtype: jax.typing.DTypeLike = jnp.float32
    activation: str = "gelu"

    @nn.compact
    def __call__(self, inputs: Float[Array, "*batch D"], *, train: bool) -> Float[Array, "*batch D"]:
        hidden = nn.Dense(self.hidden_size, kernel_init=_KERNEL, bias_init=_BIAS, dtype=self.dtype, name="hidden")
        output = nn.Dense(inputs.shape[-1], kernel_init=_KERNEL, bias_init=_BIAS, dtype=self.dtype, name="output")
        drop = Dropout(self.dropout_rate)
        return drop(output(drop(ACTIVATIONS[self.activation](hidden(inputs)), train=train)), train=train)


class ExpertLinear(nn.Module):
    """Kernel [E, D, M] and bias [E, M] of one linear layer for each expert, each from its own random numbers."""

    num_experts: int
    width: int
    features: int

    @nn.compact
    def __call__(self) -> tuple[Array, Array]:
        kernel = self.param("kernel", _EXPERT_KERNEL, (self.num_experts, self.width, self.features))
        return kernel, self.param("bias", _BIAS, (self.num_experts, self.features))


class Experts(nn.Module):
    """Parameters of E copies of :class:`Mlp`, of width D: pairs (kernel, bias) of the two layers."""

    num_experts: int
    width: int
    hidden_size: int

    @nn.compact
    def __call__(self) -> ExpertParameters:
        hidden = ExpertLinear(self.num_experts, self.width, self.hidden_size, name="hidden")
        output = ExpertLinear(self.num_experts, self.hidden_size, self.width, name="output")
        return hidden(), output()


def apply_experts(
    parameters: ExpertParameters,
    rows: Array,
    where: Int[Array, " X"] | Segments | None = None,
    *,
    dtype: jnp.dtype,
    activation: str = "gelu",
    dropout_rate: float = 0.0,
    dropout_key: Array | None = None,
    implementation: Implementation = "xla",
) -> Array:
    """The experts' outputs for their rows.

    Args:
      parameters: from :class:`Experts`.
      rows: [E, G, T, D], processed on the devices of the experts (mesh axis ``expert``). Or blocks [X, T, D] of one
        expert each, or segments [R, D], processed where they are.
      where: the expert of each block, E for a block of none; or the segments of the experts.
      dtype: type of the products.
      activation: between the two layers, see :data:`ACTIVATIONS`.
      dropout_rate, dropout_key: dropout as in :class:`Mlp`, of [E, G, T, D] with :func:`dropout_of_experts`; no key, no
        dropout.
      implementation: of the MLPs for rows [E, G, T, D]: ``"xla"``, or ``"fused"`` for the kernel of
        :mod:`vmoe_inform.nn.fused_experts`. Its masks of dropout differ by expert.

    Returns:
      as many rows.

    Raises:
      ValueError: the kernel is asked for and cannot do it.
    """
    hidden, output = parameters
    draw = dropout_of_experts if where is None else dropout

    def drop(array: Array, layer: int) -> Array:
        return array if dropout_key is None else draw(jax.random.fold_in(dropout_key, layer), array, dropout_rate)

    if where is None:
        # Groups on the devices of their tokens, then experts on theirs. Each change is then one all-to-all. Without the
        # first, the partitioner cuts the gathers before and after by experts, and sums their rows over devices.
        rows = constrain(constrain(rows, None, AXES), EXPERT, (REPLICA, FSDP))
    if where is None and implementation == "fused":
        seed = None if dropout_key is None else jax.random.bits(jax.random.fold_in(dropout_key, 0), (2,), jnp.uint32)
        outputs = _apply_fused(parameters, rows.astype(dtype), seed, activation, dropout_rate)
    else:
        activations = ACTIVATIONS[activation](_linear(hidden, rows, where, dtype))
        outputs = _linear(output, drop(activations, 0), where, dtype)
    outputs = drop(outputs, 1)
    if where is None:
        outputs = constrain(constrain(outputs, EXPERT, (REPLICA, FSDP)), None, AXES)
    return outputs


def _apply_fused(
    parameters: ExpertParameters,
    rows: Float[Array, "E G T D"],
    seed: Int[Array, " 2"] | None,
    activation: str,
    dropout_rate: float,
) -> Float[Array, "E G T D"]:
    """The kernel, on each device for its experts and groups: XLA cannot divide it."""

    of_device = rows.shape[1] * rows.shape[2] // axis_size(REPLICA, FSDP)
    _, width, hidden_size = parameters[0][0].shape
    check_kernel(of_device, width, hidden_size, rows.dtype, 0.0 if seed is None else dropout_rate)

    def apply(parameters: ExpertParameters, rows: Array, seed: Array | None) -> Array:
        hidden, output = jax.tree.map(lambda array: array.astype(jnp.float32), parameters)  # as they are, in training
        long = rows.reshape(rows.shape[0], -1, rows.shape[-1])
        if seed is not None and axis_size(*AXES) > 1:  # other devices have other rows
            seed = seed.at[1].add(jax.lax.axis_index(AXES).astype(jnp.uint32))
        outputs = fused_experts(
            long, hidden, output, activation=ACTIVATIONS[activation], dropout_rate=dropout_rate, seed=seed
        )
        return outputs.reshape(rows.shape)

    if not jax.sharding.get_abstract_mesh().empty:
        of_experts, of_rows = PartitionSpec(EXPERT), PartitionSpec(EXPERT, (REPLICA, FSDP))
        specs = (of_experts, of_rows, PartitionSpec())
        apply = jax.shard_map(apply, in_specs=specs, out_specs=of_rows, check_vma=False)
    return checkpoint_name(apply(parameters, rows, seed), EXPERT_PRODUCTS)


def apply_shared_experts(
    parameters: ExpertParameters,
    tokens: Float[Array, "*batch D"],
    *,
    dtype: jnp.dtype,
    activation: str = "gelu",
    dropout_rate: float = 0.0,
    dropout_key: Array | None = None,
) -> Float[Array, "*batch D"]:
    """Sum of the outputs of experts that every token meets (DeepSeekMoE, arXiv 2401.06066, Eq. 9).

    Args:
      parameters: from :class:`Experts`.
      tokens: [..., D].
      dtype, activation, dropout_rate, dropout_key: as of :func:`apply_experts`.
    """
    (hidden, hidden_bias), (output, output_bias) = jax.tree.map(lambda array: array.astype(dtype), parameters)

    def drop(array: Array, layer: int) -> Array:
        return array if dropout_key is None else dropout(jax.random.fold_in(dropout_key, layer), array, dropout_rate)

    products = jnp.einsum("...d,xdm->...xm", tokens.astype(dtype), hidden)
    activations = drop(ACTIVATIONS[activation](products + jnp.broadcast_to(hidden_bias, products.shape)), 0)
    outputs = jnp.einsum("...xm,xmd->...d", activations, output)
    return drop(outputs + jnp.broadcast_to(jnp.sum(output_bias, axis=0), outputs.shape), 1)


def _linear(
    parameters: tuple[Array, Array], rows: Array, where: Int[Array, " X"] | Segments | None, dtype: jnp.dtype
) -> Array:
    kernel, bias = (array.astype(dtype) for array in parameters)
    if isinstance(where, Segments):
        return checkpoint_name(segment_linear(rows.astype(dtype), kernel, bias, where), EXPERT_PRODUCTS)
    if where is not None:
        biases = biases_of_blocks(bias, where, rows.shape[1], by_row=current_platform() == "tpu")
        products = block_products(rows.astype(dtype), kernel, where) + biases
        return checkpoint_name(products, EXPERT_PRODUCTS)
    # [E, G, T, D] -> [E, G T, D]: one long product for each expert
    long = rows.astype(dtype).reshape(len(bias), -1, rows.shape[-1])
    # Over several devices the partitioner knows best, which cannot look into a loop over experts.
    products = jnp.einsum("etd,edm->etm", long, kernel) if axis_size(EXPERT) > 1 else expert_products(long, kernel)
    return checkpoint_name((products + bias[:, None]).reshape(*rows.shape[:-1], -1), EXPERT_PRODUCTS)


def biases_of_blocks(
    bias: Float[Array, "E M"], expert_of_block: Int[Array, " X"], block_rows: int, *, by_row: bool
) -> Float[Array, "X #T M"]:
    """The experts' biases for blocks of their rows, by a product, whose gradient is a product too.

    Args:
      bias: of the experts.
      expert_of_block: E for a block of no expert, which has none.
      block_rows: T.
      by_row: whether the product has a row for each row of a block, or one for the block. A TPU's compiler fuses the
        first to what follows; of the second it writes all rows to memory, before anything is added to them.
    """
    chosen = jax.nn.one_hot(expert_of_block, len(bias), dtype=bias.dtype)[:, None]
    if by_row:
        chosen = jnp.broadcast_to(chosen, (len(chosen), block_rows, len(bias)))
    return chosen @ bias
