"""Evaluates the model as it is trained."""

import pathlib

from vmoe_inform.config import Config
from vmoe_inform.data.sources import Source
from vmoe_inform.evaluation import metrics
from vmoe_inform.evaluation.predict import Predictor
from vmoe_inform.sharding import processes
from vmoe_inform.sharding.watchdog import Watchdog
from vmoe_inform.training.hooks.base import Hook, Training
from vmoe_inform.training.hooks.stop import Stop
from vmoe_inform.training.metrics_logger import MetricsLogger
from vmoe_inform.training.stopping import Stopped
from vmoe_inform.training.terminal import Terminal
from vmoe_inform.training.writers import jsonl


class Evaluate(Hook):
    """Measures clean accuracy every ``evaluation.every_steps`` steps and after the last step of the run.

    An evaluation that a signal interrupts is left unfinished; the run that resumes from its step makes up for it.
    """

    def __init__(
        self,
        predictor: Predictor,
        source: Source,
        config: Config,
        *,
        logger: MetricsLogger,
        workdir: pathlib.Path,
        watchdog: Watchdog,
        stop: Stop,
        terminal: Terminal,
    ):
        """Args:
        predictor: of the run's model.
        source: the test split.
        config: of the run.
        logger: writes the accuracy.
        workdir: of the run, whose log says which evaluations are done.
        watchdog: of this process.
        stop: asked after each batch whether a signal came.
        terminal: says what takes time.
        """
        self._predictor = predictor
        self._source = source
        self._every_steps = config.evaluation.every_steps
        self._logger = logger
        self._workdir = workdir
        self._watchdog = watchdog
        self._stop = stop
        self._terminal = terminal

    def is_due(self, step: int) -> bool:
        """Every ``evaluation.every_steps`` steps."""
        return self._every_steps is not None and step % self._every_steps == 0

    def act(self, training: Training) -> None:
        """Evaluates unless this step was evaluated before; sets ``training.stopping`` if a signal comes."""
        is_left = processes.is_main() and logged_accuracy(self._workdir, training.step) is None
        if processes.any_process(is_left):
            self._evaluate(training)

    def end(self, training: Training) -> None:
        """Sets ``training.clean_top1`` if all steps of the run are done."""
        if training.step == training.total_steps and not training.stopping:
            training.clean_top1 = self._evaluate(training)

    def _evaluate(self, training: Training) -> float | None:
        self._watchdog.expect_compilation("evaluation")
        self._terminal.phase("evaluating clean")
        variables = training.state.variables(averaged=True)
        try:
            predictions = self._predictor.predict(variables, self._source, after_each_batch=self._after_each_batch)
        except Stopped:
            training.stopping = True
            return None
        accuracy = float(metrics.top_k_accuracy(predictions.logits, predictions.labels, 1))
        if logged_accuracy(self._workdir, training.step) != accuracy:  # there may be one of other settings
            self._logger.log(training.step, {"top1": accuracy}, prefix="evaluation/clean")
        return accuracy

    def _after_each_batch(self) -> None:
        self._watchdog.finished("a batch of evaluation")
        self._stop.raise_if_agreed()


def logged_accuracy(workdir: pathlib.Path, step: int) -> float | None:
    """Clean top-1 after a step, as the run's log has it; None if it was not measured."""
    entries = jsonl.read_metrics(workdir / jsonl.FILE)
    values = [e["evaluation/clean/top1"] for e in entries if e["step"] == step and "evaluation/clean/top1" in e]
    return values[-1] if values else None
