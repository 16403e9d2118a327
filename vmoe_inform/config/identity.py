"""Which settings identify a run, and which identify its scores.

Every field of settings/ has an effect. Two configs are compared field by field. A field that a config file lacks has
its default, so a later version with more settings can still continue a run.
"""

import dataclasses
import enum
import hashlib
import json
from collections.abc import Collection, Iterator, Mapping
from typing import Annotated, Any, get_args, get_origin, get_type_hints

from vmoe_inform.config import migrations
from vmoe_inform.routing import steps

_LONGEST_VALUE = 100  # characters of a value in a message


class Effect(enum.Enum):
    """What a setting changes, up to rounding; written as ``Annotated[int, Effect.MACHINE]``.

    Attributes:
      TRAINING: what is learned. A run keeps it from beginning to end.
      CLASSES: what the labels mean. A run keeps it; older versions did not record it, so that no hash may hold it.
      RESULTS: which steps follow, or how scores are measured. A run may continue with another value; scores of before
        are no longer its scores.
      MACHINE: where and how something is computed, written and shown. It may change at any time.
    """

    TRAINING = enum.auto()
    CLASSES = enum.auto()
    RESULTS = enum.auto()
    MACHINE = enum.auto()


@dataclasses.dataclass(frozen=True)
class Setting:
    """One field of a config.

    Attributes:
      value: JSON value.
      default: what it is where nothing is said; None for a field without a default.
      effect: what it changes.
    """

    value: Any
    default: Any
    effect: Effect


@dataclasses.dataclass(frozen=True)
class Change:
    """A field that differs between two configs; as text, ``train.steps: 20 -> 30``."""

    field: str
    before: Any
    after: Any
    effect: Effect

    def __str__(self) -> str:
        return f"{self.field}: {_shown(self.before)} -> {_shown(self.after)}"


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= _LONGEST_VALUE else f"{text[:_LONGEST_VALUE]}..."


def settings_of(config: Any) -> dict[str, Setting]:
    """All fields of a resolved config by name, e.g. ``model.moe.num_experts``.

    Args:
      config: a dataclass of settings/.

    Raises:
      TypeError: a field has no effect, nor has a group that it is in.
    """
    return dict(_settings(config, type(config)(), "", None))


def _settings(group: Any, defaults: Any, prefix: str, effect_of_group: Effect | None) -> Iterator[tuple[str, Setting]]:
    hints = get_type_hints(type(group), include_extras=True)
    for field in dataclasses.fields(group):
        name = f"{prefix}{field.name}"
        value, default = getattr(group, field.name), getattr(defaults, field.name)
        effect = _effect(hints[field.name]) or effect_of_group
        if effect is None:
            raise TypeError(f"{name}: neither it nor its group has an effect")
        if dataclasses.is_dataclass(value):
            yield from _settings(value, default, f"{name}.", effect)
        elif isinstance(value, Mapping):
            yield from _options(value, default, name, effect)
        else:
            yield name, Setting(_plain(value), _plain(default), effect)


def _effect(hint: Any) -> Effect | None:
    annotations = get_args(hint)[1:] if get_origin(hint) is Annotated else ()
    return next((annotation for annotation in annotations if isinstance(annotation, Effect)), None)


def _options(
    options: Mapping[str, Mapping[str, Any]], defaults: Mapping[str, Mapping[str, Any]], prefix: str, effect: Effect
) -> Iterator[tuple[str, Setting]]:
    """Options of the router's steps; where the group says nothing else, the steps know their defaults."""
    known = steps.all_steps()
    for step, values in options.items():
        for option, value in values.items():
            default = {**known[step].option_defaults, **defaults.get(step, {})}.get(option)
            yield f"{prefix}.{step}.{option}", Setting(_plain(value), _plain(default), effect)


def _plain(value: Any) -> Any:
    return json.loads(json.dumps(value))


def changes(before: Any, after: Any) -> list[Change]:
    """Fields that differ between two resolved configs, in alphabetical order.

    A step of the router that only one of them has differs by its name in ``model.router``; its options do not count.
    """
    old, new = settings_of(before), settings_of(after)
    return [
        Change(name, old[name].value, new[name].value, new[name].effect)
        for name in sorted(old.keys() & new.keys())
        if old[name].value != new[name].value
    ]


def config_hash(config: Any, effects: Collection[Effect] = (Effect.TRAINING, Effect.RESULTS)) -> str:
    """16 hexadecimal digits that change with every setting of these effects, of a resolved config.

    Settings at their defaults do not count, so a new setting does not change the hash of older runs. For the same
    reason defaults never change, and a renamed setting counts by its first name.

    Args:
      config: a dataclass of settings/.
      effects: by default all that decide a score.
    """
    decisive = {
        migrations.first_name(name): setting.value
        for name, setting in _as_first_written(settings_of(config)).items()
        if setting.effect in effects and setting.value != setting.default
    }
    return hash_of(decisive)


def _as_first_written(settings: dict[str, Setting]) -> dict[str, Setting]:
    """The settings with a field for the weight of each auxiliary loss, as it was before losses were steps."""
    prefix, options = "model.router.losses", "model.router.options"
    if prefix not in settings:
        return settings
    chosen = settings.pop(prefix)
    given = {name: settings.pop(f"{options}.{name}.weight", None) for name in chosen.value}
    if (light := settings.pop(f"{options}.distilled.distillation_weight", None)) is not None:
        given["distillation"] = light
    for name in {*given, *migrations.FIRST_LOSS_WEIGHTS}:
        default = migrations.FIRST_LOSS_WEIGHTS.get(name, 0.0)
        setting = given.get(name)
        weight = setting.value if setting is not None else default if name in given else 0.0
        settings[f"{prefix}.{name}"] = Setting(weight, default, chosen.effect)
    return settings


def hash_of(tree: Mapping[str, Any]) -> str:
    """First 16 hexadecimal digits of the SHA-256 of JSON values."""
    text = json.dumps(tree, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]
