"""Settings of text: where it comes from and how it becomes tokens."""

import dataclasses
from typing import Annotated

from vmoe_inform import checks
from vmoe_inform.checks import Name, Path
from vmoe_inform.config.identity import Effect
from vmoe_inform.config.settings.data import DataConfig


@dataclasses.dataclass(frozen=True, kw_only=True)
class TextDataConfig(DataConfig):
    """Where text comes from and how it becomes tokens.

    Attributes:
      source: registered source of lines or of labelled texts, such as wordnet or wikitext.
      tokenizer: ``"words"`` (split at white space), ``"bpe"`` (byte-pair encoding, learned from the training split), or
        the path of a tokenizer file.
      vocabulary: path of a file with the vocabulary's words, one a line; empty: all words of the source's splits.
      vocabulary_hash: of the tokenizer that the run was trained with; a run records it, and refuses another.
      text_field: name of the column or feature with the text.
      label_field: name of the column or feature with the label.
    """

    source: Name = "wordnet"
    tokenizer: Annotated[str, checks.Text(8000)] = "words"
    vocabulary: Path = ""
    vocabulary_hash: Annotated[str, checks.Text(1000), Effect.CLASSES] = ""
    text_field: Name = "text"
    label_field: Name = "label"
