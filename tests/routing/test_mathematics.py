"""What the papers prove about routing, and what a router has to keep, as properties of the public functions.

000 is SymphonySMoE (arXiv 2510.16411) and 003 Mutual-Inform SMoE, as in the docstrings of the package. Tolerances are
multiples of float32's 2^-24 = 6e-8: an absolute 1e-5 is a hundred roundings of a number near 1.
"""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from vmoe_inform import routing
from vmoe_inform.routing import steps
from vmoe_inform.routing.stats import softmax_entropy

from .strategies import distinct_grid, few_examples, grid, masks, probabilities, symmetric_doubly_stochastic

B, N, D, H, F, E, K, P = 3, 6, 4, 2, 2, 5, 2, 3  # P: values of a patch
KERNEL = jnp.asarray(np.random.default_rng(0).normal(size=(H, F, D)), jnp.float32)  # of the attention's output


# The one place that knows how a layer calls its steps.

# Axis 0 is that of the images.
TOKEN_AXIS = {
    "probabilities": 1,
    "tokens": 1,
    "queries": 2,
    "keys": 2,
    "values": 2,
    "attended": 2,
    "means": 2,
    "outputs": 1,
    "raw_inputs": 1,
    "previous_probabilities": 1,
}


def softmax(logits):
    exponentials = np.exp(logits - logits.max(-1, keepdims=True))
    return exponentials / exponentials.sum(-1, keepdims=True)


def random_images(seed, *, batch=B, tokens=N, experts=E, scale=1.0):
    """Everything of the images that a step may look at; ``scale`` is that of all but the probabilities."""
    rng = np.random.default_rng(seed)
    normal = lambda *shape: (scale * rng.normal(size=(batch, *shape))).astype(np.float32)
    return {
        "probabilities": softmax(normal(tokens, experts) / scale),
        "tokens": normal(tokens, D),
        "queries": normal(H, tokens, F),
        "keys": normal(H, tokens, F),
        "values": normal(H, tokens, F),
        "attended": normal(H, tokens, F),
        "means": normal(H, tokens, D),
        "outputs": normal(tokens, D),
        "raw_inputs": normal(tokens, P),
        "previous_probabilities": softmax(normal(tokens, experts) / scale),
    }


def is_counter(leaf):
    return jnp.issubdtype(leaf.dtype, jnp.integer)


def started(step, options, tokens=N, experts=E):
    """Parameters of a step, and its state as training might have left it: noise on what is not a counter."""
    sizes = steps.LayerSizes(
        hidden_size=D, num_experts=experts, num_selected_experts=min(K, experts), num_tokens=tokens, raw_input_size=P
    )
    declared = step.parameters(sizes, **options)

    @jax.jit  # one program instead of one for each operation
    def start(key):
        state = step.initial_state(key, sizes, **options) if step.has_state(options) else None
        # Rows of an adjacency sum to at most 1.
        noise = lambda leaf: jax.random.uniform(key, leaf.shape) / leaf.shape[-1]
        state = jax.tree.map(lambda leaf: leaf if is_counter(leaf) else leaf + noise(leaf), state)
        return {name: p.initializer(key, p.shape, jnp.float32) for name, p in declared.items()}, state

    return start(jax.random.key(0))


def context(step, parameters, state, images):
    logits = jnp.einsum("bhif,bhjf->bhij", images["queries"], images["keys"]) / F**0.5
    seen = (jnp.swapaxes(images[name], 1, 2) for name in ("queries", "keys", "values", "attended"))
    record = steps.AttentionRecord(*seen, KERNEL, jnp.mean(softmax_entropy(logits), axis=-1))
    chosen = jax.lax.top_k(images["previous_probabilities"], min(K, images["probabilities"].shape[-1]))[1]
    return steps.StepContext(
        tokens=images["tokens"],
        parameters=parameters,
        state=state,
        attention=record if step.needs_attention else None,
        raw_inputs=images["raw_inputs"] if step.needs_raw_inputs else None,
        previous=steps.PreviousLayer(images["previous_probabilities"], chosen) if step.needs_previous else None,
    )


def score(step, options, parameters, state, images):
    """The logits, and all else that a score step may give."""
    given = context(step, parameters, state, images)
    others = [function for function in (step.gates, step.slot_logits, step.losses) if function is not None]
    return [function(given, **options) for function in (step.function, *others)]


def informed(step, options, parameters, state, images):
    return step.function(images["probabilities"], context(step, parameters, state, images), **options)


@functools.cache
def compiled_inform(name):
    """An inform step with its default options."""
    step = steps.INFORM_STEPS[name]
    parameters, state = started(step, step.option_defaults)
    return jax.jit(lambda images: informed(step, step.option_defaults, parameters, state, images))


INFORM = pytest.mark.parametrize(
    "step", [steps.INFORM_STEPS[name] for name in steps.INFORM_STEPS], ids=lambda s: s.name
)
SCORE = pytest.mark.parametrize("step", [steps.SCORE_STEPS[name] for name in steps.SCORE_STEPS], ids=lambda s: s.name)


# Softmax and the choice of K (003, Sec. A.3).


@jax.jit
def every_choice(logits):
    r = jax.nn.softmax(logits)
    return {k: routing.top_experts(r, k, renormalize="one") for k in range(1, E + 1)}


@few_examples
@given(distinct_grid(E, limit=10, step=0.125))
def test_softmax_then_the_choice_renormalised_is_the_choice_then_softmax(logits):
    # Logits are at least 1/8 apart, so that float32 keeps the order of their exponentials, and at most 20: the exponent
    # is rounded by 20 * 6e-8, which is a relative error of about 1e-6 in a share.
    descending = np.argsort(-logits)
    for k, (weights, indices) in every_choice(logits[None]).items():
        np.testing.assert_array_equal(indices[0], descending[:k])
        chosen = np.exp(logits[descending[:k]].astype(np.float64) - logits.max())  # all others are minus infinity
        np.testing.assert_allclose(weights[0], chosen / chosen.sum(), rtol=1e-5)


# Entropy of informed choices (003, Proposition 1). Here s_i is row i of the graph.


def single_head(queries, keys, mask):
    """Attention of one head, [1, N, N], over the tokens that the mask allows."""
    return jax.nn.softmax(queries @ keys.T / F**0.5, where=mask)[None]


entropy = jax.jit(routing.routing_entropy)


@jax.jit
def similarity(r, u, weight, mask, temperature):
    return (
        routing.similarity_informed(r, u, weight=weight, temperature=temperature, mask=mask),
        routing.token_similarity(u, weight=weight, temperature=temperature, mask=mask),
    )


def attention_with(sigma):
    @jax.jit
    def attention(r, q, k, m, u, mask):
        graph = routing.attention_posterior(single_head(q, k, mask), m[None], u, sigma=sigma)
        return routing.attention_informed(r, q[None], k[None], m[None], u, sigma=sigma, mask=mask), graph[0]

    return attention


attention_warm, attention_cold = attention_with(2.0), attention_with(1e-3)


def lower_or_equal_entropy(r):
    """[i, j]: whether j is in the paper's J_i, {j : H(r_j) <= H(r_i)}."""
    entropies = np.asarray(entropy(r))
    return entropies[None, :] <= entropies[:, None]


def assert_bounded(r, p, graph):
    own, after, spread = (np.asarray(entropy(rows)) for rows in (r, p, graph))
    # Entropy of a mixture lies between the mean of the entropies and that plus the entropy of the weights. It sums
    # E or N terms -p log p, each rounded by less than 1e-7.
    assert (after >= graph @ own - 1e-5).all()
    assert (after <= graph @ own + spread + 1e-5).all()
    return own, after, spread


GRAPHS = {
    "similarity": st.tuples(
        grid((N, D), step=0.25), grid((D, D), limit=1, step=0.25), masks(N), st.sampled_from([0.1, 1.0, 10.0])
    ).map(lambda a: lambda r, restrict: similarity(r, *a[:2], a[2] & restrict, np.float32(a[3]))),
    "attention": st.tuples(grid((N, F)), grid((N, F)), grid((N, D), step=0.25), grid((N, D), step=0.25), masks(N)).map(
        lambda a: lambda r, restrict: attention_warm(r, *a[:4], a[4] & restrict)
    ),
}


@pytest.mark.parametrize("graph", GRAPHS)
def test_entropy_is_at_most_the_mean_entropy_of_the_heard_and_that_of_the_graph(graph):
    @few_examples
    @given(probabilities((N, E)), GRAPHS[graph])
    def check(r, mix):
        assert_bounded(r, *mix(r, np.ones((N, N), bool)))

        # Among tokens that are no less sure, a token can lose no more certainty than the entropy of its row.
        own, after, spread = assert_bounded(r, *mix(r, lower_or_equal_entropy(r)))
        assert (after <= own + spread + 1e-5).all()

        # The bound is reached where every token is sure of another expert: then p_i is s_i.
        sure = np.eye(N, dtype=np.float32)
        _, after, spread = assert_bounded(sure, *mix(sure, np.ones((N, N), bool)))
        np.testing.assert_allclose(after, spread, atol=1e-5)

    check()


def cold_similarity(rng, r, mask):
    u, weight = (rng.integers(-bound, bound + 1, (size, D)).astype(np.float32) for size, bound in ((N, 4), (D, 2)))
    return similarity(r, u, weight, mask, np.float32(1e-3)), u @ weight @ u.T


def cold_attention(rng, r, mask):
    q, k = rng.integers(-2, 3, (2, N, F)).astype(np.float32)
    m, u = rng.integers(-4, 5, (2, N, D)).astype(np.float32)
    return attention_cold(r, q, k, m, u, mask), u @ m.T - 0.5 * np.sum(m**2, axis=-1)


@pytest.mark.parametrize("cold", [cold_similarity, cold_attention])
def test_in_the_limit_of_temperature_zero_no_token_is_less_sure_than_before(cold):
    # The paper's proof needs the row of the graph to become one-hot, that is a single most similar token (nearest mean)
    # among J_i; the next tests show why. Integers make the gap to the second at least 1 (1/2 for attention): divided by
    # the temperature 1e-3 (sigma^2 = 1e-6) it is 1000 (500,000), and float32's exp(-88) is 0 already. The log prior of
    # attention, at most 2 * 8 / sqrt(2), is negligible.
    rng = np.random.default_rng(0)
    rows, from_others, less_sure_unrestricted = 0, 0, 0
    for _ in range(60):
        r = rng.dirichlet(np.full(E, 0.5), size=N).astype(np.float32)
        mask = lower_or_equal_entropy(r)
        own = np.asarray(entropy(r))
        (p, graph), evidence = cold(rng, r, mask)
        evidence = np.where(mask, evidence, -np.inf)
        best = evidence.argmax(-1)
        single = (evidence == evidence.max(-1, keepdims=True)).sum(-1) == 1
        np.testing.assert_array_equal(np.asarray(graph)[single], np.eye(N)[best[single]])
        np.testing.assert_allclose(np.asarray(p)[single], r[best[single]], rtol=1e-6)
        assert (np.asarray(entropy(p)) <= own + 1e-5)[single].all()
        rows, from_others = rows + single.sum(), from_others + (single & (best != np.arange(N))).sum()

        (p, _), _ = cold(rng, r, np.ones((N, N), bool))
        less_sure_unrestricted += (np.asarray(entropy(p)) > own + 0.01).sum()
    # Most rows count, many take the choice of another token, and without the restriction to J_i many lose certainty.
    assert rows > 300
    assert from_others > 100
    assert less_sure_unrestricted > 30


def test_two_tokens_equally_near_can_make_a_token_less_sure_at_every_temperature():
    # u_0 = (1, 0) has the product 2 with both (2, 1) and (2, -1), and 1 with itself. At low temperature it attends to
    # both alike: they are sure of different experts, and token 0 gets 1/2, 1/2 though all others were surer than
    # itself.
    u = np.array([[1, 0], [2, 1], [2, -1]], np.float32)
    r = np.array([[0.7, 0.3], [1.0, 0.0], [0.0, 1.0]], np.float32)
    for temperature in (1e-1, 1e-3, 1e-6):
        p, _ = similarity(r, u, np.eye(2, dtype=np.float32), lower_or_equal_entropy(r), np.float32(temperature))
        # At 0.1 it still attends to itself with a weight of exp(-10) / 2.
        np.testing.assert_allclose(p[0], [0.5, 0.5], atol=1e-5)


def test_a_token_that_is_sure_of_one_expert_is_not_before_the_limit():
    # Both tokens have entropy 0, so each is in the other's J_i: u = 1, 2 at temperature 1 / ln 2 attend to each other
    # by 2^1 : 2^2 and 2^2 : 2^4. Proposition 1 promises its inequality in the limit only.
    u, r = np.array([[1], [2]], np.float32), np.eye(2, dtype=np.float32)
    p, _ = similarity(r, u, np.eye(1, dtype=np.float32), lower_or_equal_entropy(r), np.float32(1 / np.log(2)))
    np.testing.assert_allclose(p, [[1 / 3, 2 / 3], [1 / 5, 4 / 5]], rtol=1e-5)


# Symphony's adjacency dampens perturbations (000, Proposition 1), for symmetric doubly stochastic matrices.


@jax.jit
def adjacency_and(s, moved, a):
    return 1.0 - routing.spectral_gap(a), routing.expert_informed(s, a), routing.expert_informed(moved, a)


@few_examples
@given(symmetric_doubly_stochastic(E), probabilities((1, E)), probabilities((1, E)))
def test_a_symmetric_doubly_stochastic_adjacency_contracts_by_its_second_eigenvalue(a, s, moved):
    rho, p, p_moved = adjacency_and(s, moved, a)
    # Probabilities and their mixtures are rounded by 1e-7 each, the eigenvalues of a symmetric matrix by a few 1e-7.
    assert np.linalg.norm(p_moved - p) <= rho * np.linalg.norm(moved - s) + 1e-5
    # The bound is reached along the eigenvector of the second largest |eigenvalue| among those with mean zero.
    values, vectors = np.linalg.eigh(np.float64(a) - 1 / E)
    direction = vectors[:, np.argmax(np.abs(values))]
    along = (s + 0.1 * direction).astype(np.float32)
    rho, p, p_along = adjacency_and(s, along, a)
    assert np.linalg.norm(p_along - p) == pytest.approx(0.1 * float(rho), abs=1e-5)


doubly_stochastic = jax.jit(lambda counts: routing.normalize_adjacency(counts, normalization="doubly_stochastic"))


def test_the_doubly_stochastic_normalization_of_counts_contracts_too():
    # Sinkhorn of positive symmetric counts tends to a symmetric matrix.
    rng = np.random.default_rng(0)
    for _ in range(10):
        counts = rng.integers(1, 50, (E, E))
        a = doubly_stochastic((counts + counts.T).astype(np.float32))
        np.testing.assert_allclose(a, a.T, atol=1e-5)
        s, moved = rng.dirichlet(np.ones(E), size=(2, 1)).astype(np.float32)
        rho, p, p_moved = adjacency_and(s, moved, a)
        assert np.linalg.norm(p_moved - p) <= rho * np.linalg.norm(moved - s) + 1e-5


def test_without_symmetry_the_second_eigenvalue_bounds_nothing():
    # A = 1/3 + x y' / 6 with x = (1, -1, 0), y = (1, 1, -2): rows and columns sum to 1, and since x is orthogonal to y
    # and both to 1, the eigenvalues are 1, 0, 0. Yet A y = x |y|^2 / 6 = x: rho = 0, but a perturbation along y stays.
    a = np.array([[1 / 2, 1 / 2, 0], [1 / 6, 1 / 6, 2 / 3], [1 / 3, 1 / 3, 1 / 3]], np.float32)
    s = np.full((1, 3), 1 / 3, np.float32)
    rho, p, p_moved = adjacency_and(s, s + np.array([[0.1, 0.1, -0.2]], np.float32), a)
    assert rho < 0.01  # the eigenvalue 0 is double, which float32 finds to about sqrt(1e-7)
    np.testing.assert_allclose(p_moved - p, [[0.1, -0.1, 0.0]], atol=1e-6)


@jax.jit
def choices(s, a):
    """1 - spectral gap and A s; for K = 1 .. E - 1 the chosen experts, and the margin of the informed probabilities."""
    p = routing.expert_informed(s, a)
    chosen = {k: routing.top_experts(p, k, renormalize=False)[1] for k in range(1, E)}
    return 1.0 - routing.spectral_gap(a), p, chosen, {k: routing.topk_margin(p, k)[0] for k in chosen}


changed_share = jax.jit(routing.fluctuation_rate)


@few_examples
@given(symmetric_doubly_stochastic(E), probabilities((1, E)), probabilities((1, E)), st.integers(1, E - 1))
def test_the_choice_survives_every_perturbation_below_the_margin_over_twice_rho(a, s, other, k):
    rho, p, chosen, margins = choices(s, a)
    # A margin of 1e-3 is a thousand times what the informed probabilities are rounded by.
    assume(rho > 0.01 and margins[k] > 1e-3)
    bound = float(margins[k]) / (2 * float(rho))
    changed = lambda way: changed_share(chosen[k], choices((s + way).astype(np.float32), a)[2][k])
    # The shortest way to let the last chosen expert j change places with the first one not chosen: p_j - p_k falls by
    # the length of row j minus row k of A per unit, which is at most rho sqrt(2).
    last, first_not = np.argsort(-p[0], kind="stable")[k - 1 : k + 1]
    apart = a[last] - a[first_not]
    assume(np.linalg.norm(apart) > 0.01)
    shortest = -apart / np.linalg.norm(apart)
    assert changed(0.99 * bound * shortest) == 0
    # Any other way, here to another distribution, is no better.
    elsewhere = other - s
    assert changed(elsewhere * min(1.0, 0.99 * bound / max(np.linalg.norm(elsewhere), 1e-9))) == 0
    # Not vacuous: far enough along the first way, which is never nearer than sqrt(2) times the bound, the set changes.
    distance = float(margins[k]) / np.linalg.norm(apart)
    assert distance >= np.sqrt(2) * bound * 0.999
    assert changed(1.01 * distance * shortest) == 1


def test_the_choice_changes_at_the_square_root_of_two_times_the_bound():
    # A = (1 - rho) / E + rho I scales every perturbation of mean zero by rho. Informed probabilities are
    # (1 - rho) / 5 + rho s, the margin at K = 2 is rho (0.3 - 0.2) = 0.05 and the bound 0.05 / (2 * 0.5) = 0.05.
    # Moving (-d, d) / sqrt(2) in experts 1 and 2 changes their places at d sqrt(2) = 0.1: d = 0.0707 = bound sqrt(2).
    s, way = np.array([[0.4, 0.3, 0.2, 0.1, 0.0]], np.float32), np.array([[0, -1, 1, 0, 0]]) / np.sqrt(2)
    a = (0.5 / E + 0.5 * np.eye(E)).astype(np.float32)
    rho, _, chosen, margins = choices(s, a)
    assert float(rho) == pytest.approx(0.5, abs=1e-5)
    bound = float(margins[2]) / (2 * float(rho))
    assert bound == pytest.approx(0.05, abs=1e-5)
    for factor, share in ((0.99, 0), (1.4, 0), (1.43, 1)):
        moved = (s + factor * bound * way).astype(np.float32)
        assert changed_share(chosen[2], choices(moved, a)[2][2]) == share


# Counts estimate the probability of being chosen together (000, Theorem 1).


def coselection_probability(kernel, k):
    """Exact, for tokens of two features whose direction is uniform: the share of directions that choose both experts.

    The order of the logits only changes where two of them are equal, at directions orthogonal to a difference of two
    columns of the kernel; in between, one direction speaks for all.
    """
    experts = kernel.shape[1]
    pairs = [kernel[:, i] - kernel[:, j] for i in range(experts) for j in range(i)]
    borders = np.array([np.arctan2(*pair[::-1]) + side * np.pi / 2 for pair in pairs for side in (-1, 1)])
    borders = np.sort(np.mod(borders, 2 * np.pi))
    borders = np.append(borders, borders[0] + 2 * np.pi)
    probability = np.zeros((experts, experts))
    for start, end in itertools.pairwise(borders):
        middle = (start + end) / 2
        chosen = np.argsort(-(np.array([np.cos(middle), np.sin(middle)]) @ kernel))[:k]
        probability[np.ix_(chosen, chosen)] += (end - start) / (2 * np.pi)
    return probability


DRAWS, SMALLEST, DOUBLINGS = 32, 64, 9  # N = 2^6 ... 2^14
BLOCKS = 2**DOUBLINGS - 1  # 1 + 2 + 4 + ... + 256 blocks of the smallest size: samples of different N share no token


@jax.jit
def counts_of_blocks(keys, kernel):
    """[draws, blocks, E, E]: counts of standard normal tokens, whose direction is uniform."""

    def draw(key):
        tokens = jax.random.normal(key, (BLOCKS, SMALLEST, 2))
        indices = routing.top_experts(jax.nn.softmax(routing.linear_scores(tokens, kernel)), K)[1]
        return jax.vmap(lambda block: routing.coselection_counts(block, E))(indices)

    return jax.lax.map(draw, keys)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_counts_converge_to_the_probability_of_coselection_with_slope_minus_a_half(seed):
    kernel = np.random.default_rng(seed).normal(size=(2, E)).astype(np.float32)
    exact = coselection_probability(kernel.astype(np.float64), K)
    blocks = np.asarray(counts_of_blocks(jax.random.split(jax.random.key(seed), DRAWS), kernel))
    starts = 2 ** np.arange(DOUBLINGS) - 1
    sizes = SMALLEST * 2 ** np.arange(DOUBLINGS)
    shares = np.add.reduceat(blocks, starts, axis=1) / sizes[:, None, None]
    squared = np.sum((shares - exact) ** 2, axis=(-2, -1))  # [draws, sizes]

    # Each entry of N * shares is binomial, so N E|shares - exact|^2 = sum of exact (1 - exact) at every N. A squared
    # error of 32 draws, were it that of one entry alone, would vary by sqrt(2 / 32) = 0.25 of itself, the logarithm of
    # its root by 0.125; ln N has a sum of squares of 60 ln(2)^2 = 28.8 about its mean, hence the slope varies by
    # 0.125 / sqrt(28.8) = 0.023. Three times that are allowed. Over all 288 errors the mean varies by
    # sqrt(2 / 288) = 0.083, and three times that are allowed.
    slope = np.polyfit(np.log(sizes), np.log(squared.mean(axis=0)) / 2, 1)[0]
    assert -0.57 < slope < -0.43
    assert np.mean(squared * sizes) / np.sum(exact * (1 - exact)) == pytest.approx(1.0, abs=0.25)


# Symmetries.


def permuted(images, order):
    return {name: np.take(array, order, axis=TOKEN_AXIS[name]) for name, array in images.items()}


@INFORM
def test_permuting_tokens_permutes_the_routing(step):
    function = compiled_inform(step.name)
    rng = np.random.default_rng(1)
    for seed in range(5):
        images, order = random_images(seed), rng.permutation(N)
        # Sums over tokens are taken in another order: a few roundings of logits below 10, or 1e-5.
        moved, still = function(permuted(images, order)), np.asarray(function(images))
        np.testing.assert_allclose(moved, still[:, order], rtol=1e-4, atol=1e-6)


@INFORM
def test_an_image_is_routed_alone(step):
    function = compiled_inform(step.name)
    images = random_images(1)
    before = np.asarray(function(images))
    for seed in range(2, 20):
        its_own = np.arange(B) == seed % B
        others = random_images(seed, scale=1.0 if seed % 2 else 100.0)
        mixed = {
            name: np.where(its_own.reshape(B, *[1] * (array.ndim - 1)), array, others[name])
            for name, array in images.items()
        }
        after = np.asarray(function(mixed))
        # It is the same program, hence they are the same bits.
        np.testing.assert_array_equal(after[its_own], before[its_own])
        assert not np.allclose(after[~its_own], before[~its_own])


@jax.jit
def everything_between_experts(indices, later, state, r):
    """Arrays over [experts, experts], and informed probabilities [N, E]."""
    counts = routing.coselection_counts(indices, E)
    between = {"counts": counts, "transitions": routing.transition_counts(indices, later, E)}
    for how in ("row", "column", "doubly_stochastic"):
        between[how] = routing.normalize_adjacency(counts, normalization=how)
        between[f"updated by {how}"] = routing.update_adjacency(state, counts, normalization=how)
    between["updated by oja"] = routing.update_adjacency_oja(state, counts)
    return between, (routing.expert_informed(r, state), routing.transition_informed(r, r[::-1], state))


@few_examples
@given(
    st.lists(st.permutations(range(E)), min_size=8, max_size=8),
    grid((E, E), limit=2, step=0.25),
    probabilities((N, E)),
    st.permutations(range(E)),
)
def test_permuting_experts_permutes_the_adjacency_and_what_it_informs(rankings, state, r, names):
    rankings, names = np.array(rankings), np.array(names)  # expert e gets the name names[e]
    indices, later = rankings[:, :K], rankings[:, -K:]
    state = np.maximum(state, 0)  # about half of it zero, now and then a whole row
    renamed_state, renamed_r = np.zeros_like(state), np.zeros_like(r)
    renamed_state[np.ix_(names, names)], renamed_r[:, names] = state, r
    between, informed = everything_between_experts(indices, later, state, r)
    renamed, renamed_informed = everything_between_experts(names[indices], names[later], renamed_state, renamed_r)
    for what in between:
        # 64 rounds of Sinkhorn round a row and a column each; whole counts are exact, the others are rounded once.
        np.testing.assert_allclose(renamed[what][np.ix_(names, names)], between[what], rtol=1e-4, atol=1e-6)
    for before, after in zip(informed, renamed_informed, strict=True):
        np.testing.assert_allclose(after[:, names], before, rtol=1e-5, atol=1e-5)


# The scale of the posterior, by maximum likelihood.


def test_em_finds_the_sigma_of_a_mixture_and_never_lowers_its_likelihood():
    rng, tokens, width, sigma = np.random.default_rng(0), 48, 6, 0.5
    means = rng.normal(size=(1, tokens, width)).astype(np.float32)
    outputs = means[0, rng.integers(tokens, size=tokens)] + sigma * rng.normal(size=(tokens, width)).astype(np.float32)
    even = np.zeros((1, tokens, 2), np.float32)  # queries and keys of a prior without preference
    arrays = [jnp.asarray(array) for array in (even, even, means, outputs)]
    step = jax.jit(lambda variance: jnp.mean(routing.posterior_distances(*arrays, sigma=jnp.sqrt(variance))))

    def log_likelihood(variance):
        distances = ((outputs[:, None] - means) ** 2).sum(-1)
        return np.mean(np.logaddexp.reduce(-distances / (2 * variance), axis=1)) - width / 2 * np.log(variance)

    variances = [9.0]
    for _ in range(12):
        variances.append(float(step(variances[-1])))
    assert np.all(np.diff([log_likelihood(variance) for variance in variances]) > -1e-4)
    np.testing.assert_allclose(variances[-1], sigma**2, rtol=0.2)


# Causal masks.

CAUSAL, EVERYONE = np.tril(np.ones((N, N), bool)), np.ones((N, N), bool)
ATTENTION = ("queries", "keys", "means", "outputs")
MASKED = {
    "similarity-dot": lambda x, mask: routing.similarity_informed(x["probabilities"], x["tokens"], mask=mask),
    "similarity-cosine": lambda x, mask: routing.similarity_informed(
        x["probabilities"], x["tokens"], metric="cosine", mask=mask
    ),
    # The choice of a head (003, Eq. 15) may not look ahead either.
    "attention-lowest-entropy": lambda x, mask: routing.attention_informed(
        x["probabilities"], *(x[name] for name in ATTENTION), sigma=3.0, heads="lowest_entropy", mask=mask
    ),
    "attention-posterior": lambda x, mask: routing.attention_informed(
        x["probabilities"], *(x[name] for name in ATTENTION), sigma=3.0, heads="posterior", mask=mask
    ),
    # Nor may the mean output.
    "attention-centered": lambda x, mask: routing.attention_informed(
        x["probabilities"], *(x[name] for name in ATTENTION), sigma=3.0, center=True, mask=mask
    ),
}


@pytest.mark.parametrize("name", MASKED)
def test_a_causal_mask_lets_no_later_token_change_an_earlier_ones_routing(name):
    function = jax.jit(MASKED[name])
    images = random_images(1)
    before, unmasked = np.asarray(function(images, CAUSAL)), np.asarray(function(images, EVERYONE))
    for first in range(1, N):
        for others in (random_images(2), random_images(3, scale=100.0)):
            replaced = {}
            for key, array in images.items():
                later = np.arange(N) >= first
                later = later.reshape([N if axis == TOKEN_AXIS[key] else 1 for axis in range(array.ndim)])
                replaced[key] = np.where(later, others[key], array)
            after = np.asarray(function(replaced, CAUSAL))
            np.testing.assert_array_equal(after[:, :first], before[:, :first])
            assert not np.allclose(after[:, first:], before[:, first:])
            # Without the mask the same change does reach back.
            assert not np.allclose(function(replaced, EVERYONE)[:, :first], unmasked[:, :first])


# Extremes: never a NaN, in values or gradients.

SIZES = pytest.mark.parametrize(
    ("tokens", "experts"), [(N, E), (1, E), (N, 1)], ids=["usual", "one-token", "one-expert"]
)


def extreme_images(tokens, experts):
    """Ordinary, 1e4 times as large, all tokens identical (at both scales), and all zero: five images of one batch."""

    def kinds(array, axis):
        same = np.broadcast_to(np.take(array, [0], axis=axis), array.shape)
        return np.concatenate([array, 1e4 * array, same, 1e4 * same, 0 * array]).astype(np.float32)

    images = random_images(0, batch=1, tokens=tokens, experts=experts)
    # Equal logits are equal probabilities; logits 1e4 apart are probabilities of exactly 0 and 1.
    return {
        name: softmax(kinds(np.log(array), 1)) if name.endswith("probabilities") else kinds(array, TOKEN_AXIS[name])
        for name, array in images.items()
    }


def finite_with_gradients(function):
    """``function`` of a tree and what is not differentiated, which asserts that values and gradients are finite."""

    @jax.jit
    def both(tree, *fixed):
        def total(tree):
            values = function(tree, *fixed)
            # A different weight for each entry: the sum of a softmax has no gradient of its own.
            weights = lambda leaf: jnp.cos(jnp.arange(leaf.size, dtype=jnp.float32)).reshape(leaf.shape)
            return sum(jnp.sum(leaf * weights(leaf)) for leaf in jax.tree.leaves(values)), values

        return jax.grad(total, has_aux=True)(tree)

    def checked(tree, *fixed):
        gradients, values = both(tree, *fixed)
        assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves((values, gradients)))
        return values

    return checked


@SIZES
@INFORM
def test_inform_steps_at_extremes(step, tokens, experts):
    extreme = {"temperature": 1e-3, "sigma": 1e-3}
    options = {name: extreme.get(name, default) for name, default in step.option_defaults.items()}
    parameters, state = started(step, options, tokens, experts)
    function = finite_with_gradients(lambda tree: informed(step, options, tree[0], state, tree[1]))
    assert np.min(function((parameters, extreme_images(tokens, experts)))) >= 0


@pytest.mark.parametrize(("tokens", "experts"), [(N, E), (1, 1)], ids=["usual", "one-token-one-expert"])
@SCORE
def test_score_steps_at_extremes(step, tokens, experts):
    extreme = {"temperature": 1e-3}
    options = {name: extreme.get(name, default) for name, default in step.option_defaults.items()}
    parameters, state = started(step, options, tokens, experts)
    function = finite_with_gradients(lambda tree, state: score(step, options, tree[0], state, tree[1]))
    late = jax.tree.map(lambda leaf: leaf + 10**6 if is_counter(leaf) else leaf, state)
    for at in (state, late):  # a step may change with what it has counted
        function((parameters, extreme_images(tokens, experts)), at)


def losses_and_statistics(logits, k):
    r = jax.nn.softmax(logits)
    weights, indices = routing.top_experts(r, k)
    margin = routing.topk_margin(r, k)
    adjacency = routing.normalize_adjacency(routing.coselection_counts(indices, r.shape[-1]))
    return {
        "weights": weights,
        "importance": routing.importance_loss(r),
        "load": routing.load_loss(logits, logits + 0.1 * jnp.cos(logits), noise_std=1e-3, k=k),
        "switch": routing.switch_loss(r, indices),
        "gshard": routing.gshard_loss(r),
        "z": routing.router_z_loss(logits),
        "balance": routing.balance_loss(logits, indices),
        "entropy": routing.routing_entropy(r),
        "neighbours": routing.effective_neighbours(jnp.einsum("bne,bme->bnm", r, r)),
        "margin": jnp.where(jnp.isinf(margin), 0.0, margin),  # infinite, by its definition, for K = E
        "load_shares": routing.expert_load(indices, r.shape[-1]),
        "gap": routing.spectral_gap(jax.lax.stop_gradient(adjacency)),
        "fluctuation": routing.fluctuation_rate(indices, indices[:, ::-1]),
    }


@SIZES
def test_losses_and_statistics_at_extremes(tokens, experts):
    noise = np.random.default_rng(0).normal(size=(tokens, experts))
    kinds = [noise, 1e4 * noise, 1e-20 * noise, 0 * noise, 0 * noise + 1e4, np.tile(1e4 * noise[:1], (tokens, 1))]
    function = finite_with_gradients(lambda logits: losses_and_statistics(logits, min(K, experts)))
    values = function(np.stack(kinds).astype(np.float32))
    np.testing.assert_allclose(np.sum(values["load_shares"]), 1.0, rtol=1e-6)
