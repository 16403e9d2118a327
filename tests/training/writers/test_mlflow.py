"""MLflow, with a tracking store in a folder."""

import math

import pytest

from vmoe_inform.training.metrics_logger import MetricsLogger
from vmoe_inform.training.writers.mlflow import RUN_FILE

mlflow = pytest.importorskip("mlflow", reason="NOT TESTED: the writer mlflow; pip install 'vmoe-inform[mlflow]'")


@pytest.fixture(autouse=True)
def _store(tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"file:{tmp_path / 'store'}")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")


def test_one_run_however_often_training_resumes(tmp_path):
    workdir = tmp_path / "digits"
    config = {"seed": 3, "model": {"moe": {"num_experts": 8}, "dtype": "x" * 1000}}
    for start in (0, 10):
        with MetricsLogger(workdir, ("jsonl", "mlflow"), start_step=start, config=config) as logger:
            logger.log(start + 10, {"loss": 0.25})
            logger.log(start + 10, {"top1": math.nan}, prefix="evaluation/clean")
    client = mlflow.MlflowClient()
    run = client.get_run((workdir / RUN_FILE).read_text().strip())
    assert (run.info.run_name, run.info.status) == ("digits", "FINISHED")
    assert run.data.params == {"seed": "3", "model.moe.num_experts": "8", "model.dtype": "x" * 500}
    history = client.get_metric_history(run.info.run_id, "loss")
    assert [(metric.step, metric.value) for metric in history] == [(10, 0.25), (20, 0.25)]
    (first, _) = client.get_metric_history(run.info.run_id, "evaluation/clean/top1")
    assert math.isnan(first.value)


def test_a_server_that_does_not_know_the_run_is_one_clear_error(tmp_path):
    (tmp_path / RUN_FILE).write_text("0123456789abcdef0123456789abcdef\n")
    with pytest.raises(
        ValueError, match=r"train.writers: expected a tracking server for 'mlflow' .*; received"
    ) as caught:
        MetricsLogger(tmp_path, ("jsonl", "mlflow"))
    assert "\n" not in str(caught.value)
