"""Fields of a config with several values each, as a command line gives them, and all their combinations."""

import dataclasses
import itertools
import re
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

from vmoe_inform import checks
from vmoe_inform.config import from_text, groups
from vmoe_inform.config.settings import CONFIGS

Swept: TypeAlias = Mapping[str, tuple[Any, ...]]  # by field, the values to try

_ITEM = r"(?:\([^()]*\)|'[^']*'|\"[^\"]*\"|[^,()'\"])+"  # commas in brackets and quotes separate nothing


def parse(fixed: Mapping[str, str], swept: Sequence[str]) -> Swept:
    """The values of each field, in the order in which they are given.

    Args:
      fixed: text by field.
      swept: ``FIELD=VALUE,VALUE,...`` each; a value that is a tuple stands in brackets, as in ``('a','b'),('b','a')``.

    Raises:
      ValueError: another form, an unknown field, a field or value that is given twice, or a value that does not fit.
    """
    found: dict[str, tuple[Any, ...]] = {}
    given = [*(("--config", *item) for item in fixed.items()), *(("--sweep", *_split(text)) for text in swept)]
    for flag, field, text in given:
        if field in found:
            raise checks.error(field, "each field once among --config and --sweep", f"{field}={text}")
        hint = groups.hint_of(list(CONFIGS.values()), field)
        if isinstance(hint, Mapping) or dataclasses.is_dataclass(hint):
            spelling = f"--config.{field}.NAME=VALUE" if flag == "--config" else f"--sweep={field}.NAME=VALUE,VALUE"
            raise checks.error(field, f"a field of this group, as {spelling}", f"{field}={text}")
        items = _items(field, text) if flag == "--sweep" else [text]
        found[field] = tuple(from_text.value(field, item, hint) for item in items)
        for value in found[field]:
            if found[field].count(value) > 1:
                raise checks.error(field, "each value once", text)
    return found


def _split(given: str) -> tuple[str, str]:
    """Field and values of a ``--sweep``."""
    field, equals, text = given.partition("=")
    if not (field and equals):
        raise checks.error("--sweep", "--sweep=FIELD=VALUE,VALUE", given)
    return field, text


def _items(field: str, text: str) -> list[str]:
    if not re.fullmatch(f"{_ITEM}(?:,{_ITEM})*", text):
        raise checks.error(field, "a comma list of values without empty items", text)
    return [item.strip() for item in re.findall(_ITEM, text)]


def combinations(swept: Swept) -> list[dict[str, Any]]:
    """Every combination of the values, by field; the last field varies fastest. None where no field is given."""
    if not swept:
        return []
    return [dict(zip(swept, values, strict=True)) for values in itertools.product(*swept.values())]
