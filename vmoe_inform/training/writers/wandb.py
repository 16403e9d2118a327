"""Weights & Biases. The environment sets it up: ``WANDB_MODE=offline``, ``WANDB_PROJECT``, ``WANDB_ENTITY``."""

import contextlib
import os
import uuid
from collections.abc import Mapping
from typing import Any

from vmoe_inform import checks, storage
from vmoe_inform.training.writers.base import WRITERS, Opening, Writer

RUN_FILE = "wandb_run.txt"  # id of the run at W&B
_PROJECT = "vmoe_inform"  # unless WANDB_PROJECT names another
_STEP = "step"  # the horizontal axis of all charts


@WRITERS.register("wandb")
class WeightsAndBiases(Writer):
    """Writes to one W&B run, however often training resumes: DIR/wandb_run.txt has its id.

    Steps that are repeated after a restart are written twice, with the same values. W&B writes in a process of its own,
    below DIR/wandb. Of a run in a bucket, that folder is on this machine and is uploaded when training ends.

    Raises:
      ValueError: W&B cannot start, for example without a login.
    """

    packages = ("wandb",)
    extra = "wandb"

    def __init__(self, opening: Opening):
        import wandb

        run_id = opening.recorded(RUN_FILE) or uuid.uuid4().hex
        self._local = contextlib.ExitStack()
        folder = self._local.enter_context(storage.local_folder(opening.workdir))
        try:
            self._run: Any = wandb.init(
                project=os.environ.get("WANDB_PROJECT", _PROJECT),
                id=run_id,
                name=opening.workdir.name,
                dir=str(folder),
                config=dict(opening.config),
                resume="allow",
                settings=wandb.Settings(console="off", silent=True),
            )
        except wandb.Error as problem:
            expected = "W&B to start for 'wandb' (with WANDB_MODE=offline it needs no login)"
            raise checks.error("train.writers", expected, " ".join(str(problem).split())) from None
        opening.record(RUN_FILE, run_id)
        self._run.define_metric("*", step_metric=_STEP)  # W&B's own steps may not repeat

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        """Hands the metrics to W&B's process."""
        self._run.log({**metrics, _STEP: step})

    def close(self) -> None:
        """Waits until W&B has written them."""
        with self._local:
            self._run.finish()
