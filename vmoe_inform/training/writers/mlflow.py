"""MLflow. The environment sets it up: ``MLFLOW_TRACKING_URI``, ``MLFLOW_EXPERIMENT_NAME``."""

import collections
import concurrent.futures
import itertools
import os
import time
from collections.abc import Iterator, Mapping
from typing import Any

from vmoe_inform import checks
from vmoe_inform.training.writers.base import WRITERS, Opening, Writer

RUN_FILE = "mlflow_run.txt"  # id of the run at MLflow
_EXPERIMENT = "vmoe_inform"  # unless MLFLOW_EXPERIMENT_NAME names another
_MOST_PARAMETERS, _LONGEST_VALUE = 100, 500  # of a request, and characters: what every tracking server takes


@WRITERS.register("mlflow")
class MLflow(Writer):
    """Writes to one MLflow run, however often training resumes: DIR/mlflow_run.txt has its id.

    Settings of the config become parameters of the run. Steps that are repeated after a restart are written twice, with
    the same values. Metrics are sent by a thread, in the background.

    Raises:
      ValueError: the tracking server cannot be reached, or does not know the run.
    """

    packages = ("mlflow",)
    extra = "mlflow"

    def __init__(self, opening: Opening):
        import mlflow

        try:
            self._client: Any = mlflow.MlflowClient()
            self._run_id = opening.recorded(RUN_FILE)
            if self._run_id is None:
                self._run_id = self._new_run(opening)
                opening.record(RUN_FILE, self._run_id)
            else:
                self._client.update_run(self._run_id, status="RUNNING")
        except mlflow.exceptions.MlflowException as problem:
            expected = "a tracking server for 'mlflow' (MLFLOW_TRACKING_URI)"
            raise checks.error("train.writers", expected, " ".join(str(problem).split())[:300]) from None
        self._thread = concurrent.futures.ThreadPoolExecutor(max_workers=1, thread_name_prefix="mlflow")
        self._sent: collections.deque[concurrent.futures.Future[Any]] = collections.deque()

    def _new_run(self, opening: Opening) -> str:
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", _EXPERIMENT)
        experiment = self._client.get_experiment_by_name(name)
        experiment_id = self._client.create_experiment(name) if experiment is None else experiment.experiment_id
        run = self._client.create_run(experiment_id, run_name=opening.workdir.name)
        settings = iter(_flat(opening.config))
        while batch := list(itertools.islice(settings, _MOST_PARAMETERS)):
            self._client.log_batch(run.info.run_id, params=[_parameter(*setting) for setting in batch])
        return run.info.run_id

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        """Hands the metrics to the thread. Raises what earlier ones failed with."""
        from mlflow.entities import Metric

        now = int(1000 * time.time())
        values = [Metric(name, value, now, step) for name, value in metrics.items()]
        self._sent.append(self._thread.submit(self._client.log_batch, self._run_id, metrics=values))
        while self._sent and self._sent[0].done():
            self._sent.popleft().result()

    def close(self) -> None:
        """Waits until all metrics are sent."""
        self._thread.shutdown()
        self._client.set_terminated(self._run_id)
        while self._sent:
            self._sent.popleft().result()


def _flat(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in tree.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _parameter(name: str, value: Any) -> Any:
    from mlflow.entities import Param

    return Param(name, str(value)[:_LONGEST_VALUE])
