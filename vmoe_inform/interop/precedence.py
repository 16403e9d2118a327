"""Whose value of a setting counts where several say one; THE order, for fields of ``config.model`` and ``config.data``.

The first that says a field counts:

1. the command line: ``--model.KEY``, ``--data.KEY`` and ``--classes``, then ``--config.FIELD``;
2. the published config of a checkpoint that is known by its name;
3. the checkpoint: its arrays, the JSON next to them, and how its program prepares images;
4. ``--config=FILE``, of the model for what the checkpoint leaves open;
5. what the family assumes, which is how the published models are.

A value of the command line that the arrays contradict is found when their shapes are compared.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

from vmoe_inform import checks
from vmoe_inform.config import ImageDataConfig, VisionModelConfig, groups
from vmoe_inform.interop.families import Question, Settings

GIVEN, PUBLISHED, ARRAYS, CHECKPOINT = "given", "published config", "arrays", "checkpoint"
CONFIG, ASSUMED = "--config", "assumed"
_NAMES_SHOWN = 5


@dataclasses.dataclass(frozen=True)
class Value:
    """A value of a field, and where it is from."""

    value: Any
    origin: str


def of_model(
    settings: Settings,
    *,
    given: Mapping[str, Any],
    set_fields: Mapping[str, Any],
    published: Mapping[str, Any],
    config: Mapping[str, Any],
) -> dict[str, Value]:
    """The fields of ``config.model`` that somebody says.

    Args:
      settings: of the checkpoint.
      given: by field, of ``--model.KEY``.
      set_fields: by field of the config, of ``--config.FIELD``.
      published: by field, of a named reference.
      config: by field, of ``--config=FILE``; empty if there is none.

    Raises:
      ValueError: a value of another type, or fields that nobody says; lists them with what they mean.
    """
    open_fields = {*settings.asked, *settings.assumed}
    values = _overlaid(
        VisionModelConfig,
        (ASSUMED, settings.assumed),
        (CONFIG, {field: config[field] for field in open_fields & config.keys()}),
        (ARRAYS, settings.model),
        (PUBLISHED, published),
        (GIVEN, _of_group(set_fields, "model")),
        (GIVEN, given),
    )
    _check_asked("model", settings.asked, values, given)
    return values


def of_data(settings: Settings, *, given: Mapping[str, Any], set_fields: Mapping[str, Any]) -> dict[str, Value]:
    """The fields of ``config.data`` that somebody says; ``--config=FILE`` says the others.

    Args:
      settings: of the checkpoint.
      given: by field, of ``--data.KEY`` and ``--classes``.
      set_fields: by field of the config, of ``--config.FIELD``.

    Raises:
      ValueError: as of :func:`of_model`.
    """
    values = _overlaid(
        ImageDataConfig,
        (CHECKPOINT, settings.data),
        (GIVEN, _of_group(set_fields, "data")),
        (GIVEN, given),
    )
    _check_asked("data", settings.asked_data, values, given)
    return values


def _of_group(set_fields: Mapping[str, Any], group: str) -> dict[str, Any]:
    """Those of ``model.moe.num_experts``, ... that are of one group, without its name."""
    beginning = f"{group}."
    return {field.removeprefix(beginning): set_fields[field] for field in set_fields if field.startswith(beginning)}


def _overlaid(group: type, *layers: tuple[str, Mapping[str, Any]]) -> dict[str, Value]:
    """Values by field with their origins; later layers count more."""
    found = {}
    for origin, layer in layers:
        for field, value in layer.items():
            hint = groups.hint_of([group], field)
            found[field] = Value(checks.conform(f"{field} ({origin})", value, hint), origin)
    return found


def _check_asked(
    group: str, asked: Mapping[str, Question], values: Mapping[str, Value], given: Mapping[str, Any]
) -> None:
    """Raises ValueError for fields that nobody says."""
    missing = {field: question for field, question in asked.items() if field not in values}
    if missing:
        listed = "; ".join(f"--{group}.{field}=VALUE, {question.words}" for field, question in missing.items())
        example = " ".join(f"--{group}.{field}={question.example}" for field, question in missing.items())
        received = ", ".join(list(given)[:_NAMES_SHOWN]) or "none of them"
        raise checks.InputError(
            f"--{group}: expected what the checkpoint does not say: {listed}; received {received}. Example: {example}"
        )
