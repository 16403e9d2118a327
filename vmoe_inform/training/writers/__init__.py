"""Where metrics are written, one writer a file; base.py has the protocol and the registry.

A new writer is a file with a class and ``@WRITERS.register("NAME")``, and a line below. Configs name it in
``train.writers``.
"""

from vmoe_inform.training.writers import jsonl, mlflow, tensorboard, wandb  # noqa: F401  (they register)
from vmoe_inform.training.writers.base import WRITERS, Opening, Writer, check

__all__ = ["WRITERS", "Opening", "Writer", "check"]
