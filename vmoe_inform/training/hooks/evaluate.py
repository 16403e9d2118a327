"""Evaluates the model as it is trained: the task's headline, and suites with cadences of their own."""

import math
from collections.abc import Mapping, Sequence

from absl import logging

from vmoe_inform import checks, storage
from vmoe_inform.config import Config
from vmoe_inform.evaluation import suites
from vmoe_inform.evaluation.evaluator import Evaluator
from vmoe_inform.evaluation.predict import Predictor
from vmoe_inform.evaluation.suites import Suite
from vmoe_inform.runs.run import Run
from vmoe_inform.sharding import processes
from vmoe_inform.tasks import Task
from vmoe_inform.training.hooks.base import Hook, Training
from vmoe_inform.training.hooks.stop import Stop
from vmoe_inform.training.metrics_logger import MetricsLogger
from vmoe_inform.training.program import Program
from vmoe_inform.training.stopping import Stopped
from vmoe_inform.training.terminal import Terminal
from vmoe_inform.training.writers import jsonl

_COUNT = "count"  # metric of a suite: images that were evaluated; 0 if it is not available


class Evaluate(Hook):
    """Measures the headline every ``evaluation.every_steps`` steps, suites as ``evaluation.suites_every_steps`` says,
    and all of them after the last step of the run.

    Metrics are logged as ``evaluation/SUITE/METRIC``. What is logged is not measured again. What a signal interrupts is
    left undone, and the run that resumes from its step makes up for it.
    """

    def __init__(
        self,
        config: Config,
        workdir: storage.Path,
        task: Task,
        loaded: Mapping[str, Suite],
        *,
        program: Program,
        predictor: Predictor,
        logger: MetricsLogger,
        stop: Stop,
        terminal: Terminal,
    ):
        """Args:
        config: of the run.
        workdir: of the run, whose log says which evaluations are done.
        task: measures the headline.
        loaded: suites by name.
        program, predictor: of the run's model.
        logger: writes the metrics.
        stop: asked after each batch whether a signal came.
        terminal: says what takes time.
        """
        self._config = config
        self._workdir = workdir
        self._task = task
        self._suites = loaded
        self._every_steps = {task.headline_name: config.evaluation.every_steps}
        self._every_steps |= dict(config.evaluation.suites_every_steps)
        self._headlines: dict[int, float] = {}  # by step; the log may lack them, as on a full disk
        self._program = program
        self._predictor = predictor
        self._logger = logger
        self._stop = stop
        self._terminal = terminal

    def is_due(self, step: int) -> bool:
        """At the steps of the headline, and of each suite."""
        return bool(self._due(step))

    def act(self, training: Training) -> None:
        """Evaluates what is due. Sets ``training.stopping`` if a signal comes."""
        self._evaluate(training, self._due(training.step))

    def end(self, training: Training) -> None:
        """Sets ``training.headline`` if all steps of the run are done, and all evaluations."""
        if training.step < training.total_steps or training.stopping:
            return
        self._evaluate(training, list(self._every_steps))
        if not training.stopping:
            name = _mark(self._task, self._task.headline_name)
            if training.step not in self._headlines:  # an earlier process has measured it
                text = processes.from_main(lambda: repr(logged(self._workdir, training.step)[name]))
                self._headlines[training.step] = float(text)
            training.headline = self._headlines[training.step]

    def _due(self, step: int) -> list[str]:
        return [name for name, every in self._every_steps.items() if every is not None and step % every == 0]

    def _evaluate(self, training: Training, names: Sequence[str]) -> None:
        is_main = processes.is_main()
        done = logged(self._workdir, training.step) if is_main else {}
        left = [name for name in names if processes.any_process(is_main and _mark(self._task, name) not in done)]
        if not left:
            return
        run = Run(
            name=self._workdir.name,
            folder=self._workdir,
            step=training.step,
            config=self._config,
            model=self._program.model,
            variables=training.state.variables(averaged=True),
            mesh=self._program.mesh,
        )
        evaluator = Evaluator(run, self._predictor)  # the clean predictions are made once for all suites
        try:
            for name in left:
                if name == self._task.headline_name:
                    self._measure_headline(run)
                else:
                    self._measure_suite(evaluator, self._suites[name], training.step)
        except Stopped:
            training.stopping = True

    def _measure_headline(self, run: Run) -> None:
        source = self._task.test_source
        with self._predictor.reporting(self._progress(self._task.headline_name, self._task.num_examples(source))):
            headline = self._predictor.headline(run.variables)
        self._headlines[run.step] = headline.value
        self._log(run.step, {headline.name: headline.value})

    def _measure_suite(self, evaluator: Evaluator, suite: Suite, step: int) -> None:
        """A suite that turns out not to be available is logged with a count of 0: it does not end a training."""
        metrics = {_COUNT: 0.0}
        try:
            with self._predictor.reporting(self._progress(suite.name, _count_records(suite, self._task))):
                result = evaluator.measure(suite)
        except (suites.NotAvailable, checks.InputError) as problem:
            logging.warning("evaluation of %s: not available: %s", suite.name, problem)
        else:
            headline = {result.headline: result.metrics[result.headline]}
            metrics = {**headline, **result.metrics, _COUNT: result.count}
        self._log(step, {f"{suite.name}/{name}": value for name, value in metrics.items()})

    def _log(self, step: int, metrics: Mapping[str, float]) -> None:
        self._logger.log(step, metrics, prefix="evaluation")
        name, value = next(iter(metrics.items()))
        self._terminal.say(f"step {step}: {name} {value:.4f}")

    def _progress(self, name: str, records: int) -> "_Progress":
        batches = math.ceil(records / self._config.evaluation.batch_size)
        return _Progress(name, batches, self._terminal, self._stop)


def _count_records(suite: Suite, task: Task) -> int:
    """Records of all sets. All processes predict a suite, or none: a set that one of them lacks is lacking.

    Raises:
      NotAvailable: a set is not available here, or to another process.
    """
    count, problem = 0, None
    try:
        count = sum(task.num_examples(record_set.load()) for record_set in suite.sets.values())
    except (suites.NotAvailable, checks.InputError, FileNotFoundError) as found:
        problem = str(found)
    if processes.any_process(problem is not None):
        raise suites.NotAvailable(problem or "not found by another of the processes")
    return count


class _Progress:
    """Called after each batch of an evaluation; raises Stopped if a signal came."""

    def __init__(self, name: str, batches: int, terminal: Terminal, stop: Stop):
        self._text = f"evaluating {name}"
        self._batches = batches
        self._terminal = terminal
        self._stop = stop
        self._done = 0
        terminal.phase(self._text)

    def __call__(self) -> None:
        self._done += 1
        self._terminal.advance(self._text, self._done, max(self._done, self._batches))
        self._stop.raise_if_agreed()


def _mark(task: Task, name: str) -> str:
    """The metric by whose presence in the log an evaluation is known to be done."""
    return f"evaluation/{name}" if name == task.headline_name else f"evaluation/{name}/{_COUNT}"


def logged(workdir: storage.Path, step: int) -> dict[str, float]:
    """All metrics of a step by name, as the run's log has them."""
    entries = [entry for entry in jsonl.read_metrics(workdir / jsonl.FILE) if entry["step"] == step]
    return {name: value for entry in entries for name, value in entry.items()}


def logged_headline(workdir: storage.Path, step: int, task: Task) -> float | None:
    """The headline after a step, as the run's log has it; None unless all evaluations of the last step are done."""
    metrics = logged(workdir, step)
    names = [task.headline_name, *(name for name, _ in task.config.evaluation.suites_every_steps)]
    if any(_mark(task, name) not in metrics for name in names):
        return None
    return metrics[_mark(task, task.headline_name)]
