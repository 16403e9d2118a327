"""The MLP of a transformer block, dense and as a bank of experts."""

import flax.linen as nn
import jax.numpy as jnp

from vmoe_inform.axes import Array, Float
from vmoe_inform.sharding.mesh import EXPERT, REPLICA, constrain

_KERNEL = nn.initializers.xavier_uniform()
_EXPERT_KERNEL = nn.initializers.xavier_uniform(in_axis=-2, out_axis=-1, batch_axis=(0,))
_BIAS = nn.initializers.normal(stddev=1e-6)


class Mlp(nn.Module):
    """Two layers with GELU (tanh form, as in ViT and V-MoE) between them."""

    hidden_size: int
    dropout_rate: float = 0.0
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, inputs: Float[Array, "*batch D"], *, train: bool) -> Float[Array, "*batch D"]:
        hidden = nn.Dense(self.hidden_size, kernel_init=_KERNEL, bias_init=_BIAS, dtype=self.dtype, name="hidden")
        output = nn.Dense(inputs.shape[-1], kernel_init=_KERNEL, bias_init=_BIAS, dtype=self.dtype, name="output")
        drop = nn.Dropout(self.dropout_rate, deterministic=not train)
        return drop(output(drop(nn.gelu(hidden(inputs), approximate=True))))


class ExpertLinear(nn.Module):
    """One linear layer for each expert; every expert starts from its own random numbers."""

    num_experts: int
    features: int
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, inputs: Float[Array, "E G T D"]) -> Float[Array, "E G T M"]:
        kernel = self.param("kernel", _EXPERT_KERNEL, (self.num_experts, inputs.shape[-1], self.features))
        bias = self.param("bias", _BIAS, (self.num_experts, self.features))
        # [E, G, T, D] -> [E, G T, D]: one long product for each expert
        rows = inputs.astype(self.dtype).reshape(self.num_experts, -1, inputs.shape[-1])
        products = jnp.einsum("etd,edm->etm", rows, kernel.astype(self.dtype)) + bias.astype(self.dtype)[:, None]
        return products.reshape(*inputs.shape[:-1], self.features)


class Experts(nn.Module):
    """E copies of :class:`Mlp`, each for its own rows; sharded over the mesh axis ``expert``."""

    num_experts: int
    hidden_size: int
    dropout_rate: float = 0.0
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, inputs: Float[Array, "E G T D"], *, train: bool) -> Float[Array, "E G T D"]:
        hidden = ExpertLinear(self.num_experts, self.hidden_size, dtype=self.dtype, name="hidden")
        output = ExpertLinear(self.num_experts, inputs.shape[-1], dtype=self.dtype, name="output")
        drop = nn.Dropout(self.dropout_rate, deterministic=not train)
        # Groups on the devices that hold their tokens, then experts on theirs: without the first, the partitioner cuts
        # the gathers before and after by experts, and sums their rows over devices. So each change is one all-to-all.
        inputs = constrain(constrain(inputs, None, (REPLICA, EXPERT)), EXPERT, REPLICA)
        outputs = drop(output(drop(nn.gelu(hidden(inputs), approximate=True))))
        return constrain(constrain(outputs, EXPERT, REPLICA), None, (REPLICA, EXPERT))
