"""Whether two runs ended with the same bits."""

from typing import Any

import numpy as np

from vmoe_inform import storage
from vmoe_inform.runs import saved_trees
from vmoe_inform.runs.reading import CheckpointReader


def differing(workdir: storage.Path, other: storage.Path) -> list[str]:
    """Paths of arrays and files that differ in any bit between the last checkpoints of two runs."""
    found: list[str] = []
    trees, positions = list[dict[str, Any]](), list[dict[str, Any]]()
    for folder in (workdir, other):
        with CheckpointReader(folder) as checkpoints:
            step, arrays = checkpoints.load_arrays()
        trees.append(saved_trees.by_path(arrays) | {"step of the checkpoint": np.int64(step)})
        data = folder / "checkpoints" / str(step) / "data"
        positions.append({path.name: storage.read_bytes(path) for path in storage.matching(data, "process_*")})
    for one, two in (trees, positions):
        found += [name for name in sorted(one.keys() | two.keys()) if not _identical(one.get(name), two.get(name))]
    return found


def _identical(one: Any, two: Any) -> bool:
    if isinstance(one, np.ndarray | np.generic) and isinstance(two, np.ndarray | np.generic):
        return one.dtype == two.dtype and one.shape == two.shape and one.tobytes() == two.tobytes()
    return type(one) is type(two) and one == two
