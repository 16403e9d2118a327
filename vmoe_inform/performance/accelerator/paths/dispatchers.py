"""Dispatchers with the experts' products, against every expert on every token."""

from collections.abc import Callable

import jax.numpy as jnp
import numpy as np

from vmoe_inform import dispatch
from vmoe_inform.axes import Array, Tree
from vmoe_inform.nn.expert_choice import Implementation
from vmoe_inform.nn.expert_choice import unavailable as unavailable_expert_kernel
from vmoe_inform.nn.mlp import ACTIVATIONS, apply_experts
from vmoe_inform.performance.accelerator.comparing import Function, Path
from vmoe_inform.performance.accelerator.sizes import Sizes

_K = 2
_BOTH = ("float32", "bfloat16")


def paths(sizes: Sizes) -> list[Path]:
    """One for each registered dispatcher but the reference, and one with the kernel of the experts' MLPs.

    An image is a group, and some choices are dropped.
    """
    groups, tokens, width, experts = sizes.images, sizes.tokens, sizes.width, sizes.experts
    scores = np.random.default_rng(1).normal(size=(groups, tokens, experts)) + np.linspace(0, 1, experts)
    indices = jnp.asarray(np.argsort(-scores, axis=-1)[..., :_K], jnp.int32)

    def make(random: np.random.Generator) -> Tree:
        def layer(rows: int, columns: int) -> tuple[np.ndarray, np.ndarray]:
            return random.normal(size=(experts, rows, columns)) / rows**0.5, random.normal(size=(experts, columns))

        return {
            "tokens": random.normal(size=(groups, tokens, width)),
            "weights": random.uniform(0.2, 0.8, size=(groups, tokens, _K)),
            "parameters": (layer(width, sizes.mlp), layer(sizes.mlp, width)),
        }

    def run(inputs: Tree, name: str, experts_of: Callable[..., Array]) -> Array:
        assignment = dispatch.assign_slots(
            inputs["weights"].astype(jnp.float32), indices, num_experts=experts, capacity=sizes.capacity
        )
        return dispatch.carry_out(inputs["tokens"], assignment, experts_of, dispatcher=name)

    def fast(name: str, expert_mlp: Implementation = "xla") -> Callable[[str], Function]:
        def of_type(dtype: str) -> Function:
            def function(inputs: Tree) -> Array:
                def products(*rows: Array) -> Array:
                    return apply_experts(inputs["parameters"], *rows, dtype=jnp.dtype(dtype), implementation=expert_mlp)

                return run(inputs, name, products)

            return function

        return of_type

    def reference(inputs: Tree) -> Array:
        return run(inputs, "reference", lambda rows: _every_expert(inputs["parameters"], rows))

    names = [name for name in dispatch.DISPATCHERS if name != "reference"]
    found = [Path("dispatch", name, "every expert, every token", make, fast(name), reference, _BOTH) for name in names]
    kernel, unavailable = fast("gather", "fused"), unavailable_expert_kernel()
    title = ("experts", "kernel of a TPU", "every expert, every token")
    return [*found, Path(*title, make, kernel, reference, _BOTH, unavailable)]


def _every_expert(parameters: Tree, rows: Array) -> Array:
    """The experts as they are written: [E, G, S, D] -> the same."""
    (kernel, bias), (output_kernel, output_bias) = parameters
    hidden = ACTIVATIONS["gelu"](jnp.einsum("egsd,edm->egsm", rows, kernel) + bias[:, None, None])
    return jnp.einsum("egsm,emd->egsd", hidden, output_kernel) + output_bias[:, None, None]
