"""What the model of a run says of records: images, texts, windows of a corpus."""

import functools
from collections.abc import Callable
from typing import Any

import jax

from vmoe_inform import config as config_lib
from vmoe_inform.config import sizes
from vmoe_inform.data.sources import Source
from vmoe_inform.evaluation import examples
from vmoe_inform.evaluation.adversarial import Attack
from vmoe_inform.evaluation.predict import Chosen, Predictor
from vmoe_inform.evaluation.results import LayerRouting, SuiteResult
from vmoe_inform.evaluation.suites.base import (
    TEST_SET,
    Answers,
    AttackedPredictions,
    Features,
    Records,
    RecordSet,
    Suite,
    task_of,
)
from vmoe_inform.runs.run import Run
from vmoe_inform.sharding import watchdog as watchdog_lib
from vmoe_inform.sharding.watchdog import Watchdog
from vmoe_inform.tasks import Task


class Evaluator:
    """What a run's model says of records; the answers for the clean ones are made once, for all that need them."""

    def __init__(self, run: Run, predictor: Predictor):
        """Args:
        run: whose model is evaluated.
        predictor: of its model; the checkpoints of a run can share one.
        """
        self.run = run
        self._predictor = predictor

    @property
    def task(self) -> Task:
        """What the model is trained for."""
        return self._predictor.task

    @property
    def clean_source(self) -> Records:
        """The clean test records."""
        return self.task.test_source

    @classmethod
    def of(cls, run: Run, watchdog: Watchdog = watchdog_lib.OFF) -> "Evaluator":
        """With a predictor on the run's mesh; ``watchdog`` is told of every batch.

        Raises:
          ValueError: batches that the mesh cannot share out, or that this machine cannot hold.
        """
        config_lib.check_evaluation_batch(run.config, run.mesh.size)
        sizes.check_memory(run.config, run.mesh.size, jax.local_device_count(), train=False)
        return cls(run, Predictor(run.model, task_of(run.config), run.mesh, watchdog=watchdog))

    @functools.cached_property
    def clean(self) -> tuple[Answers, dict[str, LayerRouting], Chosen]:
        """Answers for the clean records, what the routers did, and the experts of every token."""
        return self._predictor.predict_with_routing(self.run.variables, self.clean_source)

    def predict(self, source: Records) -> Answers:
        """Answers for records as they are."""
        return self._predictor.predict(self.run.variables, source)

    def predict_attacked(self, source: Source, attack: Attack) -> AttackedPredictions:
        """Predictions for images that are changed so that the model mistakes them."""
        return self._predictor.predict_attacked(self.run.variables, source, attack)

    def features(self, source: Source) -> Features:
        """What the model's head sees of each image."""
        return self._predictor.features(self.run.variables, source)

    def predict_set(self, name: str, record_set: RecordSet, source: Records) -> Answers:
        """Answers for the set ``name`` of a suite, whose records are ``source``."""
        return self.clean[0] if name == TEST_SET else record_set.predict(self, source)

    def measure(self, suite: Suite, *, before_each_set: Callable[[], None] = lambda: None) -> SuiteResult:
        """The suite's result, with nothing kept on the way.

        Args:
          suite: loaded for the run's config.
          before_each_set: called before each set is predicted; what it raises ends the measurement.
        """
        scores = {}
        with self.task.keeps_workers():
            for name, record_set in suite.sets.items():
                before_each_set()
                scores[name] = suite.score(name, self.predict_set(name, record_set, record_set.load()))
        return suite.result(scores)

    def examples(self) -> dict[str, Any]:
        """Clean records with their experts, as :mod:`vmoe_inform.evaluation.examples` chooses and writes them."""
        answers, _, chosen_experts = self.clean
        return examples.choose(self.task, self.clean_source, answers, chosen_experts)
