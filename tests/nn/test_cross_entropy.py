"""The chunked cross-entropy against the whole logits, on one device and over a mesh; and what it costs."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from vmoe_inform.nn.cross_entropy import HeadInputs, mean_loss, token_losses
from vmoe_inform.performance import costs
from vmoe_inform.sharding.mesh import make_mesh

B, N, D, V = 8, 6, 4, 13


def _head(dtype=jnp.float32) -> HeadInputs:
    random = np.random.default_rng(0)
    hidden, kernel, bias = (jnp.asarray(random.normal(size=shape)) for shape in ((B, N, D), (D, V), (V,)))
    return HeadInputs(hidden.astype(dtype), kernel.astype(jnp.float32), bias.astype(jnp.float32))


def _targets():
    return jnp.asarray(np.random.default_rng(1).integers(0, V, (B, N)), jnp.int32)


def _weights():
    return jnp.asarray(np.random.default_rng(2).normal(size=(B, N)), jnp.float32)


def _whole(head: HeadInputs, targets: jax.Array) -> jax.Array:
    logits = jnp.einsum("bnd,dv->bnv", head.hidden, head.kernel) + head.bias[None, None]
    return optax.softmax_cross_entropy_with_integer_labels(logits, targets)


def _everything(losses, mean):
    """Losses of tokens and of the mean, with the gradients of both."""

    def both(head):
        weighted = jax.value_and_grad(lambda head: jnp.sum(_weights() * losses(head)))(head)
        return losses(head), weighted, jax.value_and_grad(mean)(head)

    return jax.jit(both)


@pytest.mark.parametrize("chunk", [1, 7, 1000])
@pytest.mark.parametrize("mesh", [None, (2, 2, 2), (1, 8, 1), (8, 1, 1)])  # replica, expert, fsdp; 13 words over 8
def test_values_and_gradients_are_those_of_the_whole_logits(chunk, mesh):
    targets = _targets()
    chunked = _everything(lambda h: token_losses(h, targets, chunk), lambda h: mean_loss(h, targets, chunk)[0])
    if mesh is None:
        found = chunked(_head())
    else:
        with jax.set_mesh(make_mesh(mesh[0], mesh[1], fsdp=mesh[2])):
            found = chunked(_head())
    expected = _everything(lambda h: _whole(h, targets), lambda h: jnp.mean(_whole(h, targets)))(_head())
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-5, atol=2e-6), found, expected)


def test_the_losses_beside_the_mean_have_no_gradient():
    head, targets = _head(), _targets()
    mean, losses = mean_loss(head, targets, 5)
    np.testing.assert_allclose(mean, jnp.mean(losses), rtol=1e-6)
    np.testing.assert_allclose(losses, token_losses(head, targets, 5), rtol=1e-6)
    gradients = jax.grad(lambda h: jnp.sum(mean_loss(h, targets, 5)[1]))(head)
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(gradients))


def test_large_logits_and_bfloat16_stay_finite():
    head, targets = _head(jnp.bfloat16), _targets()
    far = HeadInputs(1e4 * head.hidden, head.kernel, head.bias)
    for some in (head, far):
        gradients, losses = jax.grad(lambda h: mean_loss(h, targets, 7), has_aux=True)(some)
        assert [leaf.dtype for leaf in jax.tree.leaves(gradients)] == [jnp.bfloat16, jnp.float32, jnp.float32]
        assert all(np.isfinite(leaf.astype(jnp.float32)).all() for leaf in (*jax.tree.leaves(gradients), losses))
    rounded = _whole(HeadInputs(head.hidden.astype(jnp.float32), head.kernel, head.bias), targets)
    np.testing.assert_allclose(token_losses(head, targets, 7), rounded, atol=0.1)


def test_bad_arguments(shapes_unchecked):
    with pytest.raises(ValueError, match="chunk_tokens: expected an integer >= 1; received 0"):
        token_losses(_head(), _targets(), 0)
    with pytest.raises(ValueError, match="targets"):
        token_losses(_head(), _targets()[:, :-1], 4)


def test_memory_and_operations_of_a_large_vocabulary():
    """The papers' head: 48 x 512 tokens, 267,735 words, width 352. Compiled, not run."""
    shapes = ((48, 512, 352), (352, 267_735), (267_735,))
    head = HeadInputs(*(jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes))
    targets = jax.ShapeDtypeStruct((48, 512), jnp.int32)

    def whole(head, targets):
        return jax.value_and_grad(lambda head: jnp.mean(_whole(head, targets)))(head)

    def chunked(head, targets):
        return jax.value_and_grad(lambda head: mean_loss(head, targets, 1024)[0])(head)

    before, after = (costs.of(jax.jit(function).lower(head, targets).compile()) for function in (whole, chunked))
    assert after.unknown_loops == 0
    assert after.flops < 1.05 * before.flops
    assert after.flops > 6 * 48 * 512 * 352 * 267_735  # the three products, all counted
    assert after.peak_bytes < 0.35 * before.peak_bytes
