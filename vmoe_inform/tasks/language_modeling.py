"""Text into the token that follows: language models."""

import functools
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Self

import jax
import jax.numpy as jnp
import numpy as np

from vmoe_inform import checks
from vmoe_inform.axes import Array, Bool, Float, Int, Tree
from vmoe_inform.config import LanguageConfig, causality
from vmoe_inform.data.skipped import SkippedRecords
from vmoe_inform.data.text import tokenizers
from vmoe_inform.nn.cross_entropy import mean_loss, token_losses
from vmoe_inform.sharding import processes
from vmoe_inform.tasks._text import TextTask
from vmoe_inform.tasks.predictions import TokenLosses
from vmoe_inform.tasks.task import TASKS, Batch, Headline, HostBatch

if TYPE_CHECKING:
    from vmoe_inform.data.text.corpora import Corpus
    from vmoe_inform.data.training_batches import TrainingBatches


@TASKS.register("language_modeling")
class LanguageModeling(TextTask["Corpus"]):
    """The next token of a corpus: cross-entropy in nats, and perplexity on the test split.

    Batches: ``tokens`` and ``targets`` int32 [B, N]; the target of a token is the one after it. Row r of a batch
    continues row r of the batch before. Those of evaluation also have ``target_mask`` bool [B, N], False for filler.
    """

    facts = ("targets",)
    headline_name = "test/perplexity"
    less_is_better = True
    counted = "tokens"
    shown = ("loss", "perplexity")
    carries_memory = True
    records = "windows"

    def __init__(self, config: LanguageConfig):
        """Raises ValueError for settings of classifiers, or as of :class:`Task`."""
        super().__init__(config)
        wanted: tuple[tuple[str, Any, Any], ...] = (
            ("model.num_classes", None, config.model.num_classes),
            ("train.loss", "softmax", config.train.loss),
            ("train.label_smoothing", 0.0, config.train.label_smoothing),
        )
        for field, expected, received in wanted:
            if received != expected:
                raise checks.error(field, f"{expected!r} with task = 'language_modeling'", received)
        self._predicts = not causality.future_choices(config.model)
        if config.model.allow_future:
            self.headline_name = f"test/{'perplexity' if self._predicts else 'nats'}_with_future"
            self.shown = ("loss", "perplexity_with_future")

    # ------------------------------------------------------------------------------------------------------ on devices

    def batch_shapes(self, batch_size: int) -> dict[str, jax.ShapeDtypeStruct]:
        tokens = jax.ShapeDtypeStruct((batch_size, self.config.model.num_tokens), jnp.int32)
        return {"tokens": tokens, "targets": tokens}

    def evaluation_shapes(self, batch_size: int) -> dict[str, jax.ShapeDtypeStruct]:
        tokens = self.batch_shapes(batch_size)["tokens"]
        masks = {
            "target_mask": jax.ShapeDtypeStruct(tokens.shape, jnp.bool_),
            "mask": jax.ShapeDtypeStruct((batch_size,), jnp.bool_),
        }
        return {"tokens": tokens, "targets": tokens, **masks}

    def random_batch(self, generator: np.random.Generator, batch_size: int) -> HostBatch:
        model = self.config.model
        text = generator.integers(0, model.vocabulary_size, (batch_size, model.num_tokens + 1), np.int32)
        return {"tokens": text[:, :-1], "targets": text[:, 1:]}

    def loss(self, outputs: Any, aux: Mapping[str, Any], batch: Batch) -> tuple[Float[Array, ""], dict[str, Array]]:
        del outputs  # the logits of all tokens, which are never computed
        entropy, _ = mean_loss(aux["head"], batch["targets"], self.config.model.loss_chunk_tokens)
        return entropy, {"cross_entropy": entropy}

    def counted_tokens(self, batch: Batch) -> Bool[Array, "B N"]:
        """Those that have a target."""
        return batch["target_mask"]

    def metrics_of_step(self, means: dict[str, Array]) -> dict[str, Array]:
        """With the perplexity, exp of the mean cross-entropy, under the name that it has where routers look ahead.

        Where later tokens decide which expert a token gets, there is none: the experts tell what follows.
        """
        if not self._predicts:
            return means
        name = "perplexity_with_future" if self.config.model.allow_future else "perplexity"
        return {**means, name: jnp.exp(means["cross_entropy"])}

    def kept(self, outputs: Any, aux: Mapping[str, Any], batch: Batch) -> Tree:
        """``nats``, the cross-entropy of each target, and ``mask``, False for filler, [B, N] each."""
        del outputs
        nats = token_losses(aux["head"], batch["targets"], self.config.model.loss_chunk_tokens)
        return {"nats": nats, "mask": batch["target_mask"]}

    # ----------------------------------------------------------------------------------------------------- on the host

    def opened(self) -> Self:
        _ = self.training_source
        return self._with(self.config)

    @functools.cached_property
    def training_source(self) -> "Corpus":
        """The text that the run learns from."""
        from vmoe_inform.data.text import corpora

        return corpora.training(self.config, self.tokenizer)

    @property
    def num_records(self) -> int:
        """Whole rows of N tokens in the training split."""
        return len(self.training_source.ids) // self.config.model.num_tokens

    @property
    def counted_per_example(self) -> int:
        return self.config.model.num_tokens

    def num_examples(self, source: "Corpus") -> int:
        """Windows of N tokens: the same number in each of ``evaluation.batch_size`` rows."""
        from vmoe_inform.data.text import streams

        rows = self.config.evaluation.batch_size
        return rows * streams.num_windows(len(source.ids), rows, self.config.model.num_tokens)

    @functools.cached_property
    def test_source(self) -> "Corpus":
        """The text that the run is measured on."""
        from vmoe_inform.data.text import corpora

        return corpora.test(self.config, self.tokenizer)

    def training_batches(self, skipped: SkippedRecords, process_index: int, process_count: int) -> "TrainingBatches":
        from vmoe_inform.data.text import streams

        return streams.training_batches(
            self.training_source.ids,
            num_tokens=self.config.model.num_tokens,
            batch_size=self.config.train.batch_size // process_count,
            seed=self.config.seed,
            data=self.config.data,
            skipped=skipped,
            process_index=process_index,
            process_count=process_count,
        )

    def evaluation_batches(
        self, source: "Corpus", skipped: SkippedRecords, process_index: int, process_count: int
    ) -> Iterator[HostBatch]:
        from vmoe_inform.data.text import streams

        tokenizers.check_same(source.tokenizer, self.config.data.vocabulary_hash, "data")
        return streams.evaluation_batches(
            source.ids,
            before=source.tokenizer.end_of_line,
            num_tokens=self.config.model.num_tokens,
            batch_size=self.config.evaluation.batch_size // process_count,
            skipped=skipped,
            inputs=source.inputs,
            num_threads=self.config.data.num_threads,
            process_index=process_index,
            process_count=process_count,
            total=processes.total,
        )

    def headline(self, kept: Mapping[str, np.ndarray], facts: Mapping[str, Int[np.ndarray, "n N"]]) -> Headline:
        """Perplexity of a token: exp of the mean cross-entropy, which stands for itself where there is no perplexity.

        Raises:
          ValueError: it is not finite.
        """
        del facts
        nats = float(np.mean(kept["nats"], where=kept["mask"], dtype=np.float64))
        if not nats < _MOST_NATS:
            raise checks.error(self.headline_name, "a finite number", f"exp({nats:.4g})")
        return Headline(self.headline_name, float(np.exp(nats)) if self._predicts else nats, self.less_is_better)

    def answers(
        self, kept: Tree, facts: Mapping[str, np.ndarray], indices: Int[np.ndarray, " n"], skipped: int
    ) -> TokenLosses:
        """How surprised the model is by each token."""
        return TokenLosses(kept["nats"], facts["targets"], kept["mask"], indices, skipped)

    def headline_in_words(self, value: float) -> str:
        """Perplexity, or nats where there is none; and whether routers look ahead."""
        words = f"test perplexity {value:,.2f} a token" if self._predicts else f"test cross-entropy {value:.3f} nats"
        return f"{words}, with routers that look ahead" if self.config.model.allow_future else words


_MOST_NATS = 700.0  # exp of more is no float64
