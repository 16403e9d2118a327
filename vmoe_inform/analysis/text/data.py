"""The texts of an analysis: the test text of a language model, or the labelled test texts of a classifier."""

import abc
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Self

import numpy as np

from vmoe_inform import checks, tasks
from vmoe_inform.analysis.collect import certified_rows
from vmoe_inform.analysis.collect.choices import Choices
from vmoe_inform.analysis.collect.groups import whole_groups
from vmoe_inform.analysis.collect.observing import Observer
from vmoe_inform.analysis.data import ANALYSED, AnalysedData
from vmoe_inform.analysis.results import Analysis, SwappedWords
from vmoe_inform.analysis.text import swaps as swaps_lib
from vmoe_inform.analysis.text.shown import ShownTexts, shown_by_run
from vmoe_inform.analysis.text.views import TextViews
from vmoe_inform.config import Config, as_language
from vmoe_inform.data.text.corpora import Corpus
from vmoe_inform.data.text.lines import LabelledTexts
from vmoe_inform.data.text.tokenizers import Tokenizer
from vmoe_inform.runs.run import Run
from vmoe_inform.tasks.text_classification import TextClassification

_CLEAN, _SWAPS = "clean", "word_swap"
_NUM_SHOWN = 24


class Text(AnalysedData[TextViews]):
    """Records that are sequences of tokens."""

    compared_fields = (
        *("model.num_tokens", "model.vocabulary_size", "model.num_classes", "model.allow_future"),
        *("data.source", "data.vocabulary_hash"),
    )
    suite = _CLEAN
    class_names: tuple[str, ...] = ()
    selection: ClassVar[str]  # how the texts on the page are chosen
    _tokenizer: Tokenizer

    @classmethod
    def of_run(cls, config: Config, suite: str, number: int | None) -> Self:
        if suite != _CLEAN:
            raise checks.error("--suite", f"{_CLEAN}, with model.inputs = 'tokens'", suite)
        return cls(config, number)

    @abc.abstractmethod
    def __init__(self, config: Config, number: int | None):
        """Args:
        config: of the run, as it holds on this machine.
        number: how many at most; None: all.

        Raises:
          ValueError, FileNotFoundError: as of the task's ``test_source``.
        """

    @abc.abstractmethod
    def _some(self) -> Any:
        """The records whose first batch the page shows."""

    def views(self, runs: Sequence[Run], choices: Choices, found: Analysis) -> TextViews:
        """At most 24 texts; :attr:`selection` says which."""
        source = self._some()
        shown = [shown_by_run(run, source, _NUM_SHOWN) for run in runs]
        first = shown[0]
        targets = first.targets
        return TextViews(
            tokens=self._words(first.tokens, first.real),
            targets=() if targets is None else self._words(targets, first.real),
            labels=() if first.labels is None else first.labels.tolist(),
            class_names=self.class_names,
            selection=self.selection,
            likely=self._likely(shown),
            certified=certified_rows.of_swaps(found.swapped_words),
            views=[of_run.view for of_run in shown],
        )

    def _words(self, ids: np.ndarray, real: np.ndarray) -> list[list[str]]:
        return [self._tokenizer.tokens(row[mask]) for row, mask in zip(ids, real, strict=True)]

    def _likely(self, shown: Sequence[ShownTexts]) -> Mapping[int, str]:
        expected = [of_run.view.expected for of_run in shown if of_run.view.expected is not None]
        ids = np.unique(np.concatenate([np.zeros(0, np.int32), *(of.likely.ravel() for of in expected)]))
        ids = ids[ids < self._tokenizer.size]  # a model may have more rows than its tokenizer has tokens
        return dict(zip(ids.tolist(), self._tokenizer.tokens(ids), strict=True))


@ANALYSED.register("language_modeling")
class Windows(Text):
    """The test text of a language model, in windows of N tokens; with ``--limit`` its first tokens."""

    unit = "windows"
    selection = (
        "Each text is the first window of a row. Rows are evenly over the test text; what comes before one is not "
        "remembered."
    )

    def __init__(self, config: Config, number: int | None, *, swaps: bool = False):
        """Args:
        config, number: as of the class.
        swaps: whether the text is also looked at with swapped words.
        """
        rows = config.evaluation.batch_size
        if number is not None and number < rows:
            raise checks.error("--limit", f"at least evaluation.batch_size = {rows} tokens", number)
        self._config, self._number, self._swaps = as_language(config), number, swaps
        self._whole: Corpus = tasks.from_config(config).test_source
        self._tokenizer = self._whole.tokenizer
        self._corpus = swaps_lib.first(self._whole, number)

    @classmethod
    def of_run(cls, config: Config, suite: str, number: int | None) -> Self:
        if suite not in (_CLEAN, _SWAPS):
            raise checks.error("--suite", f"{_CLEAN} or {_SWAPS}, with model.inputs = 'tokens'", suite)
        return cls(config, number, swaps=suite == _SWAPS)

    def source(self) -> Corpus:
        return self._corpus

    def swapped_words(self, observer: Observer, say: Callable[[str], None]) -> SwappedWords | None:
        if not self._swaps:
            return None
        return swaps_lib.of_shares(observer, self._whole, self._number, self._config, say)

    def _some(self) -> Corpus:
        """The first window of each row, which are evenly over the text."""
        return self._corpus


@ANALYSED.register("text_classification")
class Texts(Text):
    """The labelled test texts of a classifier; with ``--limit`` some of them, in whole groups evenly over all."""

    unit = "texts"
    selection = "The texts are evenly over the test set."

    def __init__(self, config: Config, number: int | None):
        task = tasks.from_config(config)
        assert isinstance(task, TextClassification)  # or a kind of it
        self._group_size = config.model.moe.group_size_sequences
        if number is not None and number < self._group_size:
            raise checks.error("--limit", f"a number >= {self._group_size} (model.moe.group_size_sequences)", number)
        self._tokenizer = task.tokenizer
        self._texts = _selected(task.test_source, number, self._group_size)
        self.class_names = tuple(self._texts.class_names)

    def source(self) -> LabelledTexts:
        return self._texts

    def _some(self) -> LabelledTexts:
        return _selected(self._texts, max(_NUM_SHOWN, self._group_size), self._group_size)


def _selected(texts: LabelledTexts, number: int | None, group_size: int) -> LabelledTexts:
    indices = whole_groups(len(texts.texts), group_size, number)
    return dataclasses.replace(texts, texts=[texts.texts[index] for index in indices], labels=texts.labels[indices])
