"""PyTorch's layers as ours: weights [out, in] are transposed, and projections of attention know their heads.

Each function returns the moves of one layer. ``name`` and ``ours`` are what its arrays' names begin with, in a
checkpoint and in our parameters.
"""

from collections.abc import Callable

import numpy as np

from vmoe_inform.config import VisionModelConfig
from vmoe_inform.interop.families.base import Move
from vmoe_inform.interop.stored import StoredCheckpoint

_TRANSPOSED = "transposed"


def norm(name: str, ours: str) -> list[Move]:
    """LayerNorm."""
    return [Move(f"{ours}/scale", (f"{name}.weight",)), Move(f"{ours}/bias", (f"{name}.bias",))]


def linear(name: str, ours: str, scale: str | None = None) -> list[Move]:
    """Dense layer.

    Args:
      name, ours: see above.
      scale: name of an array [out] that the results are multiplied with; the weights take it over.
    """
    return _scaled(name, ours, scale, np.transpose)


def output_projection(name: str, ours: str, model: VisionModelConfig, scale: str | None = None) -> list[Move]:
    """Projection from attention heads, [D, H F] -> [H, F, D]; ``scale`` as in :func:`linear`."""
    heads = model.num_heads
    return _scaled(name, ours, scale, lambda weight: weight.T.reshape(heads, -1, weight.shape[0]))


def _scaled(name: str, ours: str, scale: str | None, to_ours: Callable[[np.ndarray], np.ndarray]) -> list[Move]:
    """A layer whose results an array [out] may multiply; ``to_ours`` turns [out, in] into our kernel [..., out]."""
    arrays = (f"{name}.weight", f"{name}.bias")
    if scale is None:
        return [
            Move(f"{ours}/kernel", arrays[:1], _TRANSPOSED, to_ours),
            Move(f"{ours}/bias", arrays[1:]),
        ]
    action = f"times {scale.rpartition('.')[0].rpartition('.')[2]}"

    def kernel(weight: np.ndarray, by: np.ndarray) -> np.ndarray:
        return to_ours(weight) * by.reshape(weight.shape[0])

    def bias(values: np.ndarray, by: np.ndarray) -> np.ndarray:
        return values * by.reshape(values.shape)

    return [
        Move(f"{ours}/kernel", (arrays[0], scale), f"{_TRANSPOSED}, {action}", kernel),
        Move(f"{ours}/bias", (arrays[1], scale), action, bias),
    ]


def head_projections(
    name: str, ours: str, stored: StoredCheckpoint, model: VisionModelConfig, projections: tuple[str, ...]
) -> list[Move]:
    """Projections to attention heads, one or several in one array: [parts H F, D] -> of each part [D, H, F].

    A model without their bias gets zeros, which are the same.

    Args:
      name: see above.
      ours: what the paths of all of them begin with.
      stored: the checkpoint.
      model: whose heads they are of.
      projections: names of the parts in their order, such as query, key and value.
    """
    heads, width, parts = model.num_heads, model.hidden_size, len(projections)
    found: list[Move] = []
    for index, projection in enumerate(projections):
        one = f"part {index + 1} of {parts}, " if parts > 1 else ""

        def kernel(weight: np.ndarray, index: int = index) -> np.ndarray:
            return np.split(weight, parts)[index].T.reshape(weight.shape[1], heads, -1)

        def bias(values: np.ndarray, index: int = index) -> np.ndarray:
            return np.split(values, parts)[index].reshape(heads, -1)

        found.append(Move(f"{ours}/{projection}/kernel", (f"{name}.weight",), f"{one}{_TRANSPOSED}", kernel))
        if f"{name}.bias" in stored.arrays:
            found.append(Move(f"{ours}/{projection}/bias", (f"{name}.bias",), f"{one}by heads", bias))
        else:
            found.append(no_bias(f"{ours}/{projection}/bias", (heads, width // heads)))
    return found


def no_bias(ours: str, shape: tuple[int, ...]) -> Move:
    """Zeros for the bias of a layer that has none."""
    return Move(ours, (), "zeros: the layer has no bias", lambda: np.zeros(shape, np.float32))


def patch_embedding(name: str) -> list[Move]:
    """Convolution [D, 3, p, p] -> [p, p, 3, D]."""
    return [
        Move("patch_embedding/kernel", (f"{name}.weight",), _TRANSPOSED, lambda weight: weight.transpose(2, 3, 1, 0)),
        Move("patch_embedding/bias", (f"{name}.bias",)),
    ]
