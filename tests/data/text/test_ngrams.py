"""N-gram references against a slow twin, and on texts whose perplexity is known."""

import collections
import math

import numpy as np
import pytest

from vmoe_inform.data.text import ngrams

VOCABULARY = 7
BEFORE = 6


def text(length, seed=0):
    """Tokens that depend on the two before them."""
    random = np.random.default_rng(seed)
    table = np.random.default_rng(99).dirichlet(np.full(VOCABULARY, 0.3), (VOCABULARY, VOCABULARY))
    ids = [BEFORE, BEFORE]
    for _ in range(length):
        ids.append(random.choice(VOCABULARY, p=table[ids[-2], ids[-1]]))
    return np.array(ids[2:], np.int32)


def slow(training, targets, inputs, factor):
    """Perplexities with a given factor, counted one token after the other."""
    found = []
    for order in (1, 2, 3):
        padded = [BEFORE] * (order - 1) + training.tolist()
        grams, contexts = collections.Counter(), collections.Counter()
        for end in range(order - 1, len(padded)):
            context = tuple(padded[end - order + 1 : end])
            contexts[context] += 1
            grams[(*context, padded[end])] += 1
        found.append((grams, contexts))

    def probability(context, token):
        lower = probability(context[1:], token) if context else 1 / VOCABULARY
        grams, contexts = found[len(context)]
        k = factor * sum(1 for gram in grams if gram[:-1] == context)
        if k == 0:
            return lower
        return (grams[(*context, token)] + k * lower) / (contexts[context] + k)

    perplexities = []
    for order in (1, 2, 3):
        given = [BEFORE] * (order - 1) + inputs.tolist()
        nats = [
            -math.log(probability(tuple(given[place : place + order - 1]), token))
            for place, token in enumerate(targets.tolist())
        ]
        perplexities.append(math.exp(np.mean(nats)))
    return perplexities


@pytest.mark.parametrize("factor", [0.5, 4.0])
@pytest.mark.parametrize("attacked", [False, True])
def test_it_counts_as_the_slow_twin(monkeypatch, factor, attacked):
    monkeypatch.setattr(ngrams, "_FACTORS", (factor,))
    training, targets = text(400), text(50, seed=1)
    inputs = np.where(np.arange(50) % 9 == 4, 0, targets) if attacked else targets
    found = ngrams.perplexities(
        training, targets, vocabulary_size=VOCABULARY, before=BEFORE, inputs=inputs if attacked else None
    )
    assert tuple(found) == ("unigram", "bigram", "trigram")
    np.testing.assert_allclose(list(found.values()), slow(training, targets, inputs, factor), rtol=1e-9)


def test_a_longer_context_helps_where_tokens_depend_on_two():
    found = ngrams.perplexities(text(5000), text(1000, seed=1), vocabulary_size=VOCABULARY, before=BEFORE)
    assert found["unigram"] > found["bigram"] > 1.5 * found["trigram"]


def test_random_tokens_have_the_perplexity_of_the_vocabulary_whatever_the_context():
    random = np.random.default_rng(0)
    training, targets = random.integers(0, 50, 20_000), random.integers(0, 50, 5_000)
    found = ngrams.perplexities(training, targets, vocabulary_size=50, before=0)
    np.testing.assert_allclose(list(found.values()), 50, rtol=0.02)  # contexts are known to say nothing


def test_a_cycle_is_predicted_from_the_token_before():
    cycle = np.tile(np.arange(5), 2000)
    found = ngrams.perplexities(cycle, cycle[:100], vocabulary_size=5, before=4)
    assert found["unigram"] == pytest.approx(5, rel=1e-3)
    assert found["bigram"] == pytest.approx(1, rel=1e-3)


def test_few_tokens_and_the_largest_vocabulary():
    found = ngrams.perplexities(np.array([2**21 - 1]), np.array([2**21 - 1]), vocabulary_size=2**21, before=2**21 - 1)
    assert all(1 <= value <= 2**21 for value in found.values())


@pytest.mark.parametrize(
    ("length", "number"), [(1, 1), (99, 2), (1000, 20), (100_000, 2000), (5_000_000, 100_000), (20_000_000, 101_000)]
)
def test_a_fiftieth_of_the_text_decides_about_the_pseudo_counts_and_no_more_than_needed(length, number):
    left_out = ngrams._left_out(length)
    assert left_out.shape == (length,)
    assert np.count_nonzero(left_out) == number


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"training": np.zeros(0, int)}, "training: expected at least one token"),
        ({"targets": np.zeros(0, int)}, "targets: expected at least one token"),
        ({"targets": np.array([1, 7, 9])}, "targets: expected token ids of the vocabulary, 0 to 6; received 7"),
        ({"training": np.array([1, -1])}, "training: expected token ids of the vocabulary, 0 to 6; received -1"),
        ({"inputs": np.array([1])}, r"inputs: expected shape \(3,\), one for each target; received \(1,\)"),
        ({"vocabulary_size": 2**21 + 1}, r"vocabulary_size: expected 1 to 2\^21"),
    ],
)
def test_bad_arguments(changes, message):
    arguments = {"training": np.array([1, 2, 3]), "targets": np.array([1, 2, 3]), "vocabulary_size": 7, **changes}
    with pytest.raises(ValueError, match=message):
        ngrams.perplexities(arguments.pop("training"), arguments.pop("targets"), before=0, **arguments)
