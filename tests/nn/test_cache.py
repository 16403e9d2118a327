"""A pass over all tokens and one token after the other give the same logits."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import wikitext103, wordnet
from tests import tiny
from vmoe_inform import config as config_lib
from vmoe_inform.nn import cache, models

N, SPAN, V = 6, 4, 30
ROUTERS = (
    "smoe_top2",
    "symphony_xmoe",
    "similarity_smoe_top2@similarity.metric=cosine@similarity.temperature=0.1",
    "similarity_glam@similarity.learned_weight=true",
    "attention_smoe_top1@attention.heads=prefix",
    "attention_smoe_top2@attention.heads=running@attention.sigma=estimated@attention.center=true",
    "attention_xmoe@attention.heads=posterior@attention.normalize=sqrt_dim@attention.center=true",
    "symphony_across_layers_smoe_top2",
    "hash",
    "hash@hash.ids=position",
    "stablemoe",
)


@functools.cache
def model_of(style, router):
    file = wordnet if style == "causal" else wikitext103
    config = file.get_config(f"router={router},size=tiny,experts=4,where=every1").model
    config.num_tokens, config.vocabulary_size = N, V
    config.hidden_size = config.mlp_size = 8
    if style == "previous":
        config.attention_span = SPAN
    model = models.from_config(config)
    variables = tiny.variables(model)
    return model, variables


def decode(model, variables, tokens, lengths):
    """Logits of a sequence, worked through in pieces of these lengths."""
    logits, kept, first = [], {}, 0
    for length in lengths:
        if first and first % N == 0:
            kept = cache.next_sequence(kept)
        (new, _), kept = model.apply({**variables, **kept}, tokens[:, first : first + length], mutable=[cache.CACHE])
        logits.append(new)
        first += length
    return jnp.concatenate(logits, axis=1)


@pytest.mark.parametrize("router", ROUTERS)
@pytest.mark.parametrize("style", ["causal", "previous"])
def test_one_token_after_the_other_is_a_pass_over_all(style, router):
    """With ``previous`` over two sequences, of which the second has the memory of the first."""
    model, variables = model_of(style, router)
    sequences = 1 if style == "causal" else 2
    tokens = jax.random.randint(jax.random.key(0), (2, sequences * N), 0, V)
    memory, expected = None, []
    for number in range(sequences):
        logits, aux = model.apply(variables, tokens[:, number * N : (number + 1) * N], memory=memory)
        expected.append(logits)
        memory = aux["memory"]
    found = decode(model, variables, tokens, [3, 1, 1, 1] * sequences)
    np.testing.assert_allclose(found, jnp.concatenate(expected, axis=1), atol=2e-5)
    assert np.std(found) > 0.01


def test_the_cache_is_what_later_tokens_know_of_earlier_ones():
    model, variables = model_of("causal", ROUTERS[2])
    tokens = jnp.arange(4, dtype=jnp.int32)[None]
    _, kept = model.apply(variables, tokens, mutable=[cache.CACHE])
    new = jnp.full((1, 1), 7, jnp.int32)
    (after, _), _ = model.apply({**variables, **kept}, new, mutable=[cache.CACHE])
    (alone, _), _ = model.apply(variables, new, mutable=[cache.CACHE])
    (forgotten, _), _ = model.apply({**variables, **cache.next_sequence(kept)}, new, mutable=[cache.CACHE])
    assert np.abs(after - alone).max() > 1e-3
    np.testing.assert_array_equal(forgotten, alone)


def test_a_table_of_positions_is_for_one_length():
    model, variables = model_of("previous", "hash@hash.ids=position")
    shorter = models.from_config(dataclasses.replace(model.config, num_tokens=N - 1))
    with pytest.raises(
        ValueError, match=r"state of router step 'hash': expected arrays as float32\[5, 4\]; received '"
    ):
        jax.eval_shape(shorter.apply, variables, jnp.zeros((1, N - 1), jnp.int32))


def test_variables_and_other_passes_have_no_cache():
    model, variables = model_of("causal", ROUTERS[2])
    fresh = jax.eval_shape(lambda: models.initialize(model, jax.random.key(0)))
    assert set(fresh) == set(variables) == {"params"}
    config_lib.parse_model(model.config)
