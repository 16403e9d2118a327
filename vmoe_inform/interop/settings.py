"""What a user says of a model, by our names of settings or by those of the program that wrote its checkpoint."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from vmoe_inform import checks
from vmoe_inform.config import VisionModelConfig, from_text, groups
from vmoe_inform.interop.families import Family, Settings
from vmoe_inform.routing import steps


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
    for name in sorted(given, key=lambda name: name in family.relative_names):
        value = given[name]
        meant = from_text.literal(value) if isinstance(value, str) and name in family.setting_names else value
        field, meant = family.our_setting(name, meant, {**settings.model, **found})
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
