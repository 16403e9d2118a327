"""Text by the name that ``config.data.source`` gives: lines for language models, labelled texts for classifiers.

A run learns from the training split and is measured on the test split. With ``data.validation_share`` both are parts of
the training split, so that settings can be chosen without a look at the test text.
"""

import dataclasses
from collections.abc import Iterator

from vmoe_inform import checks
from vmoe_inform.config import TextDataConfig
from vmoe_inform.data.held_out import held_out, is_held_out
from vmoe_inform.data.text import (  # noqa: F401  (they register their sources)
    docstrings,
    movie_snippets,
    plain,
    tables,
    tfds,
    wikitext,
    wordnet,
)
from vmoe_inform.data.text.lines import LABELLED, LINES, LabelledTexts, Lines

__all__ = [
    "LABELLED",
    "LINES",
    "LabelledTexts",
    "Lines",
    "labelled",
    "lines",
    "test_lines",
    "test_texts",
    "training_lines",
    "training_texts",
]

_LINES_OF_A_BLOCK = 64  # held out together: some hundred words, so that they have a context


def lines(data: TextDataConfig, split: str) -> Lines:
    """The lines of the split ``split`` of ``data.source``.

    Raises:
      ValueError: an unknown source or split, or files that are refused; some only when the lines are read.
      FileNotFoundError: data that are not where the config says; the message says what is expected there.
    """
    return LINES[data.source](data, split)


def training_lines(data: TextDataConfig) -> Lines:
    """The lines that a run learns from: ``data.train_split`` without those held out for validation.

    Raises:
      ValueError, FileNotFoundError: as :func:`lines`.
    """
    return _part(lines(data, data.train_split), data, held_out_ones=False)


def test_lines(data: TextDataConfig) -> Lines:
    """The lines that a run is measured on: ``data.test_split``, or those held out of ``data.train_split``.

    Raises:
      ValueError, FileNotFoundError: as :func:`lines`.
    """
    if data.validation_share == 0:
        return lines(data, data.test_split)
    return _part(lines(data, data.train_split), data, held_out_ones=True)


def _part(whole: Lines, data: TextDataConfig, *, held_out_ones: bool) -> Lines:
    """Blocks of lines that are held out, or the others."""
    share = data.validation_share
    if share == 0:
        return whole

    def read() -> Iterator[str]:
        for number, line in enumerate(whole):
            if is_held_out(number // _LINES_OF_A_BLOCK, share) == held_out_ones:
                yield line

    return dataclasses.replace(whole, read=read)


def labelled(data: TextDataConfig, split: str) -> LabelledTexts:
    """The labelled texts of a split of ``data.source``; their labels number ``data.class_names``, where there are some.

    Raises:
      ValueError: an unknown source or split, other classes than ``data.class_names``, or files that are refused.
      FileNotFoundError: data that are not where the config says; the message says what is expected there.
    """
    texts = LABELLED[data.source](data, split)
    if len(texts.texts) == 0:
        raise checks.error(f"split {split!r}", "labelled texts", checks.NOTHING)
    return texts.in_order(data.class_names, f"classes of split {split!r}")


def training_texts(data: TextDataConfig) -> LabelledTexts:
    """The texts that a run learns from: ``data.train_split`` without those held out for validation.

    Raises:
      ValueError, FileNotFoundError: as :func:`labelled`; or ``data.validation_share`` leaves no text on one side.
    """
    return _part_of_texts(labelled(data, data.train_split), data, held_out_ones=False)


def test_texts(data: TextDataConfig) -> LabelledTexts:
    """The texts that a run is measured on: ``data.test_split``, or those held out of ``data.train_split``.

    Raises:
      ValueError, FileNotFoundError: as :func:`training_texts`.
    """
    if data.validation_share == 0:
        return labelled(data, data.test_split)
    return _part_of_texts(labelled(data, data.train_split), data, held_out_ones=True)


def _part_of_texts(texts: LabelledTexts, data: TextDataConfig, *, held_out_ones: bool) -> LabelledTexts:
    if data.validation_share == 0:
        return texts
    chosen = held_out(len(texts.texts), data.validation_share) == held_out_ones
    if not chosen.any():
        expected = f"a share that leaves texts of split {data.train_split!r} ({len(chosen)}) on both sides"
        raise checks.error("data.validation_share", expected, data.validation_share)
    return texts.chosen(chosen)
