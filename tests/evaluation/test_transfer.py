"""Few-shot and linear classifiers, by hand and against scikit-learn."""

import tracemalloc

import numpy as np
import pytest
from absl import logging
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression, Ridge

from vmoe_inform.evaluation import transfer
from vmoe_inform.evaluation.transfer import choose_shots, few_shot_logits, linear_logits


@pytest.fixture(scope="module")
def digits():
    """Pixels and labels of 500 digits to learn from and 200 others."""
    bunch = load_digits()
    return bunch.data[:500], bunch.target[:500], bunch.data[500:700], bunch.target[500:700]


def test_two_images_by_hand():
    """Features 0 and 2 are -1 and 1 when standardised. X^T X = 2, X^T Y = (-2, 2), so with r = 2 the weights are
    (-1/2, 1/2); the targets' means are 0. A feature of 3 is 2 when standardised: values (-1, 1)."""
    logits = few_shot_logits(
        np.array([[0.0], [2.0]]), np.array([0, 1]), np.array([[3.0]]), num_classes=2, regularization=2.0
    )
    np.testing.assert_allclose(logits, [[-1.0, 1.0]], atol=1e-4)


@pytest.mark.parametrize("count", [30, 200])
def test_least_squares_is_ridge_regression(digits, count):
    """Fewer images than the 64 features, and more."""
    features, labels, test, _ = digits
    features, labels = features[:count], labels[:count]
    mean, std = features.mean(axis=0), features.std(axis=0) + 1e-5
    expected = Ridge(alpha=10.0).fit((features - mean) / std, 2.0 * np.eye(10)[labels] - 1).predict((test - mean) / std)
    logits = few_shot_logits(features, labels, test, num_classes=10, regularization=10.0)
    np.testing.assert_allclose(logits, expected, rtol=1e-6, atol=1e-6)


def test_few_images_of_digits_go_far(digits):
    """With 10 of each by far, with one less so: a chance is 10 %."""
    features, labels, test, expected = digits
    chosen = choose_shots(lambda index: int(labels[index]), 500, num_classes=10, shots=10, seed=0)
    accuracies = []
    for shots in (1, 10):
        own = chosen[:, :shots].ravel()
        logits = few_shot_logits(features[own], labels[own], test, num_classes=10)
        accuracies.append(np.mean(np.argmax(logits, axis=1) == expected))
    assert accuracies[1] > 0.7
    assert 0.3 < accuracies[0] < accuracies[1]


def test_shots_are_chosen_alike_and_from_as_few_records_as_needed():
    labels, seen = np.arange(10_000) % 5, []

    def label_of(index: int) -> int:
        seen.append(index)
        return int(labels[index])

    first, again, other = (choose_shots(label_of, 10_000, num_classes=5, shots=4, seed=s) for s in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)
    np.testing.assert_array_equal(labels[first], np.repeat(np.arange(5)[:, None], 4, axis=1))
    assert len(np.unique(first)) == 20
    assert len(seen) < 3 * 100
    fewer = choose_shots(label_of, 10_000, num_classes=5, shots=2, seed=0)
    np.testing.assert_array_equal(fewer, first[:, :2])
    with pytest.raises(ValueError, match=r"evaluation.shots: expected at most the 1 training images of class number 2"):
        choose_shots([0, 1, 2, 0, 1].__getitem__, 5, num_classes=3, shots=2, seed=0)


@pytest.mark.parametrize("rows", [10_000, 64])
def test_logistic_regression_is_scikit_learns(digits, monkeypatch, rows):
    """All at once, and in chunks of which the last is filled up. Probabilities to 1 in 1,000."""
    monkeypatch.setattr(transfer, "_CHUNK_SIZE", rows)
    features, labels, test, _ = digits
    logits = linear_logits(features, labels, test, num_classes=10, regularization=10.0)
    mean, std = features.mean(axis=0), features.std(axis=0) + 1e-5
    fitted = LogisticRegression(C=0.1, max_iter=1000, tol=1e-6).fit((features - mean) / std, labels)
    probabilities = np.exp(logits - logits.max(axis=1, keepdims=True))
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(probabilities, fitted.predict_proba((test - mean) / std), atol=1e-3)


def _dense(train, test, labels, rows):
    """The slow reference: everything in float64 at once, then in chunks."""
    train, test = train.astype(np.float64), test.astype(np.float64)
    mean, std = train.mean(axis=0), train.std(axis=0) + 1e-5
    train, test = (train - mean) / std, (test - mean) / std
    padding = -len(train) % rows
    weights = np.full(len(train), 1 / len(train), np.float32)
    return (
        np.pad(train.astype(np.float32), ((0, padding), (0, 0))).reshape(-1, rows, train.shape[1]),
        np.pad(labels.astype(np.int32), (0, padding)).reshape(-1, rows),
        np.pad(weights, (0, padding)).reshape(-1, rows),
        test,
    )


@pytest.mark.parametrize(("count", "width"), [(64, 5), (1000, 16), (130, 512)])
def test_features_are_standardised_in_parts_to_the_same_bits(monkeypatch, count, width):
    monkeypatch.setattr(transfer, "_CHUNK_SIZE", 64)
    random = np.random.default_rng(0)
    train = (random.normal(3.0, 10.0, (count, width)) ** 3).astype(np.float32)
    train[:, 1] = 7.0  # does not vary
    labels, test = random.integers(0, 10, count), random.normal(size=(9, width))
    moments = transfer._moments(train)
    found = *transfer._chunked(train, labels, moments), transfer._standardized(test, moments)
    for ours, expected in zip(found, _dense(train, test, labels, 64), strict=True):
        np.testing.assert_array_equal(ours, expected, strict=True)


def test_training_features_are_never_whole_in_float64(monkeypatch):
    """At the most, their copy in float32 and a few parts of 512 rows."""
    monkeypatch.setattr(transfer, "_CHUNK_SIZE", 512)
    features, labels = np.ones((64 * 512, 32), np.float32), np.zeros(64 * 512, np.int64)
    tracemalloc.start()
    try:
        transfer._chunked(features, labels, transfer._moments(features))
        assert tracemalloc.get_traced_memory()[1] < 1.4 * features.nbytes
    finally:
        tracemalloc.stop()


def test_what_is_not_finished_is_said(digits, monkeypatch):
    said = []
    monkeypatch.setattr(logging, "warning", lambda message, *values: said.append(message % values))
    features, labels, test, _ = digits
    linear_logits(features[:50], labels[:50], test, num_classes=10, max_iterations=2)
    assert len(said) == 1
    assert said[0].endswith("is left after 2 iterations")


def test_bad_regularization(digits):
    features, labels, test, _ = digits
    with pytest.raises(ValueError, match=r"regularization: expected a number > 0 .*; received 0.0"):
        few_shot_logits(features, labels, test, num_classes=10, regularization=0.0)
