"""Weights & Biases, in its offline mode."""

import pytest

from vmoe_inform.training.metrics_logger import MetricsLogger
from vmoe_inform.training.writers.wandb import RUN_FILE

wandb = pytest.importorskip("wandb", reason="NOT TESTED: the writer wandb; pip install 'vmoe-inform[wandb]'")


def test_one_run_however_often_training_resumes(tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    for start in (0, 10):
        with MetricsLogger(tmp_path, ("jsonl", "wandb"), start_step=start, config={"seed": 3}) as logger:
            logger.log(start + 10, {"loss": 0.25})
            logger.log(start + 10, {"top1": 0.5}, prefix="evaluation/clean")
    wandb.teardown()  # waits for W&B's process, which writes the files
    run_id = (tmp_path / RUN_FILE).read_text().strip()
    files = [file for file in (tmp_path / "wandb").glob("offline-run-*/*.wandb") if not file.is_symlink()]
    assert {file.name for file in files} == {f"run-{run_id}.wandb"}  # `wandb sync` makes one run of them
    for file in files:
        content = file.read_bytes()
        assert all(word in content for word in (b"evaluation/clean/top1", b"loss", b"seed"))
