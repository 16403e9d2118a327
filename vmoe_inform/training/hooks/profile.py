"""Traces some steps of a run, for XProf, TensorBoard or Perfetto."""

import contextlib
from typing import Self

import jax
from absl import logging

from vmoe_inform import checks, storage
from vmoe_inform.sharding.watchdog import Watchdog
from vmoe_inform.training.hooks.base import Hook, Training

FOLDER = "profile"
WARM_UP_STEPS = 3  # of each process, before the trace: the first is compiled, and buffers are new


class Profile(Hook):
    """Writes DIR/profile/process_I/plugins/profile/TIME/HOST.xplane.pb and perfetto_trace.json.gz; a context manager.

    The trace has whole steps, since a hook acts when all steps are finished. A run that stops within the trace leaves
    the steps until then. Leaving the context ends the trace, also after an error.
    """

    def __init__(
        self,
        workdir: storage.Path,
        num_steps: int | None,
        *,
        first_step: int,
        last_step: int,
        process: int,
        watchdog: Watchdog,
    ):
        """Args:
        workdir: DIR.
        num_steps: of the trace; None for no trace.
        first_step, last_step: steps done when this process begins, and when it ends.
        process: I; each writes its own trace.
        watchdog: of this process.

        Raises:
          ValueError: see :func:`check_steps`; or the folder cannot be made.
        """
        begin = first_step + WARM_UP_STEPS
        self._switches: tuple[int, ...] = ()
        self._folder = workdir / FOLDER / f"process_{process}"
        self._watchdog = watchdog
        self._running = False
        self._local = contextlib.ExitStack()  # the folder that the trace is written to by JAX
        if num_steps is not None and check_steps(workdir, num_steps, last_step - first_step):
            self._switches = (begin, begin + num_steps)
            try:
                self._local_folder = self._local.enter_context(storage.local_folder(self._folder))
            except OSError as problem:
                raise checks.error("profile", f"a folder ({problem.strerror})", str(self._folder)) from None

    def is_due(self, step: int) -> bool:
        """Before the first step of the trace, and after its last."""
        return step in self._switches

    def act(self, training: Training) -> None:
        """Starts the trace, or ends it."""
        if self._running:
            self._stop()
        else:
            self._start()
        self._watchdog.finished("a switch of the profile")

    def end(self, training: Training) -> None:
        """Ends the trace if the run stops within it."""
        self._stop()

    def _start(self) -> None:
        options = jax.profiler.ProfileOptions()
        options.python_tracer_level = 0  # every call of a Python function would be an event, and slow the host down
        jax.profiler.start_trace(self._local_folder, create_perfetto_trace=True, profiler_options=options)
        self._running = True

    def _stop(self) -> None:
        """A trace that cannot be written is an error in the log, and stops nothing."""
        if self._running:
            self._running = False
            try:
                with self._local:
                    jax.profiler.stop_trace()
            except (jax.errors.JaxRuntimeError, OSError) as problem:  # such as a full disk
                logging.error("profile: no trace could be written in %s: %s", self._folder, problem)
            else:
                logging.info("profile: wrote a trace in %s", self._folder)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stop()
        self._local.close()


def check_steps(workdir: storage.Path, num_steps: int, steps_left: int) -> bool:
    """Whether enough steps are left for a trace; if not, a run that resumes keeps the trace that it has.

    Raises:
      ValueError: the run has no trace, and too few steps left to make one.
    """
    possible = max(0, steps_left - WARM_UP_STEPS)
    if num_steps <= possible:
        return True
    if storage.matching(workdir / FOLDER, "process_*/plugins/profile/*/*.xplane.pb"):
        logging.warning("profile: %d steps are left, too few for another trace; the earlier one stays", steps_left)
        return False
    expected = f"at most {possible}: {steps_left} steps are left, of which {WARM_UP_STEPS} come before the trace"
    raise checks.error("profile", expected if possible else f"None: {expected.partition(': ')[2]}", num_steps)
