"""The cross-entropy in chunks, against the logits of all tokens at once."""

import jax
import jax.numpy as jnp
import numpy as np

from vmoe_inform.axes import Array, Tree
from vmoe_inform.nn.cross_entropy import HeadInputs, mean_loss, token_losses
from vmoe_inform.performance.accelerator.comparing import Function, Path
from vmoe_inform.performance.accelerator.sizes import Sizes


def paths(sizes: Sizes) -> list[Path]:
    """Losses of tokens and their mean; the last chunk is not full."""
    shape = (sizes.images, sizes.tokens)
    targets = jnp.asarray(np.random.default_rng(1).integers(0, sizes.words, shape), jnp.int32)
    chunk = sizes.images * sizes.tokens // 3 + 1

    def make(random: np.random.Generator) -> Tree:
        return {
            "hidden": random.normal(size=(*shape, sizes.width)),
            "kernel": random.normal(size=(sizes.width, sizes.words)) / sizes.width**0.5,
            "bias": random.normal(size=sizes.words),
        }

    def fast(dtype: str) -> Function:
        def function(inputs: Tree) -> tuple[Array, Array]:
            head = HeadInputs(**inputs)
            return token_losses(head, targets, chunk), mean_loss(head, targets, chunk)[0]

        return function

    def reference(inputs: Tree) -> tuple[Array, Array]:
        logits = jnp.einsum("bnd,dv->bnv", inputs["hidden"], inputs["kernel"]) + inputs["bias"][None, None]
        losses = -jnp.take_along_axis(jax.nn.log_softmax(logits), targets[..., None], axis=-1)[..., 0]
        return losses, jnp.mean(losses)

    return [
        Path("cross-entropy", f"chunks of {chunk}", "all logits", make, fast, reference, ("float32", "bfloat16")),
    ]
