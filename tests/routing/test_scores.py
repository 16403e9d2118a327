import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vmoe_inform import routing


def test_linear_scores_worked_by_hand():
    # [1, 2] @ [[1, 0, -1], [0.5, 1, 2]] = [1 + 1, 0 + 2, -1 + 4]; plus the bias [0, 10, 0]
    kernel = jnp.array([[1.0, 0.0, -1.0], [0.5, 1.0, 2.0]])
    tokens = jnp.array([[1.0, 2.0]])
    np.testing.assert_array_equal(routing.linear_scores(tokens, kernel), [[2.0, 2.0, 3.0]])
    np.testing.assert_array_equal(
        routing.linear_scores(tokens, kernel, jnp.array([0.0, 10.0, 0.0])), [[2.0, 12.0, 3.0]]
    )


def test_cosine_scores_worked_by_hand():
    # The projection takes (3, 4, 9) to (3, 4), of length 5: cosines 3/5 and -4/5 to the axes; divided by 0.5.
    projection = jnp.array([[1.0, 0.0], [0.0, 1.0], [0.0, 0.0]])
    experts = jnp.array([[7.0, 0.0], [0.0, -0.1]])
    logits = routing.cosine_scores(jnp.array([[3.0, 4.0, 9.0], [0.0, 0.0, 9.0]]), projection, experts, 0.5)
    # The second token is projected to zero: it has no direction, all its logits are 0.
    np.testing.assert_allclose(logits, [[1.2, -1.6], [0.0, 0.0]], rtol=1e-6)


@pytest.mark.parametrize("scale", [0.0, 1e-25, 1e4, 1e30])
def test_cosine_scores_do_not_depend_on_the_length_of_tokens(scale):
    rng = np.random.default_rng(0)
    tokens, projection, experts = (jnp.array(rng.normal(size=s), jnp.float32) for s in ((5, 4), (4, 3), (6, 3)))
    score = lambda u: routing.cosine_scores(u, projection, experts, 0.3)
    wanted = score(tokens) if scale else jnp.zeros((5, 6))
    np.testing.assert_allclose(score(tokens * scale), wanted, rtol=1e-4, atol=1e-5)
    assert np.isfinite(jax.grad(lambda u: score(u).sum())(tokens * scale)).all()


@pytest.mark.usefixtures("shapes_unchecked")
@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: routing.linear_scores(jnp.ones((3, 4)), jnp.ones((5, 2))),
            r"kernel: expected shape \[4, E\]; received \[5, 2\]",
        ),
        (
            lambda: routing.linear_scores(jnp.ones((3, 4)), jnp.ones((4, 2)), jnp.ones(3)),
            r"bias: expected shape \[2\]; received \[3\]",
        ),
        (
            lambda: routing.cosine_scores(jnp.ones((3, 4)), jnp.ones((5, 2)), jnp.ones((6, 2)), 1.0),
            r"projection: expected shape \[4, d\]; received \[5, 2\]",
        ),
        (
            lambda: routing.cosine_scores(jnp.ones((3, 4)), jnp.ones((4, 2)), jnp.ones((6, 3)), 1.0),
            r"expert_embeddings: expected shape \[E, 2\]; received \[6, 3\]",
        ),
        (
            lambda: routing.cosine_scores(jnp.ones((3, 4)), jnp.ones((4, 2)), jnp.ones((6, 2)), 0.0),
            r"temperature: expected a number > 0 .*; received 0.0",
        ),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=message):
        call()
