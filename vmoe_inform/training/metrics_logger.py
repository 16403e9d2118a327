"""Hands the metrics of a run to its writers."""

import functools
import os
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Any, Self, SupportsFloat

from absl import logging

from vmoe_inform import checks, storage
from vmoe_inform.config import TrainConfig
from vmoe_inform.training import writers
from vmoe_inform.training.writers import WRITERS, Opening, Writer
from vmoe_inform.training.writers.base import REQUIRED

Scalars = Mapping[str, SupportsFloat]
DEFAULT_WRITERS = TrainConfig().writers


class MetricsLogger:
    """Writes metrics with every writer of the run; a context manager.

    A writer that fails, such as on a full disk, does not end the run: that is logged once for each writer.

    Args:
      workdir: DIR; made if it does not exist.
      names: writers by their registered names, ``train.writers``.
      start_step: the step that training resumes from; 0 for a new run.
      config: resolved config of the run, as JSON values, for writers that record it.
      evaluates_again: whether evaluations of ``start_step`` are repeated, with settings that change their results.
      is_main_process: a process that is not the main one writes nothing.

    Raises:
      ValueError: start_step < 0, or a writer that cannot be opened.
      OSError: metrics.jsonl cannot be written at all.
    """

    def __init__(
        self,
        workdir: str | os.PathLike[str],
        names: Sequence[str] = DEFAULT_WRITERS,
        *,
        start_step: int = 0,
        config: Mapping[str, Any] | None = None,
        evaluates_again: bool = False,
        is_main_process: bool = True,
    ):
        if start_step < 0:
            raise checks.error("start_step", "an integer >= 0", start_step)
        self._writers: dict[str, Writer] = {}
        self._failing: set[str] = set()
        if is_main_process:
            writers.check(names)
            opening = Opening(storage.path("workdir", workdir), start_step, config or {}, evaluates_again)
            for name in names:
                self._writers[name] = WRITERS[name](opening)

    def log(self, step: int, metrics: Scalars, prefix: str = "") -> None:
        """Writes metrics of one step.

        Args:
          step: optimizer steps done.
          metrics: scalars by name.
          prefix: ``"evaluation"`` makes ``loss`` ``evaluation/loss``.

        Raises:
          ValueError: a metric called ``step``, or one that is no scalar.
        """
        if not self._writers:
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
        for name, writer in self._writers.items():
            self._try(name, functools.partial(writer.write, int(step), named))

    def flush(self) -> None:
        """Waits until the run's own record outlasts this process: a checkpoint may then be as new as the log."""
        if REQUIRED in self._writers:
            self._try(REQUIRED, self._writers[REQUIRED].flush)

    def _try(self, name: str, do: Callable[[], None]) -> None:
        try:
            do()
        except Exception as problem:  # whatever the library of a writer raises
            if name not in self._failing:
                words = "log (%s): %s; training continues: %s"
                logging.error(words, name, problem, self._writers[name].when_failing)
            self._failing.add(name)
        else:
            self._failing.discard(name)

    def close(self) -> None:
        """Closes all writers. Raises the first OSError of one that lost metrics."""
        first: OSError | None = None
        opened, self._writers = self._writers, {}
        for name, writer in opened.items():
            try:
                writer.close()
            except OSError as problem:
                first = first or problem
            except Exception as problem:  # as in log()
                logging.error("log (%s): %s", name, problem)
        if first is not None:
            raise first

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
            logging.error("%s", error)  # besides what ends the run
