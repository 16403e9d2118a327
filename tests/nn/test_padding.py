"""What stands behind a text changes nothing of its model, of the losses of routing, and of what a step leaves."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests import tiny
from vmoe_inform.nn.step_variables import OBSERVED

from .test_causality import FIRST, B, N, model_of, texts, trained

BOTH_WAYS = ("soft", "similarity_smoe_top2", "attention_vmoe@attention.heads=lowest_entropy")
RUNNING = "attention_smoe_top2@attention.heads=running@attention.sigma=estimated"  # chosen by what was seen in training
CASES = (
    *((router, {"causal": False}) for router in BOTH_WAYS),
    ("symphony_vmoe", {}),
    (RUNNING, {"attention_style": "previous", "attention_span": 5}),
    (RUNNING, {}),
    ("stablemoe", {}),
)


@pytest.mark.parametrize(("router", "fields"), CASES)
def test_padding_changes_nothing_of_a_training_step(router, fields):
    model = model_of(router, num_classes=3, **fields)
    variables = trained(tiny.variables(model))
    real = jnp.arange(N)[None] < jnp.array([[FIRST], [FIRST - 2]])

    @jax.jit
    def step(tokens, real):
        (_, aux), left = model.apply(
            variables,
            tokens,
            train=True,
            token_mask=real,
            progress=jnp.float32(1.0),
            rngs={"routing": jax.random.key(0)},
            mutable=OBSERVED,
        )
        return {name: aux[name] for name in ("features", "auxiliary_loss", "moe")}, left

    before, after = (step(text, real) for text in texts())
    jax.tree.map(np.testing.assert_array_equal, before, after)
    # Where it is text, it counts.
    (one, left), (other, other_left) = (step(text, jnp.ones((B, N), bool)) for text in texts())
    assert one["moe"]["block_0"]["entropy"] != other["moe"]["block_0"]["entropy"]
    if "symphony" in router or router == RUNNING:
        leaves = map(jax.tree.leaves, (left, other_left))
        assert not all(np.array_equal(*pair) for pair in zip(*leaves, strict=True))
