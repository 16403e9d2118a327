"""Rows of a benchmark for people, as an aligned table, and for programs, as flat JSON values."""

import dataclasses
from collections.abc import Sequence
from typing import Any, TypeAlias

from vmoe_inform.performance.timing import Spread

Row: TypeAlias = Any  # a dataclass of numbers, words, spreads and None
JsonValue: TypeAlias = str | int | float | bool | None


def flatten(row: Row) -> dict[str, JsonValue]:
    """The fields by name; a spread ``x`` becomes ``x`` (median), ``x_lower``, ``x_upper`` and ``x_repeats``."""
    values: dict[str, JsonValue] = {}
    for field in dataclasses.fields(row):
        value = getattr(row, field.name)
        if isinstance(value, Spread):
            values[field.name] = value.median
            values |= {f"{field.name}_{part}": getattr(value, part) for part in ("lower", "upper", "repeats")}
        else:
            values[field.name] = value
    return values


def render(rows: Sequence[Row]) -> str:
    """An aligned table of rows of one type: a heading word a line, medians with their quartiles in brackets.

    Columns in which no row has a value are left out; a single missing value is a dash.
    """
    names = [field.name for field in dataclasses.fields(rows[0])]
    names = [name for name in names if any(getattr(row, name) is not None for row in rows)]
    headings = [name.split("_") for name in names]
    height = max(map(len, headings))
    lines = [
        # words of a heading stand above each other, the last one next to the values
        *zip(*([""] * (height - len(words)) + words for words in headings), strict=True),
        *([_format(getattr(row, name)) for name in names] for row in rows),
    ]
    widths = [max(len(line[column]) for line in lines) for column in range(len(names))]
    return "\n".join(
        "  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines
    )


def _format(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, Spread):
        return f"{_format(value.median)} [{_format(value.lower)}, {_format(value.upper)}]"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        if 0 < abs(value) < 1e-3:
            return f"{value:.0e}"
        # Three decimals for ratios, fewer where the number is large anyway.
        return f"{value:.3f}" if abs(value) < 10 else f"{value:.1f}" if abs(value) < 1000 else f"{value:,.0f}"
    return f"{value:,}" if isinstance(value, int) else str(value)
