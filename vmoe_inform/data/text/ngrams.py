"""Perplexity of n-gram models: what a language model has to beat, counted in seconds.

Add-k smoothing with interpolation: an order adds k pseudo-counts for each distinct token that follows the context. They
are distributed as the order below predicts. With k = 1 that is Witten and Bell's estimate (doi 10.1109/18.87000). With
c the counts in T training tokens and n(v) the number of distinct tokens after v,

    p(w | v) = (c(v w) + k n(v) p(w)) / (c(v) + k n(v))

and p(w | u v) likewise; below p(w) is the uniform distribution. Each k is the power of 2 that predicts blocks of the
training text best, which are left out of the counts for it. Lower orders come first.
"""

import dataclasses

import numpy as np
from jaxtyping import Bool, Float, Int

from vmoe_inform import checks

NAMES = ("unigram", "bigram", "trigram")
_FACTORS = tuple(2.0**power for power in range(-6, 7))
_BLOCK = 1000  # tokens of a block of training text
_BLOCKS = 50  # one of which, or of more, is left out
_MOST_LEFT_OUT = 100  # blocks, evenly spread


def perplexities(
    training: Int[np.ndarray, " T"],
    targets: Int[np.ndarray, " n"],
    *,
    vocabulary_size: int,
    before: int,
    inputs: Int[np.ndarray, " n"] | None = None,
) -> dict[str, float]:
    """Perplexity per token of n-gram models, which predict a token from none, one and two before it.

    Args:
      training: tokens to count.
      targets: tokens to predict; each counts, the first too.
      vocabulary_size: V, at most 2^21.
      before: token that stands before the first of either: the end of a line.
      inputs: tokens to predict from in place of ``targets``, where some were attacked.

    Returns:
      by name of the model, see :data:`NAMES`.

    Raises:
      ValueError: no tokens, ids of another vocabulary, or other inputs than targets.
    """
    given = targets if inputs is None else inputs
    if given.shape != targets.shape:
        raise checks.error("inputs", f"shape {targets.shape}, one for each target", given.shape)
    if not 1 <= vocabulary_size <= 2**21:  # the number of a trigram is an int64
        raise checks.error("vocabulary_size", "1 to 2^21 for counts of trigrams", vocabulary_size)
    for name, ids in (("training", training), ("targets", targets), ("inputs", given)):
        _check(name, ids, vocabulary_size)
    left_out = _left_out(len(training))
    lower_left_out = np.full(np.count_nonzero(left_out), 1 / vocabulary_size)
    lower = np.full(len(targets), 1 / vocabulary_size)
    found = {}
    for order, name in enumerate(NAMES, 1):
        text = _numbers(training, training, order, vocabulary_size, before)
        counts = _count(text[~left_out], text[left_out], vocabulary_size)
        factor = min(_FACTORS, key=lambda k: _perplexity(counts.probabilities(lower_left_out, k)))
        lower_left_out = counts.probabilities(lower_left_out, factor)
        asked = _numbers(given, targets, order, vocabulary_size, before)
        lower = _count(text, asked, vocabulary_size).probabilities(lower, factor)
        found[name] = _perplexity(lower)
    return found


@dataclasses.dataclass(frozen=True, eq=False)
class _Counts:
    """What was counted of some n-grams.

    Attributes:
      ngrams: occurrences of each n-gram.
      contexts: occurrences of its tokens before the last.
      followers: distinct tokens after those.
    """

    ngrams: Int[np.ndarray, " n"]
    contexts: Int[np.ndarray, " n"]
    followers: Int[np.ndarray, " n"]

    def probabilities(self, lower: Float[np.ndarray, " n"], factor: float) -> Float[np.ndarray, " n"]:
        """Of the last token of each n-gram given those before.

        Args:
          lower: what the order below predicts.
          factor: k, pseudo-counts for each distinct follower.
        """
        pseudo_counts = np.maximum(factor * self.followers, 1e-9)  # after an unseen context, the order below decides
        return (self.ngrams + pseudo_counts * lower) / (self.contexts + pseudo_counts)


def _left_out(length: int) -> Bool[np.ndarray, " T"]:
    """Which tokens of the training text are left out to choose k."""
    block = min(_BLOCK, max(1, length // (2 * _BLOCKS)))
    blocks = np.arange(length) // block
    return blocks % max(_BLOCKS, int(blocks[-1]) // _MOST_LEFT_OUT) == 0


def _check(name: str, ids: Int[np.ndarray, " n"], vocabulary_size: int) -> None:
    if len(ids) == 0:
        raise checks.error(name, "at least one token", checks.NOTHING)
    if ids.min() < 0 or ids.max() >= vocabulary_size:
        wrong = ids[(ids < 0) | (ids >= vocabulary_size)][0]
        raise checks.error(name, f"token ids of the vocabulary, 0 to {vocabulary_size - 1}", int(wrong))


def _numbers(
    inputs: Int[np.ndarray, " n"], targets: Int[np.ndarray, " n"], order: int, vocabulary_size: int, before: int
) -> Int[np.ndarray, " n"]:
    """A number for the n-gram that ends with each target; those of equal tokens before the last are neighbours."""
    numbers = targets.astype(np.int64)
    for back in range(1, order):
        numbers[:back] += before * vocabulary_size**back
        numbers[back:] += inputs[: len(numbers) - back].astype(np.int64) * vocabulary_size**back
    return numbers


def _count(text: Int[np.ndarray, " T"], asked: Int[np.ndarray, " n"], vocabulary_size: int) -> _Counts:
    """Counts the n-grams of ``asked`` in those of ``text``, which are sorted in place."""
    text.sort()
    context = asked - asked % vocabulary_size
    ngrams, contexts = _between(text, asked, asked + 1), _between(text, context, context + vocabulary_size)
    distinct = text[np.diff(text, prepend=-1) != 0]
    return _Counts(ngrams, contexts, _between(distinct, context, context + vocabulary_size))


def _between(
    ascending: Int[np.ndarray, " T"], first: Int[np.ndarray, " n"], end: Int[np.ndarray, " n"]
) -> Int[np.ndarray, " n"]:
    """How many of the numbers are at least ``first`` and below ``end``."""
    return np.searchsorted(ascending, end) - np.searchsorted(ascending, first)


def _perplexity(probabilities: Float[np.ndarray, " n"]) -> float:
    return float(np.exp(-np.mean(np.log(probabilities))))
