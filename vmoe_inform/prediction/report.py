"""Predictions of all files: lines on the terminal as they come, and the files that were asked for."""

import contextlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from vmoe_inform import storage
from vmoe_inform.prediction.files import ImageFiles
from vmoe_inform.prediction.predict import Prediction
from vmoe_inform.prediction.progress import Progress
from vmoe_inform.prediction.table import Table, shown
from vmoe_inform.prediction.written import csv_file, npz_file

_MOST_LINES = 20  # on the terminal, where a CSV file has all


@dataclass(frozen=True)
class Outputs:
    """Files to write; None: not this one.

    Attributes:
      csv: a table.
      npz: logits, and experts of all tokens.
      routing: the interactive page.
    """

    csv: storage.Path | None = None
    npz: storage.Path | None = None
    routing: storage.Path | None = None


def report(
    predictions: Iterable[Prediction],
    files: ImageFiles,
    class_names: Sequence[str],
    outputs: Outputs,
    *,
    page_of: Callable[[Sequence[int]], str],
    top: int,
    width: int | None = None,
    say: Callable[[str], None] = print,
    complain: Callable[[str], None] = print,
) -> int:
    """Says all predictions as they come, and writes files of them.

    Args:
      predictions: of all files, in their order; with experts where ``outputs.npz`` is written.
      files: that were looked at.
      class_names: in the order of the logits.
      outputs: files to write.
      page_of: makes the interactive page of the files of these numbers, at least one.
      top: classes of a file, at most those of the model.
      width: of the terminal in characters; None: as wide as the lines are.
      say: called with each line.
      complain: called with a line for each file that cannot be read.

    Returns:
      the number of files that cannot be read.

    Raises:
      Exception: what the predictions raise; then no file is written.
    """
    table = Table([files.name(position) for position in range(len(files))], class_names, top=top, width=width)
    most_lines = len(files) if outputs.csv is None else _MOST_LINES
    readable: list[int] = []
    with contextlib.ExitStack() as stack:
        progress = stack.enter_context(Progress(len(files)))
        takers = [shown(table, most=most_lines, say=say, complain=complain)]
        if outputs.csv is not None:
            takers.append(stack.enter_context(csv_file(outputs.csv, class_names, top=top)))
        if outputs.npz is not None:
            takers.append(stack.enter_context(npz_file(outputs.npz, class_names)))
        for prediction in predictions:
            progress.advance()
            for take in takers:
                take(prediction)
            if prediction.logits is not None:
                readable.append(prediction.position)
    if len(readable) > most_lines:
        say(f"and {len(readable) - most_lines:,} more images in {outputs.csv}")
    if table.top < top:
        say(f"The terminal has room for {table.top} of {top} classes; --csv=FILE has all.")
    if outputs.routing is not None and readable:
        storage.write_text(outputs.routing, page_of(readable))
    for path in (outputs.csv, outputs.npz if readable else None, outputs.routing if readable else None):
        if path is not None:
            say(str(path))
    return len(files) - len(readable)
