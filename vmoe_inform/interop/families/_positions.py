"""Position embeddings of a square of patches, with or without a class token."""

import math

import numpy as np

from vmoe_inform import checks
from vmoe_inform.config import VisionModelConfig
from vmoe_inform.interop.families.base import Move


def grid_side(name: str, positions: int, *, class_token: bool) -> tuple[int, bool]:
    """Rows of the square of patches that position embeddings are of, and whether the first is the class token's.

    Args:
      name: of the array, for messages.
      positions: how many there are.
      class_token: whether the model has one. Its position is either the first or has none, as the number tells.

    Raises:
      ValueError: the patches make no square.
    """
    if _is_square(positions):
        return math.isqrt(positions), False
    if class_token and _is_square(positions - 1):
        return math.isqrt(positions - 1), True
    raise checks.error(name, f"positions of a square of patches{' and a class token' * class_token}", positions)


def _is_square(number: int) -> bool:
    return number > 0 and math.isqrt(number) ** 2 == number


def with_class_token(positions: np.ndarray) -> np.ndarray:
    """Position embeddings [1, N, D] of patches, after zeros for a class token: [1, 1 + N, D]."""
    return np.pad(positions, ((0, 0), (1, 0), (0, 0)))


def sine_cosine_positions(side: int, width: int) -> np.ndarray:
    """The fixed position embeddings of "Better plain ViT baselines" (arXiv 2205.01580), as MoCo v3 has them.

    A quarter of the width each has the sine and cosine of the column, and those of the row. They are multiplied with
    frequencies from 1 down to 1e-4, whose ratio is constant.

    Args:
      side: rows of the square of patches.
      width: D, a multiple of 4.

    Returns:
      float32 [1, side * side, D], row by row.

    Raises:
      ValueError: another width.
    """
    if width % 4 or width < 8:
        raise checks.error("model.hidden_size", "a multiple of 4 from 8 on, for computed position embeddings", width)
    frequencies = 10_000.0 ** -np.linspace(0.0, 1.0, width // 4)
    rows, columns = np.divmod(np.arange(side * side), side)
    by_column, by_row = np.outer(columns, frequencies), np.outer(rows, frequencies)
    parts = [np.sin(by_column), np.cos(by_column), np.sin(by_row), np.cos(by_row)]
    return np.concatenate(parts, axis=1)[None].astype(np.float32)


def computed_positions(model: VisionModelConfig) -> Move:
    """Position embeddings of a model whose checkpoint has none; a class token gets zeros."""
    side = model.image_size_px // model.patch_size_px

    def compute() -> np.ndarray:
        positions = sine_cosine_positions(side, model.hidden_size)
        return with_class_token(positions) if model.classifier == "token" else positions

    return Move("position_embedding", (), "computed: sines and cosines", compute)
