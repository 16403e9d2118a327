"""Graphs of causal models: segments of rows, and attention to the tokens before with relative keys."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vmoe_inform import routing
from vmoe_inform.routing import steps
from vmoe_inform.routing.contexts import AttentionRecord

B, H, F, D, E = 2, 2, 3, 6, 4


def normal(seed, *shape):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


@pytest.mark.parametrize("block_size", [None, 48])
def test_segments_of_a_causal_graph_give_what_the_whole_graph_gives(block_size):
    """130 tokens are two segments; the first knows nothing of the columns of the second."""
    tokens, probabilities = normal(0, 130, D), jax.nn.softmax(normal(1, 130, E))
    options = {"mask": "causal", "temperature": "sqrt_dim"}

    @jax.jit
    def both(tokens, probabilities):
        def by_rows(tokens):
            return routing.similarity_informed(probabilities, tokens, block_size=block_size, **options)

        def by_graph(tokens):
            return routing.inform(probabilities, routing.token_similarity(tokens, **options))

        return [(f(tokens), jax.grad(lambda t, f=f: jnp.sum(jnp.sin(f(t))))(tokens)) for f in (by_rows, by_graph)]

    chex.assert_trees_all_close(*both(tokens, probabilities), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("num_tokens", "span", "block_size"), [(7, 3, None), (7, 9, 2), (150, 70, 20)])
def test_attention_to_the_tokens_before_with_relative_keys(num_tokens, span, block_size):
    """The prior is the block's own attention, of the P tokens before and their relative keys (by loops, in float64)."""
    N = num_tokens
    queries, keys, values, attended = (normal(seed, B, N, H, F) for seed in range(4))
    kernel, relative, entropies = normal(4, H, F, D), normal(5, span, F), jnp.abs(normal(6, B, N, H))
    record = AttentionRecord(
        queries, keys, values, attended, kernel, jnp.mean(entropies, axis=1), entropies, relative_keys=relative
    )
    probabilities = jax.nn.softmax(normal(7, B, N, E))
    step = steps.INFORM_STEPS["attention"]
    options = {**step.option_defaults, "heads": "prefix", "sigma": 2.0, "block_size": block_size}
    context = steps.StepContext(normal(8, B, N, D), {}, attention=record, mask="causal")
    found = jax.jit(lambda: step.function(probabilities, context, **options))()

    q, k, v, a, o, r, p, e = (
        np.asarray(x, np.float64) for x in (queries, keys, values, attended, kernel, relative, probabilities, entropies)
    )
    for b, i in [(0, 0), (0, 1), (1, N // 2), (1, N - 1)]:
        head = np.argmin(np.sum(e[b, : i + 1], axis=0))
        output = sum(a[b, i, h] @ o[h] for h in range(H))
        before = range(max(0, i - span), i) if i else [0]  # the first attends to itself alone
        logits = []
        for j in before:
            mean = H * v[b, j, head] @ o[head]
            key = k[b, j, head] + (r[i - j - 1] if i else 0)
            logits.append(q[b, i, head] @ key / F**0.5 + (output @ mean - mean @ mean / 2) / 2.0**2)
        weights = np.exp(logits - np.max(logits))
        np.testing.assert_allclose(found[b, i], weights @ p[b, before] / weights.sum(), rtol=2e-4)
