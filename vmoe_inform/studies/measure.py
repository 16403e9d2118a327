"""One run of a study, from nothing to its result: trained, then measured. Its routing is measured twice."""

import time
from collections.abc import Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from absl import logging

from vmoe_inform import checks, storage, tasks
from vmoe_inform.config import Config, DataConfig, identity, with_class_names
from vmoe_inform.evaluation import fingerprints, work
from vmoe_inform.evaluation.evaluator import Evaluator
from vmoe_inform.evaluation.predict import Chosen
from vmoe_inform.evaluation.suites.base import Suite
from vmoe_inform.routing import fluctuation_rate
from vmoe_inform.runs import run as runs
from vmoe_inform.runs.folder import recorded_class_names
from vmoe_inform.studies import results
from vmoe_inform.studies.plan import RESULT_FILE, PlannedRun
from vmoe_inform.studies.results import CheckpointResult, RunResult
from vmoe_inform.training import loop
from vmoe_inform.training import program as program_lib
from vmoe_inform.training.stopping import Stopped, StopRequest

LOG_FILE = "log.txt"  # of a run that failed, or was done in a process of its own
CHOSEN_FILE = "chosen_experts.npz"


def complete(run: PlannedRun, stop: StopRequest) -> None:
    """Trains the run if it is not trained, measures it, and writes its result.

    In addition to the files of training it writes ``chosen_experts.npz``, the experts of every token of the clean
    records, and ``result.json``. Each is written whole or not at all. The result comes last: a run that has one is
    finished.

    Args:
      run: its folder may hold a part of it, from which it resumes.
      stop: signals are noted there.

    Raises:
      Stopped: a signal came.
      ValueError, FileNotFoundError, FloatingPointError: as :func:`vmoe_inform.training.loop.train`.
    """
    started = time.monotonic()
    trained = loop.train(run.config, run.folder, save_at_steps=run.measured_steps, stop=stop, show_progress=False)
    if trained.steps_done < trained.total_steps:
        raise Stopped
    trained_at = time.monotonic()
    # Costs no second compilation where this process trained the run: the compiled step is at hand.
    cost = program_lib.describe(trained.program)
    config = trained.config
    suites, missing = work.load_suites(config.evaluation.suites, config)

    def check_stop() -> None:
        if stop.received is not None:
            raise Stopped

    def measure(checkpoint: runs.Run, suites: Mapping[str, Suite]) -> tuple[CheckpointResult, Chosen]:
        evaluator = Evaluator(checkpoint, trained.predictor)
        with evaluator.task.keeps_workers():
            found = {name: evaluator.measure(suite, before_each_set=check_stop) for name, suite in suites.items()}
        check_stop()
        _, routing, chosen = evaluator.clean
        return CheckpointResult(checkpoint.step, found, routing, missing if suites else {}), chosen

    saved = runs.find(run.folder)
    earlier, end = (saved.at(step).load(trained.program.mesh) for step in run.measured_steps)
    before, chosen_before = measure(earlier, {})
    last, chosen_last = measure(end, suites)
    _write_chosen(run, {"before": chosen_before, "last": chosen_last})
    result = RunResult(
        router=run.router,
        seed=run.config.seed,
        config_hash=identity.config_hash(run.config),
        parameters=int(cost["parameters"]),
        flops={
            "training_step": cost["flops"],
            "evaluation_batch": trained.predictor.flops(end.variables),
        },
        seconds={"training": trained_at - started, "evaluation": time.monotonic() - trained_at},
        before=before,
        last=last,
        fluctuation={
            block: float(fluctuation_rate(jnp.asarray(chosen_before[block]), jnp.asarray(chosen_last[block])))
            for block in chosen_last
        },
        data=data_of(config),
    )
    results.write(run.folder / RESULT_FILE, result, within=run.folder)


def data_of(config: Config) -> dict[str, str]:
    """Fingerprints of the records that a run learns from and is measured on."""
    task = tasks.from_config(config)
    read = {"train": task.training_source, "test": task.test_source}
    return {name: fingerprints.fingerprint(source) for name, source in read.items()}


def check_data(runs: Sequence[PlannedRun]) -> None:
    """Raises ValueError if a finished run is of other records than those that the rest of the study would be of.

    Results of older versions do not say which records they are of.
    """
    here: dict[DataConfig, dict[str, str]] = {}
    for run in runs:
        if not run.is_finished or (data_of_result := read(run).data) is None:
            continue
        config = with_class_names(run.config, recorded_class_names(run.folder))
        if config.data not in here:
            here[config.data] = data_of(config)
        if data_of_result != here[config.data]:
            expected = "a study of the data that the config names, since its runs are compared"
            raise checks.error("--workdir", expected, f"{run.folder}, finished on others")


def read(run: PlannedRun) -> RunResult:
    """The result of a finished run.

    Raises:
      FileNotFoundError: it is not finished.
      DamagedFileError: the result is not what was written.
    """
    return results.read(run.folder / RESULT_FILE, within=run.folder)


def put_damaged_aside(run: PlannedRun) -> None:
    """Puts damaged files aside, with a warning. Without a result the run is measured again."""
    log = run.folder / LOG_FILE
    try:
        storage.check_is_file(log)
    except storage.DamagedFileError as problem:
        logging.warning("%s; moved to %s", problem, storage.set_aside(log))
    try:
        read(run)
    except FileNotFoundError:
        pass
    except storage.DamagedFileError as problem:
        logging.warning("%s; moved to %s and measured again", problem, storage.set_aside(problem.path))


def _write_chosen(run: PlannedRun, chosen: dict[str, Chosen]) -> None:
    """``before/<block>`` and ``last/<block>``: integers [records, N, K], as small as they can be."""
    smallest = np.min_scalar_type(run.config.model.moe.num_experts)  # which itself stands for no choice
    arrays: dict[str, Any] = {
        f"{time}/{block}": experts.astype(smallest) for time, of in chosen.items() for block, experts in of.items()
    }
    storage.write_arrays(run.folder / CHOSEN_FILE, arrays, within=run.folder, compressed=True)
