"""metrics.jsonl: one JSON object a line. It is the run's own record, which is read when the run resumes."""

import contextlib
import json
import math
from collections.abc import Mapping
from typing import Any

from absl import logging

from vmoe_inform import checks, storage
from vmoe_inform.storage import strict
from vmoe_inform.training.writers.base import WRITERS, Opening, Writer

FILE = "metrics.jsonl"
_TAIL_BYTES = 1 << 18  # which hold more than one line


@WRITERS.register("jsonl")
class JsonLines(Writer):
    """Appends to DIR/metrics.jsonl, a line for each call.

    A run that resumes from step s cuts off what an earlier process logged after s, since those steps are repeated.
    A damaged file is moved to ``damaged_metrics.jsonl``; its whole lines are kept. Lines that cannot be written, such
    as on a full disk, are kept until they can.

    Raises:
      OSError: the file cannot be written at all.
    """

    when_failing = "the numbers are kept until they fit"

    def __init__(self, opening: Opening):
        path = opening.workdir / FILE
        _cut_off(path, opening)
        self._file = storage.log(path, within=opening.workdir)
        with contextlib.suppress(OSError, checks.InputError):  # the first line says so again
            self._file.add(b"")

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        """NaN and infinity are written as strings, so that each line is valid JSON."""
        line = json.dumps({"step": step, **{name: _json_number(value) for name, value in metrics.items()}})
        self._file.add(f"{line}\n".encode())

    def flush(self) -> None:
        """See :class:`~vmoe_inform.storage.Log`."""
        self._file.flush()

    def close(self) -> None:
        """Raises OSError if lines could not be written to the end."""
        if self._file.waiting:  # else nothing is made anew in the place of a folder that was removed
            try:
                self._file.flush()
            except (OSError, checks.InputError):
                reason = f"not written to the end: its last {self._file.waiting:,} bytes are lost"
                expected = "expected all numbers of the run"
                raise OSError(f"{self._file.path}: {expected}; received a file {reason}") from None


def _json_number(value: float) -> float | str:
    """JSON has no NaN and no infinity: they become the strings that Python's ``float`` and JavaScript's both read."""
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "Infinity" if value > 0 else "-Infinity"
    return value


# ----------------------------------------------------------------------------------------------------------- reading


def read_metrics(path: storage.Path) -> list[dict[str, float]]:
    """The lines of a metrics.jsonl, oldest first; what is damaged is left out with a warning.

    Args:
      path: the file; one that does not exist has no lines.
    """
    return _read(path)[0]


def last_step(path: storage.Path) -> int:
    """The step of the last whole line of a metrics.jsonl, found without reading all of it; 0 if there is none."""
    try:
        with storage.opened(path, most_bytes=storage.MOST_LINES_BYTES, within=path.parent) as (file, size):
            file.seek(max(size - _TAIL_BYTES, 0))
            lines = file.read(_TAIL_BYTES).split(b"\n")
    except (FileNotFoundError, checks.InputError):
        return 0
    for line in reversed(lines):
        try:
            return _entry(strict.parse_json(line))["step"]
        except ValueError:
            continue
    return 0


def _read(path: storage.Path) -> tuple[list[dict[str, float]], bool]:
    """The whole lines, and whether there is damage other than a last line that was not written to its end."""
    try:
        entries, problems = storage.read_json_lines(path, _entry, within=path.parent)
    except FileNotFoundError:
        return [], False
    except storage.DamagedFileError as problem:
        logging.warning("%s; the log is left out", problem)
        return [], True
    if problems.pop(0, None) is not None:
        logging.warning("%s: dropped its last line, which was not written to the end", path)
    if problems:
        number, reason = next(iter(problems.items()))
        others = f" and {len(problems) - 1:,} more" if len(problems) > 1 else ""
        logging.warning("%s: left out line %d%s: expected a JSON object with a step; %s", path, number, others, reason)
    return entries, bool(problems)


def _entry(value: Any) -> dict[str, Any]:
    """A line's numbers by name; the step is an integer."""
    if not isinstance(value, dict) or type(value.get("step")) is not int:
        raise ValueError(f"received {str(value)[:60]!r}")
    try:
        return {**{name: float(number) for name, number in value.items()}, "step": value["step"]}
    except (TypeError, OverflowError) as problem:
        raise ValueError(str(problem)) from None


def _is_repeated(entry: Mapping[str, Any], opening: Opening) -> bool:
    if opening.evaluates_again and entry["step"] == opening.start_step:
        return any(name.startswith("evaluation/") for name in entry)
    return entry["step"] > opening.start_step


def _cut_off(path: storage.Path, opening: Opening) -> None:
    """Drops the lines that are written again; there is the old file or the new one at any time, never a part.

    A damaged file is kept under another name, and its whole lines in the new one. One without any is moved.
    """
    if not storage.exists(path):
        return
    entries, damaged = _read(path)
    kept = [entry for entry in entries if not _is_repeated(entry, opening)]
    text = "".join(json.dumps({name: _json_number(value) for name, value in entry.items()}) + "\n" for entry in kept)
    if damaged:
        kept_as = storage.copy_aside(path, within=path.parent) if entries else storage.set_aside(path)
        logging.warning("%s was moved to %s; a new one has its whole lines", path, kept_as)
    storage.write_text(path, text, within=path.parent)
