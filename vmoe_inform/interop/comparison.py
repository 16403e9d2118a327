"""Logits of an imported checkpoint against those that its own program computed."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

from vmoe_inform import checks
from vmoe_inform.axes import Array, Float
from vmoe_inform.interop import checkpoint_import, families, formats, plan, settings
from vmoe_inform.nn import models

TOLERANCE = 1e-4


def relative_error(ours: Array, theirs: np.ndarray) -> float:
    """Largest absolute difference over the largest absolute entry of ``theirs`` (1 if that is all zero).

    Not-a-number counts as infinite. Raises ValueError if the shapes differ.
    """
    values = np.asarray(ours, np.float64)
    if values.shape != theirs.shape:
        raise checks.error("array", f"shape {theirs.shape}", values.shape)
    if not theirs.size:
        return 0.0
    scale = np.max(np.abs(theirs)) or 1.0
    difference = np.max(np.abs(values - theirs)) / scale
    return float("inf") if np.isnan(difference) else float(difference)


def error_of(
    path: str,
    images: Float[np.ndarray, "B P P 3"],
    logits: Float[np.ndarray, "B classes"],
    recorded: Mapping[str, Any],
    given: Mapping[str, Any],
    say: Callable[[str], None],
) -> float:
    """The relative error of a checkpoint's logits.

    Args:
      path: of the checkpoint.
      images: normalised.
      logits: of the program that wrote it.
      recorded: settings by the program's names, in the file of the logits. Unknown ones are named and not used.
      given: settings of the command line, which override them.
      say: prints a line.

    Raises:
      FileNotFoundError, ValueError: as :func:`vmoe_inform.interop.checkpoint_import.prepare`, or images that the model
        does not take.
    """
    stored = formats.open_checkpoint(path)
    family = families.recognise(stored)
    said = family.settings(stored)
    usable: dict[str, Any] = {}
    for name, value in recorded.items():
        try:
            usable |= settings.given_values(family, said, {name: value})
        except checks.InputError as problem:
            say(f"not used of the recorded settings: {problem}")
    usable |= settings.given_values(family, said, given)
    found = checkpoint_import.prepare(path, given=usable)
    found.plan.check()
    variables = plan.complete(found.plan, plan.read_params(found.plan))
    model = models.from_config(found.model)
    with jax.default_matmul_precision("highest"):
        ours, _ = jax.jit(lambda variables, images: model.apply(variables, images, train=False))(
            variables, np.asarray(images, np.float32)
        )
    return relative_error(ours, logits)
