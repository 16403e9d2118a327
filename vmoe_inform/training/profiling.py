"""A trace of some steps of a run, to look at with XProf, TensorBoard or Perfetto."""

import pathlib
from typing import Self

import jax
from absl import logging

from vmoe_inform import checks

FOLDER = "profile"
WARM_UP_STEPS = 3  # of each process, before the trace: the first is compiled, and buffers are new


class Profile:
    """Writes DIR/profile/process_I/plugins/profile/TIME/HOST.xplane.pb and perfetto_trace.json.gz; a context manager.

    The loop asks before every step whether to switch, and waits for its steps before it does: the trace has whole
    steps. A run that stops on the way leaves a trace of the steps until then.
    """

    def __init__(self, workdir: pathlib.Path, num_steps: int | None, *, first_step: int, last_step: int, process: int):
        """Args:
        workdir: DIR.
        num_steps: of the trace; None for no trace.
        first_step, last_step: steps done when this process begins, and when it ends.
        process: I; each writes its own trace.

        Raises:
          ValueError: see :func:`check_steps`; or the folder cannot be made.
        """
        begin = first_step + WARM_UP_STEPS
        self._switches: tuple[int, ...] = ()
        self._folder = workdir / FOLDER / f"process_{process}"
        self._running = False
        if num_steps is not None and check_steps(workdir, num_steps, last_step - first_step):
            self._switches = (begin, begin + num_steps)
            try:
                self._folder.mkdir(parents=True, exist_ok=True)
            except OSError as problem:
                raise checks.error("profile", f"a folder ({problem.strerror})", str(self._folder)) from None

    def switches_after(self, step: int) -> bool:
        """Whether the trace begins or ends after this step."""
        return step in self._switches

    def switch(self) -> None:
        """Begins the trace, or ends it."""
        if self._running:
            self.stop()
            return
        options = jax.profiler.ProfileOptions()
        options.python_tracer_level = 0  # every call of a Python function would be an event, and slow the host down
        jax.profiler.start_trace(self._folder, create_perfetto_trace=True, profiler_options=options)
        self._running = True

    def stop(self) -> None:
        """Ends the trace if there is one going on; one that cannot be written is an error in the log, no more."""
        if self._running:
            self._running = False
            try:
                jax.profiler.stop_trace()
            except (jax.errors.JaxRuntimeError, OSError) as problem:  # such as a full disk
                logging.error("profile: no trace could be written in %s: %s", self._folder, problem)
            else:
                logging.info("profile: wrote a trace in %s", self._folder)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


def check_steps(workdir: pathlib.Path, num_steps: int, steps_left: int) -> bool:
    """Whether a trace can be made: not at the end of a run that was started again and has a trace from before.

    Raises:
      ValueError: the run has no trace, and too few steps left to make one.
    """
    possible = max(0, steps_left - WARM_UP_STEPS)
    if num_steps <= possible:
        return True
    if any((workdir / FOLDER).glob("process_*/plugins/profile/*/*.xplane.pb")):
        logging.warning("profile: %d steps are left, too few for another trace; that of before stays", steps_left)
        return False
    expected = f"at most {possible}: {steps_left} steps are left, of which {WARM_UP_STEPS} come before the trace"
    raise checks.error("profile", expected if possible else f"None: {expected.partition(': ')[2]}", num_steps)
