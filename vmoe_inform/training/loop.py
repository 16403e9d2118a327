"""The loop of a run: feed the devices, start a step, call the hooks. What a step does is in step.py."""

import contextlib
import dataclasses
import os
from collections.abc import Iterable, Sequence

import jax
from absl import logging

from vmoe_inform import storage
from vmoe_inform.config import Config
from vmoe_inform.config.identity import Effect
from vmoe_inform.evaluation.predict import Predictor
from vmoe_inform.runs.folder import check_same_run, with_recorded, write_config
from vmoe_inform.runs.lock import RunLock
from vmoe_inform.runs.reading import CHECKPOINT_FOLDER, CheckpointReader
from vmoe_inform.runs.state import TrainState
from vmoe_inform.sharding import processes
from vmoe_inform.training import program as program_lib
from vmoe_inform.training import setup
from vmoe_inform.training.hooks import profile
from vmoe_inform.training.hooks.all import hooks_of
from vmoe_inform.training.hooks.base import Hook, Training
from vmoe_inform.training.hooks.evaluate import logged_headline
from vmoe_inform.training.in_flight import FinishedStep, StepsInFlight
from vmoe_inform.training.program import Program
from vmoe_inform.training.stopping import StopRequest
from vmoe_inform.training.terminal import Terminal


@dataclasses.dataclass(frozen=True)
class Result:
    """How a call of :func:`train` ended.

    Attributes:
      state: after the last step done.
      steps_done, total_steps: equal if the run is complete.
      headline: the task's number after the last step; None if the run is not complete.
      config: of the run, with the names of its classes.
      program, predictor: the compiled functions, for those who have more to ask of the run.
    """

    state: TrainState
    steps_done: int
    total_steps: int
    headline: float | None
    config: Config
    program: Program
    predictor: Predictor


def train(
    config: Config,
    workdir: str | os.PathLike[str],
    *,
    stop_at_step: int | None = None,
    save_at_steps: Sequence[int] = (),
    stop: StopRequest | None = None,
    show_progress: bool = True,
) -> Result:
    """Trains until all steps are done, resuming from the newest checkpoint in ``workdir`` if there is one.

    A run without one starts from the parameters of ``train.initial_checkpoint``, if that is set.

    Writes ``config.json``, ``metrics.jsonl``, ``tensorboard/``, ``checkpoints/`` and, if asked for, ``profile/`` there.
    On SIGTERM or SIGINT the current step is finished and saved, and the function returns. An evaluation is left
    unfinished; the next call makes up for it.

    Args:
      config: from :func:`vmoe_inform.config.parse`.
      workdir: folder of this run.
      stop_at_step: stop (and save) there instead, without a change of the schedule.
      save_at_steps: steps whose checkpoints are written, and stay, whatever ``config.checkpoint`` says.
      stop: where the caller notes signals; by default they are noted here during training.
      show_progress: whether to print the progress.

    Raises:
      ValueError: bad input, a workdir with another run, or one in which another process trains.
      FileNotFoundError: missing data.
      FloatingPointError: the loss or the gradient is not finite, in more steps in a row than
        ``train.max_nonfinite_steps``.
      SavingError: a checkpoint cannot be written (with ``checkpoint.on_error`` ``"continue"``: the last one).
      RemovedError: the workdir was removed, or replaced by another.
    """
    with contextlib.ExitStack() as stack:
        terminal = stack.enter_context(Terminal(shown=show_progress and processes.is_main()))
        plan = setup.check(config, storage.path("workdir", workdir), stop_at_step, terminal)
        stop = stack.enter_context(StopRequest()) if stop is None else stop
        run = setup.start(plan, stack, terminal, save_at_steps=save_at_steps)
        hooks = hooks_of(plan, run, stack, terminal, stop=stop, save_at_steps=save_at_steps)
        write_config(plan.workdir, plan.config)
        done = run_steps(run.training, run.program, hooks)
        run.lock.check()
    return Result(done.state, done.step, done.total_steps, done.headline, plan.config, run.program, run.predictor)


def run_steps(training: Training, program: Program, hooks: Sequence[Hook]) -> Training:
    """Does the steps up to ``training.last_step`` and calls the hooks; see :mod:`vmoe_inform.training.hooks.base`."""
    in_flight = StepsInFlight()

    def report(finished: Iterable[FinishedStep]) -> None:
        for done in finished:
            for hook in hooks:
                hook.step_finished(done)

    def act() -> None:
        due = [hook for hook in hooks if 0 < training.step < training.total_steps and hook.is_due(training.step)]
        if due:
            report(in_flight.finish())
            for hook in due:
                hook.act(training)
            if not all(hook.counts_as_step_time for hook in due):
                in_flight.restart_clock()

    act()
    for hook in hooks:
        hook.begin(training)
    while training.step < training.last_step and not training.stopping:
        with in_flight.waiting_for_data():
            batch = next(training.data)
        with jax.profiler.StepTraceAnnotation("train", step_num=training.step + 1):
            training.state, metrics = program.train_step(training.state, program.to_devices(batch))
        training.step += 1
        for hook in hooks:
            hook.step_started(training)
        report(in_flight.add(training.step, metrics))
        if not training.stopping:
            act()
    report(in_flight.finish())
    for hook in hooks:
        hook.end(training)
    return training


def finished_headline(config: Config, workdir: str | os.PathLike[str]) -> float | None:
    """The task's number of a run whose steps are all done, read from its log; None if there is something left to do.

    Settings that change results, such as the test split, leave something to do: it is measured anew. Those of
    the machine are recorded in the run's config.

    Raises:
      ValueError, FileNotFoundError: as :func:`train`.
    """
    workdir = storage.path("workdir", workdir)
    setup.check_names(config)
    config = with_recorded(config, workdir)
    changes = check_same_run(workdir, config)
    if any(change.effect is Effect.RESULTS for change in changes) or not storage.exists(workdir / CHECKPOINT_FOLDER):
        return None
    task = setup.opened(config, workdir)
    total = program_lib.total_steps(config, task.num_records)
    headline = logged_headline(workdir, total, task)
    if headline is None:  # before looking at checkpoints, which starts JAX's devices
        return None
    with CheckpointReader(workdir) as checkpoints:
        if checkpoints.latest_step() != total or not checkpoints.is_of_its_step(total):
            return None
    if config.profile is not None:
        profile.check_steps(workdir, config.profile, 0)
    if changes:  # of the machine, such as where the data lie: what looks at the run next goes by them
        logging.warning("a finished run, now with other settings than before: %s", "; ".join(map(str, changes)))
        with RunLock(workdir):
            write_config(workdir, config)
    return headline
