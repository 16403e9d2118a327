import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vmoe_inform.routing import steps

from .compiled import routing

LOSSES = {
    "importance": lambda logits: routing.importance_loss(jax.nn.softmax(logits)),
    "load": lambda logits: routing.load_loss(logits, logits, noise_std=1e-3, k=1),
    "switch": lambda logits: routing.switch_loss(
        jax.nn.softmax(logits), routing.top_experts(jax.nn.softmax(logits), 1)[1]
    ),
    "gshard": lambda logits: routing.gshard_loss(jax.nn.softmax(logits)),
    "z": routing.router_z_loss,
    "balance": lambda logits: routing.balance_loss(logits, routing.top_experts(jax.nn.softmax(logits), 1)[1]),
}


def test_perfect_balance():
    # Each of 4 tokens is sure of an expert of its own.
    probabilities = jnp.eye(4)
    np.testing.assert_allclose(routing.switch_loss(probabilities, jnp.arange(4)[:, None]), 1.0, rtol=1e-6)
    np.testing.assert_allclose(routing.gshard_loss(probabilities), 1.0, rtol=1e-6)
    np.testing.assert_allclose(routing.importance_loss(probabilities), 0.0, atol=1e-7)
    # Nearly noise-free logits: each expert is chosen by one token of four.
    np.testing.assert_allclose(routing.load_loss(10 * jnp.eye(4), 10 * jnp.eye(4), noise_std=0.1, k=1), 0.0, atol=1e-6)
    # With K = 2, tokens hold {0,1}, {1,2}, {2,3}, {3,0}: every expert has a quarter of the assignments.
    indices = jnp.stack([jnp.arange(4), (jnp.arange(4) + 1) % 4], axis=-1)
    np.testing.assert_allclose(routing.switch_loss(jnp.full((4, 4), 0.25), indices), 1.0, rtol=1e-6)


def test_collapse():
    # All tokens are sure of expert 0 of 4. Switch: 4 * 1 * 1. GShard: 16 * mean(1, 0, 0, 0) = 4.
    # Importance: sums n, 0, 0, 0 with mean n/4 and variance (9 + 3) n^2 / 64 = 3 n^2 / 16, so CV^2 = 3.
    probabilities = jnp.tile(jnp.eye(4)[:1], (8, 1))
    np.testing.assert_allclose(routing.switch_loss(probabilities, jnp.zeros((8, 1), jnp.int32)), 4.0, rtol=1e-6)
    np.testing.assert_allclose(routing.gshard_loss(probabilities), 4.0, rtol=1e-6)
    np.testing.assert_allclose(routing.importance_loss(probabilities), 3.0, rtol=1e-6)


def test_router_z_loss_worked_by_hand():
    # logsumexp(0, 0) = ln 2; logsumexp(ln 3, ln 5) = ln 8 = 3 ln 2. Mean of squares: (1 + 9) / 2 (ln 2)^2.
    logits = jnp.array([[0.0, 0.0], [np.log(3.0), np.log(5.0)]], jnp.float32)
    np.testing.assert_allclose(routing.router_z_loss(logits), 5 * np.log(2.0) ** 2, rtol=1e-6)


def test_load_loss_counts_the_chance_to_be_chosen_if_the_noise_were_drawn_again():
    # Monte Carlo: draw the noise of one expert anew, hold the threshold that the first draw set.
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(6, 4)).astype(np.float32)
    noisy = (logits + 0.7 * rng.normal(size=logits.shape)).astype(np.float32)
    threshold = np.sort(noisy, axis=-1)[:, -2:-1]
    chances = np.zeros(logits.shape)
    for _ in range(20_000):
        chances += logits + 0.7 * rng.normal(size=logits.shape) > threshold
    load = (chances / 20_000).mean(0)
    expected = np.var(load) / np.mean(load) ** 2
    actual = routing.load_loss(jnp.array(logits), jnp.array(noisy), noise_std=0.7, k=2)
    # A chance has a standard error of 0.5 / sqrt(20000) = 0.0035, a mean over 6 tokens of 0.0014.
    np.testing.assert_allclose(actual, expected, rtol=0.05)


def test_shares_give_no_gradient_to_switch():
    # d loss / d P[i, k] = E f_k / S: only the mean probabilities move.
    gradient = jax.grad(routing.switch_loss)(jnp.full((4, 2), 0.5), jnp.array([[0], [0], [0], [1]]))
    np.testing.assert_allclose(gradient, np.tile([2 * 0.75 / 4, 2 * 0.25 / 4], (4, 1)), rtol=1e-6)


def test_balance_loss_worked_by_hand():
    # Three tokens choose expert 0, one expert 1: a_k / a - 1 is 1/2 and -1/2. The sigmoids of the chosen logits,
    # 0, 0, ln 3 and 0, are 1/2, 1/2, 3/4 and 1/2: (1/2 (1/2 + 1/2 + 3/4) - 1/2 (1/2)) / 4.
    logits = jnp.array([[0.0, -5.0], [0.0, 7.0], [np.log(3.0), 1.0], [2.0, 0.0]], jnp.float32)
    indices = jnp.array([[0], [0], [0], [1]])
    loss, gradient = jax.value_and_grad(routing.balance_loss)(logits, indices)
    np.testing.assert_allclose(loss, 5 / 32, rtol=1e-6)
    # sigmoid' is 1/4 at 0 and 3/16 at ln 3. Descent pushes the scores of the crowded expert down and those of the
    # other up, and leaves the logits of experts that were not chosen alone.
    np.testing.assert_allclose(gradient, [[1 / 32, 0], [1 / 32, 0], [3 / 128, 0], [0, -1 / 32]], rtol=1e-6)


@pytest.mark.parametrize("indices", [[[0], [1], [2], [3]], [[0, 1], [1, 2], [2, 3], [3, 0]]], ids=["k=1", "k=2"])
def test_balance_loss_at_perfect_balance(indices):
    logits = jnp.asarray(np.random.default_rng(1).normal(size=(4, 4)), jnp.float32)
    loss, gradient = jax.value_and_grad(routing.balance_loss)(logits, jnp.array(indices))
    assert loss == 0
    np.testing.assert_array_equal(gradient, 0.0)


@pytest.mark.parametrize("column", [0, 2])
@pytest.mark.parametrize("loss", [routing.balance_loss, routing.switch_loss])
def test_choices_that_do_not_exist_count_nowhere(loss, column):
    rng = np.random.default_rng(2)
    scores = jnp.asarray(rng.random((2, 6, 4)), jnp.float32)
    indices = np.argsort(rng.random((2, 6, 4)), axis=-1)[..., :2]
    longer = np.insert(indices, column, 4, axis=-1)
    wanted = loss(scores, jnp.array(indices))
    assert np.abs(wanted).min() > 0
    np.testing.assert_allclose(loss(scores, jnp.array(longer)), wanted, rtol=1e-6)


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("shape", [(1, 1), (5, 4)], ids=str)
def test_losses_at_extremes(name, shape):
    noise = np.random.default_rng(0).normal(size=shape)
    both = jax.jit(jax.value_and_grad(LOSSES[name]))
    for logits in (
        np.zeros(shape),
        np.ones(shape),
        1e4 * noise,
        1e-20 * noise,
        np.tile(1e4 * noise[:1], (shape[0], 1)),
    ):
        value, gradient = both(jnp.asarray(logits, jnp.float32))
        assert np.isfinite(value)
        assert np.isfinite(gradient).all()


def test_loads_too_small_for_the_square_of_their_mean():
    # Chances 1 - Phi(12), about 1.8e-33, whose square float32 does not hold: equal loads are still balanced.
    loss = routing.load_loss(jnp.zeros((3, 2)), jnp.full((3, 2), 12.0), noise_std=1.0, k=1)
    np.testing.assert_allclose(loss, 0.0, atol=1e-6)
    # Beyond float32 altogether no expert has any load, which is 0 and not 0 / 0.
    assert routing.load_loss(jnp.zeros((3, 2)), jnp.full((3, 2), 1e4), noise_std=1e-3, k=1) == 0


@pytest.mark.usefixtures("shapes_unchecked")
@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: routing.load_loss(jnp.ones((4, 3)), jnp.ones((4, 3)), noise_std=0.0, k=1),
            "noise_std: expected a number > 0 .*; received 0.0",
        ),
        (
            lambda: routing.load_loss(jnp.ones((4, 3)), jnp.ones((2, 3)), noise_std=1.0, k=1),
            r"noisy_logits: expected shape \[4, 3\]; received \[2, 3\]",
        ),
        (
            lambda: routing.load_loss(jnp.ones((4, 3)), jnp.ones((4, 3)), noise_std=1.0, k=4),
            r"k: expected an integer from 1 to 3 \(experts\); received 4",
        ),
        (
            lambda: routing.switch_loss(jnp.ones((4, 3)), jnp.zeros((3, 1), jnp.int32)),
            r"indices: expected shape \[4, K\]; received \[3, 1\]",
        ),
        (
            lambda: routing.balance_loss(jnp.ones((4, 3)), jnp.zeros((3, 1), jnp.int32)),
            r"indices: expected shape \[4, K\]; received \[3, 1\]",
        ),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=message):
        call()


OVER = [name for name in steps.LOSS_STEPS if "over" in steps.LOSS_STEPS[name].option_types]


def test_every_balance_loss_has_the_option():
    assert set(OVER) == {"importance", "load", "switch", "gshard", "balance"}


@pytest.mark.parametrize("name", OVER)
@pytest.mark.parametrize("padded", [False, True])
def test_loads_of_the_whole_batch(name, padded):
    """The loss of three groups over the batch is that of a single group with all their tokens."""
    logits, noise = (jax.random.normal(jax.random.key(seed), (3, 5, 4)) for seed in (0, 1))
    real = jnp.arange(5)[None] < jnp.array([[5], [2], [4]]) if padded else None
    context = steps.LossContext(logits, jax.nn.softmax(logits), jax.lax.top_k(logits, 2)[1], logits + noise, 1.0, real)
    step = steps.LOSS_STEPS[name]
    found = step.function(context, over="batch")

    def joined(array):
        return array.reshape(1, -1, *array.shape[2:])

    together = steps.LossContext(
        joined(logits),
        jax.nn.softmax(joined(logits)),
        jax.lax.top_k(joined(logits), 2)[1],
        joined(logits + noise),
        1.0,
        None if real is None else joined(real),
    )
    np.testing.assert_allclose(found, np.full(3, step.function(together)[0]), rtol=1e-6)
    assert not np.allclose(found, step.function(context))
    assert step.needs_whole_batch(**{**step.option_defaults, "over": "batch"})
    assert not step.needs_whole_batch(**step.option_defaults)


def test_simbal_is_zero_for_an_orthonormal_kernel_and_counts_every_entry():
    kernel = jnp.eye(5, 3)
    assert routing.orthogonality_loss(kernel) == 0
    # Columns (2, 0), (1, 1): products 4, 2, 2, 2 less the identity are 3, 2, 2, 1.
    np.testing.assert_allclose(routing.orthogonality_loss(jnp.array([[2.0, 1.0], [0.0, 1.0]])), 8.0)


@pytest.mark.parametrize("name", [name for name in steps.LOSS_STEPS if name != "simbal"])
def test_padding_counts_nowhere(name):
    logits, noise = (jax.random.normal(jax.random.key(seed), (2, 7, 4)) for seed in (0, 1))
    real = jnp.arange(7)[None] < jnp.array([[7], [4]])

    def loss(logits, noise, real=None):
        indices = jax.lax.top_k(logits, 2)[1]
        context = steps.LossContext(logits, jax.nn.softmax(logits), indices, logits + noise, 1.0, real)
        return steps.LOSS_STEPS[name].function(context)

    found = loss(logits, noise, real)
    for group, size in enumerate((7, 4)):
        alone = loss(logits[group : group + 1, :size], noise[group : group + 1, :size])
        np.testing.assert_allclose(found[group], alone[0], rtol=1e-5)
    np.testing.assert_array_equal(loss(logits, noise, real)[0], loss(logits, noise, real.at[1].set(False))[0])
    assert np.all(np.isfinite(loss(logits, noise, jnp.zeros_like(real))))
