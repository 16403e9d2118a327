"""Reads and writes the files of an evaluation."""

import dataclasses
import functools
import pathlib
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


def read_results(path: pathlib.Path, *, within: pathlib.Path) -> Results:
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


def write_results(path: pathlib.Path, results: Results, *, within: pathlib.Path) -> None:
    """Writes a results.json, whole or not at all; what is missing on this machine is left out."""
    written = documents.to_json(dataclasses.replace(results, missing={}), leave_out_empty=True)
    storage.write_json(path, written, within=within)


def read_examples(path: pathlib.Path, *, within: pathlib.Path) -> list[dict[str, Any]]:
    """The examples of an evaluated run, one dictionary an image, as the report takes them.

    Raises:
      FileNotFoundError, DamagedFileError, InputError, OSError: as :func:`read_results`.
    """
    arrays = storage.read_arrays(path, within=within)
    kinds = {"image": ("u", (3, 4)), "label": ("U", (1,)), "prediction": ("U", (1,)), "confidence": ("f", (1,))}
    blocks = [name for name in arrays if name.startswith("experts/")]
    for name, (kind, dimensions) in {**kinds, **dict.fromkeys(blocks, ("iu", (3,)))}.items():
        array = arrays.get(name, np.asarray(None))
        if array.dtype.kind not in kind or array.ndim not in dimensions or len(array) != len(arrays["image"]):
            received = f"{name} of {array.dtype} and shape {list(array.shape)}" if name in arrays else f"no {name}"
            raise storage.DamagedFileError(path, "the examples of an evaluation", received)
    return [
        {
            "image": arrays["image"][n],
            "label": str(arrays["label"][n]),
            "prediction": str(arrays["prediction"][n]),
            "confidence": float(arrays["confidence"][n]),
            "experts": {name.removeprefix("experts/"): arrays[name][n] for name in blocks},
        }
        for n in range(len(arrays["image"]))
    ]
