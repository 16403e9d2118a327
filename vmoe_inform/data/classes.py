"""Classes by name: a label means the name of its class, never its number."""

import collections
import dataclasses
from collections.abc import Sequence

import numpy as np
from jaxtyping import Int

from vmoe_inform import checks
from vmoe_inform.data.records import Source

_NAMES_SHOWN = 5  # of each side of a difference


def in_order(source: Source, class_names: Sequence[str], field: str) -> Source:
    """The source with labels that number ``class_names``, instead of its own names in its own order.

    Args:
      source: of the same classes, in any order.
      class_names: of the model; empty: not known, the source stays as it is.
      field: what to call the source's classes in an error.

    Raises:
      ValueError: it has other classes; lists the difference.
    """
    wanted = tuple(class_names)
    if not wanted or source.class_names == wanted:
        return source
    check_same(source.class_names, wanted, field)
    labels = positions(source.class_names, wanted, field)
    return dataclasses.replace(source, records=source.records.relabelled(labels), class_names=wanted)


def positions(names: Sequence[str], class_names: Sequence[str], field: str = "class names") -> Int[np.ndarray, " n"]:
    """Label of each of ``names`` among ``class_names``.

    Args:
      names: of classes.
      class_names: of the model, in the order of its labels.
      field: what to call ``names`` in an error.

    Raises:
      ValueError: names that are not among ``class_names``.
    """
    known = {name: label for label, name in enumerate(class_names)}
    unknown = [name for name in names if name not in known]
    if unknown:
        raise checks.error(field, f"among the model's {len(known)} classes", some(unknown))
    return np.array([known[name] for name in names], np.int64)


def check_same(received: Sequence[str], expected: Sequence[str], field: str) -> None:
    """Raises ValueError, with the difference, unless both name the same classes, in any order, each once."""
    if collections.Counter(received) != collections.Counter(expected):
        raise checks.InputError(
            f"{field}: expected the model's {len(expected)} classes; received {len(received)}: "
            f"{difference(received, expected)}"
        )
    twice = [name for name, count in collections.Counter(received).items() if count > 1]
    if twice:
        raise checks.error(field, "names that are different, to tell classes by", some(twice))


def check_labels(received: Sequence[str], number: int | None, names: Sequence[str]) -> None:
    """Raises ValueError for data whose labels would mean other classes than the model's.

    Args:
      received: classes of the data, in the order of the labels.
      number: of the model's classes.
      names: of the model's classes; empty: not known.
    """
    if len(received) != number:
        raise checks.error("data", f"the model's {number} classes", len(received))
    if names and tuple(received) != tuple(names):
        check_same(received, names, "data")
        raise checks.error("data", "labels in the order of the model's classes", "the same classes in another")


def difference(received: Sequence[str], expected: Sequence[str]) -> str:
    """``missing: cat, dog; unknown: rain and 7 more``: at most five names of each side."""
    theirs, ours = set(received), set(expected)
    missing = [name for name in expected if name not in theirs]
    unknown = [name for name in received if name not in ours]
    return f"missing: {some(missing)}; unknown: {some(unknown)}"


def some(names: Sequence[str]) -> str:
    """The first five names in words, and how many there are more."""
    more = f" and {len(names) - _NAMES_SHOWN:,} more" if len(names) > _NAMES_SHOWN else ""
    return ", ".join(names[:_NAMES_SHOWN]) + more if names else "none"
