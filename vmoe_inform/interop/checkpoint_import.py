"""From a path to a plan: opens a checkpoint, recognises its family, and decides the settings of its model."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import flax.traverse_util
import ml_collections

from vmoe_inform import checks
from vmoe_inform import config as config_lib
from vmoe_inform.config import VisionModelConfig
from vmoe_inform.interop import families, formats, precedence, references
from vmoe_inform.interop import settings as settings_lib
from vmoe_inform.interop.families import Family, Settings
from vmoe_inform.interop.plan import Plan, make_plan
from vmoe_inform.interop.precedence import Value
from vmoe_inform.interop.references import Reference
from vmoe_inform.interop.stored import StoredCheckpoint

_NOTHING: Mapping[str, Any] = {}


@dataclasses.dataclass(frozen=True)
class CheckpointImport:
    """A checkpoint of which it is known what becomes of it. No value has been read.

    Attributes:
      stored: names, shapes and types of its arrays.
      reference: the published checkpoint that it is by its name; None if it is none.
      family: that it is of.
      settings: what its arrays say.
      values: fields of ``config.model`` that were decided, with where each is from.
      model: of the config.
      plan: for every array.
    """

    stored: StoredCheckpoint
    reference: Reference | None
    family: Family
    settings: Settings
    values: Mapping[str, Value]
    model: VisionModelConfig
    plan: Plan


def prepare(
    path: str,
    *,
    given: Mapping[str, Any] = _NOTHING,
    config: ml_collections.ConfigDict | None = None,
    set_fields: Mapping[str, Any] = _NOTHING,
    allow_missing: Sequence[str] = (),
) -> CheckpointImport:
    """Opens a checkpoint and decides settings and moves.

    Args:
      path: see :func:`vmoe_inform.interop.formats.open_checkpoint`.
      given: settings of the model, see :func:`vmoe_inform.interop.settings.given_values`.
      config: of the run that is written; None for the defaults. See :mod:`vmoe_inform.interop.precedence`.
      set_fields: fields of ``config`` that the command line sets.
      allow_missing: see :func:`vmoe_inform.interop.plan.make_plan`.

    Raises:
      FileNotFoundError: no such file, or a part of the checkpoint is missing.
      ValueError: a file that is damaged or of an unknown kind, or settings that are missing or impossible.
    """
    stored = formats.open_checkpoint(path)
    family = families.recognise(stored)
    settings = family.settings(stored)
    reference = references.of_path(path)
    values = precedence.of_model(
        settings,
        given=settings_lib.given_values(family, settings, given),
        set_fields=set_fields,
        published={} if reference is None else reference.settings,
        config=_flat(config),
    )
    model = _model(values, config)
    plan = make_plan(stored, family, model, allow_missing)
    return CheckpointImport(stored, reference, family, settings, values, model, plan)


def _flat(config: ml_collections.ConfigDict | None) -> dict[str, Any]:
    """Fields of ``config.model``."""
    if config is None:
        return {}
    if config.model.get("inputs") != "images":
        raise checks.error("--config", "a config of images (model.inputs)", config.model.get("inputs"))
    return flax.traverse_util.flatten_dict(config.model.to_dict(), sep=".")


def _model(values: Mapping[str, Value], config: ml_collections.ConfigDict | None) -> VisionModelConfig:
    base = with_values(config_lib.default() if config is None else config, values)
    model = config_lib.parse_model(base.model)
    assert isinstance(model, VisionModelConfig)  # _flat: it is of images
    return model


def with_values(config: ml_collections.ConfigDict, values: Mapping[str, Value]) -> ml_collections.ConfigDict:
    """A config with these fields of ``config.model``."""
    changed = ml_collections.ConfigDict(config, type_safe=False)
    changed.update_from_flattened_dict({f"model.{field}": value.value for field, value in values.items()})
    return changed
