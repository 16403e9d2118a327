"""What a run writes while it trains: metrics.jsonl, TensorBoard events, and its progress on the terminal."""

import contextlib
import json
import math
import os
import pathlib
import socket
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from types import TracebackType
from typing import Any, Self, SupportsFloat

import rich.console
import rich.progress
from absl import logging

from vmoe_inform import checks, storage
from vmoe_inform.storage import strict
from vmoe_inform.training import tensorboard

_TAIL_BYTES = 1 << 18  # which hold more than one line
Scalars = Mapping[str, SupportsFloat]


def _json_number(value: float) -> float | str:
    """JSON has no NaN and no infinity: they become the strings that Python's ``float`` and JavaScript's both read."""
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "Infinity" if value > 0 else "-Infinity"
    return value


def read_metrics(path: pathlib.Path) -> list[dict[str, float]]:
    """The lines of a metrics.jsonl, oldest first; what is damaged is left out with a warning.

    Args:
      path: the file; one that does not exist has no lines.
    """
    return _read(path)[0]


def last_step(path: pathlib.Path) -> int:
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


def _read(path: pathlib.Path) -> tuple[list[dict[str, float]], bool]:
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


class MetricsLogger:
    """Appends scalars to DIR/metrics.jsonl, one JSON object a line, and to the TensorBoard events in DIR/tensorboard.

    A run that resumes from step s says ``start_step=s``: what an earlier process logged after s is cut off, because
    those steps are about to be done again.

    Args:
      workdir: DIR; made if it does not exist.
      start_step: the step of the checkpoint that training goes on from; 0 for a new run.
      is_main_process: a process that is not the main one writes nothing.

    A damaged metrics.jsonl is put aside (``damaged_metrics.jsonl``); its whole lines are kept.

    Nothing here waits, and a file that cannot be written, such as on a full disk, does not end the run: that is said
    once, and the numbers are kept until they can be written.

    Raises:
      ValueError: start_step < 0, or ``tensorboard`` is a link or a file.
      OSError: metrics.jsonl cannot be written at all.
    """

    def __init__(self, workdir: str | os.PathLike[str], *, start_step: int = 0, is_main_process: bool = True):
        if start_step < 0:
            raise checks.error("start_step", "an integer >= 0", start_step)
        self._files: tuple[storage.GrowingFile, ...] = ()
        self._failing: set[storage.GrowingFile] = set()
        if not is_main_process:
            return
        directory = pathlib.Path(workdir)
        path = directory / "metrics.jsonl"
        _cut_off(path, after_step=start_step)
        name = f"events.out.tfevents.{int(time.time())}.{socket.gethostname()}.from_step_{start_step}"
        events = directory / "tensorboard" / name
        storage.check_folders(events.parent, directory)
        self._files = (
            storage.GrowingFile(path, within=directory),
            storage.GrowingFile(events, header=tensorboard.header(), within=directory),
        )
        self._add(b"", tensorboard.start(start_step + 1))

    def log(self, step: int, metrics: Scalars, prefix: str = "") -> None:
        """Writes one line, whole and at once, and one event for each metric.

        Args:
          step: optimizer steps done.
          metrics: scalars by name; NaN and infinity are written as strings, so that each line is valid JSON.
          prefix: ``"evaluation"`` makes ``loss`` ``evaluation/loss``.

        Raises:
          ValueError: a metric called ``step``, or one that is no scalar.
        """
        if not self._files:
            return
        named: dict[str, float] = {}
        for name, value in metrics.items():
            full_name = f"{prefix}/{name}" if prefix else name
            if full_name == "step":
                raise checks.error("metrics", "names other than 'step'", name)
            try:
                named[full_name] = float(value)
            except TypeError:
                raise checks.error(f"metrics[{name!r}]", "a scalar", value) from None
        line = json.dumps({"step": int(step), **{name: _json_number(value) for name, value in named.items()}})
        self._add(f"{line}\n".encode(), tensorboard.scalars(int(step), named))

    def _add(self, *contents: bytes) -> None:
        for file, content in zip(self._files, contents, strict=True):
            try:
                file.add(content)
            except (OSError, checks.InputError) as problem:
                if file not in self._failing:
                    logging.error("log: %s; training continues, and the numbers are kept until they fit", problem)
                self._failing.add(file)
            else:
                self._failing.discard(file)

    def close(self) -> None:
        """Writes what is left.

        Raises:
          OSError: lines of metrics.jsonl could not be written to the end. TensorBoard has no other numbers.
        """
        files = self._files
        if any(file.waiting for file in files):  # else nothing is made anew in the place of a folder that was removed
            self._add(*[b""] * len(files))
        self._files = ()
        if files and files[0].waiting:
            reason = f"not written to the end: its last {files[0].waiting:,} bytes are lost"
            raise OSError(f"{files[0].path}: expected all numbers of the run; received a file {reason}")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.close()
        except OSError as error:
            if problem is None:
                raise
            logging.error("%s", error)  # beside what ends the run


def _cut_off(path: pathlib.Path, *, after_step: int) -> None:
    """Drops the lines of later steps; a reader sees the old file or the new one, never a part.

    A damaged file is put aside, so that nothing is lost, and its whole lines are kept.
    """
    if not storage.exists(path):
        return
    entries, damaged = _read(path)
    kept = [entry for entry in entries if entry["step"] <= after_step]
    text = "".join(json.dumps({name: _json_number(value) for name, value in entry.items()}) + "\n" for entry in kept)
    if damaged:
        logging.warning("%s was moved to %s; a new one has its whole lines", path, storage.set_aside(path))
    storage.write_text(path, text, within=path.parent)


class _Console(rich.console.Console):
    def on_broken_pipe(self) -> None:
        """Nobody reads what a run prints any more (``train | head``), where rich would end it."""
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


class Progress:
    """How far training is: a bar on a terminal, one plain line for each update elsewhere.

    Args:
      total_steps: steps of the whole run.
      start_step: steps that were done before this process.
      is_main_process: a process that is not the main one shows nothing.
      console: where to; standard output if None.
      clock: seconds, for the time that is left.

    Raises:
      ValueError: total_steps < 1, or start_step outside 0 ... total_steps.
    """

    def __init__(
        self,
        total_steps: int,
        start_step: int = 0,
        *,
        is_main_process: bool = True,
        console: rich.console.Console | None = None,
        clock: Callable[[], float] = time.monotonic,
    ):
        if total_steps < 1:
            raise checks.error("total_steps", "an integer >= 1", total_steps)
        if not 0 <= start_step <= total_steps:
            raise checks.error("start_step", f"0 to total_steps = {total_steps}", start_step)
        self._total_steps = total_steps
        self._shown = is_main_process
        self._has_failed = False
        self._clock = clock
        self._first: tuple[int, float] | None = None  # step and time of the first update
        self._console = console or _Console()
        self._bar: rich.progress.Progress | None = None
        if is_main_process and self._console.is_terminal:
            self._bar = rich.progress.Progress(
                rich.progress.BarColumn(bar_width=None),
                rich.progress.TextColumn("{task.description}", markup=False),
                console=self._console,
                expand=True,
            )
            self._task = self._bar.add_task(
                self._describe(start_step, {}, None), total=total_steps, completed=start_step
            )

    def update(self, step: int, metrics: Scalars) -> None:
        """Shows that ``step`` steps are done.

        Args:
          step: optimizer steps done, those before ``start_step`` included.
          metrics: what to show beside it, usually loss, accuracy (a share) and images_per_second.
        """
        if not self._shown:
            return
        now = self._clock()
        # The clock starts at the first update: the steps before it hold the compilation, which does not come again.
        if self._first is None:
            self._first = (step, now)
        first_step, first_time = self._first
        seconds = (now - first_time) * (self._total_steps - step) / (step - first_step) if step > first_step else None
        text = self._describe(step, metrics, seconds)
        with self._unless_it_fails():
            if self._bar is not None:
                self._bar.update(self._task, completed=step, description=text)
            else:
                self._console.print(text, markup=False, highlight=False, soft_wrap=True)

    @contextlib.contextmanager
    def _unless_it_fails(self) -> Iterator[None]:
        """Output that cannot be written, such as to a full disk, does not end the run; that is said once."""
        try:
            yield
        except OSError as problem:
            if not self._has_failed:
                logging.error("progress: expected output that can be written to; received %s", problem)
            self._has_failed = True

    def _describe(self, step: int, metrics: Scalars, seconds_left: float | None) -> str:
        parts = [f"{100 * step // self._total_steps:3d} %", f"step {step}/{self._total_steps}"]
        parts += [_describe_metric(name, float(value)) for name, value in metrics.items()]
        parts.append(f"ETA {'-:--' if seconds_left is None else _describe_seconds(seconds_left)}")
        return "  ".join(parts)

    def __enter__(self) -> Self:
        if self._bar is not None:
            with self._unless_it_fails():
                self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            with self._unless_it_fails():
                self._bar.stop()


def _describe_metric(name: str, value: float) -> str:
    if name == "images_per_second":
        return f"{value:,.0f} images/s"
    if name == "accuracy":
        return f"accuracy {100 * value:.1f} %"
    return f"{name} {value:.4f}"


def _describe_seconds(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
