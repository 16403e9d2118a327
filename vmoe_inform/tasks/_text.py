"""What tasks on text share: the tokenizer of a run, which its folder keeps."""

import copy
import functools
from typing import ClassVar, Self

from vmoe_inform import config as config_lib
from vmoe_inform import storage
from vmoe_inform.axes import Array
from vmoe_inform.config import LanguageConfig
from vmoe_inform.data.text import tokenizers
from vmoe_inform.data.text.tokenizers import Tokenizer
from vmoe_inform.nn import step_trials
from vmoe_inform.runs.folder import TOKENIZER_FILE
from vmoe_inform.tasks.task import Batch, Keys, SourceT, Task


class TextTask(Task[LanguageConfig, SourceT]):
    """A task whose batches hold ``tokens`` int32 [B, N]."""

    inputs: ClassVar[str] = "tokens"
    input_field: ClassVar[str] = "tokens"

    def prepare(self, keys: Keys | None, batch: Batch) -> dict[str, Array]:
        """Adds ``inputs``, the tokens; nothing is drawn at random."""
        del keys
        return {**batch, "inputs": batch["tokens"]}

    @functools.cached_property
    def tokenizer(self) -> Tokenizer:
        """Of the run: read from the file that ``data.tokenizer`` names, or learned from the training split.

        Raises:
          ValueError: it is not the one whose hash the config records, or as
            :func:`vmoe_inform.data.text.corpora.learn_tokenizer`.
          FileNotFoundError: as there.
        """
        from vmoe_inform.data.text import corpora

        tokenizer = corpora.learn_tokenizer(self.config)
        tokenizers.check_same(tokenizer, self.config.data.vocabulary_hash)
        return tokenizer

    def keep(self, folder: storage.Path) -> None:
        """Writes the tokenizer, so that nobody needs the training data to know what the model's tokens are."""
        tokenizers.write(folder / TOKENIZER_FILE, self.tokenizer, within=folder)

    def _with(self, config: LanguageConfig) -> Self:
        """The task with a config that its data have completed, and what was read already.

        Raises:
          ValueError: a step of the router looks at later tokens, or at padding.
        """
        step_trials.check_trained(self.config.model)
        task = copy.copy(self)
        task.config = config_lib.with_vocabulary(config, tokenizers.fingerprint(self.tokenizer))
        return task
