"""Logits of an imported checkpoint against those that its own program computed."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

from vmoe_inform import checks
from vmoe_inform.axes import Array, Float, Tree
from vmoe_inform.config import VisionModelConfig
from vmoe_inform.interop import checkpoint_import, exported, families, formats, plan, settings
from vmoe_inform.interop.checkpoint_import import CheckpointImport
from vmoe_inform.interop.families import Settings
from vmoe_inform.interop.stored import StoredCheckpoint
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

    Of a checkpoint without a head, ``logits`` are what the head would see. Computed positions are those of ``images``.

    Args:
      path: of the checkpoint; it may be a model of vmoe-export.
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
    if exported.is_exported(stored):
        return _error_of_exported(stored, images, logits, recorded, given, say)
    family = families.recognise(stored)
    said = _with_image_size(family.settings(stored), images.shape[1])
    usable: dict[str, Any] = {}
    for name in sorted(recorded, key=lambda name: name in family.relative_names):
        try:
            settings.given_values(family, said, {**usable, name: recorded[name]})
            usable[name] = recorded[name]
        except checks.InputError as problem:
            say(f"not used of the recorded settings: {problem}")
    fields = settings.given_values(family, said, usable) | settings.given_values(family, said, given)
    if "image_size_px" in said.asked:
        fields.setdefault("image_size_px", said.model["image_size_px"])
    has_head = "num_classes" not in said.asked
    if not has_head:
        fields["num_classes"] = _width(said)
        say("the checkpoint has no head: what it would see is compared with the logits")
    found = checkpoint_import.prepare(path, given=fields, allow_missing=() if has_head else ("head",))
    found.plan.check()
    return _error(found.model, lambda: variables_of(found, has_head=has_head), images, logits)


def _error_of_exported(
    stored: StoredCheckpoint,
    images: np.ndarray,
    logits: np.ndarray,
    recorded: Mapping[str, Any],
    given: Mapping[str, Any],
    say: Callable[[str], None],
) -> float:
    """The relative error of a model that ``vmoe-export`` wrote; its own config has the settings."""
    exported.refuse_settings(given)
    config, variables = exported.read(stored)
    if not isinstance(config.model, VisionModelConfig):
        raise checks.error("--from", "a model of images", f"{stored.path}, one of {config.model.inputs}")
    if recorded:
        say("not used of the recorded settings: all, as an exported model has its own")
    return _error(config.model, lambda: variables, images, logits)


def _error(
    config: VisionModelConfig, read: Callable[[], Mapping[str, Tree]], images: np.ndarray, logits: np.ndarray
) -> float:
    """The relative error of a model's logits; ``read`` returns its variables."""
    _check_shapes(images, logits, config)
    variables, model = read(), models.from_config(config)
    with jax.default_matmul_precision("highest"):
        ours, _ = jax.jit(lambda variables, images: model.apply(variables, images, train=False))(
            variables, np.asarray(images, np.float32)
        )
    return relative_error(ours, logits)


def _with_image_size(said: Settings, side: int) -> Settings:
    """Settings of a checkpoint whose images, where it does not say it, are of this side."""
    return dataclasses.replace(said, model={"image_size_px": side, **said.model})


def variables_of(found: CheckpointImport, *, has_head: bool) -> dict[str, Tree]:
    """The model's variables; without a head of its own, one that shows what it sees."""
    params = plan.read_params(found.plan)
    if not has_head:
        width = found.model.num_classes
        params |= {"head/kernel": np.eye(width, dtype=np.float32), "head/bias": np.zeros(width, np.float32)}
    return plan.complete(found.plan, params)


def _width(said: Settings) -> int:
    """Numbers that a head would see."""
    return int(said.model["representation_size"] or said.model["hidden_size"])


def _check_shapes(images: np.ndarray, logits: np.ndarray, model: VisionModelConfig) -> None:
    """Raises ValueError for images or logits that are not the model's."""
    side, group = model.image_size_px, model.moe.group_size_sequences if model.moe_layers else 1
    if images.shape[1:] != (side, side, 3):
        raise checks.error("--expected: images", f"shape [B, {side}, {side}, 3]", list(images.shape))
    if len(images) % group:
        raise checks.error("--expected: images", f"a multiple of the {group} images of a group", len(images))
    if logits.shape != (len(images), model.num_classes):
        raise checks.error("--expected: logits", f"shape [{len(images)}, {model.num_classes}]", list(logits.shape))
