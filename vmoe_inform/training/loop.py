"""The loop of a run: feed, step, log, save, evaluate. What a step does is in step.py."""

import contextlib
import dataclasses
import pathlib
import signal
import threading
import time
import types
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from absl import logging

from vmoe_inform import checks
from vmoe_inform.config import Config
from vmoe_inform.data import sources
from vmoe_inform.data.pipeline import SkippedRecords, train_iterator
from vmoe_inform.evaluation import metrics as metrics_lib
from vmoe_inform.evaluation.predict import Predictor
from vmoe_inform.sharding import processes
from vmoe_inform.training import initialize
from vmoe_inform.training import program as program_lib
from vmoe_inform.training.checkpoints import Checkpoints, check_same_run, write_config
from vmoe_inform.training.logging import MetricsLogger, Progress, read_metrics
from vmoe_inform.training.state import TrainState

_SHOWN = ("loss", "accuracy", "images_per_second")  # beside the progress bar


@dataclasses.dataclass(frozen=True)
class Result:
    """How a call of :func:`train` ended.

    Attributes:
      state: after the last step done.
      steps_done, total_steps: equal if the run is complete.
      clean_top1: accuracy on the test split after the last step; None if the run is not complete.
      program, predictor: the compiled functions, for those who have more to ask of the run.
    """

    state: TrainState
    steps_done: int
    total_steps: int
    clean_top1: float | None
    program: program_lib.Program
    predictor: Predictor


class StopRequest:
    """Turns SIGTERM and SIGINT into a flag that the loop reads between steps; a second SIGINT interrupts."""

    def __init__(self) -> None:
        self.received: str | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> "StopRequest":
        if threading.current_thread() is threading.main_thread():  # Python allows handlers nowhere else
            self._before = {number: signal.signal(number, self._note) for number in (signal.SIGTERM, signal.SIGINT)}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, _: types.FrameType | None) -> None:
        if self.received and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.received = signal.Signals(number).name


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

    Writes ``config.json``, ``metrics.jsonl``, ``tensorboard/`` and ``checkpoints/`` there. On SIGTERM or SIGINT the
    current step is finished and saved, and the function returns.

    Args:
      config: from :func:`vmoe_inform.config.parse`.
      workdir: folder of this run.
      stop_at_step: stop (and save) there instead, without a change of the schedule.
      save_at_steps: steps whose checkpoints are written, and stay, whatever ``config.checkpoint`` says.
      stop: what the caller has signals noted in; by default they are noted here while training goes on.
      show_progress: whether to print how far the run is.

    Raises:
      ValueError: bad input, or a workdir with another run.
      FileNotFoundError: missing data.
      FloatingPointError: the loss is not finite.
    """
    workdir = pathlib.Path(workdir)
    train_source = sources.load(config.data, config.data.train_split)
    test_source = sources.load(config.data, config.data.test_split)
    if config.model.num_classes != train_source.num_classes:
        raise checks.error(
            "model.num_classes", f"the {train_source.num_classes} classes of the data", config.model.num_classes
        )
    total = program_lib.total_steps(config, len(train_source.records))
    check_same_run(workdir, config)
    skipped = SkippedRecords(config.data.max_skipped_share)
    process_index, process_count = processes.place()
    with contextlib.ExitStack() as stack:
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

        def clean_top1(state: TrainState) -> float:
            predictions = predictor.predict(state.variables(averaged=True), test_source)
            return float(metrics_lib.top_k_accuracy(predictions.logits, predictions.labels, 1))

        checkpoints = Checkpoints(workdir, keep=config.checkpoint.keep, keep_steps=save_at_steps)
        stack.enter_context(checkpoints)
        stack.enter_context(program.in_use())
        stop = stack.enter_context(StopRequest()) if stop is None else stop
        if checkpoints.latest_step() is None:
            state = program.initialize()
            if config.train.initial_checkpoint:
                state = initialize.from_run(pathlib.Path(config.train.initial_checkpoint), state, program)
        else:
            state = checkpoints.restore(program.state_shapes, data)
            logging.info("resumed from step %d of %d", int(state.step), total)
        step = int(state.step)
        if step > total:
            raise checks.error("train.steps", f"at least the {step} steps that the run has done", total)
        write_config(workdir, config)
        last = total if stop_at_step is None else min(stop_at_step, total)
        is_main = process_index == 0
        logger = stack.enter_context(MetricsLogger(workdir, start_step=step, is_main_process=is_main))
        progress = stack.enter_context(Progress(total, step, is_main_process=is_main and show_progress))
        logged_at, since, step_metrics = step, time.monotonic(), {}
        while step < last and stop.received is None:
            state, step_metrics = program.train_step(state, program.to_devices(next(data)))
            step += 1
            if step % config.train.log_every_steps == 0 or step == last:
                scalars = {name: float(value) for name, value in jax.device_get(step_metrics).items()}
                rate = (step - logged_at) * config.train.batch_size / (time.monotonic() - since)
                scalars |= {"images_per_second": rate, "skipped_records": float(skipped.count)}
                logger.log(step, scalars)
                progress.update(step, {name: scalars[name] for name in _SHOWN})
                _check_finite(step_metrics, step)
                logged_at, since = step, time.monotonic()
            if (step % config.checkpoint.every_steps == 0 or step in save_at_steps) and step < last:
                _check_finite(step_metrics, step)
                checkpoints.save(state, data)
            every = config.evaluation.every_steps
            if every is not None and step % every == 0 and step < total:
                started = time.monotonic()
                logger.log(step, {"top1": clean_top1(state)}, prefix="evaluation/clean")
                since += time.monotonic() - started
        _check_finite(step_metrics, step)
        checkpoints.save(state, data)
        if stop.received is not None:
            logging.warning("%s: saved step %d of %d and stopped", stop.received, step, total)
        accuracy = clean_top1(state) if step == total else None
        if accuracy is not None and _logged_accuracy(workdir, step) is None:
            logger.log(step, {"top1": accuracy}, prefix="evaluation/clean")
    return Result(state, step, total, accuracy, program, predictor)


def _check_finite(metrics: dict[str, Any], step: int) -> None:
    """Keeps a diverged state out of the checkpoints: a run that is started again goes on from before it."""
    for name in ("loss", "gradient_norm"):
        if name in metrics and not np.isfinite(metrics[name]):
            raise FloatingPointError(f"{name}: expected a finite number; received {metrics[name]} at step {step}")


def finished_accuracy(config: Config, workdir: str | pathlib.Path) -> float | None:
    """Clean top-1 of a run whose steps are all done, read from its log; None if there is something left to do.

    Raises:
      ValueError, FileNotFoundError: as :func:`train`.
    """
    workdir = pathlib.Path(workdir)
    check_same_run(workdir, config)
    if not (workdir / "checkpoints").is_dir():
        return None
    total = program_lib.total_steps(config, len(sources.load(config.data, config.data.train_split).records))
    accuracy = _logged_accuracy(workdir, total)
    if accuracy is None:  # before looking at checkpoints, which starts JAX's devices
        return None
    with Checkpoints(workdir) as checkpoints:
        return accuracy if checkpoints.latest_step() == total else None


def _logged_accuracy(workdir: pathlib.Path, step: int) -> float | None:
    entries = read_metrics(workdir / "metrics.jsonl")
    values = [e["evaluation/clean/top1"] for e in entries if e["step"] == step and "evaluation/clean/top1" in e]
    return values[-1] if values else None
