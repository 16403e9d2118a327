"""Settings of text: where it comes from and how it becomes tokens."""

import dataclasses
from typing import Annotated

from vmoe_inform import checks
from vmoe_inform.checks import Name, RunPath
from vmoe_inform.config.identity import Effect
from vmoe_inform.config.settings.bounds import Threads
from vmoe_inform.config.settings.data import DataConfig


@dataclasses.dataclass(frozen=True, kw_only=True)
class TextDataConfig(DataConfig):
    """Where text comes from and how it becomes tokens.

    Attributes:
      source: registered source of lines (wordnet, docstrings, wikitext, text) or of labelled texts (wordnet, table,
        tfds, movie_snippets, movie_snippets_2).
      validation_split: name of the split to choose settings by, as the source calls it; empty: it has none.
      tokenizer: ``"words"``, ``"bpe"`` (byte-pair encoding, learned from the training split), or the path of a
        tokenizer file. Words are split at white space where the source separates them (WikiText); other text is
        lower-cased, and its punctuation marks are words.
      vocabulary: path of a file with the vocabulary's words, one a line. Empty: at most ``model.vocabulary_size``
        words, the most frequent of the training split, or of all splits of WikiText.
      vocabulary_hash: of the tokenizer that the run was trained with; a run records it, and refuses another.
      num_threads: threads that read ahead; 0: the text is in memory, and threads take longer to hand it over.
      text_field: name of the column or feature with the text.
      label_field: name of the column or feature with the label.
    """

    source: Name = "wordnet"
    validation_split: Annotated[Name, Effect.RESULTS] = "validation"
    tokenizer: Annotated[str, checks.Text(8000)] = "words"
    vocabulary: RunPath = ""
    vocabulary_hash: Annotated[str, checks.Text(1000), Effect.CLASSES] = ""
    num_threads: Annotated[Threads, Effect.MACHINE] = 0
    text_field: Name = "text"
    label_field: Name = "label"
