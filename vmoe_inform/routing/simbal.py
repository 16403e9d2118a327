"""SimBal (arXiv 2506.14038): balance by a router that keeps the tokens' similarities, through an orthogonal kernel."""

import jax.numpy as jnp

from vmoe_inform import checks
from vmoe_inform.axes import Array, Float
from vmoe_inform.routing.products import float32_einsum
from vmoe_inform.routing.steps import LossContext, register_loss


def orthogonality_loss(kernel: Float[Array, "*batch D E"]) -> Float[Array, "*batch"]:
    r"""How far the experts' columns are from orthonormal (SimBal, arXiv 2506.14038, the loss of its method section).

    $$\lVert W^\top W - I \rVert_1$$

    The norm is the sum of absolute entries. The loss is 0 for an orthonormal kernel, whose logits keep the inner
    products of tokens in its span.

    Args:
      kernel: W [..., D, E], of a linear router.
    """
    products = float32_einsum("...de,...df->...ef", kernel, kernel)
    return jnp.sum(jnp.abs(products - jnp.broadcast_to(jnp.eye(kernel.shape[-1]), products.shape)), axis=(-2, -1))


@register_loss("simbal", needs_parameters=("kernel",))
def simbal_step(context: LossContext, *, weight: checks.NonNegativeFloat = 0.1) -> Float[Array, " G"]:
    """Leads the router's kernel to orthonormal columns (SimBal, arXiv 2506.14038); it looks at no token.

    The paper has it in place of a balance loss, and starts from an orthogonal kernel. Ours starts as ``linear`` does.
    """
    return jnp.broadcast_to(orthogonality_loss(context.parameters["kernel"]), context.logits.shape[:1])
