"""A language model that reads tokens as they come, and says what may follow."""

import dataclasses
import functools
from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from vmoe_inform import checks
from vmoe_inform.axes import Array, Float, Int, Tree
from vmoe_inform.config import LanguageModelConfig, ModelConfig
from vmoe_inform.nn import cache, models, step_trials
from vmoe_inform.nn.language_model import LanguageModel, logits_of


class Decoder:
    """Reads one text. The cost of a token does not grow with the tokens before, but for attention and routing to them.

    The logits are those of a pass over all tokens. A model whose attention spans sequences (``attention_style`` is
    ``"previous"``) reads without end. It reads sequences of ``num_tokens`` as in evaluation, and a router sees the
    tokens of its own sequence.

    Attributes:
      longest: tokens that it can read; None for any number.
    """

    def __init__(self, config: ModelConfig, variables: Mapping[str, Tree]):
        """Reads nothing yet.

        Args:
          config: of the model.
          variables: of the model.

        Raises:
          ValueError: no language model, or one whose tokens depend on later ones; or a router's step that cannot read a
            text token by token.
        """
        moe = dataclasses.replace(config.moe, group_size_sequences=1, dispatch="auto")
        model = models.from_config(dataclasses.replace(check_writes(config), remat="none", moe=moe))
        step_trials.check_reads(config)
        assert isinstance(model, LanguageModel)
        self._model = model
        self._advance = jax.jit(functools.partial(_advance, model))
        self._variables = variables
        self._sequence = config.num_tokens
        self.restart()
        self.longest = None if self._model.initial_memory(1) is not None else config.num_tokens

    def restart(self) -> None:
        """Forgets the text: the next token is the first."""
        self._cache: Tree = {}
        self._num_read = 0

    def read(self, tokens: Sequence[int] | Int[np.ndarray, " n"]) -> Float[np.ndarray, " V"]:
        """Reads tokens that follow those before.

        Args:
          tokens: at least one.

        Returns:
          float32 logits of the token that follows.

        Raises:
          ValueError: none, ids that are not in the vocabulary, or more than the model can read.
        """
        size = self._model.config.vocabulary_size
        ids = np.asarray(tokens, np.int32)
        if ids.size == 0 or ids.min() < 0 or ids.max() >= size:
            raise checks.error("tokens", f"at least one id, each 0 to {size - 1}", ids.tolist())
        if self.longest is not None and self._num_read + len(ids) > self.longest:
            expected = f"at most {self.longest}, the tokens that the model can attend to (model.num_tokens)"
            raise checks.error("tokens", expected, self._num_read + len(ids))
        logits = None
        while len(ids):
            begun = self._num_read % self._sequence
            if self._num_read and not begun:
                self._cache = cache.next_sequence(self._cache)
            part, ids = np.split(ids, [self._sequence - begun])
            logits, self._cache = self._advance(self._variables, self._cache, jnp.asarray(part[None]))
            self._num_read += len(part)
        return np.asarray(logits)


def check_writes(config: ModelConfig) -> LanguageModelConfig:
    """The config of a model that can write text; raises ValueError for another one."""
    if not isinstance(config, LanguageModelConfig):
        raise checks.error("model.inputs", "'tokens': a language model writes text", config.inputs)
    if config.num_classes is not None:
        raise checks.error("model.num_classes", "None: a language model writes text", config.num_classes)
    if config.allow_future:
        raise checks.error("model.allow_future", "false: tokens cannot depend on those that come later", True)
    return config


def _advance(
    model: LanguageModel, variables: Mapping[str, Tree], kept: Tree, tokens: Int[Array, "1 n"]
) -> tuple[Float[Array, " V"], Tree]:
    """Logits after the last of the tokens, and the cache with all of them."""
    (_, aux), kept = model.apply({**variables, **kept}, tokens, mutable=[cache.CACHE])
    head = aux["head"]
    return logits_of(dataclasses.replace(head, hidden=head.hidden[:, -1:]))[0, 0], kept
