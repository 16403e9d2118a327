"""The tables that an import prints: settings with where they are from, and every array of either side."""

import shlex
from collections.abc import Iterator, Mapping, Sequence

from vmoe_inform import storage
from vmoe_inform.config import ImageDataConfig
from vmoe_inform.interop.plan import Row
from vmoe_inform.interop.precedence import ASSUMED, Value


def lines_of_settings(values: Mapping[str, Value]) -> Iterator[str]:
    """A line for each setting that was decided."""
    width = max((len(field) for field in values), default=0)
    for field, value in sorted(values.items()):
        yield f"  {field.ljust(width)}  {value.value!r}  ({value.origin})"


def lines_of_arrays(rows: Sequence[Row]) -> Iterator[str]:
    """A line for each array, theirs -> ours, under a heading."""
    cells = [("theirs", "ours", "shape", "action")]
    cells += [(row.theirs or "-", row.ours or "-", _shape(row.shape), row.action) for row in rows]
    widths = [max(len(line[column]) for line in cells) for column in range(3)]
    for line in cells:
        yield "  ".join([*(cell.ljust(width) for cell, width in zip(line, widths, strict=False)), line[3]])


def _shape(shape: Sequence[int]) -> str:
    return " x ".join(map(str, shape)) or "one value"


def lines_of_data(data: ImageDataConfig, names_from: str) -> Iterator[str]:
    """How images are prepared, and what the logits stand for.

    Args:
      data: of the run's config.
      names_from: origin of the names of the classes.
    """
    yield (
        f"pixels: (value in [0, 1] - {data.pixel_mean}) / {data.pixel_std}; evaluation: {data.evaluation_resize} "
        f"resize, {data.evaluation_interpolation}, crop {data.evaluation_crop:.4g}"
    )
    names = data.class_names
    known = f"{names[0]}, {names[1]}, ... {names[-1]}" if len(names) > 2 else ", ".join(names)
    if not names:
        yield "classes: not known; data are taken to number them as the checkpoint does (--classes=FILE names them)"
    elif names_from == ASSUMED:
        yield f"classes: {known} (ASSUMED: 1,000 without names are ImageNet's, unless --classes=FILE or unknown)"
    else:
        yield f"classes: {known} ({names_from})"


def next_command(workdir: storage.Path, *, asks_for_data: bool) -> str:
    """How the run is evaluated; with a place for the folder of its data, if nothing says where they lie."""
    return f"vmoe-evaluate --workdir={shlex.quote(str(workdir))}{' --data_directory=DIR' * asks_for_data}"
