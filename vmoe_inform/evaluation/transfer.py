"""Linear classifiers of frozen features: from a few images a class, and from all of them.

Pure functions of features and labels, which know no model.
"""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import optax
from absl import logging
from jaxtyping import Float, Int

from vmoe_inform import checks
from vmoe_inform.axes import Array

_SMALLEST_STD = 1e-5  # added, lest a feature that does not vary is divided by 0
_CHUNK_SIZE = 8192  # rows that are in memory in float64 at a time, and whose logits are


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
    moments = _moments(train_features)
    train, test = _standardized(train_features, moments), _standardized(test_features, moments)
    targets = 2.0 * np.eye(num_classes)[train_labels] - 1.0
    count, width = train.shape
    if count < width:
        weights = train.T @ np.linalg.solve(train @ train.T + regularization * np.eye(count), _centred(targets))
    else:
        weights = np.linalg.solve(train.T @ train + regularization * np.eye(width), train.T @ targets)
    return test @ weights + targets.mean(axis=0)


def _centred(values: np.ndarray) -> np.ndarray:
    return values - values.mean(axis=0)


def _moments(features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of each feature, float64 [F] each, some rows at a time.

    To the bits of NumPy's over all rows: they are summed in its order, one after the other.
    """

    def sum_over_rows(of: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
        total = np.zeros(features.shape[1])
        for begin in range(0, len(features), _CHUNK_SIZE):
            values = of(features[begin : begin + _CHUNK_SIZE].astype(np.float64))
            values[0] += total
            total = values.sum(axis=0)
        return total

    mean = sum_over_rows(lambda rows: rows) / len(features)
    variance = sum_over_rows(lambda rows: np.square(rows - mean)) / len(features)
    return mean, np.sqrt(variance) + _SMALLEST_STD


def _standardized(features: np.ndarray, moments: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    """In float64 and units of the standard deviation, from the mean."""
    mean, std = moments
    values = features.astype(np.float64)
    values -= mean
    values /= std
    return values


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
    takes a CPU a minute or more. On the host the training features are held once more than they are given, in float32.

    Args:
      train_features, train_labels, test_features, num_classes: as for :func:`few_shot_logits`.
      regularization: >= 0.
      tolerance: it stops when no derivative is larger.
      max_iterations: it stops, with a warning, after this number.

    Returns:
      log-odds, float64.
    """
    import scipy.optimize  # takes long to import, and only this needs it

    count, width = train_features.shape
    moments = _moments(train_features)
    chunks = [jax.device_put(array) for array in _chunked(train_features, train_labels, moments)]
    shape, penalty = (width + 1, num_classes), regularization / count

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
    return _standardized(test_features, moments) @ fitted[:-1] + fitted[-1]


def _chunked(
    features: np.ndarray, labels: np.ndarray, moments: tuple[np.ndarray, np.ndarray]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Standardised features float32 [chunks, R, F] and labels [chunks, R], filled up with 0, and the weights [chunks,
    R] in a mean over rows."""
    count = len(features)
    rows = min(_CHUNK_SIZE, count)
    chunks = -(-count // rows)
    standardized = np.zeros((chunks, rows, features.shape[1]), np.float32)
    for chunk, begin in zip(standardized, range(0, count, rows), strict=True):
        part = features[begin : begin + rows]
        chunk[: len(part)] = _standardized(part, moments)

    def filled_up(values: np.ndarray) -> np.ndarray:
        return np.pad(values, (0, chunks * rows - count)).reshape(chunks, rows)

    weights = np.full(count, 1.0 / count, np.float32)
    return standardized, filled_up(labels.astype(np.int32)), filled_up(weights)
