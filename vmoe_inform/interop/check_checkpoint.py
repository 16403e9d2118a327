"""Compares the logits of an imported checkpoint with those that its own program computed.

    python -m vmoe_inform.interop.check_checkpoint --from=PATH --expected=FILE.npz [--model.KEY=VALUE ...]

FILE has ``images`` [B, P, P, 3], normalised, and ``logits`` [B, classes]. It may have ``config``, JSON with settings of
the model by the program's names. Settings are looked for in the arrays, in ``config`` and in --model.KEY. A model of
``vmoe-export`` has its own settings.
Errors are relative to the largest logit. Exit codes: 0 at most 1e-4, 1 more, 2 bad input.
"""

import json
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from vmoe_inform import checks, command_line, storage

_FROM = command_line.define_checkpoint()
_EXPECTED = command_line.define_path("expected", "npz with images, logits and, maybe, config.")
_MODEL = command_line.define_model()


def read_expected(path: pathlib.Path) -> tuple[np.ndarray, np.ndarray, Mapping[str, Any]]:
    """Images, logits and settings of a file.

    Raises:
      FileNotFoundError: no such file.
      ValueError: other arrays.
    """
    if not path.is_file():
        raise FileNotFoundError(f"--expected: expected an npz file; received {str(path)!r}, which is not there")
    arrays = storage.read_arrays(path.resolve())
    for name, axes in (("images", 4), ("logits", 2)):
        if name not in arrays or arrays[name].ndim != axes or arrays[name].dtype.kind != "f":
            received = f"{arrays[name].dtype} {list(arrays[name].shape)}" if name in arrays else sorted(arrays)[:10]
            raise checks.error(f"--expected: {name}", f"an array of floats with {axes} axes", received)
    config = str(arrays["config"]) if "config" in arrays else "{}"
    try:
        settings = json.loads(config)
    except (ValueError, RecursionError):
        settings = None
    if not isinstance(settings, dict):
        raise checks.error("--expected: config", "a JSON object of settings", config)
    return arrays["images"], arrays["logits"], settings


def main(_: list[str]) -> int:
    """Prints the largest relative error and returns the exit code."""
    given = command_line.required(_FROM, "a checkpoint")
    expected = pathlib.Path(command_line.required(_EXPECTED, "an npz file with images and logits"))
    from vmoe_inform.interop import comparison, references

    images, logits, recorded = read_expected(expected)
    error = comparison.error_of(
        references.locate(given, command_line.say), images, logits, recorded, _MODEL.fields, command_line.say
    )
    agrees = error <= comparison.TOLERANCE
    command_line.say(f"largest relative difference of the logits: {error:.3g} (tolerance {comparison.TOLERANCE:g})")
    command_line.say("agrees" if agrees else "DOES NOT AGREE")
    return 0 if agrees else 1


if __name__ == "__main__":
    command_line.run(main)
