import jax
import jax.numpy as jnp
import numpy as np
import pytest

from .compiled import routing

N, D, H, F, E = 6, 4, 3, 2, 5


def arrays(seed, *shapes, scale=1.0):
    rng = np.random.default_rng(seed)
    return [jnp.asarray(scale * rng.normal(size=shape), jnp.float32) for shape in shapes]


def base():
    exponentials = np.exp(np.random.default_rng(0).normal(size=(N, E)))
    return (exponentials / exponentials.sum(axis=-1, keepdims=True)).astype(np.float32)


def record(seed=1, scale=1.0):
    """queries, keys, means, outputs"""
    return arrays(seed, (H, N, F), (H, N, F), (H, N, D), (N, D), scale=scale)


@jax.jit
def prior(queries, keys):
    return jax.nn.softmax(jnp.einsum("hif,hjf->hij", queries, keys) / F**0.5)


# Worked by hand.


def test_token_similarity():
    # u_0 = 1, u_1 = 2, temperature 1 / ln 2: exp(u_i u_j ln 2) = 2^(u_i u_j).
    # Row 0: 2^1, 2^2 -> 1/3, 2/3. Row 1: 2^2, 2^4 -> 1/5, 4/5.
    graph = routing.token_similarity(jnp.array([[1.0], [2.0]]), temperature=float(1 / np.log(2)))
    np.testing.assert_allclose(graph, [[1 / 3, 2 / 3], [1 / 5, 4 / 5]], rtol=1e-5)


def test_token_similarity_weight_is_not_transposed():
    # u_0 = e_0, u_1 = e_1, W_s = [[0, ln 3], [0, 0]]: u_0' W u_1 = ln 3, all other products are 0.
    weight = jnp.array([[0.0, np.log(3.0)], [0.0, 0.0]])
    np.testing.assert_allclose(
        routing.token_similarity(jnp.eye(2), weight=weight), [[1 / 4, 3 / 4], [1 / 2, 1 / 2]], rtol=1e-6
    )


def test_attention_posterior_and_head_posterior():
    # One token attends to itself and another, u = 0 and sigma^2 = 1/2, so that N(u | m) ~ exp(-m^2).
    # Means with m^2 = ln 2 and 0 have likelihoods 1/2 and 1.
    # Head 0: prior 1/2, 1/2 x likelihoods 1/2, 1 = 1/4, 1/2 -> posterior 1/3, 2/3, evidence 3/4.
    # Head 1: prior 3/4, 1/4 x likelihoods 1, 1 -> posterior 3/4, 1/4, evidence 1. Heads: 3/7, 4/7.
    attention = jnp.array([[[0.5, 0.5], [0.5, 0.5]], [[0.75, 0.25], [0.75, 0.25]]])
    means = jnp.array([[[np.sqrt(np.log(2.0))], [0.0]], [[0.0], [0.0]]])
    arguments = (attention, means, jnp.zeros((2, 1)))
    sigma = float(np.sqrt(0.5))
    graph = routing.attention_posterior(*arguments, sigma=sigma)
    np.testing.assert_allclose(np.asarray(graph)[:, 0], [[1 / 3, 2 / 3], [3 / 4, 1 / 4]], rtol=1e-5)
    np.testing.assert_allclose(routing.head_posterior(*arguments, sigma=sigma)[0], [3 / 7, 4 / 7], rtol=1e-5)


def test_lowest_entropy_head():
    # Mean entropies: head 0 (ln 2 + 0) / 2, head 1 (0 + 0) / 2, head 2 ln 2.
    attention = jnp.array([[[0.5, 0.5], [1, 0]], [[1, 0], [0, 1]], [[0.5, 0.5], [0.5, 0.5]]], jnp.float32)
    assert routing.lowest_entropy_head(attention) == 1
    assert routing.lowest_entropy_head(jnp.stack([attention, attention[jnp.array([1, 0, 2])]])).tolist() == [1, 0]


def test_inform():
    graph, probabilities = jnp.array([[0.25, 0.75], [1.0, 0.0]]), jnp.array([[1.0, 0.0], [0.2, 0.8]])
    np.testing.assert_allclose(routing.inform(probabilities, graph), [[0.4, 0.6], [1.0, 0.0]], rtol=1e-6)


# Identities.


def test_attention_output_is_the_mean_over_heads_of_what_the_means_are_averaged_to():
    # m_hj = H O_h (V_h x_j + b_V,h), so that sum_h O_h (A_h (V_h x + b_V,h)) = mean_h sum_j A_h[i,j] m_hj, which is
    # what makes the outputs comparable with the means.
    x, value, value_bias, output, q, k = arrays(3, (N, D), (H, D, F), (H, F), (H, F, D), (H, N, F), (H, N, F))
    values = np.einsum("nd,hdf->hnf", x, value) + np.asarray(value_bias)[:, None]
    module_output = np.einsum("hij,hjf,hfd->id", prior(q, k), values, output)
    means = H * np.einsum("hjf,hfd->hjd", values, output)
    averaged = np.mean(np.einsum("hij,hjd->hid", prior(q, k), means), axis=0)
    np.testing.assert_allclose(averaged, module_output, rtol=1e-5, atol=1e-5)
    # With a sigma far above all distances the evidence says nothing: the posterior is the prior.
    np.testing.assert_allclose(
        routing.attention_posterior(prior(q, k), means, module_output, sigma=1e4), prior(q, k), atol=1e-5
    )


def test_posterior_heads_are_the_sum_over_heads_of_both_posteriors():
    queries, keys, means, outputs = record()
    graph = routing.attention_posterior(prior(queries, keys), means, outputs, sigma=2.0)
    heads = routing.head_posterior(prior(queries, keys), means, outputs, sigma=2.0)
    expected = routing.inform(base(), jnp.einsum("ih,hij->ij", heads, graph))
    informed = routing.attention_informed(base(), queries, keys, means, outputs, sigma=2.0, heads="posterior")
    np.testing.assert_allclose(informed, expected, rtol=1e-5)


def test_similarity_between_the_mean_and_the_identity():
    tokens, r = arrays(2, (N, D))[0], base()
    hot = routing.similarity_informed(r, tokens, temperature=1e9)
    np.testing.assert_allclose(hot, np.tile(np.mean(r, axis=0), (N, 1)), rtol=1e-5)
    # By cosine every distinct direction is most similar to itself.
    cold = routing.similarity_informed(r, tokens, temperature=1e-5, metric="cosine")
    np.testing.assert_allclose(cold, r, rtol=1e-6)


def test_permuting_tokens_permutes_the_result():
    order = np.random.default_rng(5).permutation(N)
    r, tokens, queries, keys, means, outputs = map(np.asarray, (base(), *arrays(2, (N, D)), *record()))
    np.testing.assert_allclose(
        routing.similarity_informed(r[order], tokens[order]),
        np.asarray(routing.similarity_informed(r, tokens))[order],
        rtol=1e-5,
    )
    for heads in ("lowest_entropy", "posterior"):
        moved = routing.attention_informed(
            r[order], queries[:, order], keys[:, order], means[:, order], outputs[order], heads=heads
        )
        still = routing.attention_informed(r, queries, keys, means, outputs, heads=heads)
        np.testing.assert_allclose(moved, np.asarray(still)[order], rtol=1e-4, atol=1e-6)


def test_a_causal_mask_hides_later_tokens():
    mask = np.tril(np.ones((N, N), bool))
    (tokens,), (queries, keys, means, outputs) = arrays(2, (N, D)), record()
    changed = base()
    changed[-1] = np.eye(E)[0]
    for informed in (
        lambda r: routing.similarity_informed(r, tokens, mask=mask),
        lambda r: routing.attention_informed(r, queries, keys, means, outputs, sigma=3.0, mask=mask),
        lambda r: routing.attention_informed(r, queries, keys, means, outputs, sigma=3.0, heads="posterior", mask=mask),
    ):
        before, after = (np.asarray(informed(r)) for r in (base(), changed))
        np.testing.assert_array_equal(before[:-1], after[:-1])
        assert not np.allclose(before[-1], after[-1])
        np.testing.assert_allclose(before[0], changed[0], rtol=1e-6)  # the first attends to itself alone


def test_block_size_does_not_change_the_result():
    tokens, r = arrays(2, (N, D))[0], base()
    np.testing.assert_allclose(
        routing.similarity_informed(r, tokens, block_size=4), routing.similarity_informed(r, tokens), rtol=1e-5
    )
    np.testing.assert_allclose(
        routing.attention_informed(r, *record(), block_size=4), routing.attention_informed(r, *record()), rtol=1e-5
    )


def test_centering_leaves_out_what_all_tokens_have_in_common():
    queries, keys, means, outputs = record()
    shift, other = 3.0 * np.ones((N, D), np.float32), 2.0 * np.ones((H, N, D), np.float32)
    for center, same in ((True, True), (False, False)):
        informed, moved = (
            routing.attention_informed(base(), queries, keys, m, u, center=center, mask="causal")
            for m, u in ((means, outputs), (means + other, outputs - shift))
        )
        assert np.allclose(informed, moved, rtol=1e-4, atol=1e-6) == same
    # The mean of the evidence over the tokens is 0 for each key: a wide posterior keeps a key's total to first order.
    even = jnp.full((H, N, N), 1 / N)
    for center, most in ((True, 1e-4), (False, 1.0)):
        totals = jnp.sum(routing.attention_posterior(even, means, outputs, sigma=30.0, center=center), axis=-2)
        assert np.abs(totals - jnp.mean(totals, axis=-1, keepdims=True)).max() < most


def test_normalized_outputs_and_means_have_one_length():
    queries, keys, means, outputs = record()
    lengths = np.exp(np.random.default_rng(4).normal(size=(H, N, 1))).astype(np.float32)
    for normalize in ("unit", "sqrt_dim"):
        informed, scaled = (
            routing.attention_informed(base(), queries, keys, m, u, normalize=normalize)
            for m, u in ((means, outputs), (lengths * means, lengths[0] * outputs))
        )
        np.testing.assert_allclose(informed, scaled, rtol=1e-4)


def test_no_gradient_flows_into_the_other_heads():
    loss = lambda *a: jnp.sum(routing.attention_informed(base(), *a) ** 2)
    gradients = jax.jit(jax.grad(loss, argnums=(0, 1, 2)))(*record())
    head = int(routing.lowest_entropy_head(prior(*record()[:2])))
    for gradient in gradients:
        assert np.abs(gradient[head]).max() > 0
        np.testing.assert_array_equal(np.delete(gradient, head, axis=0), 0)


# Extremes: never a NaN, and rows that still sum to 1.


def extremes(array):
    """[6, ...]: the array at two scales, each as it is, with identical tokens, and with zero tokens."""
    array = np.asarray(array)
    kinds = (array, np.broadcast_to(array[..., :1, :], array.shape), 0 * array)
    return np.stack([np.float32(scale) * kind for scale in (1.0, 1e4) for kind in kinds])


def assert_sound(function, r, *arguments):
    """Values are distributions, and gradients of their squares finite, for every member of the batch."""

    @jax.jit
    def both(*a):
        return function(*a), jax.grad(lambda *b: jnp.sum(function(*b) ** 2), range(len(a)))(*a)

    value, gradients = both(np.broadcast_to(r, (6, *r.shape)), *map(extremes, arguments))
    np.testing.assert_allclose(np.sum(value, axis=-1), 1.0, rtol=1e-5)  # hence also finite
    assert all(np.isfinite(gradient).all() for gradient in gradients)


@pytest.mark.parametrize("size", [(1, 1), (N, E)], ids=["one-token-one-expert", "usual"])
@pytest.mark.parametrize("metric", ["dot", "cosine"])
def test_similarity_at_extremes(size, metric):
    empty_row = np.tril(np.ones((1, size[0], size[0]), bool), -1)
    tokens, logits = arrays(0, (size[0], D), size)

    def both_masks(temperature, r, u):
        informed = [
            routing.similarity_informed(r, u, temperature=temperature, metric=metric, mask=mask)
            for mask in (None, empty_row)
        ]
        return jnp.stack(informed)

    def all_settings(r, u):
        return jax.vmap(both_masks, in_axes=(0, None, None))(jnp.array([1e-6, 1e-3, 1.0]), r, u)

    assert_sound(all_settings, jax.nn.softmax(logits), tokens)


@pytest.mark.parametrize(
    ("size", "sigma"),
    [((1, 1), 1e-6), ((N, E), 1e-6), ((N, E), 1e-3)],
    ids=["one-token-one-expert", "usual-1e-6", "usual-1e-3"],
)
@pytest.mark.parametrize("heads", ["lowest_entropy", "posterior"])
def test_attention_informed_at_extremes(size, heads, sigma):
    tokens = size[0]
    empty_row = np.tril(np.ones((1, tokens, tokens), bool), -1)
    *given, logits = arrays(0, (H, tokens, F), (H, tokens, F), (H, tokens, D), (tokens, D), size)

    def both_masks(r, *a):
        informed = [
            routing.attention_informed(r, *a, sigma=sigma, heads=heads, mask=mask, **options)
            for mask, options in ((None, {}), (empty_row, {}), (empty_row, {"normalize": "sqrt_dim", "center": True}))
        ]
        return jnp.stack(informed)

    assert_sound(both_masks, jax.nn.softmax(logits), *given)


@pytest.mark.parametrize("sigma", [1e-6, 1e-3, 1.0])
def test_posteriors_of_attention_with_exact_zeros(sigma):
    queries, keys, means, outputs = record()
    attention = prior(queries, keys)
    attention = np.array(attention)
    attention[:, :, 0], attention[0, 1], attention[:, 3] = 0.0, np.eye(N)[2], 0.0

    @jax.jit
    def everything(*a):
        both = lambda *b: (
            routing.attention_posterior(*b, sigma=sigma),
            routing.head_posterior(*b, sigma=sigma),
        )
        gradients = jax.grad(lambda *b: sum(jnp.sum(part[..., 0, :] ** 2) for part in both(*b)), argnums=(0, 1, 2))
        return both(*a), gradients(*a)

    for scale in (1.0, 1e4):
        (graph, heads), gradients = everything(attention, scale * means, scale * outputs)
        np.testing.assert_allclose(np.sum(graph, axis=-1), 1.0, rtol=1e-5)
        np.testing.assert_allclose(np.sum(heads, axis=-1), 1.0, rtol=1e-5)
        np.testing.assert_array_equal(graph[:, :, 0], 0.0)  # what the prior rules out stays out
        np.testing.assert_array_equal(graph[0, 1], np.eye(N)[2])
        np.testing.assert_array_equal(graph[:, 3], np.tile(np.eye(N)[3], (H, 1)))  # an empty row attends to itself
        assert all(np.isfinite(gradient).all() for gradient in gradients)


# Bad input.

R, U, A, M, Q = (np.ones(shape, np.float32) for shape in ((4, 3), (4, 2), (2, 4, 4), (2, 4, 2), (2, 4, 5)))


@pytest.mark.usefixtures("shapes_unchecked")
@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: routing.token_similarity(U, temperature=0.0), r"temperature: expected a number > 0 .*; received 0.0"),
        (lambda: routing.token_similarity(U, temperature=-1), r"temperature: expected a number > 0 .*; received -1"),
        (lambda: routing.token_similarity(U, temperature=np.float32(-1)), r"temperature: .* received np.float32"),
        (lambda: routing.token_similarity(U, temperature=float("nan")), r"temperature: .* received nan"),
        (lambda: routing.token_similarity(U, temperature=1e-45), r"temperature: .* received 1e-45"),
        (lambda: routing.token_similarity(U, temperature=None), r"temperature: .* received None"),
        (lambda: routing.token_similarity(U, temperature="sqrt"), r"temperature: .*'sqrt_dim'; received 'sqrt'"),
        (lambda: routing.token_similarity(U, metric="l2"), r"metric: expected one of 'dot', 'cosine'; received 'l2'"),
        (
            lambda: routing.token_similarity(U, weight=jnp.ones((3, 3))),
            r"weight: expected shape \[2, 2\]; received \[3,",
        ),
        (lambda: routing.token_similarity(U, mask=jnp.ones((3, 4), bool)), r"mask: expected shape \[..., 4, 4\]; rec"),
        (lambda: routing.attention_posterior(A, M, U, sigma=0.0), r"sigma: expected a number > 0 .*; received 0.0"),
        (lambda: routing.attention_posterior(A, M, U, sigma=1e-20), r"sigma squared: expected .*; received 1e-40"),
        (lambda: routing.attention_posterior(A, M, U, sigma="sqrt"), r"sigma: expected .*'sqrt_dim'; received 'sqrt'"),
        (
            lambda: routing.head_posterior(A, M, U, normalize="no"),
            r"normalize: expected one of 'none', .*; received 'no'",
        ),
        (
            lambda: routing.attention_posterior(A[..., :3], M, U),
            r"attention: expected shape \[..., 2, 4, 4\]; received",
        ),
        (
            lambda: routing.attention_posterior(A, M[:1], U),
            r"means: expected shape \[..., 2, 4, D\]; received \[1, 4, 2\]",
        ),
        (lambda: routing.head_posterior(A, M, U[:3]), r"outputs: expected shape \[..., 4, 2\]; received \[3, 2\]"),
        (lambda: routing.head_posterior(A, M, U, sigma=-2.0), r"sigma: expected a number > 0 .*; received -2.0"),
        (lambda: routing.inform(R, jnp.ones((4, 3))), r"graph: expected shape \[..., 4, 4\]; received \[4, 3\]"),
        (
            lambda: routing.similarity_informed(R[:3], U),
            r"probabilities: expected shape \[..., 4, E\]; received \[3, 3\]",
        ),
        (lambda: routing.similarity_informed(R, U, block_size=0), r"block_size: expected None or an integer >= 1; rec"),
        (
            lambda: routing.attention_informed(R[:3], Q, Q, M, U),
            r"probabilities: expected shape \[..., 4, E\]; received",
        ),
        (
            lambda: routing.attention_informed(R, Q, Q[..., 1:], M, U),
            r"keys: expected shape \[2, 4, 5\]; received \[2, 4,",
        ),
        (
            lambda: routing.attention_informed(R, Q, Q, M, U, sigma=0.0),
            r"sigma: expected a number > 0 .*; received 0.0",
        ),
        (
            lambda: routing.attention_informed(R, Q, Q, M, U, heads="all"),
            r"heads: expected .*'posterior'; received 'all'",
        ),
        (lambda: routing.attention_informed(R, Q, Q, M, U, block_size=True), r"block_size: expected .*; received True"),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=message):
        call()
