"""The smallest runs on text that have every part: a corpus of a hundred lines in a temporary folder."""

import pathlib
from typing import Any

import ml_collections
import numpy as np

from vmoe_inform import config as config_lib
from vmoe_inform.config import presets

WORDS = ("the", "cat", "dog", "sees", "hears", "a", "big", "small", "red", "old", "house", "tree", "and", "then")


def write_corpus(folder: pathlib.Path, lines: int = 120) -> pathlib.Path:
    """``train.txt``, ``validation.txt`` and ``test.txt`` with sentences of random words."""
    random = np.random.default_rng(0)
    for split, count in (("train", lines), ("validation", 20), ("test", 20)):
        text = "".join(" ".join(random.choice(WORDS, random.integers(3, 9))) + "\n" for _ in range(count))
        (folder / f"{split}.txt").write_text(text)
    return folder


def config_dict(folder: pathlib.Path, router: str = "smoe_top2", **overrides: Any) -> ml_collections.ConfigDict:
    """A language model with one dense and one MoE block of width 16, on rows of 8 tokens.

    Args:
      folder: of :func:`write_corpus`.
      router: preset.
      **overrides: fields with ``__`` for the dots, e.g. ``train__steps=3``.
    """
    config = presets.start_language(f"router={router},experts=4,where=1", router=router, size="tiny", experts="4")
    config.model.num_layers = 2
    config.model.hidden_size = 16
    config.model.mlp_size = 32
    config.model.num_heads = 2
    config.model.num_tokens = 8
    config.model.vocabulary_size = len(WORDS) + 2  # unknown, end of line
    config.model.loss_chunk_tokens = 32
    config.data.source = "text"
    config.data.directory = str(folder)
    config.data.num_threads = 0
    config.mesh.expert = 1
    config.train.epochs = None
    config.train.steps = 12
    config.train.batch_size = 8
    config.train.log_every_steps = 4
    config.optimizer.warmup_steps = 2
    config.optimizer.learning_rate = 1e-2
    config.evaluation.batch_size = 8
    config.evaluation.suites = ()
    for name, value in overrides.items():
        *groups, field = name.split("__")
        group = config
        for key in groups:
            group = group[key]
        group[field] = value
    return config


def parse(folder: pathlib.Path, router: str = "smoe_top2", **overrides: Any) -> config_lib.Config:
    """The config of :func:`config_dict`, checked."""
    return config_lib.parse(config_dict(folder, router, **overrides))
