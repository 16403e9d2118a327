"""What a run writes while it trains: metrics.jsonl, TensorBoard events, and its progress on the terminal."""

import json
import math
import os
import pathlib
import time
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Self, SupportsFloat

import rich.console
import rich.progress
import tensorboardX
from absl import logging

from vmoe_inform import checks

Scalars = Mapping[str, SupportsFloat]


def _json_number(value: float) -> float | str:
    """JSON has no NaN and no infinity: they become the strings that Python's ``float`` and JavaScript's both read."""
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "Infinity" if value > 0 else "-Infinity"
    return value


def read_metrics(path: pathlib.Path) -> list[dict[str, float]]:
    """The lines of a metrics.jsonl, oldest first.

    The last line is left out, with a warning, if it is torn: a process that is killed while it writes leaves half a
    line.

    Args:
      path: the file; one that does not exist has no lines.

    Raises:
      ValueError: a line that is not the last is no JSON object with a ``step``.
    """
    if not path.exists():
        return []
    lines = path.read_bytes().splitlines()
    entries = []
    for number, line in enumerate(lines, start=1):
        try:
            entry = json.loads(line)
            step = int(entry["step"])
        except (ValueError, KeyError, TypeError):
            if number < len(lines):
                raise checks.error(f"{path}, line {number}", "a JSON object with a step", line) from None
            logging.warning("%s: dropped its last line, which was not written to the end: %r", path, line)
            continue
        entries.append({**{name: float(value) for name, value in entry.items()}, "step": step})
    return entries


class MetricsLogger:
    """Appends scalars to DIR/metrics.jsonl, one JSON object a line, and to the TensorBoard events in DIR/tensorboard.

    A run that resumes from step s says ``start_step=s``: what an earlier process logged after s is cut off, because
    those steps are about to be done again.

    Args:
      workdir: DIR; made if it does not exist.
      start_step: the step of the checkpoint that training goes on from; 0 for a new run.
      is_main_process: a process that is not the main one writes nothing.

    Raises:
      ValueError: start_step < 0, or a metrics.jsonl that was not written by this class.
    """

    def __init__(self, workdir: str | os.PathLike[str], *, start_step: int = 0, is_main_process: bool = True):
        if start_step < 0:
            raise checks.error("start_step", "an integer >= 0", start_step)
        self._lines = None
        self._events = None
        if not is_main_process:
            return
        directory = pathlib.Path(workdir)
        directory.mkdir(parents=True, exist_ok=True)
        path = directory / "metrics.jsonl"
        _cut_off(path, after_step=start_step)
        self._lines = path.open("a", encoding="utf-8")
        # The suffix keeps a run that resumes within a second from opening, and so emptying, the file of before.
        self._events = tensorboardX.SummaryWriter(
            str(directory / "tensorboard"), purge_step=start_step + 1, filename_suffix=f".from_step_{start_step}"
        )

    def log(self, step: int, metrics: Scalars, prefix: str = "") -> None:
        """Writes one line, whole and at once, and one event for each metric.

        Args:
          step: optimizer steps done.
          metrics: scalars by name; NaN and infinity are written as strings, so that each line is valid JSON.
          prefix: ``"evaluation"`` makes ``loss`` ``evaluation/loss``.

        Raises:
          ValueError: a metric called ``step``, or one that is no scalar.
        """
        if self._lines is None or self._events is None:
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
        self._lines.write(line + "\n")
        self._lines.flush()
        for name, value in named.items():
            self._events.add_scalar(name, value, global_step=int(step))

    def close(self) -> None:
        """Writes what is waiting and closes the files."""
        if self._lines is not None:
            self._lines.close()
        if self._events is not None:
            self._events.close()
        self._lines = self._events = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _cut_off(path: pathlib.Path, *, after_step: int) -> None:
    """Drops the lines of later steps; a reader sees the old file or the new one, never a part."""
    if not path.exists():
        return
    kept = [entry for entry in read_metrics(path) if entry["step"] <= after_step]
    text = "".join(json.dumps({name: _json_number(value) for name, value in entry.items()}) + "\n" for entry in kept)
    temporary = path.with_name(path.name + ".new")
    temporary.write_text(text, encoding="utf-8")
    os.replace(temporary, path)


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
        self._clock = clock
        self._first: tuple[int, float] | None = None  # step and time of the first update
        self._console = console or rich.console.Console()
        self._bar: rich.progress.Progress | None = None
        if is_main_process and self._console.is_terminal:
            self._bar = rich.progress.Progress(
                rich.progress.BarColumn(bar_width=None),
                rich.progress.TextColumn("{task.description}"),
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
        if self._bar is not None:
            self._bar.update(self._task, completed=step, description=text)
        else:
            self._console.print(text, markup=False, highlight=False, soft_wrap=True)

    def _describe(self, step: int, metrics: Scalars, seconds_left: float | None) -> str:
        parts = [f"{100 * step // self._total_steps:3d} %", f"step {step}/{self._total_steps}"]
        parts += [_describe_metric(name, float(value)) for name, value in metrics.items()]
        parts.append(f"ETA {'-:--' if seconds_left is None else _describe_seconds(seconds_left)}")
        return "  ".join(parts)

    def __enter__(self) -> Self:
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
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
