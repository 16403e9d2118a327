"""Dropout: exactly its distribution, entries that do not depend on each other, and one mask for both passes."""

import itertools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from vmoe_inform.nn.dropout import Dropout, cuts_of, dropout, dropout_of_experts, kept_by
from vmoe_inform.performance import costs
from vmoe_inform.sharding.mesh import BATCH, make_mesh


def parts_of(rate: float) -> dict[tuple[bool, ...], range]:
    """By which entries of a word are kept: the words, as the cuts divide their range."""
    parts = {(): range(2**32)}
    for cuts in cuts_of(rate):
        parts = {
            (*kept, now): part[cut:] if now else part[:cut]
            for kept, part in parts.items()
            for now, cut in ((False, cuts[kept.count(False)]), (True, cuts[kept.count(False)]))
        }
    return parts


@pytest.mark.parametrize("rate", [0.1, 0.2, 0.25, 0.5, 1e-3, 0.999, 1e-12, 1 - 1e-12])
def test_every_outcome_of_a_word_has_the_probability_of_independent_entries(rate):
    """All 2^32 words are counted: this is the distribution, not a sample of it."""
    parts = parts_of(rate)
    assert sum(map(len, parts.values())) == 2**32
    for kept, part in parts.items():
        expected = rate ** kept.count(False) * (1 - rate) ** kept.count(True)
        assert abs(len(part) / 2**32 - expected) <= 4 / 2**32, kept


@pytest.mark.parametrize("rate", [0.1, 0.2])
def test_words_are_read_as_their_range_is_divided(rate):
    """The first and the last word of each of the 16 parts."""
    edges = [(kept, word) for kept, part in parts_of(rate).items() for word in (part[0], part[-1])]
    read = jax.jit(kept_by, static_argnums=1)(np.asarray([word for _, word in edges], np.uint32), rate)
    np.testing.assert_array_equal(np.stack(read, axis=-1), [kept for kept, _ in edges])


ROWS, WIDTH = 2048, 22  # the last word of a row has entries to spare


def test_mean_variance_and_correlations_of_a_sample():
    rate = 0.2
    ones = np.asarray(jax.jit(dropout, static_argnums=2)(jax.random.key(0), jnp.ones((ROWS, WIDTH)), rate))
    np.testing.assert_allclose(np.unique(ones), [0.0, 1 / (1 - rate)], rtol=1e-6)
    variance, count = rate / (1 - rate), ones.size
    assert abs(ones.mean() - 1) < 4 * (variance / count) ** 0.5
    assert ones.var() == pytest.approx(variance, rel=0.04)
    # Entries of a word lie 6 apart; neighbours are of other words, and so are rows.
    normed = (ones - 1) / variance**0.5
    pairs = [normed[:, i] * normed[:, j] for i, j in itertools.combinations(range(WIDTH), 2)]
    below = [normed[1:, i] * normed[:-1, i] for i in range(WIDTH)]
    scores = np.asarray([np.mean(products) * len(products) ** 0.5 for products in (*pairs, *below)])
    assert np.abs(scores).max() < 4.5  # of 253 standard normal numbers
    assert scores.std() == pytest.approx(1, abs=0.2)


def test_the_gradient_has_the_mask_of_the_outputs():
    @jax.jit
    def both(key, array):
        outputs, pull_back = jax.vjp(lambda array: dropout(key, array, 0.5), array)
        return outputs, pull_back(array)[0]

    outputs, gradients = both(jax.random.key(1), np.ones((3, 5, 7), np.float32))
    assert 0.3 < np.mean(np.asarray(outputs) == 0) < 0.7
    np.testing.assert_array_equal(gradients, outputs)


def test_bits_are_the_same_on_eight_devices_which_exchange_nothing():
    array = jnp.ones((8, 6, 24))
    apply = jax.jit(lambda key, array: dropout(key, array, 0.2))
    alone = apply(jax.random.key(3), array)
    spread = jax.device_put(array, NamedSharding(make_mesh(4, 2), PartitionSpec(*BATCH)))
    program = apply.lower(jax.random.key(3), spread).compile()
    np.testing.assert_array_equal(program(jax.random.key(3), spread), alone)
    assert costs.of(program).collectives == {}


def test_one_mask_serves_all_experts_on_any_mesh():
    apply = jax.jit(lambda rows: dropout_of_experts(jax.random.key(0), rows, 0.2))
    rows = jnp.ones((4, 2, 300, 24))
    kept = np.asarray(apply(rows))
    np.testing.assert_array_equal(kept, np.broadcast_to(kept[:1], kept.shape))
    np.testing.assert_array_equal(kept[0], dropout(jax.random.key(0), rows[0], 0.2))
    with jax.set_mesh(make_mesh(2, 4)):
        np.testing.assert_array_equal(jax.jit(apply.__wrapped__)(rows), kept)
    np.testing.assert_array_equal(jax.grad(lambda rows: jnp.sum(apply(rows)))(rows), kept)


def test_whole_sequences_and_evaluation():
    inputs = np.ones((64, 2, 3), np.float32)
    apply = jax.jit(lambda key: Dropout(0.25, whole=True).apply({}, inputs, train=True, rngs={"dropout": key}))
    whole = apply(jax.random.key(0))
    assert {tuple(np.unique(sequence)) for sequence in np.asarray(whole)} == {(0.0,), (np.float32(4 / 3),)}
    chex.assert_trees_all_equal(Dropout(0.25).apply({}, inputs, train=False), inputs)
    chex.assert_trees_all_equal(Dropout(0.0).apply({}, inputs, train=True), inputs)  # and needs no stream
