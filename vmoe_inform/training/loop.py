"""The loop of a run: feed, step, log, save, evaluate. What a step does is in step.py."""

import contextlib
import dataclasses
import functools
import pathlib
from collections.abc import Callable, Sequence

import jax
from absl import logging

from vmoe_inform import checks, storage
from vmoe_inform import config as config_lib
from vmoe_inform.config import Config
from vmoe_inform.config.identity import Effect
from vmoe_inform.data import sources
from vmoe_inform.data.pipeline import SkippedRecords, train_iterator
from vmoe_inform.evaluation import metrics as metrics_lib
from vmoe_inform.evaluation import suites
from vmoe_inform.evaluation.predict import Predictor
from vmoe_inform.runs import saved_trees
from vmoe_inform.runs.checkpoints import Checkpoints, SavingError
from vmoe_inform.runs.folder import check_same_run, recorded_class_names, write_config
from vmoe_inform.runs.lock import RunLock
from vmoe_inform.runs.state import TrainState
from vmoe_inform.sharding import processes
from vmoe_inform.sharding.watchdog import Watchdog
from vmoe_inform.training import initialize, profiling
from vmoe_inform.training import program as program_lib
from vmoe_inform.training.in_flight import FinishedStep, StepsInFlight
from vmoe_inform.training.logging import MetricsLogger, Progress, read_metrics
from vmoe_inform.training.measurements import EXPERT_LOADS, Window
from vmoe_inform.training.nonfinite import WHERE, StepWatch
from vmoe_inform.training.stopping import AgreedStop, Stopped, StopRequest

_SHOWN = ("loss", "accuracy", "images_per_second")  # beside the progress bar
_NOT_LOGGED = (WHERE, EXPERT_LOADS)  # metrics of a step for those who look at every step


@dataclasses.dataclass(frozen=True)
class Result:
    """How a call of :func:`train` ended.

    Attributes:
      state: after the last step done.
      steps_done, total_steps: equal if the run is complete.
      clean_top1: accuracy on the test split after the last step; None if the run is not complete.
      config: of the run, with the names of its classes.
      program, predictor: the compiled functions, for those who have more to ask of the run.
    """

    state: TrainState
    steps_done: int
    total_steps: int
    clean_top1: float | None
    config: Config
    program: program_lib.Program
    predictor: Predictor


def train(
    config: Config,
    workdir: str | pathlib.Path,
    *,
    stop_at_step: int | None = None,
    save_at_steps: Sequence[int] = (),
    stop: StopRequest | None = None,
    show_progress: bool = True,
) -> Result:
    """Trains until all steps are done, going on from the newest checkpoint in ``workdir`` if there is one.

    A run without one starts from the parameters of ``train.initial_checkpoint``, if that is set.

    Writes ``config.json``, ``metrics.jsonl``, ``tensorboard/``, ``checkpoints/`` and, if asked for, ``profile/`` there.
    On SIGTERM or SIGINT the current step is finished and saved, and the function returns; an evaluation is left
    unfinished, and done by the next call.

    Args:
      config: from :func:`vmoe_inform.config.parse`.
      workdir: folder of this run.
      stop_at_step: stop (and save) there instead, without a change of the schedule.
      save_at_steps: steps whose checkpoints are written, and stay, whatever ``config.checkpoint`` says.
      stop: what the caller has signals noted in; by default they are noted here while training goes on.
      show_progress: whether to print how far the run is.

    Raises:
      ValueError: bad input, a workdir with another run, or one in which another process trains.
      FileNotFoundError: missing data.
      FloatingPointError: the loss or the gradient is not finite, in more steps in a row than
        ``train.max_nonfinite_steps``.
      SavingError: a checkpoint cannot be written (with ``checkpoint.on_error`` ``"continue"``: the last one).
      RemovedError: the workdir was removed, or replaced by another.
    """
    workdir = checks.local_path("workdir", workdir)
    suites.check_names(config.evaluation.suites)
    config = config_lib.with_class_names(config, recorded_class_names(workdir))
    train_source = sources.load(config.data, config.data.train_split)
    if config.model.num_classes != train_source.num_classes:
        raise checks.error(
            "model.num_classes", f"the {train_source.num_classes} classes of the data", config.model.num_classes
        )
    config = config_lib.with_class_names(config, train_source.class_names)
    test_source = sources.load(config.data, config.data.test_split)
    total = program_lib.total_steps(config, len(train_source.records))
    check_same_run(workdir, config)  # before the folder is made, and again when no other process can change it
    skipped = SkippedRecords(config.data.max_skipped_share)
    saved_trees.check_path(workdir)
    storage.check_writable(workdir)
    if config.profile is not None:  # before anything is compiled; a run that goes on has fewer steps left
        profiling.check_steps(workdir, config.profile, total if stop_at_step is None else min(stop_at_step, total))
    process_index, process_count = processes.place()
    with contextlib.ExitStack() as stack:
        stop = stack.enter_context(StopRequest()) if stop is None else stop
        watchdog = stack.enter_context(
            Watchdog(config.train.watchdog_seconds, config.train.watchdog_start_seconds, processes.place())
        )
        lock = stack.enter_context(RunLock(workdir))
        changed = check_same_run(workdir, config)
        # Worker processes have started and made a batch before build() starts the accelerators.
        data = train_iterator(
            train_source,
            image_size_px=config.model.image_size_px,
            batch_size=config.train.batch_size // process_count,
            seed=config.seed,
            data=config.data,
            skipped=skipped,
            process_index=process_index,
            process_count=process_count,
        )
        stack.enter_context(contextlib.closing(data))
        program = program_lib.build(config, total)
        if jax.process_count() != process_count:
            expected = f"called before training on {jax.process_count()} processes"
            raise checks.error("processes.initialize", expected, "not called")
        predictor = Predictor(program.model, config, program.mesh)
        checkpoints = Checkpoints(workdir, keep=config.checkpoint.keep, keep_steps=save_at_steps)
        stack.enter_context(checkpoints)
        stack.enter_context(program.in_use())
        if checkpoints.latest_step() is None:
            state = program.initialize()
            if config.train.initial_checkpoint:
                initial = pathlib.Path(config.train.initial_checkpoint)
                state = initialize.from_run(initial, state, program, config.data.class_names)
        else:
            if not recorded_class_names(workdir):
                logging.warning("%s has no record of its classes, which are compared by number: recorded now", workdir)
            state = checkpoints.restore(program.state_shapes, data)
            logging.info("resumed from step %d of %d", int(state.step), total)
        step = int(state.step)
        if step > total:
            raise checks.error("train.steps", f"at least the {step} steps that the run has done", total)
        last = total if stop_at_step is None else min(stop_at_step, total)
        profile = profiling.Profile(workdir, config.profile, first_step=step, last_step=last, process=process_index)
        stack.enter_context(profile)
        is_main = process_index == 0
        if changed and is_main:
            logging.warning("continues with other settings than before: %s", "; ".join(map(str, changed)))
        write_config(workdir, config)
        logger = stack.enter_context(MetricsLogger(workdir, start_step=step, is_main_process=is_main))
        progress = stack.enter_context(Progress(total, step, is_main_process=is_main and show_progress))
        in_flight, window = StepsInFlight(), Window(config, program.mesh)
        watch = StepWatch(program.state_shapes.params, config.train.max_nonfinite_steps)
        agreed = AgreedStop(stop, program.mesh)

        def after_each_batch() -> None:
            watchdog.finished("a batch of evaluation")
            if agreed.now():
                raise Stopped

        def evaluate() -> float | None:
            """Clean top-1, which is in the log then; None if a signal came first."""
            watchdog.expect_compilation("evaluation")
            variables = state.variables(averaged=True)
            try:
                predictions = predictor.predict(variables, test_source, after_each_batch=after_each_batch)
            except Stopped:
                return None
            accuracy = float(metrics_lib.top_k_accuracy(predictions.logits, predictions.labels, 1))
            if _logged_accuracy(workdir, step) != accuracy:  # there may be one of other settings
                logger.log(step, {"top1": accuracy}, prefix="evaluation/clean")
            return accuracy

        def evaluation_is_due() -> bool:
            every = config.evaluation.every_steps
            return every is not None and step % every == 0 and 0 < step < total

        def save(attempt: Callable[[], None]) -> None:
            try:
                attempt()
            except SavingError as problem:
                if config.checkpoint.on_error == "stop":
                    raise
                logging.error("%s Training continues.", problem)

        def log(done: FinishedStep) -> None:
            lock.check()
            values = jax.device_get({name: done.metrics[name] for name in done.metrics if name not in _NOT_LOGGED})
            scalars = {name: float(value) for name, value in values.items()}
            scalars |= window.close() | {"skipped_records": float(skipped.count)}
            scalars |= {"skipped_steps": float(watch.skipped)} if config.train.max_nonfinite_steps else {}
            logger.log(done.step, scalars)
            progress.update(done.step, {name: scalars[name] for name in _SHOWN if name in scalars})

        def look_at(finished: Sequence[FinishedStep]) -> None:
            for done in finished:
                watchdog.finished(f"step {done.step}")
                watch.look(done.step, done.metrics)
                window.add(done)
                if done.step % config.train.log_every_steps == 0 or done.step == last:
                    log(done)

        stopped = False
        if evaluation_is_due() and processes.any_process(is_main and _logged_accuracy(workdir, step) is None):
            stopped = evaluate() is None  # the process before was stopped on the way
        watchdog.expect_compilation("training")
        stopped = stopped or agreed.now()
        while step < last and not stopped:
            if profile.switches_after(step):
                look_at(in_flight.finish())
                profile.switch()
                watchdog.finished("a switch of the profile")
                in_flight.restart_clock()
            with in_flight.waiting_for_data():
                batch = next(data)
            with jax.profiler.StepTraceAnnotation("train", step_num=step + 1):
                state, step_metrics = program.train_step(state, program.to_devices(batch))
            step += 1
            look_at(in_flight.add(step, step_metrics))
            save(checkpoints.check)
            if (step % config.checkpoint.every_steps == 0 or step in save_at_steps) and step < last:
                look_at(in_flight.finish())  # a state that is not finite is not kept: a run goes on from before it
                lock.check()
                save(functools.partial(checkpoints.save, state, data))
            if evaluation_is_due():
                look_at(in_flight.finish())
                stopped = evaluate() is None
                in_flight.restart_clock()
            stopped = stopped or agreed.between_steps()
        look_at(in_flight.finish())
        profile.stop()
        save(checkpoints.wait)
        lock.check()
        checkpoints.save(state, data)
        checkpoints.wait()
        watchdog.finished("the last save")
        if stopped and step < total:
            logging.warning("%s: saved step %d of %d and stopped", stop.received or "a signal", step, total)
        accuracy = evaluate() if step == total else None
        lock.check()
    return Result(state, step, total, accuracy, config, program, predictor)


def finished_accuracy(config: Config, workdir: str | pathlib.Path) -> float | None:
    """Clean top-1 of a run whose steps are all done, read from its log; None if there is something left to do.

    Settings that change results, such as the test split, leave something to do: the accuracy is measured anew.

    Raises:
      ValueError, FileNotFoundError: as :func:`train`.
    """
    workdir = checks.local_path("workdir", workdir)
    suites.check_names(config.evaluation.suites)
    config = config_lib.with_class_names(config, recorded_class_names(workdir))
    changes = check_same_run(workdir, config)
    if any(change.effect is Effect.RESULTS for change in changes) or not (workdir / "checkpoints").is_dir():
        return None
    total = program_lib.total_steps(config, len(sources.load(config.data, config.data.train_split).records))
    accuracy = _logged_accuracy(workdir, total)
    if accuracy is None:  # before looking at checkpoints, which starts JAX's devices
        return None
    with Checkpoints(workdir) as checkpoints:
        if checkpoints.latest_step() != total or not checkpoints.is_of_its_step(total):
            return None
    if config.profile is not None:
        profiling.check_steps(workdir, config.profile, 0)
    return accuracy


def _logged_accuracy(workdir: pathlib.Path, step: int) -> float | None:
    entries = read_metrics(workdir / "metrics.jsonl")
    values = [e["evaluation/clean/top1"] for e in entries if e["step"] == step and "evaluation/clean/top1" in e]
    return values[-1] if values else None
