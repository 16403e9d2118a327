"""A checkpoint of another program as its readers give it: arrays by name, whose values are read when they are used."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from vmoe_inform.axes import Tree


@dataclasses.dataclass(frozen=True)
class StoredArray:
    """An array of a checkpoint.

    Attributes:
      shape: its sizes.
      dtype: NumPy's, with ``ml_dtypes.bfloat16`` for bfloat16.
      read: returns the values, of this shape and type. Raises ValueError, in one line, if the file is damaged.
    """

    shape: tuple[int, ...]
    dtype: np.dtype
    read: Callable[[], np.ndarray]

    @property
    def num_bytes(self) -> int:
        """Of the values."""
        return int(np.prod(self.shape, dtype=object)) * self.dtype.itemsize


@dataclasses.dataclass(frozen=True)
class StoredCheckpoint:
    """What a file, or several, hold.

    Attributes:
      path: where they are, for messages.
      format: registered name of the format.
      arrays: by name; levels are joined as the format does it, with ``/`` or ``.``.
      description: what the format says besides arrays, such as the ``config.json`` in the folder of safetensors.
    """

    path: str
    format: str
    arrays: Mapping[str, StoredArray]
    description: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Of all arrays by name."""
        return {name: array.shape for name, array in self.arrays.items()}

    @property
    def num_bytes(self) -> int:
        """Of all values."""
        return sum(array.num_bytes for array in self.arrays.values())

    def below(self, root: str) -> "StoredCheckpoint":
        """The arrays whose names begin with ``root``, by the rest of their names."""
        if not root:
            return self
        inside = {name[len(root) :]: array for name, array in self.arrays.items() if name.startswith(root)}
        return dataclasses.replace(self, arrays=inside)


def of_arrays(arrays: Mapping[str, Tree], *, format: str = "memory", **description: Any) -> StoredCheckpoint:
    """A checkpoint of arrays that are in memory.

    Args:
      arrays: by name.
      format: name of the format that they are from.
      **description: see :class:`StoredCheckpoint`.
    """
    stored = {name: _in_memory(np.asarray(array)) for name, array in arrays.items()}
    return StoredCheckpoint("arrays in memory", format, stored, description)


def _in_memory(array: np.ndarray) -> StoredArray:
    return StoredArray(array.shape, array.dtype, lambda: array)
