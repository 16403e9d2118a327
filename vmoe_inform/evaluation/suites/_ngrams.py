"""Perplexity of n-gram models of the training text, kept as a file, since counting a long text takes minutes."""

import dataclasses
import json

import numpy as np
from absl import logging

from vmoe_inform import config as config_lib
from vmoe_inform import storage
from vmoe_inform.config import LanguageConfig
from vmoe_inform.data.text import corpora, ngrams, tokenizers
from vmoe_inform.data.text.corpora import Corpus
from vmoe_inform.evaluation import cache, fingerprints
from vmoe_inform.evaluation.suites.base import task_of

_VERSION = 1  # of what is computed


def references(config: LanguageConfig, test: Corpus) -> dict[str, float]:
    """Perplexity of a token of the test text by name of the model; empty where the training text is not at hand.

    Args:
      config: of the run.
      test: a text in tokens of the run.
    """
    try:
        found = cache.array_made_once(_path(config, test), lambda: _count(config, test))
    except (FileNotFoundError, ValueError) as problem:  # no reason to report no perplexity of the model
        logging.warning("no n-gram perplexities: %s", problem)
        return {}
    return dict(zip(ngrams.NAMES, found.tolist(), strict=True))


def _count(config: LanguageConfig, test: Corpus) -> np.ndarray:
    training = corpora.training(config, task_of(config).tokenizer)
    size = config.model.vocabulary_size
    found = ngrams.perplexities(
        training.ids, test.ids, vocabulary_size=size, before=test.tokenizer.end_of_line, inputs=test.inputs
    )
    return np.array([found[name] for name in ngrams.NAMES])


def _path(config: LanguageConfig, test: Corpus) -> storage.Path:
    data = dataclasses.replace(config.data, num_workers=0, num_threads=0, prefetch_batches=1)
    data = dataclasses.replace(data, tokenizer="words", vocabulary="", vocabulary_hash="")  # the fingerprint says it
    settings = json.dumps(config_lib.to_json(dataclasses.replace(config, data=data))["data"], sort_keys=True)
    digest = cache.digest(
        version=_VERSION,
        data=settings,
        vocabulary_size=config.model.vocabulary_size,
        tokenizer=tokenizers.fingerprint(test.tokenizer),
        test=fingerprints.fingerprint(test),
    )
    return cache.cache_directory(config.evaluation.cache_directory) / "ngrams" / f"{digest}.npz"
