"""Texts into classes."""

import functools
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Self

import jax
import jax.numpy as jnp
import numpy as np
import optax

from vmoe_inform import checks
from vmoe_inform import config as config_lib
from vmoe_inform.axes import Array, Float, Int
from vmoe_inform.config import LanguageConfig
from vmoe_inform.data import classes
from vmoe_inform.data.skipped import SkippedRecords
from vmoe_inform.data.text.lines import LabelledTexts
from vmoe_inform.sharding import processes
from vmoe_inform.tasks._text import TextTask
from vmoe_inform.tasks.classification import cross_entropy, top1
from vmoe_inform.tasks.task import TASKS, Batch, Headline, HostBatch, Keys

if TYPE_CHECKING:
    from vmoe_inform.data.text.labelled_batches import LabelledTokens
    from vmoe_inform.data.training_batches import TrainingBatches


@TASKS.register("text_classification")
class TextClassification(TextTask[LabelledTexts]):
    """Labelled texts: softmax or sigmoid cross-entropy, and top-1 on the test split.

    Batches: ``tokens`` int32 [B, N], ``token_mask`` bool [B, N], False for padding, and ``label`` int32 [B].
    """

    facts = ("label",)
    headline_name = "test/top1"
    counted = "texts"
    records = "texts"

    def __init__(self, config: LanguageConfig):
        """Raises ValueError for a model without classes, or as of :class:`Task`."""
        super().__init__(config)
        if config.model.num_classes is None:
            raise checks.error("model.num_classes", "a number with task = 'text_classification'", None)
        self._num_classes = config.model.num_classes

    # ------------------------------------------------------------------------------------------------------ on devices

    def batch_shapes(self, batch_size: int) -> dict[str, jax.ShapeDtypeStruct]:
        shape = (batch_size, self.config.model.num_tokens)
        return {
            "tokens": jax.ShapeDtypeStruct(shape, jnp.int32),
            "token_mask": jax.ShapeDtypeStruct(shape, jnp.bool_),
            "label": jax.ShapeDtypeStruct((batch_size,), jnp.int32),
        }

    def evaluation_shapes(self, batch_size: int) -> dict[str, jax.ShapeDtypeStruct]:
        shapes = self.batch_shapes(batch_size)
        mask = jax.ShapeDtypeStruct((batch_size,), jnp.bool_)
        return {"tokens": shapes["tokens"], "token_mask": shapes["token_mask"], "mask": mask}

    def random_batch(self, generator: np.random.Generator, batch_size: int) -> HostBatch:
        model = self.config.model
        shape = (batch_size, model.num_tokens)
        return {
            "tokens": generator.integers(0, model.vocabulary_size, shape, np.int32),
            "token_mask": np.ones(shape, bool),
            "label": generator.integers(0, self._num_classes, batch_size, np.int32),
        }

    def prepare(self, keys: Keys | None, batch: Batch) -> dict[str, Array]:
        """Adds ``inputs``, the tokens, and in training ``targets`` [B, classes]."""
        prepared = super().prepare(keys, batch)
        if keys is None:
            return prepared
        targets = jax.nn.one_hot(batch["label"], self._num_classes)
        return {**prepared, "targets": optax.smooth_labels(targets, self.config.train.label_smoothing)}

    def loss(
        self, outputs: Float[Array, "B classes"], aux: Mapping[str, Any], batch: Batch
    ) -> tuple[Float[Array, ""], dict[str, Array]]:
        del aux
        entropy = cross_entropy(outputs, batch["targets"], self.config.train.loss)
        hits = jnp.argmax(outputs, axis=-1) == batch["label"]
        return entropy, {"cross_entropy": entropy, "accuracy": jnp.mean(hits.astype(jnp.float32))}

    # ----------------------------------------------------------------------------------------------------- on the host

    def opened(self) -> Self:
        texts = self.training_source
        if texts.num_classes != self._num_classes:
            raise checks.error("model.num_classes", f"the {texts.num_classes} classes of the data", self._num_classes)
        self.tokens_of(texts).check(self.config.model.num_tokens)
        config = config_lib.with_class_names(self.config, texts.class_names)
        return self._with(config_lib.as_language(config))

    @functools.cached_property
    def training_source(self) -> LabelledTexts:
        """The texts that the run learns from."""
        from vmoe_inform.data.text import sources

        return sources.training_texts(self.config.data)

    @property
    def num_records(self) -> int:
        return len(self.training_source.texts)

    def num_examples(self, source: LabelledTexts) -> int:
        return len(source.texts)

    @functools.cached_property
    def test_source(self) -> LabelledTexts:
        """The texts that the run is measured on."""
        from vmoe_inform.data.text import sources

        return sources.test_texts(self.config.data)

    def tokens_of(self, source: LabelledTexts) -> "LabelledTokens":
        """The texts as the model takes them."""
        from vmoe_inform.data.text.labelled_batches import LabelledTokens

        return LabelledTokens.of([self.tokenizer.encode(text) for text in source.texts], source.labels)

    def training_batches(self, skipped: SkippedRecords, process_index: int, process_count: int) -> "TrainingBatches":
        from vmoe_inform.data.text import labelled_batches

        return labelled_batches.training_batches(
            self.tokens_of(self.training_source),
            num_tokens=self.config.model.num_tokens,
            batch_size=self.config.train.batch_size // process_count,
            seed=self.config.seed,
            data=self.config.data,
            skipped=skipped,
            process_index=process_index,
            process_count=process_count,
        )

    def evaluation_batches(
        self, source: LabelledTexts, skipped: SkippedRecords, process_index: int, process_count: int
    ) -> Iterator[HostBatch]:
        from vmoe_inform.data.text import labelled_batches

        classes.check_labels(source.class_names, self._num_classes, self.config.data.class_names)
        return labelled_batches.evaluation_batches(
            self.tokens_of(source),
            num_tokens=self.config.model.num_tokens,
            batch_size=self.config.evaluation.batch_size // process_count,
            skipped=skipped,
            num_threads=self.config.data.num_threads,
            process_index=process_index,
            process_count=process_count,
            total=processes.total,
        )

    def headline(self, kept: Float[np.ndarray, "n classes"], facts: Mapping[str, Int[np.ndarray, " n"]]) -> Headline:
        """Share of the test texts whose largest logit is their label's.

        Raises:
          ValueError: logits that are not finite.
        """
        return Headline(self.headline_name, top1(kept, facts["label"]))

    def headline_in_words(self, value: float) -> str:
        """Accuracy in %."""
        return f"test top-1 {value:.2%}"
