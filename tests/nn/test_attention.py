"""The attention layer: what it tells a router, and that blocks of tokens change nothing."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend.core import jaxprs_in_params

from vmoe_inform import routing
from vmoe_inform.nn.attention import SelfAttention

B, N, D, H, F = 2, 7, 16, 4, 4


def inputs(tokens=N):
    return jax.random.normal(jax.random.key(0), (B, tokens, D))


def parameters(tokens=N):
    """With biases that are not zero."""
    variables = jax.jit(lambda x: SelfAttention(H).init(jax.random.key(1), x, train=False, record=False))(
        inputs(tokens)
    )
    return jax.tree.map(lambda leaf: leaf + 0.3 if leaf.ndim < 3 else leaf, variables)


def test_the_record_explains_the_output():
    layer, variables = SelfAttention(H), parameters()
    outputs, record = layer.apply(variables, inputs(), train=False, record=True)
    attention = jax.nn.softmax(jnp.einsum("bihf,bjhf->bhij", record.queries, record.keys) / F**0.5)
    np.testing.assert_allclose(
        record.attended, jnp.einsum("bhij,bjhf->bihf", attention, record.values), rtol=1e-5, atol=1e-6
    )
    # Without its bias the output is the mean over heads of what the means m_hj are averaged to (Mutual-Inform SMoE,
    # Eq. 1).
    means = H * jnp.einsum("bnhf,hfd->bhnd", record.values, record.output_kernel)
    raw = jnp.mean(jnp.einsum("bhij,bhjd->bhid", attention, means), axis=1)
    np.testing.assert_allclose(outputs, raw + 0.3, rtol=1e-5, atol=1e-5)
    # The entropies are those that the head is chosen by.
    entropies = -jnp.sum(attention * jnp.log(attention), axis=-1)
    np.testing.assert_allclose(record.head_entropies, jnp.mean(entropies, axis=-1), rtol=1e-5)
    np.testing.assert_array_equal(jnp.argmin(record.head_entropies, axis=-1), routing.lowest_entropy_head(attention))
    assert layer.apply(variables, inputs(), train=False, record=False)[1] is None


def everything(block_size):
    """Outputs and record, and gradients of both, of a layer that works in such blocks."""
    layer = SelfAttention(H, block_size=block_size)

    def loss(variables, tokens):
        found = layer.apply(variables, tokens, train=False, record=True)
        return sum(jnp.sum(jnp.sin(leaf)) for leaf in jax.tree.leaves(found)), found

    return jax.grad(loss, argnums=(0, 1), has_aux=True)


def test_the_block_size_changes_neither_values_nor_gradients():
    sizes = (None, 1, 3, N, N + 2)
    whole, *in_blocks = jax.jit(lambda *a: [everything(size)(*a) for size in sizes])(parameters(), inputs())
    for blocks in in_blocks:
        chex.assert_trees_all_close(blocks, whole, rtol=1e-4, atol=1e-5)


def attention_matrices(jaxpr, tokens):
    for equation in jaxpr.eqns:
        yield from (v.aval for v in equation.outvars if getattr(v.aval, "shape", ()).count(tokens) > 1)
        for inner in jaxprs_in_params(equation.params):
            yield from attention_matrices(inner, tokens)


@pytest.mark.parametrize(("block_size", "found"), [(3, False), (None, True)])
def test_in_blocks_there_is_no_attention_matrix_also_for_gradients(block_size, found):
    program = jax.make_jaxpr(everything(block_size))(parameters(11), inputs(11))
    assert bool(list(attention_matrices(program.jaxpr, 11))) == found


@pytest.mark.parametrize("block_size", [None, 3])
def test_dropout_of_attention_weights(block_size):
    """Every weight is dropped by itself, in every block, and what is left is scaled to keep the mean."""
    layer = SelfAttention(num_heads=1, dropout_rate=0.25, block_size=block_size)
    tokens = 64
    # Keys are zero, so that all weights are 1 / tokens; values and outputs are the tokens, which are one-hot: output j
    # of token i is the weight of j after dropout.
    eye = jnp.eye(tokens)
    projection = lambda kernel, bias: {"kernel": kernel, "bias": jnp.zeros(bias)}
    variables = {
        "params": {
            "query": projection(eye[:, None], (1, tokens)),
            "key": projection(0 * eye[:, None], (1, tokens)),
            "value": projection(eye[:, None], (1, tokens)),
            "output": projection(eye[None], tokens),
        }
    }
    apply = jax.jit(
        lambda key: layer.apply(variables, eye[None], train=True, record=False, rngs={"dropout": key})[0][0]
    )
    weights = tokens * apply(jax.random.key(0))
    kept = np.asarray(weights) > 0
    np.testing.assert_allclose(np.asarray(weights)[kept], 1 / 0.75, rtol=1e-5)
    # 4096 weights: the share that is kept has a standard deviation of 0.007.
    assert np.mean(kept) == pytest.approx(0.75, abs=0.03)
    # No two tokens drop alike, in whatever blocks they are.
    assert len({row.tobytes() for row in kept}) == tokens
    assert not np.array_equal(kept, np.asarray(apply(jax.random.key(1))) > 0)
