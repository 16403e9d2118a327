"""Linear classifiers of frozen features: from a few images a class, and from all of them.

Pure functions of features and labels, which know no model.
"""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import optax
import scipy.optimize
from absl import logging
from jaxtyping import Float, Int

from vmoe_inform import checks
from vmoe_inform.axes import Array

_SMALLEST_STD = 1e-5  # added, lest a feature that does not vary is divided by 0
_CHUNK_SIZE = 8192  # rows whose logits are in memory at a time


def choose_shots(
    label_of: Callable[[int], int], num_records: int, *, num_classes: int, shots: int, seed: int
) -> Int[np.ndarray, "classes shots"]:
    """Numbers of the records that few-shot classifiers learn from: the first of each class in a random order.

    Records are looked at in that order until every class has enough, which of a large data set is a small part. The
    first k columns are the choice for k shots.

    Args:
      label_of: number of a record -> its label, 0 to ``num_classes`` - 1.
      num_records: of the data set.
      num_classes: which all need to be there.
      shots: records of each class.
      seed: of the order; the same seed chooses the same.

    Raises:
      ValueError: a class with fewer records.
    """
    chosen: list[list[int]] = [[] for _ in range(num_classes)]
    missing = num_classes * shots
    for index in np.random.default_rng(seed).permutation(num_records):
        if not missing:
            break
        of_class = chosen[label_of(int(index))]
        if len(of_class) < shots:
            of_class.append(int(index))
            missing -= 1
    if missing:
        label = min(range(num_classes), key=lambda label: len(chosen[label]))
        raise checks.error(
            "evaluation.shots", f"at most the {len(chosen[label])} training images of class number {label}", shots
        )
    return np.array(chosen)


def few_shot_logits(
    train_features: Float[np.ndarray, "n F"],
    train_labels: Int[np.ndarray, " n"],
    test_features: Float[np.ndarray, "m F"],
    *,
    num_classes: int,
    regularization: float = 1024.0,
) -> Float[np.ndarray, "m classes"]:
    """Regularised least squares from standardised features to targets 1 for the class and -1 for the others.

    ViT (arXiv 2010.11929, Sec. 4.1) and V-MoE (arXiv 2106.05974, Sec. 3.2) evaluate representations this way. It is the
    minimum over W and b of |X W + b - Y|^2 + r |W|^2 in closed form. X is centred, so that b is the mean of Y. W solves
    (X^T X + r I) W = X^T Y. Where features outnumber images, it is X^T (X X^T + r I)^-1 Y.

    Args:
      train_features, train_labels: to learn from.
      test_features: to classify.
      num_classes: of the labels.
      regularization: r, > 0. Others try several and keep the best on the test images; here it is fixed.

    Returns:
      values of the linear function, float64. Their order means something, their softmax does not.

    Raises:
      ValueError: r not > 0.
    """
    checks.positive("regularization", regularization)
    train, test = _standardized(train_features, test_features)
    targets = 2.0 * np.eye(num_classes)[train_labels] - 1.0
    count, width = train.shape
    if count < width:
        weights = train.T @ np.linalg.solve(train @ train.T + regularization * np.eye(count), _centred(targets))
    else:
        weights = np.linalg.solve(train.T @ train + regularization * np.eye(width), train.T @ targets)
    return test @ weights + targets.mean(axis=0)


def _centred(values: np.ndarray) -> np.ndarray:
    return values - values.mean(axis=0)


def _standardized(train: np.ndarray, test: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both in float64 and units of the training features' standard deviation, from their mean."""
    train, test = train.astype(np.float64), test.astype(np.float64)
    mean, std = train.mean(axis=0), train.std(axis=0) + _SMALLEST_STD
    return (train - mean) / std, (test - mean) / std


def linear_logits(
    train_features: Float[np.ndarray, "n F"],
    train_labels: Int[np.ndarray, " n"],
    test_features: Float[np.ndarray, "m F"],
    *,
    num_classes: int,
    regularization: float = 1.0,
    tolerance: float = 1e-5,
    max_iterations: int = 500,
) -> Float[np.ndarray, "m classes"]:
    """Multinomial logistic regression on standardised features.

    It minimises the mean cross-entropy + ``regularization`` / (2 n) |W|^2 with free biases. That is scikit-learn's
    LogisticRegression with C = 1 / ``regularization``, also by SciPy's L-BFGS. But the accelerator computes the
    gradients. With ImageNet's 1.28 million features of width 512 and 1,000 classes, each is 4e12 operations, which
    takes a CPU a minute or more.

    Args:
      train_features, train_labels, test_features, num_classes: as for :func:`few_shot_logits`.
      regularization: >= 0.
      tolerance: it stops when no derivative is larger.
      max_iterations: it stops, with a warning, after this number.

    Returns:
      log-odds, float64.
    """
    train, test = _standardized(train_features, test_features)
    chunks = [jax.device_put(array) for array in _chunked(train.astype(np.float32), train_labels)]
    shape, penalty = (train.shape[1] + 1, num_classes), regularization / len(train)

    @jax.checkpoint  # the logits of a chunk are computed once more for the gradient, not kept
    def chunk_loss(parameters: Array, chunk: tuple[Array, Array, Array]) -> Float[Array, ""]:
        features, labels, weights = chunk
        # In float32: with the bfloat16 products of TPUs, the search ends early.
        logits = jnp.matmul(features, parameters[:-1], precision=jax.lax.Precision.HIGHEST) + parameters[-1:]
        return jnp.sum(weights * optax.softmax_cross_entropy_with_integer_labels(logits, labels))

    @jax.jit
    @jax.value_and_grad
    def loss(parameters: Array, chunks: list[Array]) -> Float[Array, ""]:
        entropies = jax.lax.map(lambda chunk: chunk_loss(parameters, chunk), chunks)
        return jnp.sum(entropies) + penalty / 2 * jnp.sum(jnp.square(parameters[:-1]))

    def loss_and_gradient(flat: np.ndarray) -> tuple[float, np.ndarray]:
        value, gradient = jax.device_get(loss(flat.reshape(shape).astype(np.float32), chunks))
        return float(value), gradient.ravel().astype(np.float64)

    options = {"maxiter": max_iterations, "gtol": tolerance, "ftol": 0.0}
    found = scipy.optimize.minimize(
        loss_and_gradient, np.zeros(math.prod(shape)), jac=True, method="L-BFGS-B", options=options
    )
    left = np.abs(found.jac).max()
    if left > tolerance:
        logging.warning("linear classifier: a derivative of %.1e is left after %d iterations", left, found.nit)
    fitted = found.x.reshape(shape)
    return test @ fitted[:-1] + fitted[-1]


def _chunked(features: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Features [chunks, R, F] and labels [chunks, R], filled up, and the weights [chunks, R] in a mean over rows."""
    rows = min(_CHUNK_SIZE, len(features))
    padding = -len(features) % rows

    def chunked(array: np.ndarray) -> np.ndarray:
        padded = np.pad(array, ((0, padding), *((0, 0),) * (array.ndim - 1)))
        return padded.reshape(-1, rows, *array.shape[1:])

    weights = np.full(len(features), 1.0 / len(features), np.float32)
    return chunked(features), chunked(labels.astype(np.int32)), chunked(weights)
