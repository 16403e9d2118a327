"""What a checkpoint's routers do to a whole set of records, as sums and as the experts of every token."""

import copy
import dataclasses
import functools
from collections.abc import Mapping
from typing import Any, Self

import jax.numpy as jnp
import numpy as np

from vmoe_inform.analysis.collect._sums import LayerSums, add, layer_sums
from vmoe_inform.analysis.collect.choices import Choices
from vmoe_inform.analysis.collect.recording import real_tokens, records
from vmoe_inform.axes import Array, Bool, Int, Tree
from vmoe_inform.evaluation.runner import Collected, Runner
from vmoe_inform.runs.run import Run
from vmoe_inform.sharding import watchdog as watchdog_lib
from vmoe_inform.sharding.watchdog import Watchdog
from vmoe_inform.tasks.task import Batch

# Of a batch: real tokens, experts by block, what the task keeps.
_Chosen = tuple[Bool[Array, "B N"], dict[str, Int[Array, "B N K"]], Tree]


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
    """A checkpoint at work, with its model compiled for looking at the routers."""

    def __init__(self, run: Run, *, watchdog: Watchdog = watchdog_lib.OFF):
        """Args:
        run: that is looked at; the devices of its mesh share out the sequences of a batch.
        watchdog: is told of every batch.
        """
        self.run = run
        self._watchdog = watchdog
        self._runner = Runner.of(run, watchdog=watchdog)
        self._look, self._choose = (
            self._runner.compiled(functools.partial(function, self._runner)) for function in (_look, _choose)
        )

    def with_run(self, run: Run) -> Self:
        """For another checkpoint, or another run: with the same model and data it shares what is compiled."""
        if (run.config.model, run.config.data) != (self.run.config.model, self.run.config.data):
            return type(self)(run, watchdog=self._watchdog)
        other = copy.copy(self)
        other.run = run
        return other

    def observe(self, source: Any) -> Seen:
        """Everything about a set of records; what is kept of them is the experts of their tokens.

        Args:
          source: the records.

        Raises:
          ValueError: as :meth:`vmoe_inform.evaluation.runner.Runner.collect`, or scores that are not finite.
        """
        sums: dict[str, LayerSums] = {}

        def keep(outputs: tuple[_Chosen, dict[str, LayerSums]]) -> _Chosen:
            chosen, of_batch = outputs
            sums.update(add(sums or None, of_batch))
            return chosen

        found = _choices(self._runner.collect(self._look, self.run.variables, source, keep=keep))
        return Seen(sums, found, self.score(found))

    def choices(self, source: Any) -> Choices:
        """The choices alone; args and errors as :meth:`observe`."""
        return _choices(self._runner.collect(self._choose, self.run.variables, source))

    def score(self, found: Choices) -> float:
        """The task's headline number of some records."""
        return self._runner.task.headline(found.kept, found.facts).value

    @property
    def metric(self) -> str:
        """What :meth:`score` is called: ``"top1"``, ``"perplexity"``."""
        return self._runner.task.headline_name.rpartition("/")[2]


def _look(
    runner: Runner, variables: Tree, batch: Batch, memory: Tree | None
) -> tuple[tuple[_Chosen, dict[str, LayerSums]], Tree | None]:
    found, config = runner.apply(variables, batch, memory, traced=True), runner.task.config.model
    real, layers = real_tokens(found, batch, config), records(found.trace, config)
    smallest = np.min_scalar_type(config.moe.num_experts)  # which itself stands for no choice
    experts = {block: jnp.asarray(layer.indices, smallest) for block, layer in layers.items()}
    about = real, batch.get("label")
    sums = {block: layer_sums(layer, *about, num_classes=config.num_classes) for block, layer in layers.items()}
    return ((real, experts, found.kept), sums), found.memory


def _choose(runner: Runner, variables: Tree, batch: Batch, memory: Tree | None) -> tuple[_Chosen, Tree | None]:
    (chosen, _), memory = _look(runner, variables, batch, memory)  # sums that nobody uses are not computed
    return chosen, memory


def _choices(found: Collected) -> Choices:
    real, experts, kept = found.outputs
    return Choices(found.indices, real, experts, kept, found.facts)
