"""What a checkpoint's routers do to a whole set of records, as sums and as the experts of every token."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vmoe_inform import tasks
from vmoe_inform.analysis.collect._sums import LayerSums, add, layer_sums
from vmoe_inform.analysis.collect.choices import Choices
from vmoe_inform.analysis.collect.recording import counted_tokens, route
from vmoe_inform.axes import Array, Bool, Tree
from vmoe_inform.data.skipped import SkippedRecords
from vmoe_inform.evaluation.predict import Predictor
from vmoe_inform.runs.run import Run
from vmoe_inform.sharding import watchdog as watchdog_lib
from vmoe_inform.sharding.watchdog import Watchdog
from vmoe_inform.tasks.task import Batch

_Kept = tuple[dict[str, Array], Tree, Bool[Array, "B N"]]  # experts by block, what the task keeps, real tokens


@dataclasses.dataclass(frozen=True)
class Seen:
    """What was seen of a set of records.

    Attributes:
      sums: over their tokens, by block.
      choices: of every token.
      score: the task's headline number of these records.
    """

    sums: Mapping[str, LayerSums]
    choices: Choices
    score: float

    @property
    def count(self) -> int:
        """Records that were looked at."""
        return len(self.choices.indices)


class Observer:
    """A model compiled for looking at its routers; the checkpoints of a run share one."""

    def __init__(self, run: Run, *, watchdog: Watchdog = watchdog_lib.OFF):
        """Args:
        run: of whose model; the devices of its mesh share out the sequences of a batch.
        watchdog: is told of every batch.
        """
        model, task = run.model, tasks.from_config(run.config)
        self._task = task
        self._predictor = Predictor(model, task, run.mesh, watchdog=watchdog)
        smallest = np.min_scalar_type(run.config.model.moe.num_experts)  # which itself stands for no choice
        num_classes = run.config.model.num_classes

        def look(
            variables: Tree, batch: Batch, memory: Tree | None
        ) -> tuple[tuple[_Kept, dict[str, LayerSums]], Tree | None]:
            kept, aux, layers = route(model, task, variables, batch, memory)
            real = counted_tokens(task, batch)
            experts = {block: jnp.asarray(layer.indices, smallest) for block, layer in layers.items()}
            about = real, batch.get("label")
            sums = {block: layer_sums(layer, *about, num_classes=num_classes) for block, layer in layers.items()}
            return ((experts, kept, real), sums), self._predictor.memory_for_next(aux)

        def choose(variables: Tree, batch: Batch, memory: Tree | None) -> tuple[_Kept, Tree | None]:
            (kept, _), memory = look(variables, batch, memory)  # sums that nobody uses are not computed
            return kept, memory

        self._choose, self._look = self._predictor.compiled(choose), self._predictor.compiled(look)

    def observe(self, variables: Tree, source: Any) -> Seen:
        """Everything about a set of records; what is kept of them is the experts of their tokens.

        Args:
          variables: of a checkpoint.
          source: the records.

        Raises:
          ValueError: as :meth:`vmoe_inform.evaluation.predict.Predictor.collect`, or scores that are not finite.
        """
        sums: dict[str, LayerSums] | None = None
        parts = []
        for (kept, of_batch), batch in self._predictor.each_batch(
            self._look, variables, source, skipped=self._skipped()
        ):
            parts.append(self._real(kept, batch))
            sums = add(sums, of_batch)
        assert sums is not None  # a source without records is refused
        found = _in_order(parts)
        return Seen(sums, found, self.score(found))

    def choices(self, variables: Tree, source: Any) -> Choices:
        """The choices alone; args and errors as :meth:`observe`."""
        batches = self._predictor.each_batch(self._choose, variables, source, skipped=self._skipped())
        return _in_order([self._real(kept, batch) for kept, batch in batches])

    def score(self, found: Choices) -> float:
        """The task's headline number of some records."""
        return self._task.headline(found.kept, found.facts).value

    @property
    def metric(self) -> str:
        """What :meth:`score` is called: ``"top1"``, ``"perplexity"``."""
        return self._task.headline_name.rpartition("/")[2]

    def _real(self, kept: _Kept, batch: Mapping[str, np.ndarray]) -> Choices:
        """What is known of the readable records of a batch, on the host."""
        facts = {name: batch[name] for name in self._task.facts}
        found = (batch["index"], kept[2], kept[0], kept[1], facts)
        return Choices(*jax.tree.map(lambda values: np.asarray(values)[batch["mask"]], found))

    def _skipped(self) -> SkippedRecords:
        return SkippedRecords(self._task.config.data.max_skipped_share)


def _in_order(parts: list[Choices]) -> Choices:
    """The records of all batches, ascending: worker processes give batches in an order of their own."""
    fields = [(part.indices, part.real, part.experts, part.kept, part.facts) for part in parts]
    whole = jax.tree.map(lambda *values: np.concatenate(values), *fields)
    order = np.argsort(whole[0])
    return Choices(*jax.tree.map(lambda values: values[order], whole))
