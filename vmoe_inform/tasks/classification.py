"""Images into classes."""

import contextlib
import copy
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
from vmoe_inform.config import ImageConfig
from vmoe_inform.data import classes
from vmoe_inform.data.images import augment
from vmoe_inform.data.records import Source
from vmoe_inform.data.skipped import SkippedRecords
from vmoe_inform.sharding import processes
from vmoe_inform.tasks.task import TASKS, Batch, Headline, HostBatch, Keys, Task

if TYPE_CHECKING:
    from vmoe_inform.data.kept_workers import KeptWorkers
    from vmoe_inform.data.training_batches import TrainingBatches


@TASKS.register("classification")
class Classification(Task[ImageConfig, Source]):
    """Labelled images: softmax or sigmoid cross-entropy, augmentation on the device, and top-1 on the test split.

    Batches: ``image`` uint8 [B, P, P, 3], and ``label`` int32 [B].
    """

    inputs = "images"
    input_field = "image"
    facts = ("label",)
    headline_name = "clean/top1"
    _workers: "KeptWorkers | None" = None

    def batch_shapes(self, batch_size: int) -> dict[str, jax.ShapeDtypeStruct]:
        size = self.config.model.image_size_px
        return {
            "image": jax.ShapeDtypeStruct((batch_size, size, size, 3), jnp.uint8),
            "label": jax.ShapeDtypeStruct((batch_size,), jnp.int32),
        }

    def random_batch(self, generator: np.random.Generator, batch_size: int) -> HostBatch:
        image, label = (self.batch_shapes(batch_size)[name] for name in ("image", "label"))
        return {
            "image": generator.integers(0, 256, image.shape, image.dtype),
            "label": generator.integers(0, self.config.model.num_classes, label.shape, label.dtype),
        }

    def prepare(self, keys: Keys | None, batch: Batch) -> dict[str, Array]:
        """Adds ``inputs``, normalised images; in training augmented and mixed, with their ``targets`` [B, classes]."""
        data, train = self.config.data, self.config.train
        if keys is None:
            return {**batch, "inputs": augment.normalize(batch["image"], data)}
        augment_key, mix_key, erase_key = keys
        images = augment.normalize(augment.augment(augment_key, batch["image"], data), data)
        if data.random_erasing > 0:
            images = augment.random_erasing(erase_key, images, data.random_erasing)
        targets = jax.nn.one_hot(batch["label"], self.config.model.num_classes)
        targets = optax.smooth_labels(targets, train.label_smoothing)
        images, targets = augment.mix(mix_key, images, targets, train.mixup_alpha, train.cutmix_alpha)
        return {"inputs": images, "targets": targets}

    def loss(
        self, outputs: Float[Array, "B classes"], aux: Mapping[str, Any], batch: Batch
    ) -> tuple[Float[Array, ""], dict[str, Array]]:
        del aux
        entropy = cross_entropy(outputs, batch["targets"], self.config.train.loss)
        hits = jnp.argmax(outputs, axis=-1) == jnp.argmax(batch["targets"], axis=-1)
        return entropy, {"cross_entropy": entropy, "accuracy": jnp.mean(hits.astype(jnp.float32))}

    def opened(self) -> Self:
        found = len(self.training_source.class_names)
        if self.config.model.num_classes != found:
            raise checks.error("model.num_classes", f"the {found} classes of the data", self.config.model.num_classes)
        task = copy.copy(self)  # what was read is not read again
        task.config = config_lib.as_images(config_lib.with_class_names(self.config, self.training_source.class_names))
        return task

    @functools.cached_property
    def training_source(self) -> Source:
        """The images that the run learns from."""
        from vmoe_inform.data import sources

        return sources.training(self.config.data)

    @property
    def num_records(self) -> int:
        return len(self.training_source.records)

    def num_examples(self, source: Source) -> int:
        return len(source.records)

    @functools.cached_property
    def test_source(self) -> Source:
        """The images that the run is measured on."""
        from vmoe_inform.data import sources

        return sources.test(self.config.data)

    def training_batches(self, skipped: SkippedRecords, process_index: int, process_count: int) -> "TrainingBatches":
        from vmoe_inform.data.images.pipeline import train_iterator

        return train_iterator(
            self.training_source,
            image_size_px=self.config.model.image_size_px,
            batch_size=self.config.train.batch_size // process_count,
            seed=self.config.seed,
            data=self.config.data,
            skipped=skipped,
            process_index=process_index,
            process_count=process_count,
        )

    def evaluation_batches(
        self, source: Source, skipped: SkippedRecords, process_index: int, process_count: int
    ) -> Iterator[HostBatch]:
        from vmoe_inform.data.images.pipeline import evaluation_batches, workers_for_one_pass

        data = self.config.data
        classes.check_labels(source.class_names, self.config.model.num_classes, data.class_names)
        return evaluation_batches(
            source,
            image_size_px=self.config.model.image_size_px,
            batch_size=self.config.evaluation.batch_size // process_count,
            skipped=skipped,
            framing=source.framing_in(data),
            num_threads=data.num_threads,
            num_workers=workers_for_one_pass(source, data, process_count),
            process_index=process_index,
            process_count=process_count,
            total=processes.total,
            workers=self.workers_in_use,
        )

    def workers_in_use(self) -> "contextlib.AbstractContextManager[KeptWorkers]":
        """The worker processes that are kept, or others for the time of a context."""
        from vmoe_inform.data.images.pipeline import kept_workers

        return kept_workers() if self._workers is None else contextlib.nullcontext(self._workers)

    @contextlib.contextmanager
    def keeps_workers(self) -> Iterator[None]:
        from vmoe_inform.data.images.pipeline import kept_workers

        if self._workers is not None:
            yield
            return
        with kept_workers() as self._workers:
            try:
                yield
            finally:
                self._workers = None

    def headline(self, kept: Float[np.ndarray, "n classes"], facts: Mapping[str, Int[np.ndarray, " n"]]) -> Headline:
        """Share of the test images whose largest logit is their label's.

        Raises:
          ValueError: logits that are not finite.
        """
        return Headline(self.headline_name, top1(kept, facts["label"]))

    def headline_in_words(self, value: float) -> str:
        """Accuracy in %."""
        return f"clean top-1 {value:.2%}"


def top1(logits: Float[np.ndarray, "n classes"], labels: Int[np.ndarray, " n"]) -> float:
    """Share of the records whose largest logit is their label's. Raises ValueError for logits that are not finite."""
    if not np.isfinite(logits).all():
        raise checks.error("logits", "finite numbers", "NaN or infinity")
    return float(np.mean(np.argmax(logits, axis=-1) == labels))


def cross_entropy(logits: Float[Array, "B classes"], targets: Float[Array, "B classes"], kind: str) -> Float[Array, ""]:
    """Mean over records of the softmax cross-entropy, or of the sigmoid one summed over classes (V-MoE's)."""
    if kind == "softmax":
        return jnp.mean(optax.softmax_cross_entropy(logits, targets))
    return jnp.mean(jnp.sum(optax.sigmoid_binary_cross_entropy(logits, targets), axis=-1))
