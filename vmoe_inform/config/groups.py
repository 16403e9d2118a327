"""Groups of settings, nested dataclasses, to ConfigDicts and back: names, types and bounds are checked on the way.

The settings are in settings/, checks across them in validate.py.
"""

import dataclasses
import functools
import operator
import types
from collections.abc import Mapping, Sequence
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import ml_collections
from ml_collections import config_dict

from vmoe_inform import checks
from vmoe_inform.config import migrations
from vmoe_inform.routing import steps


@functools.cache
def _hints(group: Any) -> Mapping[str, Any]:
    return types.MappingProxyType(get_type_hints(group, include_extras=True))


def _is_group(hint: Any) -> bool:
    return dataclasses.is_dataclass(checks.plain(hint))


def _field_for(value: Any, hint: Any) -> Any:
    """A ConfigDict entry whose type lets the command line and config files set whatever ``hint`` allows."""
    hint = checks.plain(hint)
    choices = [checks.plain(h) for h in get_args(hint)] if get_origin(hint) in (Union, types.UnionType) else [hint]
    types_left = {type(get_args(c)[0]) if get_origin(c) is Literal else get_origin(c) or c for c in choices}
    # Of type object where there are several: a typed entry could not be set to None from the command line.
    return value if len(types_left) == 1 else config_dict.FieldReference(value, field_type=object)


def to_config_dict(instance: Any) -> ml_collections.ConfigDict:
    """A dataclass of settings as a ConfigDict; ``options`` gets those of every registered step that it lacks."""
    kind: Any = type(instance)
    hints = _hints(kind)
    entries: dict[str, Any] = {}
    for field in dataclasses.fields(instance):
        value, hint = getattr(instance, field.name), hints[field.name]
        if _is_group(hint):
            entries[field.name] = to_config_dict(value)
        elif field.name == "options":
            entries[field.name] = ml_collections.ConfigDict(
                {
                    name: _options_of(step, value.get(name, {}))
                    for name, step in steps.all_steps().items()
                    if step.option_types
                }
            )
        else:
            entries[field.name] = _field_for(value, hint)
    return ml_collections.ConfigDict(entries)


def _options_of(step: steps.Step, given: Mapping[str, Any]) -> dict[str, Any]:
    values = {**step.option_defaults, **given}
    return {name: _field_for(values[name], hint) for name, hint in step.option_types.items()}


def _parse_options(given: Any, prefix: str, default: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    known = steps.all_steps()
    if not isinstance(given, Mapping | ml_collections.ConfigDict):
        raise checks.error(prefix, "a mapping from step name to options", given)
    check_keys(given, {name for name, step in known.items() if step.option_types}, prefix)
    parsed: dict[str, dict[str, Any]] = {}
    for name, step in known.items():
        values = given.get(name, {})
        if not isinstance(values, Mapping | ml_collections.ConfigDict):
            raise checks.error(f"{prefix}.{name}", "a mapping from option to value", values)
        check_keys(values, set(step.option_types), f"{prefix}.{name}")
        merged = {**step.option_defaults, **default.get(name, {}), **dict(values.items())}
        parsed[name] = {o: checks.conform(f"{prefix}.{name}.{o}", merged[o], t) for o, t in step.option_types.items()}
    return parsed


def check_keys(given: Any, known: set[str], prefix: str) -> None:
    """Raises ValueError for a key that is not known; ``prefix`` names the group."""
    for key in given:
        if key not in known:
            field = f"{prefix}.{key}" if prefix else str(key)
            if (renamed := migrations.new_name(field)) != field:
                raise checks.error(field, f"its new name, {renamed}", key)
            expected = f"one of the keys {', '.join(sorted(known))}" if known else "no keys"
            raise checks.unknown(prefix or "config", expected, key, known)


def hint_of(groups: Sequence[type], field: str) -> Any:
    """The type hint of a field, by its path such as ``"model.router.options.linear.bias"``; a group's own for a group.

    Args:
      groups: dataclasses of settings, any of which may have the field. Where its types differ, the hint allows all.
      field: path of the field.

    Raises:
      ValueError: an unknown field; lists the known ones of its group.
    """
    keys = field.split(".")
    found: list[Any] = list(groups)
    for number, key in enumerate(keys):
        prefix = ".".join(keys[:number])
        tables = [hints for hints in map(_fields_of, found) if hints is not None]
        if not tables:
            if today := migrations.regrouped(field):
                raise checks.error(field, f"what it is now, {today}", key)
            raise checks.error(prefix, "a field without fields of its own", field)
        check_keys([key], {name for hints in tables for name in hints}, prefix)
        found = [hints[key] for hints in tables if key in hints]
    plain = [checks.plain(hint) if _is_group(hint) else hint for hint in found]
    different = [hint for number, hint in enumerate(plain) if hint not in plain[:number]]
    if len(different) == 1 or _fields_of(different[0]) is not None:
        return different[0]
    return functools.reduce(operator.or_, different)


def _fields_of(hint: Any) -> Mapping[str, Any] | None:
    """Type hints of what a group has; None if the hint is of no group."""
    if isinstance(hint, Mapping):
        return hint
    if not _is_group(hint):
        return None
    hints = dict(_hints(checks.plain(hint)))
    if "options" in hints:
        hints["options"] = {n: step.option_types for n, step in steps.all_steps().items() if step.option_types}
    return hints


def parse_group(group: type, given: Any, prefix: str, default: Any = None) -> Any:
    """A mapping as the dataclass ``group``.

    Args:
      group: a dataclass of settings, nested or not.
      given: a ConfigDict or dict; what it leaves out has its default.
      prefix: name of the group in error messages, empty for the whole config.
      default: the group at its defaults; None for those of the dataclass. A group of groups may have others.

    Raises:
      ValueError: an unknown key, or a value of the wrong type or out of bounds.
    """
    if not isinstance(given, Mapping | ml_collections.ConfigDict):
        raise checks.error(prefix, f"a group with the keys of {group.__name__}", given)
    hints = _hints(group)
    check_keys(given, set(hints), prefix)
    default = group() if default is None else default
    values = {}
    for field in dataclasses.fields(group):
        name = f"{prefix}.{field.name}" if prefix else field.name
        hint, value = hints[field.name], getattr(default, field.name)
        if field.name == "options":
            value = _parse_options(given.get(field.name, {}), name, value)
        elif _is_group(hint):
            value = parse_group(checks.plain(hint), given.get(field.name, {}), name, value)
        elif field.name in given:
            value = checks.conform(name, given[field.name], hint)
        values[field.name] = value
    return group(**values)
