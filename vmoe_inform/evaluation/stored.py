"""Reads and writes the files of an evaluation."""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from vmoe_inform import documents, storage
from vmoe_inform.evaluation import results_version_1
from vmoe_inform.evaluation.results import VERSION, Results

_VERSIONS: Mapping[int, Callable[[Any], Results]] = {
    1: results_version_1.read_results,
    VERSION: functools.partial(documents.from_json, kind=Results),
}


def read_results(path: storage.Path, *, within: storage.Path) -> Results:
    """The content of a results.json, also of one that an older version wrote.

    Args:
      path: of the file.
      within: folder of the run.

    Raises:
      FileNotFoundError: there is none.
      DamagedFileError: it is not as an evaluation writes it.
      InputError, OSError: as :func:`vmoe_inform.storage.read_json`.
    """
    return documents.read(path, _VERSIONS, within=within)


def write_results(path: storage.Path, results: Results, *, within: storage.Path) -> None:
    """Writes a results.json, whole or not at all; what is missing on this machine is left out."""
    written = documents.to_json(dataclasses.replace(results, missing={}), leave_out_empty=True)
    storage.write_json(path, written, within=within)


def read_examples(path: storage.Path, *, within: storage.Path) -> list[dict[str, Any]]:
    """The examples of an evaluated run, one dictionary a record, as the report takes them.

    Raises:
      FileNotFoundError, DamagedFileError, InputError, OSError: as :func:`read_results`.
    """
    arrays = storage.read_arrays(path, within=within)
    labelled = {"label": ("U", (1,)), "prediction": ("U", (1,)), "confidence": ("f", (1,))}
    if "token" not in arrays:
        first, dimensions_of_experts = "image", 3
        kinds = {"image": ("u", (3, 4)), **labelled}
    else:
        first, dimensions_of_experts = "token", 2
        kinds = {"token": ("U", (2,)), **({"nats": ("f", (2,))} if "nats" in arrays else labelled)}
    blocks = [name for name in arrays if name.startswith("experts/")]
    for name, (kind, dimensions) in {**kinds, **dict.fromkeys(blocks, ("iu", (dimensions_of_experts,)))}.items():
        array = arrays.get(name, np.asarray(None))
        if array.dtype.kind not in kind or array.ndim not in dimensions or len(array) != len(arrays[first]):
            received = f"{name} of {array.dtype} and shape {list(array.shape)}" if name in arrays else f"no {name}"
            raise storage.DamagedFileError(path, "the examples of an evaluation", received)
    return [
        {
            **{name: _plain(arrays[name][n]) for name in kinds},
            "experts": {name.removeprefix("experts/"): arrays[name][n] for name in blocks},
        }
        for n in range(len(arrays[first]))
    ]


def _plain(value: Any) -> Any:
    """A string or a number as Python has it; arrays as they are."""
    return value if isinstance(value, np.ndarray) else value.item()
