"""What a run needs before its first step: its folder and data checked, then everything built in the order it has to be.

Worker processes of the data have to start before the accelerators do, and the lock has to be held before anything in
the folder changes.
"""

import contextlib
import dataclasses
from collections.abc import Mapping, Sequence

import jax
from absl import logging

from vmoe_inform import checks, storage, tasks
from vmoe_inform import config as config_lib
from vmoe_inform.config import Config
from vmoe_inform.config.identity import Change, Effect
from vmoe_inform.data.skipped import SkippedRecords
from vmoe_inform.data.training_batches import TrainingBatches
from vmoe_inform.evaluation import suites as suites_lib
from vmoe_inform.evaluation.predict import Predictor
from vmoe_inform.evaluation.suites import Suite
from vmoe_inform.routing.steps import Duration
from vmoe_inform.runs import saved_trees
from vmoe_inform.runs.checkpoints import Checkpoints
from vmoe_inform.runs.folder import (
    CONFIG_FILE,
    check_same_run,
    recorded_class_names,
    with_kept_tokenizer,
    with_recorded,
)
from vmoe_inform.runs.lock import RunLock
from vmoe_inform.runs.state import TrainState
from vmoe_inform.sharding import processes
from vmoe_inform.sharding import watchdog as watchdog_lib
from vmoe_inform.sharding.watchdog import Watchdog
from vmoe_inform.tasks import Task
from vmoe_inform.training import initialize, writers
from vmoe_inform.training import program as program_lib
from vmoe_inform.training.hooks import profile
from vmoe_inform.training.hooks.base import Training
from vmoe_inform.training.optimizer import make_schedule
from vmoe_inform.training.program import Program
from vmoe_inform.training.terminal import Terminal

_CADENCE = "evaluation.suites_every_steps"
_LENGTH = ("train.steps", "train.epochs")


@dataclasses.dataclass(frozen=True)
class Plan:
    """A run that was checked against its folder and its data. Nothing has been started or written.

    Attributes:
      config: of the run, with the names of its classes.
      workdir: of the run.
      task: with its data found.
      suites: those that are evaluated during training, by name.
      total_steps: of the whole run.
      last_step: the step at which this start of it ends.
    """

    config: Config
    workdir: storage.Path
    task: Task
    suites: Mapping[str, Suite]
    total_steps: int
    last_step: int


def check(config: Config, workdir: storage.Path, stop_at_step: int | None, terminal: Terminal) -> Plan:
    """Checks a run.

    Args:
      config: of the run.
      workdir: folder of the run, which may not exist yet.
      stop_at_step: see :func:`vmoe_inform.training.loop.train`.
      terminal: says what takes time.

    Raises:
      ValueError, FileNotFoundError: as :func:`vmoe_inform.training.loop.train`.
    """
    check_names(config)
    terminal.phase(f"reading the data ({config.data.source})")
    config = with_recorded(config, workdir)
    task = opened(config, workdir)
    config = config_lib.with_recorded(config, task.config)
    total = program_lib.total_steps(config, task.num_records)
    epoch = program_lib.epoch_steps(config, task.num_records)
    config_lib.check_duration(config, Duration(total, lambda: epoch))
    config_lib.check_warmup(config.optimizer, total)
    last = total if stop_at_step is None else min(stop_at_step, total)
    check_same_run(workdir, config)  # before the folder is made, and again when no other process can change it
    saved_trees.check_path(workdir)
    storage.check_writable(workdir)
    if config.profile is not None:  # before anything is compiled; a run that resumes has fewer steps left
        profile.check_steps(workdir, config.profile, last)
    return Plan(config, workdir, task, _load_suites(config), total, last)


def opened(config: Config, workdir: storage.Path) -> Task:
    """The task of a run with its data found, and of the run in ``workdir``, if there is one, with what it keeps.

    Raises:
      ValueError, FileNotFoundError: as :meth:`vmoe_inform.tasks.Task.opened`.
    """
    if storage.exists(workdir / CONFIG_FILE):
        config = with_kept_tokenizer(config, workdir)
    return tasks.from_config(config).opened()


def check_names(config: Config) -> None:
    """Checks the names of suites and writers, which plug-ins may add.

    Raises:
      ValueError: an unknown suite or writer, or a writer whose package is not installed.
    """
    suites_lib.check_names(config.evaluation.suites)
    suites_lib.check_names([name for name, _ in config.evaluation.suites_every_steps], _CADENCE, task=config.task)
    writers.check(config.train.writers)


def _load_suites(config: Config) -> dict[str, Suite]:
    """The suites that are evaluated during training. Raises ValueError for one that is not available."""
    loaded = {}
    for name, _ in config.evaluation.suites_every_steps:
        try:
            loaded[name] = suites_lib.load(name, config)
        except suites_lib.NotAvailable as problem:
            raise checks.InputError(f"{_CADENCE}: expected available suites; received {name!r}: {problem}") from None
    return loaded


@dataclasses.dataclass(frozen=True)
class Setup:
    """Everything that steps and hooks use.

    Attributes:
      training: where the run is.
      program: compiled functions of a step.
      predictor: compiled functions of an evaluation.
      checkpoints: of the run.
      lock: of its folder.
      watchdog: of this process.
      skipped: counts training records that cannot be read.
      has_new_results: whether the settings differ from those of the process before in what scores mean.
    """

    training: Training
    program: Program
    predictor: Predictor
    checkpoints: Checkpoints
    lock: RunLock
    watchdog: Watchdog
    skipped: SkippedRecords
    has_new_results: bool


def start(plan: Plan, stack: contextlib.ExitStack, terminal: Terminal, *, save_at_steps: Sequence[int]) -> Setup:
    """Locks the folder, starts data and devices, and restores or initializes the state.

    Args:
      plan: of the run.
      stack: closes what is opened here.
      terminal: says what takes time.
      save_at_steps: checkpoints that are never deleted.

    Raises:
      ValueError: another process trains in the folder, or the checkpoint does not fit the config.
    """
    config, workdir = plan.config, plan.workdir
    process_index, process_count = processes.index_and_count()
    watchdog = stack.enter_context(watchdog_lib.of_run(config.train))
    lock = stack.enter_context(RunLock(workdir))
    changed = check_same_run(workdir, config)
    if processes.is_main():
        plan.task.keep(workdir)
    skipped = SkippedRecords(config.data.max_skipped_share)
    data = plan.task.training_batches(skipped, process_index, process_count)
    stack.enter_context(contextlib.closing(data))
    terminal.phase("starting the devices")
    program = program_lib.build(config, plan.total_steps, task=plan.task)
    if jax.process_count() != process_count:
        expected = f"called before training on {jax.process_count()} processes"
        raise checks.error("processes.initialize", expected, "not called")
    predictor = Predictor(program.model, program.task, program.mesh, watchdog=watchdog)
    checkpoints = Checkpoints(workdir, keep=config.checkpoint.keep, keep_steps=save_at_steps, lock=lock)
    stack.enter_context(checkpoints)
    stack.enter_context(program.in_use())
    state = _state(plan, program, checkpoints, data, terminal)
    step = int(state.step)
    if step > plan.total_steps:
        raise checks.error("train.steps", f"at least the {step} steps that the run has done", plan.total_steps)
    if processes.is_main():
        _say_what_changed(plan, changed, step)
    has_new_results = any(change.effect is Effect.RESULTS and change.field not in _LENGTH for change in changed)
    training = Training(state, data, step, plan.last_step, plan.total_steps)
    return Setup(training, program, predictor, checkpoints, lock, watchdog, skipped, has_new_results)


def _say_what_changed(plan: Plan, changed: Sequence[Change], step: int) -> None:
    """Warns of settings that differ from those of the process before, and of what another length means."""
    length = [change for change in changed if change.field in _LENGTH]
    others = [change for change in changed if change not in length]
    if others:
        logging.warning("continues with other settings than before: %s", "; ".join(map(str, others)))
    if not length:
        return
    settings = "; ".join(map(str, length))
    train = {change.field.removeprefix("train."): change.before for change in length}
    shorter = dataclasses.replace(plan.config, train=dataclasses.replace(plan.config.train, **train))
    before = program_lib.total_steps(shorter, plan.task.num_records)
    done = f"was finished after {step} steps" if step == before else f"has done {step} of {before} steps"
    old, new = (float(make_schedule(plan.config.optimizer, total)(step)) for total in (before, plan.total_steps))
    words = "%s %s; continues to step %d (%s). The schedule is that of the new length: learning rate %.3g -> %.3g"
    logging.warning(words, plan.workdir, done, plan.total_steps, settings, old, new)


def _state(
    plan: Plan, program: Program, checkpoints: Checkpoints, data: TrainingBatches, terminal: Terminal
) -> TrainState:
    """The newest checkpoint's state, with ``data`` at its position; a new run's, if there is none."""
    config, workdir = plan.config, plan.workdir
    if checkpoints.latest_step() is None:
        terminal.phase("initializing the parameters")
        state = program.initialize()
        if config.train.initial_checkpoint:
            initial = storage.path("train.initial_checkpoint", config.train.initial_checkpoint)
            state = initialize.from_run(initial, state, program, config)
        return state
    if config.model.num_classes is not None and not recorded_class_names(workdir):
        logging.warning("%s has no record of its classes, which are compared by number: recorded now", workdir)
    terminal.phase("restoring the newest checkpoint")
    state = checkpoints.restore(program.state_shapes, data)
    logging.info("resumed from step %d of %d", int(state.step), plan.total_steps)
    return state
