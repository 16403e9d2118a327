"""A split as one sequence of token ids, and the tokenizer that made it."""

import dataclasses
import itertools
from pathlib import Path

import numpy as np
from jaxtyping import Int

from vmoe_inform import checks, storage
from vmoe_inform.config import LanguageConfig
from vmoe_inform.data.text import files, sources, tokenizers
from vmoe_inform.data.text.bpe import BpeTokenizer
from vmoe_inform.data.text.lines import Lines
from vmoe_inform.data.text.tokenizers import END_OF_LINE, UNKNOWN, Tokenizer
from vmoe_inform.data.text.words import Splitting, WordTokenizer


@dataclasses.dataclass(frozen=True, eq=False)
class Corpus:
    """The text of one split for a language model.

    Attributes:
      ids: the tokens of all lines, each line followed by the tokenizer's ``end_of_line``.
      tokenizer: what the ids mean.
      num_words: words of the text, the end of each line included. Perplexity per word is exp(nats / ``num_words``).
      lines: the text itself, such as for attacks on words.
      inputs: what a model is given in place of ``ids``, which it predicts; None: ``ids`` themselves.
    """

    ids: Int[np.ndarray, " T"]
    tokenizer: Tokenizer
    num_words: int
    lines: Lines
    inputs: Int[np.ndarray, " T"] | None = None

    @property
    def num_lines(self) -> int:
        """Lines of the text."""
        return int(np.count_nonzero(self.ids == self.tokenizer.end_of_line))

    @property
    def origin(self) -> str:
        """Where the text is from, in words for tables."""
        return self.lines.origin


def corpus(lines: Lines, tokenizer: Tokenizer) -> Corpus:
    """Reads and encodes the lines of a split.

    Raises:
      ValueError: no lines, or text that is refused.
    """
    ids = tokenizer.encode_lines(lines)
    if len(ids) == 0:
        raise checks.error("data", "text", f"no lines of {lines.origin}")
    num_words = len(ids) if isinstance(tokenizer, WordTokenizer) else sum(1 + len(tokenizer.words(x)) for x in lines)
    return Corpus(ids, tokenizer, num_words, lines)


def training(config: LanguageConfig, tokenizer: Tokenizer) -> Corpus:
    """What a run learns from, see :func:`vmoe_inform.data.text.sources.training_lines`. Raises as it does."""
    return corpus(sources.training_lines(config.data), tokenizer)


def test(config: LanguageConfig, tokenizer: Tokenizer) -> Corpus:
    """What a run is measured on, see :func:`vmoe_inform.data.text.sources.test_lines`. Raises as it does."""
    return corpus(sources.test_lines(config.data), tokenizer)


def load(config: LanguageConfig, split: str, tokenizer: Tokenizer) -> Corpus:
    """A split of ``data.source``, see :func:`vmoe_inform.data.text.sources.lines`. Raises as it does."""
    return corpus(sources.lines(config.data, split), tokenizer)


def learn_tokenizer(config: LanguageConfig) -> Tokenizer:
    """The tokenizer of a new run, with at most ``model.vocabulary_size`` tokens.

    It is read from the files that ``data.tokenizer`` or ``data.vocabulary`` name, or else learned. Words are learned
    from the training split, or from all splits where the source is published with such a vocabulary (WikiText).

    Raises:
      ValueError: more tokens than the model has, text that does not fit the tokenizer, or as :func:`sources.lines`.
      FileNotFoundError: as :func:`sources.lines`, or the files of tokenizer or vocabulary are missing.
    """
    tokenizer = _learn(config)
    check_size(config, tokenizer)
    return tokenizer


def check_size(config: LanguageConfig, tokenizer: Tokenizer) -> None:
    """Raises ValueError if the tokenizer has a token id beyond the model's vocabulary."""
    if tokenizer.size > config.model.vocabulary_size:
        expected = f"at least {tokenizer.size}, the tokens of the tokenizer"
        raise checks.error("model.vocabulary_size", expected, config.model.vocabulary_size)


def _learn(config: LanguageConfig) -> Tokenizer:
    data, size = config.data, config.model.vocabulary_size
    if data.tokenizer not in ("words", "bpe"):
        return tokenizers.read(_kept(data.tokenizer))
    text = _training_text(config)
    if data.tokenizer == "bpe":
        return BpeTokenizer.learn(text, size)
    splitting: Splitting = "spaces" if text.separated else "marks"
    if data.vocabulary:
        expected = "a file with a word a line"
        return _listed(storage.inputs.existing_file("data.vocabulary", data.vocabulary, expected), splitting)
    parts = [sources.lines(data, split) for split in text.vocabulary_splits] or [text]
    return WordTokenizer.learn(itertools.chain.from_iterable(parts), size, splitting)


def _kept(tokenizer: str) -> storage.Path:
    """The file of a tokenizer, which may be in the folder of a run; raises FileNotFoundError if there is none."""
    field = "data.tokenizer"
    file = storage.path(field, tokenizer)
    if not storage.exists(file) or storage.is_folder(file):
        expected = "'words', 'bpe' or the file of a tokenizer"
        raise FileNotFoundError(f"{field}: expected {expected}; received {tokenizer!r}, where no file is")
    return file


def _listed(path: Path, splitting: Splitting) -> WordTokenizer:
    """The words of a file, and the unknown word and the end of a line if it lacks them."""
    listed = [word for word in files.lines(path) if word]
    special = (UNKNOWN, END_OF_LINE)
    if not set(listed).difference(special):
        raise checks.error(str(path), "a word a line", "no word")
    try:
        return WordTokenizer([*(word for word in special if word not in listed), *listed], splitting)
    except ValueError as problem:
        raise checks.InputError(f"{path}: {problem}") from None


def _training_text(config: LanguageConfig) -> Lines:
    """What a tokenizer is learned from."""
    if config.model.num_classes is None:
        return sources.training_lines(config.data)
    texts = sources.training_texts(config.data)
    return Lines(lambda: iter(texts.texts), texts.origin, texts.separated)
