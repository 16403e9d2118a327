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
# What attention looks at decides what these know; what the others keep is the same with every attention.
OF_ATTENTION = tuple(router for router in ROUTERS if router.startswith("attention"))


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


def compiled(model):
    """A pass over all tokens: logits and memory; and one over further tokens: logits and what is kept of all."""

    def whole(variables, tokens, memory):
        logits, aux = model.apply(variables, tokens, memory=memory)
        return logits, aux["memory"]

    def further(variables, kept, tokens):
        (logits, _), kept = model.apply({**variables, **kept}, tokens, mutable=[cache.CACHE])
        return logits, kept

    return jax.jit(whole), jax.jit(further)


def decode(further, variables, tokens, lengths):
    """Logits of a sequence, worked through in pieces of these lengths."""
    logits, kept, first = [], {}, 0
    for length in lengths:
        if first and first % N == 0:
            kept = cache.next_sequence(kept)
        new, kept = further(variables, kept, tokens[:, first : first + length])
        logits.append(new)
        first += length
    return np.concatenate(logits, axis=1)


@pytest.mark.parametrize(
    ("style", "router"),
    [*(("previous", router) for router in ROUTERS), *(("causal", router) for router in ("smoe_top2", *OF_ATTENTION))],
)
def test_one_token_after_the_other_is_a_pass_over_all(style, router):
    """With ``previous`` over two sequences, of which the second has the memory of the first."""
    model, variables = model_of(style, router)
    sequences = 1 if style == "causal" else 2
    whole, further = compiled(model)
    tokens = np.random.default_rng(0).integers(0, V, (2, sequences * N), np.int32)
    memory, expected = None, []
    for number in range(sequences):
        logits, memory = whole(variables, tokens[:, number * N : (number + 1) * N], memory)
        expected.append(logits)
    found = decode(further, variables, tokens, [3, 1, 1, 1] * sequences)
    np.testing.assert_allclose(found, np.concatenate(expected, axis=1), atol=2e-5)
    assert np.std(found) > 0.01


def test_the_cache_is_what_later_tokens_know_of_earlier_ones():
    model, variables = model_of("causal", ROUTERS[2])
    _, further = compiled(model)
    _, kept = further(variables, {}, np.arange(4, dtype=np.int32)[None])
    new = np.full((1, 1), 7, np.int32)
    after, _ = further(variables, kept, new)
    alone, _ = further(variables, {}, new)
    forgotten, _ = further(variables, cache.next_sequence(kept), new)
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
