"""The settings of an imported model: those that its arrays say, and the user's, by our names or the program's."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from vmoe_inform import checks
from vmoe_inform.config import VisionModelConfig, from_text, groups
from vmoe_inform.interop.families import Family, Settings
from vmoe_inform.routing import steps

ARRAYS, GIVEN, REFERENCE, ASSUMED, CONFIG = "arrays", "given", "published config", "assumed", "--config"


@dataclasses.dataclass(frozen=True)
class Value:
    """A value of a field, and where it is from."""

    value: Any
    origin: str


def given_values(family: Family, settings: Settings, given: Mapping[str, Any]) -> dict[str, Any]:
    """What a user says of the model, by field of ``config.model``.

    Args:
      family: of the checkpoint.
      settings: of the checkpoint.
      given: text or values by the program's name of a setting, by field, or by the last part of a field.

    Raises:
      ValueError: an unknown name, a value that does not fit, or two names of one field with different values.
    """
    found: dict[str, Any] = {}
    for name, value in given.items():
        meant = from_text.literal(value) if isinstance(value, str) and name in family.setting_names else value
        field, meant = family.our_setting(name, meant, settings)
        field = _field(field, family)
        hint = groups.hint_of([VisionModelConfig], field)
        read = from_text.value if isinstance(meant, str) else checks.conform
        meant = read(f"--model.{name}", meant, hint)
        if field in found and found[field] != meant:
            raise checks.error(f"--model.{name}", f"{field} = {found[field]!r}, as another flag says", meant)
        found[field] = meant
    return found


def _field(name: str, family: Family) -> str:
    """The field of ``config.model`` that has this name, or whose last part it is."""
    fields = model_fields()
    if name in fields:
        return name
    found = [field for field in fields if field.rpartition(".")[2] == name]
    if len(found) != 1:
        known = [*fields, *family.setting_names]
        expected = f"one of {', '.join(found)}" if found else "a field of config.model, or the program's name of one"
        raise checks.unknown(f"--model.{name}", expected, name, known)
    return found[0]


def model_fields() -> list[str]:
    """All fields of ``config.model`` of images, options of router steps included."""
    return list(_fields(VisionModelConfig, ""))


def _fields(group: Any, prefix: str) -> Sequence[str]:
    found: list[str] = []
    for field in dataclasses.fields(group):
        name = f"{prefix}{field.name}"
        hint = checks.plain(groups.hint_of([VisionModelConfig], name))
        if field.name == "options":
            options = {step: kind.option_types for step, kind in steps.all_steps().items()}
            found += [f"{name}.{step}.{option}" for step, types in options.items() for option in types]
        else:
            found += _fields(hint, f"{name}.") if dataclasses.is_dataclass(hint) else [name]
    return found


def resolve(
    settings: Settings, given: Mapping[str, Any], published: Mapping[str, Any], config: Mapping[str, Any]
) -> dict[str, Value]:
    """The fields of ``config.model`` that are not at their defaults, with where each value is from.

    What the user gives comes before what a published config says, then what the arrays say, what a ``--config`` says,
    and what the family assumes. A given value that the arrays contradict is found when their shapes are compared.

    Args:
      settings: of the checkpoint.
      given: by field, from :func:`given_values`.
      published: by field, of a named reference.
      config: by field, of a config file; empty if there is none.

    Raises:
      ValueError: fields that nothing says; lists them with what they mean.
    """
    values = {field: Value(value, ASSUMED) for field, value in settings.assumed.items()}
    open_fields = {*settings.asked, *settings.assumed}
    values |= {field: Value(config[field], CONFIG) for field in open_fields & config.keys()}
    values |= {field: Value(value, ARRAYS) for field, value in settings.model.items()}
    values |= {field: Value(value, REFERENCE) for field, value in published.items()}
    values |= {field: Value(value, GIVEN) for field, value in given.items()}
    missing = {field: words for field, words in settings.asked.items() if field not in values}
    if missing:
        listed = "; ".join(f"--model.{field}=VALUE, {words}" for field, words in missing.items())
        raise checks.InputError(
            f"--model: expected what the arrays do not say: {listed}; received {', '.join(given) or 'none of them'}"
        )
    return values
