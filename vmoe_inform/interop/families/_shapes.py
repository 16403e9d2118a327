"""What families read off the names and shapes of a checkpoint."""

import re
from collections.abc import Mapping
from typing import Any, TypeAlias

from vmoe_inform import checks
from vmoe_inform.interop.families.base import Question

Shapes: TypeAlias = Mapping[str, tuple[int, ...]]

_NAMES_SHOWN = 5


def shape_of(shapes: Shapes, name: str, axes: int | None = None) -> tuple[int, ...]:
    """The shape of an array that every model of the family has.

    Args:
      shapes: of all arrays by name.
      name: of the array.
      axes: how many it has to have; None for any number.

    Raises:
      ValueError: there is no such array, or it has another number of axes.
    """
    if name not in shapes:
        raise checks.error("checkpoint", f"an array {name}", sorted(shapes)[:_NAMES_SHOWN])
    if axes is not None and len(shapes[name]) != axes:
        raise checks.error(name, f"{axes} axes", list(shapes[name]))
    return shapes[name]


def number_of_blocks(shapes: Shapes, names: str) -> int:
    """Number of blocks, of which all from 0 on have to be there.

    Args:
      shapes: of all arrays by name.
      names: regular expression of how names of a block's arrays begin, with the number as its group.

    Raises:
      ValueError: there is none, or one between others is missing.
    """
    found = {int(match[1]) for name in shapes if (match := re.match(names, name))}
    if not found or found != set(range(len(found))):
        raise checks.error("checkpoint", f"blocks 0 to {max(0, len(found) - 1)}", sorted(found)[:_NAMES_SHOWN])
    return len(found)


def refuse(shapes: Shapes, missing: Mapping[str, str], expected: str) -> None:
    """Raises ValueError for arrays of models that this library does not have.

    Args:
      shapes: of all arrays by name.
      missing: regular expressions of names -> what such a model has.
      expected: what it would have to be.
    """
    for pattern, what in missing.items():
        if found := sorted(name for name in shapes if re.fullmatch(pattern, name)):
            raise checks.error(found[0], expected, what)


def asked(model: Mapping[str, Any]) -> dict[str, Question]:
    """What has to be asked for where a checkpoint has no head, or no position embeddings.

    Args:
      model: the fields of ``config.model`` that are known.
    """
    questions = {
        "num_classes": Question("classes of a new head (with --allow_missing=head), as the checkpoint has none", "10"),
        "image_size_px": Question("side of its images, which position embeddings would say; they are computed", "224"),
    }
    return {field: question for field, question in questions.items() if field not in model}
