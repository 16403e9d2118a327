"""What a checkpoint's routers do to a whole set of images, as sums and as the experts of every token."""

import dataclasses
from collections.abc import Iterator, Mapping

import jax.numpy as jnp
import numpy as np

from vmoe_inform import tasks
from vmoe_inform.analysis.collect._sums import LayerSums, add, layer_sums
from vmoe_inform.analysis.collect.traces import LayerTrace
from vmoe_inform.analysis.collect.tracing import apply_and_record, block_names
from vmoe_inform.axes import Array, Bool, Tree
from vmoe_inform.config import as_images
from vmoe_inform.data.skipped import SkippedRecords
from vmoe_inform.data.sources import Source
from vmoe_inform.evaluation.predict import Predictor
from vmoe_inform.runs.run import Run
from vmoe_inform.sharding import watchdog as watchdog_lib
from vmoe_inform.sharding.watchdog import Watchdog
from vmoe_inform.tasks.task import Batch


@dataclasses.dataclass(frozen=True)
class Seen:
    """What was seen of a set of n records.

    Attributes:
      sums: by block.
      chosen: by block, the experts of every token [n, N, K]; E where there is none, and for unreadable records.
      readable: which of the records could be read [n].
      top1: share of these that were named right.
    """

    sums: Mapping[str, LayerSums]
    chosen: Mapping[str, np.ndarray]
    readable: Bool[np.ndarray, " n"]
    top1: float

    @property
    def count(self) -> int:
        """Images that were looked at."""
        return int(np.count_nonzero(self.readable))


class Observer:
    """A model compiled for looking at its routers; the checkpoints of a run share one."""

    def __init__(self, run: Run, *, watchdog: Watchdog = watchdog_lib.OFF):
        """Args:
        run: of whose model; the devices of its mesh share out the images of a batch.
        watchdog: is told of every batch.
        """
        model, config, mesh = run.model, run.config, run.mesh
        self._config = config
        task = tasks.from_config(config)
        self._predictor = Predictor(model, task, mesh, watchdog=watchdog)
        smallest = np.min_scalar_type(config.model.moe.num_experts)  # which itself stands for no choice
        num_classes = as_images(config).model.num_classes

        def route(variables: Tree, batch: Batch) -> tuple[Array, dict[str, LayerTrace], dict[str, Array]]:
            inputs = task.prepare(None, batch)["inputs"]
            logits, layers = apply_and_record(model, variables, inputs, batch["mask"])
            chosen = {block: jnp.asarray(layer.indices, smallest) for block, layer in layers.items()}
            return jnp.argmax(logits, axis=-1), layers, chosen

        def choose(variables: Tree, batch: Batch, memory: Tree | None) -> tuple[tuple[Array, dict[str, Array]], None]:
            predicted, _, chosen = route(variables, batch)
            return (predicted, chosen), memory

        def look(
            variables: Tree, batch: Batch, memory: Tree | None
        ) -> tuple[tuple[Array, dict[str, Array], dict[str, LayerSums]], None]:
            predicted, layers, chosen = route(variables, batch)
            about = batch["label"], batch["mask"]
            sums = {block: layer_sums(layer, *about, num_classes=num_classes) for block, layer in layers.items()}
            return (predicted, chosen, sums), memory

        self._choose, self._look = self._predictor.compiled(choose), self._predictor.compiled(look)

    def observe(self, variables: Tree, source: Source) -> Seen:
        """Everything about a set of images; what is kept of them is the experts of their tokens.

        Args:
          variables: of a checkpoint.
          source: the images.

        Raises:
          ValueError: as there.
        """
        model = self._config.model
        shape = (len(source.records), model.num_tokens, model.moe.num_selected_experts)
        nobody = np.min_scalar_type(model.moe.num_experts).type(model.moe.num_experts)
        chosen = {block: np.full(shape, nobody) for block in block_names(model)}
        readable, hits = np.zeros(shape[0], bool), np.zeros(shape[0], bool)
        sums: dict[str, LayerSums] | None = None
        for (predicted, experts, of_batch), batch in self._predictor.each_batch(
            self._look, variables, source, skipped=self._skipped()
        ):
            mask, indices = batch["mask"], batch["index"][batch["mask"]]
            readable[indices] = True
            hits[indices] = (np.asarray(predicted) == batch["label"])[mask]
            for block, of_block in experts.items():
                chosen[block][indices] = np.asarray(of_block)[mask]
            sums = add(sums, of_batch)
        assert sums is not None  # a source without records is refused
        return Seen(sums, chosen, readable, float(np.mean(hits[readable])))

    def choices(
        self, variables: Tree, source: Source
    ) -> Iterator[tuple[np.ndarray, np.ndarray, dict[str, np.ndarray]]]:
        """Of each batch the numbers of its records [b], which are named right [b], and by block the experts [b, N, K].

        Args and errors as :meth:`observe`; nothing is kept.
        """
        for (predicted, experts), batch in self._predictor.each_batch(
            self._choose, variables, source, skipped=self._skipped()
        ):
            mask = batch["mask"]
            hits = (np.asarray(predicted) == batch["label"])[mask]
            yield batch["index"][mask], hits, {block: np.asarray(of)[mask] for block, of in experts.items()}

    def _skipped(self) -> SkippedRecords:
        return SkippedRecords(self._config.data.max_skipped_share)
