"""What a checkpoint's routers do to a whole set of records, as sums and as the experts of every token."""

import contextlib
import copy
import dataclasses
import functools
from collections.abc import Mapping
from typing import Any, Self

import jax
import jax.numpy as jnp
import numpy as np

from vmoe_inform.analysis.collect._sums import LayerSums, add, layer_sums, radii
from vmoe_inform.analysis.collect.adjacencies import whole_matrices
from vmoe_inform.analysis.collect.choices import Choices
from vmoe_inform.analysis.collect.recording import real_tokens, records
from vmoe_inform.analysis.collect.traces import LayerTrace
from vmoe_inform.axes import Array, Bool, Float, Int, Tree
from vmoe_inform.evaluation.runner import Collected, Runner
from vmoe_inform.nn.step_variables import STATE
from vmoe_inform.routing import difference_norm
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
      rho: by block, of the matrix that certificates are of.
      score: the task's headline number of these records.
    """

    sums: Mapping[str, LayerSums]
    choices: Choices
    rho: Mapping[str, float]
    score: float

    @property
    def count(self) -> int:
        """Records that were looked at."""
        return len(self.choices.indices)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Certifiable:
    """Of the tokens of n records, in a layer that has certificates.

    Attributes:
      base: base probabilities.
      radii: how far these may move with the same experts, by their margin and by pairs.
    """

    base: Float[Array, "n N E"]
    radii: Float[Array, "n N 2"]


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
        self._look, self._certify = (
            self._runner.compiled(functools.partial(function, self._runner)) for function in (_look, _certify)
        )

    def with_run(self, run: Run) -> Self:
        """For another checkpoint, or another run: with the same model and data it shares what is compiled."""
        if (run.config.model, run.config.data) != (self.run.config.model, self.run.config.data):
            return type(self)(run, watchdog=self._watchdog)
        other = copy.copy(self)
        other.run = run
        return other

    def keeps_workers(self) -> contextlib.AbstractContextManager[None]:
        """A context for several sets, see :meth:`vmoe_inform.tasks.Task.keeps_workers`."""
        return self._runner.task.keeps_workers()

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
        return Seen(sums, found, self._rho(), self.score(found))

    def certified(self, source: Any) -> tuple[Choices, dict[str, Certifiable]]:
        """The choices, and by block what certificates say of them, of layers that have any; errors as :meth:`observe`.

        It keeps the base probabilities of all tokens, 4 E bytes each.
        """
        found = self._runner.collect(self._certify, self.run.variables, source)
        chosen, certifiable = found.outputs
        return _choices(dataclasses.replace(found, outputs=chosen)), certifiable

    def _rho(self) -> dict[str, float]:
        matrices = whole_matrices(self._runner.task.config.model, self.run.variables.get(STATE, {}))
        return {block: float(difference_norm(jnp.asarray(np.asarray(m)))) for block, m in matrices.items()}

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
    chosen, layers, memory = _routed(runner, variables, batch, memory)
    config = runner.task.config.model
    matrices = whole_matrices(config, variables.get(STATE, {}))
    about = chosen[0], batch.get("label")
    sums = {
        block: layer_sums(layer, *about, num_classes=config.num_classes, matrix=matrices.get(block))
        for block, layer in layers.items()
    }
    return (chosen, sums), memory


def _certify(
    runner: Runner, variables: Tree, batch: Batch, memory: Tree | None
) -> tuple[tuple[_Chosen, dict[str, Certifiable]], Tree | None]:
    chosen, layers, memory = _routed(runner, variables, batch, memory)
    config = runner.task.config.model
    found = {}
    for block, matrix in whole_matrices(config, variables.get(STATE, {})).items():
        base = jnp.asarray(layers[block].base)
        found[block] = Certifiable(base, radii(base, matrix, config.moe.num_selected_experts))
    return (chosen, found), memory


def _routed(
    runner: Runner, variables: Tree, batch: Batch, memory: Tree | None
) -> tuple[_Chosen, dict[str, LayerTrace], Tree | None]:
    found, config = runner.apply(variables, batch, memory, traced=True), runner.task.config.model
    real, layers = real_tokens(found, batch, config), records(found.trace, config)
    smallest = np.min_scalar_type(config.moe.num_experts)  # which itself stands for no choice
    experts = {block: jnp.asarray(layer.indices, smallest) for block, layer in layers.items()}
    return (real, experts, found.kept), layers, found.memory


def _choices(found: Collected) -> Choices:
    real, experts, kept = found.outputs
    return Choices(found.indices, real, experts, kept, found.facts)
