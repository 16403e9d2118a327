"""Every public function of routing against the loops of slow.py: values, gradients, batch axes, jit, bfloat16."""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vmoe_inform import routing

from . import slow

N, D, H, F, E, K, WIDTH = 5, 4, 2, 3, 4, 2, 3


def normal(*shape):
    return lambda rng, batch: rng.normal(size=(*batch, *shape))


def distribution(*shape):
    return lambda rng, batch: rng.dirichlet(np.ones(shape[-1]), size=(*batch, *shape[:-1]))


def rectified(*shape):
    """Normal numbers, those below 0 as 0."""
    return lambda rng, batch: np.maximum(rng.normal(size=(*batch, *shape)), 0.0)


def slow_first(probabilities, bias):
    """The expert of the largest biased probability, whose weight is the probability."""
    indices = np.argmax(probabilities + bias, axis=-1)[:, None]
    return np.take_along_axis(probabilities, indices, axis=-1), indices


def chosen(rng, batch):
    return np.argsort(rng.random((*batch, N, E)), axis=-1)[..., :K]


@dataclasses.dataclass(frozen=True)
class Argument:
    """How to make a random array, and whether each member of the batch has its own."""

    make: Callable
    batched: bool = True


def shared(make):
    return Argument(make, batched=False)


@dataclasses.dataclass(frozen=True)
class Case:
    """A function, random arguments for it, its reference, and the arguments that gradients flow to.

    ``whole`` references take the batch at once, because the function sums over it.
    """

    name: str
    arguments: tuple
    fast: Callable
    reference: Callable
    differentiable: tuple[int, ...] = ()
    whole: bool = False
    label: str = ""

    def make(self, batch, seed=0):
        rng = np.random.default_rng(seed)
        made = []
        for argument in self.arguments:
            argument = argument if isinstance(argument, Argument) else Argument(argument)
            array = np.asarray(argument.make(rng, batch if argument.batched else ()))
            made.append((array.astype(np.float32) if array.dtype == np.float64 else array, argument.batched))
        return made

    def slow(self, made, batch):
        arrays = [a.astype(np.float64) if a.dtype == np.float32 else a for a, _ in made]
        if self.whole:
            return self.reference(*arrays)
        results = [
            self.reference(*(a[at] if batched else a for a, (_, batched) in zip(arrays, made, strict=True)))
            for at in np.ndindex(*batch)
        ]
        if isinstance(results[0], tuple):
            return tuple(np.reshape(part, (*batch, *np.shape(part[0]))) for part in zip(*results, strict=True))
        return np.reshape(results, (*batch, *np.shape(results[0])))


GRAPH = (distribution(H, N, N), normal(H, N, D), normal(N, D))
ATTENTION = (distribution(N, E), normal(H, N, F), normal(H, N, F), normal(H, N, D), normal(N, D))
CASES = [
    Case(
        "linear_scores",
        (normal(N, D), shared(normal(D, E)), shared(normal(E))),
        routing.linear_scores,
        slow.linear_scores,
        (0, 1, 2),
    ),
    Case(
        "cosine_scores",
        (normal(N, D), shared(normal(D, WIDTH)), shared(normal(E, WIDTH)), shared(lambda rng, _: np.float32(0.3))),
        routing.cosine_scores,
        slow.cosine_scores,
        (0, 1, 2, 3),
    ),
    *(
        Case(
            "token_similarity",
            (normal(N, D), shared(normal(D, D))),
            lambda u, w, t=t, m=m: routing.token_similarity(u, weight=w, temperature=t, metric=m),
            lambda u, w, t=t, m=m: slow.token_similarity(u, w, 2.0 if t == "sqrt_dim" else t, m),  # sqrt(D) = 2
            (0, 1),
            label=f"{m}-{t}",
        )
        for m in ("dot", "cosine")
        for t in (0.5, "sqrt_dim")
    ),
    Case(
        "token_similarity",
        (normal(N, D), lambda rng, batch: rng.random((*batch, N, N)) < 0.4),
        lambda u, mask: routing.token_similarity(u, mask=mask),
        lambda u, mask: slow.token_similarity(u, np.eye(D), mask=mask),
        (0,),
        label="mask",
    ),
    *(
        Case(
            name,
            GRAPH,
            lambda a, m, u, name=name, options=options: getattr(routing, name)(a, m, u, **options),
            lambda a, m, u, name=name, options=options: getattr(slow, name)(a, m, u, **options),
            (0, 1, 2),
            label="-".join(map(str, options.values())),
        )
        for name, options in (
            ("attention_posterior", {"sigma": 1.5}),
            ("head_posterior", {"sigma": "sqrt_dim"}),
            ("head_posterior", {"sigma": 0.5, "normalize": "unit", "center": True}),
        )
    ),
    Case("lowest_entropy_head", GRAPH[:1], routing.lowest_entropy_head, slow.lowest_entropy_head),
    Case("inform", (distribution(N, E), distribution(N, N)), routing.inform, slow.inform, (0, 1)),
    Case(
        "similarity_informed",
        (distribution(N, E), normal(N, D), shared(normal(D, D))),
        lambda r, u, w: routing.similarity_informed(r, u, weight=w, temperature=0.5),
        lambda r, u, w: slow.inform(r, slow.token_similarity(u, w, 0.5)),
        (0, 1, 2),
    ),
    *(
        Case(
            "attention_informed",
            ATTENTION,
            lambda *a, heads=heads: routing.attention_informed(*a, sigma=1.5, heads=heads),
            lambda *a, heads=heads: slow.attention_informed(*a, 1.5, heads),
            (0, 1, 2, 3, 4),
            label=heads,
        )
        for heads in ("lowest_entropy", "posterior")
    ),
    *(
        Case(
            "attention_informed",
            (*ATTENTION, lambda rng, batch: rng.random((*batch, N, N)) < 0.4),
            lambda *a, options=options: routing.attention_informed(*a[:-1], sigma=1.5, mask=a[-1], **options),
            lambda *a, options=options: slow.attention_informed(*a[:-1], 1.5, mask=a[-1], **options),
            (0, 1, 2, 3, 4),
            label=f"{'-'.join(map(str, options.values()))}-mask",
        )
        for options in (
            {"heads": "lowest_entropy"},
            {"heads": "posterior"},
            {"heads": "posterior", "normalize": "sqrt_dim", "center": True},
        )
    ),
    Case(
        "posterior_distances",
        (*ATTENTION[1:], lambda rng, batch: rng.random((*batch, N, N)) < 0.4),
        lambda *a: routing.posterior_distances(*a[:-1], sigma="sqrt_dim", normalize="sqrt_dim", mask=a[-1]),
        lambda *a: slow.posterior_distances(*a[:-1], "sqrt_dim", mask=a[-1], normalize="sqrt_dim"),
        (0, 1, 2, 3),
    ),
    *(
        Case(
            "coselection_counts",
            (chosen,),
            lambda i, d=d: routing.coselection_counts(i, E, diagonal=d),
            lambda i, d=d: slow.coselection_counts(i, E, d),
            whole=True,
            label=f"diagonal-{d}",
        )
        for d in (True, False)
    ),
    Case(
        "normalize_adjacency",
        (shared(lambda rng, _: rng.poisson(0.7, (E, E)).astype(np.float32)),),
        routing.normalize_adjacency,
        slow.normalize_rows,
        whole=True,
        label="row",
    ),
    Case(
        "normalize_adjacency",
        (shared(lambda rng, _: rng.poisson(0.7, (E, E)).astype(np.float32)),),
        lambda counts: routing.normalize_adjacency(counts, normalization="column"),
        lambda counts: slow.normalize_rows(counts.T).T,
        whole=True,
        label="column",
    ),
    Case(
        "update_adjacency",
        (shared(distribution(E, E)), shared(lambda rng, _: rng.poisson(2.0, (E, E)).astype(np.float32))),
        lambda a, c: routing.update_adjacency(a, c, decay=0.7),
        lambda a, c: 0.7 * a + 0.3 * slow.normalize_rows(c),
        whole=True,
    ),
    Case(
        "expert_informed",
        (distribution(N, E), shared(lambda rng, _: rng.random((E, E)) * np.array([[1.0], [0], [1], [1]]))),
        routing.expert_informed,
        slow.expert_informed,
        (0,),
    ),
    Case(
        "update_adjacency_oja",
        (
            shared(distribution(E, E)),
            # Counts of E experts that go with each other, the last of which nobody chooses.
            shared(
                lambda rng, _: np.pad(c := rng.poisson(2.0, (E - 1, E - 1)).astype(float), (0, 1)) + np.pad(c.T, (0, 1))
            ),
        ),
        lambda a, c: routing.update_adjacency_oja(a, c, decay=0.7),
        lambda a, c: slow.update_oja(a, c, 0.7),
        whole=True,
    ),
    Case(
        "transition_counts",
        (chosen, chosen),
        lambda b, a: routing.transition_counts(b, a, E),
        lambda b, a: slow.transition_counts(b, a, E),
        whole=True,
    ),
    Case(
        "transition_informed",
        (distribution(N, E), distribution(N, E), shared(lambda rng, _: rng.random((E, E)) / E)),
        lambda p, q, a: routing.transition_informed(p, q, a, share=0.4),
        lambda p, q, a: slow.transition_informed(p, q, a, 0.4),
        (0, 1),
    ),
    Case(
        "soft_slot_scores",
        (normal(N, D), shared(normal(E, 2, D)), shared(lambda rng, _: np.float32(1.7))),
        routing.soft_slot_scores,
        slow.soft_slot_scores,
        (0, 1, 2),
    ),
    Case(
        "cluster_weights",
        (shared(lambda rng, _: rng.random((E, D)) + 0.1),),
        lambda s: routing.cluster_weights(s, limit=1.5),
        lambda s: slow.cluster_weights(s, 1.5),
        whole=True,
    ),
    Case(
        "eigenbasis_scores",
        (normal(N, D), shared(normal(D, WIDTH)), *(shared(normal(*shape)) for shape in ((WIDTH,), (E, WIDTH), (E,)))),
        lambda *given: routing.eigenbasis_scores(*given, temperature=0.7),
        lambda *given: slow.eigenbasis_scores(*given, 0.7),
        (0, 1, 2, 3, 4),
    ),
    Case(
        "orthonormal_basis",
        (normal(D, WIDTH),),
        routing.orthonormal_basis,
        lambda basis: (q := np.linalg.qr(basis))[0] * np.sign(np.diagonal(q[1])),
        (0,),
    ),
    Case(
        "light_scores",
        (normal(N, 6), shared(normal(6, WIDTH)), shared(normal(N, WIDTH)), shared(normal(E, WIDTH))),
        routing.light_scores,
        slow.light_scores,
        (0, 1, 2, 3),
    ),
    Case(
        "hash_scores",
        (shared(chosen),),
        lambda table: routing.hash_scores(table, E),
        lambda table: np.array([[0.0 if e in row else -1e4 for e in range(E)] for row in table]),
        whole=True,
    ),
    *(
        Case(
            "expert_choice",
            (distribution(N, E),),
            lambda p, c=c: routing.expert_choice(p, c),
            lambda p, c=c: slow.expert_choice(p, c),
            (0,),
            label=str(c),
        )
        for c in (1, 3, N)
    ),
    Case("balance_loss", (normal(N, E), chosen), routing.balance_loss, slow.balance_loss, (0,)),
    *(
        Case(
            "top_experts",
            (distribution(N, E),),
            lambda p, k=k, r=r: routing.top_experts(p, k, renormalize=r),
            lambda p, k=k, r=r: slow.top_experts(p, k, r == "one" or (r and k > 1)),
            (0,),
            label=f"{k}-{r}",
        )
        for k, r in ((1, True), (1, "one"), (3, True), (3, False), (E, True))
    ),
    *(
        Case(
            "biased_top_experts",
            (distribution(N, E), shared(normal(E))),
            lambda p, b, k=k: routing.biased_top_experts(p, b, k),
            lambda p, b, k=k: slow.biased_top_experts(p, b, k) if k > 1 else slow_first(p, b),
            (0,),
            label=str(k),
        )
        for k in (1, K)
    ),
    Case(
        "balanced_bias",
        (shared(normal(E)), shared(lambda rng, _: rng.poisson(2.0, E).astype(np.float32))),
        lambda b, c: routing.balanced_bias(b, c, rate=0.1),
        lambda b, c: b + np.array([0.1 * np.sign(c.mean() - one) for one in c]),
        whole=True,
    ),
    # No difference quotient where an expert comes in.
    *(
        case
        for arguments, differentiable, label in (((rectified(N, E),), (), "zeros"), ((distribution(N, E),), (0,), ""))
        for case in (
            Case(
                "positive_experts",
                arguments,
                lambda p: routing.positive_experts(p, K),
                lambda p: slow.positive_experts(p, K),
                differentiable,
                label=label,
            ),
            Case(
                "sparsity_loss",
                arguments,
                lambda p: routing.sparsity_loss(p, k=K),
                lambda p: slow.sparsity_loss(p, K),
                differentiable,
                label=label,
            ),
        )
    ),
    Case(
        "adapted_coefficient",
        (shared(lambda rng, _: np.float32(3.0)), *(shared(lambda rng, _: np.float32(rng.poisson(9))) for _ in "ab")),
        lambda c, n, w: routing.adapted_coefficient(c, n, w, multiplier=1.2),
        lambda c, n, w: c * 1.2 ** ((n > w) * 1.0 - (n < w)),
        whole=True,
    ),
    Case(
        "importance_loss",
        (distribution(N, E),),
        routing.importance_loss,
        lambda p: slow.squared_variation(p.sum(0)),
        (0,),
    ),
    Case(
        "load_loss",
        (normal(N, E), normal(N, E)),
        lambda clean, noisy: routing.load_loss(clean, noisy, noise_std=0.8, k=K),
        lambda clean, noisy: slow.load_loss(clean, noisy, 0.8, K),
        (0, 1),
    ),
    Case("switch_loss", (distribution(N, E), chosen), routing.switch_loss, slow.switch_loss, (0,)),
    Case("gshard_loss", (distribution(N, E),), routing.gshard_loss, slow.gshard_loss, (0,)),
    Case(
        "orthogonality_loss",
        (normal(D, E),),
        routing.orthogonality_loss,
        lambda w: sum(abs(w[:, e] @ w[:, f] - (e == f)) for e in range(E) for f in range(E)),
        (0,),
    ),
    Case("router_z_loss", (normal(N, E),), routing.router_z_loss, slow.router_z_loss, (0,)),
    Case(
        "routing_entropy",
        (lambda rng, batch: rng.random((*batch, N, E)),),
        routing.routing_entropy,
        lambda p: np.array([slow.entropy(row) for row in p]),
        (0,),
    ),
    Case(
        "effective_neighbours",
        (distribution(N, N),),
        routing.effective_neighbours,
        lambda g: np.array([np.exp(slow.entropy(row)) for row in g]),
        (0,),
    ),
    Case("fluctuation_rate", (chosen, chosen), routing.fluctuation_rate, slow.fluctuation_rate, whole=True),
    Case(
        "collapsed_sequences",
        (lambda rng, batch: rng.integers(0, 2, (*batch, 2, K)),),
        routing.collapsed_sequences,
        lambda i: np.array(len(set(i[:, 0].tolist())) == 1),
    ),
    Case(
        "expert_load",
        (chosen,),
        lambda i: routing.expert_load(i, E),
        lambda i: np.array([np.mean(i == e) for e in range(E)]),
        whole=True,
    ),
    Case(
        "topk_margin",
        (distribution(N, E),),
        lambda p: routing.topk_margin(p, K),
        lambda p: slow.topk_margin(p, K),
        (0,),
    ),
    Case("difference_norm", (shared(distribution(E, E)),), routing.difference_norm, slow.difference_norm, whole=True),
    *(
        Case(
            name,
            (distribution(N, E), shared(distribution(E, E))),
            lambda p, a, function=function: function(p, a, K),
            lambda p, a, column=column: slow.radii(p, a, K)[:, column],
        )
        for column, (name, function) in enumerate(
            {"margin_radius": routing.margin_radius, "pairwise_radius": routing.pairwise_radius}.items()
        )
    ),
    Case(
        "spectral_gap",
        (shared(distribution(E, E)),),
        routing.spectral_gap,
        lambda a: 1.0 - sorted(abs(np.linalg.eigvals(a)))[-2],
        whole=True,
    ),
]
CASE = pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.name}-{case.label}".rstrip("-"))


def test_every_public_function_has_a_case():
    # Random, and judged by scipy: test_scores.py, test_assignment.py.
    elsewhere = {"balanced_table", "balanced_assignment"}
    assert {case.name for case in CASES} == set(routing.__all__) - elsewhere


def _assert_close(fast, reference, tolerance=2e-5):
    for got, wanted in zip(jax.tree.leaves(fast), jax.tree.leaves(reference), strict=True):
        assert got.shape == np.shape(wanted)
        np.testing.assert_allclose(got, wanted, rtol=tolerance, atol=tolerance)


@CASE
def test_equals_the_reference(case):
    made = case.make(())
    result = case.fast(*(jnp.asarray(array) for array, _ in made))
    assert all(leaf.dtype in (jnp.float32, jnp.int32, jnp.bool_) for leaf in jax.tree.leaves(result))
    _assert_close(result, case.slow(made, ()))


def _rounded(array):
    """What bfloat16 leaves of a float32 array; learned scalars stay float32."""
    return array.astype(jnp.bfloat16) if array.dtype == jnp.float32 and array.ndim else array


@CASE
def test_equals_the_reference_under_jit_for_more_batch_axes_and_from_bfloat16(case):
    batch = (2, 1, 3)
    made = case.make(batch, seed=1)
    arrays = [array for array, _ in made]
    exact, rounded = jax.jit(lambda *a: (case.fast(*a), case.fast(*map(_rounded, a))))(*arrays)
    _assert_close(exact, case.slow(made, batch))
    # The arithmetic is float32 also where what comes in is not.
    assert all(leaf.dtype in (jnp.float32, jnp.int32, jnp.bool_) for leaf in jax.tree.leaves(rounded))
    doubles = [(np.asarray(_rounded(jnp.asarray(array))), batched) for array, batched in made]
    doubles = [(a.astype(np.float32) if a.dtype == jnp.bfloat16 else a, batched) for a, batched in doubles]
    _assert_close(rounded, case.slow(doubles, batch))


@pytest.mark.parametrize(
    "case",
    [case for case in CASES if case.differentiable],
    ids=lambda case: f"{case.name}-{case.label}".rstrip("-"),
)
def test_gradients_equal_finite_differences_of_the_reference(case):
    arrays = [array for array, _ in case.make((), seed=2)]
    doubles = [a.astype(np.float64) if a.dtype == np.float32 else a for a in arrays]
    first = lambda result: result[0] if isinstance(result, tuple) else result
    cotangent = np.random.default_rng(3).normal(size=np.shape(first(case.reference(*doubles))))
    weighted = lambda *a: jnp.sum(jnp.asarray(cotangent, jnp.float32) * first(case.fast(*a)))
    gradients = jax.jit(jax.grad(weighted, argnums=case.differentiable))(*arrays)
    for which, fast in zip(case.differentiable, gradients, strict=True):
        wanted = slow.gradient(lambda *a: first(case.reference(*a)), doubles, which, cotangent)
        np.testing.assert_allclose(fast, wanted, rtol=2e-4, atol=2e-4 * max(1.0, np.abs(wanted).max()))
