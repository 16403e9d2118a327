"""Random inputs of routing for property tests: the same on every run, few, and of fixed shapes, to compile once."""

import numpy as np
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

# Without the phase that explains a failure: it runs and compiles everything many times over.
few_examples = settings(
    max_examples=25, derandomize=True, deadline=None, phases=(Phase.explicit, Phase.generate, Phase.shrink)
)


def grid(shape, *, limit=4, step=1.0):
    """float32 multiples of ``step`` up to ``limit`` either way: products and differences of them are exact."""
    bound = int(limit / step)
    integers = arrays.arrays(np.int32, shape, elements=st.integers(-bound, bound), fill=st.nothing())
    return integers.map(lambda array: (step * array).astype(np.float32))


def distinct_grid(size, *, limit, step):
    """A vector of such multiples, no two of them equal."""
    bound = int(limit / step)
    integers = st.lists(st.integers(-bound, bound), min_size=size, max_size=size, unique=True)
    return integers.map(lambda values: step * np.array(values, np.float32))


def probabilities(shape):
    """Rows of shares that sum to 1; zeros, equal entries and rows that are sure of one expert occur."""
    weights = arrays.arrays(np.int32, shape, elements=st.integers(0, 9), fill=st.nothing())
    # A row of zeros becomes the uniform one.
    weights = weights.map(lambda rows: np.where(rows.sum(-1, keepdims=True) > 0, rows, 1))
    return weights.map(lambda rows: (rows / rows.sum(-1, keepdims=True)).astype(np.float32))


def masks(size):
    """Which token may attend to which; every token may attend to itself."""
    return arrays.arrays(bool, (size, size), fill=st.nothing()).map(lambda mask: mask | np.eye(size, dtype=bool))


@st.composite
def symmetric_doubly_stochastic(draw, size):
    """Convex combinations of (P + P') / 2, P a permutation matrix: by Birkhoff's theorem every such matrix is one."""
    weights = draw(st.lists(st.integers(1, 5), min_size=1, max_size=4))
    matrices = [np.eye(size)[draw(st.permutations(range(size)))] for _ in weights]
    mixed = sum(weight * (matrix + matrix.T) / 2 for weight, matrix in zip(weights, matrices, strict=True))
    return (mixed / sum(weights)).astype(np.float32)
