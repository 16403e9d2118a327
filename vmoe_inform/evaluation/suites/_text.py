"""Shared code of the suites of language models: the text of a run, and perplexity of what a model says of it."""

import functools
import math
from typing import Any

import numpy as np

from vmoe_inform import checks
from vmoe_inform.config import LanguageConfig, causality
from vmoe_inform.data.text import corpora
from vmoe_inform.data.text.corpora import Corpus
from vmoe_inform.evaluation.metric_registry import Metric
from vmoe_inform.evaluation.paired import Contributions
from vmoe_inform.evaluation.results import Scale
from vmoe_inform.evaluation.suites.base import NotAvailable, Scores, TokenLosses, task_of

PERPLEXITY = Scale("perplexity", less_is_better=True)
TASKS = ("language_modeling",)
_MOST_NATS = 230.0  # a mean, whose perplexity results.json can hold


def metric(name: str, title: str, short_title: str = "") -> Metric:
    """A perplexity that a suite makes by itself."""
    return Metric(name, title, short_title, unit="perplexity", less_is_better=True)


def test_text(config: LanguageConfig) -> Corpus:
    """The text that the run is measured on.

    Raises:
      NotAvailable: later tokens decide which experts a token gets, so that no perplexity can be reported.
      ValueError, FileNotFoundError: as of the task.
    """
    if choices := causality.future_choices(config.model):
        settings = ", ".join(choices)
        raise NotAvailable(f"later tokens decide which experts a token gets ({settings}): there is no perplexity")
    return task_of(config).test_source


def validation_text(config: LanguageConfig) -> Corpus | None:
    """The validation split; None where the source has none, or the test text is held out of the training split."""
    data = config.data
    if data.validation_share > 0 or not data.validation_split:
        return None
    return _load(task_of(config), data.validation_split)


@functools.lru_cache(maxsize=2)
def _load(task: Any, split: str) -> Corpus:
    """Kept, since several suites ask for the same."""
    return corpora.load(task.config, split, task.tokenizer)


def scores_of(losses: TokenLosses) -> Scores:
    """What is kept of the answers: of each window the sum of its nats, and its tokens."""
    return {
        "index": losses.indices.astype(np.int32),
        "nats": np.sum(losses.nats, axis=1, where=losses.mask, dtype=np.float64),
        "tokens": losses.mask.sum(axis=1).astype(np.int32),
        "skipped": np.asarray(losses.skipped),
    }


def perplexity_of(scores: Scores, count: int | None = None) -> tuple[float, float]:
    """Perplexity exp(nats / count), and its standard error.

    The windows are taken as independent draws of different length (Cochran 1977, Sec. 2.11: the ratio of two means).

    Args:
      scores: as of :func:`scores_of`.
      count: of what the perplexity is of, such as words; None: of tokens.

    Raises:
      InputError: the model has diverged: the perplexity is not finite.
    """
    nats, tokens = scores["nats"], scores["tokens"]
    mean = float(nats.sum() / tokens.sum())
    per = 1.0 if count is None else float(tokens.sum() / count)
    if not mean * per < _MOST_NATS:
        raise checks.error("perplexity", "a finite number", f"exp({mean * per:.4g})")
    error = math.sqrt(float(np.square(nats - mean * tokens).sum())) / float(tokens.sum())
    perplexity = math.exp(max(mean * per, 0.0))
    return perplexity, perplexity * per * error


def contributions_of(scores: Scores, count: int | None = None) -> Contributions:
    """What each window adds to a perplexity; args as :func:`perplexity_of`."""
    nats, tokens = scores["nats"], scores["tokens"]
    per = 1.0 if count is None else count / int(tokens.sum())
    return Contributions(scores["index"], nats, tokens * per, PERPLEXITY)


def counted(corpus: Corpus) -> str:
    """What the tokens of a corpus are, in the plural."""
    return "words" if corpus.num_words == len(corpus.ids) else "tokens"
