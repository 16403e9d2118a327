"""A model at work on every record of a source, batch by batch on a mesh."""

import collections
import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Self

import jax
import numpy as np
from jax.sharding import Mesh

from vmoe_inform import tasks
from vmoe_inform.axes import Array, Bool, Int, Tree
from vmoe_inform.data.skipped import SkippedRecords
from vmoe_inform.nn.models import Model
from vmoe_inform.nn.router import TRACE
from vmoe_inform.runs.run import Run
from vmoe_inform.sharding import processes
from vmoe_inform.sharding import watchdog as watchdog_lib
from vmoe_inform.sharding.mesh import batch_sharding, replicated
from vmoe_inform.sharding.rules import gathered
from vmoe_inform.sharding.watchdog import Watchdog
from vmoe_inform.tasks import Task
from vmoe_inform.tasks.task import Batch

# Of (variables, batch, memory): what it gives, whole on every device, and the memory for the next batch.
BatchFunction = Callable[[Tree, Batch, Tree | None], tuple[Any, Tree | None]]

# Batches that are started before the one ahead of them is given. Devices compute them while the host reads others and
# looks at what is done. Each has its inputs and outputs in the devices' memory. All processes start the same
# programs in the same order, from one thread, and devices run programs in that order. Nothing may depend on which
# batches happen to be done: processes would differ.
AHEAD = 2


@dataclasses.dataclass(frozen=True)
class Collected:
    """What a function gave for every readable record of a source, in record order.

    Attributes:
      outputs: arrays [n, ...].
      facts: the task's facts of the records [n], by name.
      indices: number of each record in its source, ascending [n].
      skipped: records that could not be read, which are not among the n.
    """

    outputs: Any
    facts: Mapping[str, np.ndarray]
    indices: Int[np.ndarray, " n"]
    skipped: int


@dataclasses.dataclass(frozen=True)
class Applied:
    """What a model makes of a batch of B sequences of N tokens.

    Attributes:
      kept: what the task keeps of each sequence, [B, ...].
      aux: what else the model gives.
      memory: for the next batch; None where batches do not continue each other.
      counted: which tokens count in statistics; None: all of the real sequences.
      trace: what each MoE layer left, by block (:class:`vmoe_inform.nn.moe.MoeLayer`); empty unless asked for.
    """

    kept: Tree
    aux: Mapping[str, Any]
    memory: Tree | None
    counted: Bool[Array, "B N"] | None
    trace: Mapping[str, Any]


class Runner:
    """Runs functions of a model over the records of a source.

    Several processes read their parts of the batches that one would read, and each gets the results of all. So all have
    to ask for the same things in the same order. What is found of a record depends on its set, by the sequences of its
    group. It does not depend on processes, devices or batch size.
    """

    def __init__(self, model: Model, task: Task, mesh: Mesh, *, watchdog: Watchdog = watchdog_lib.OFF):
        """Args:
        model: from :func:`vmoe_inform.nn.models.from_config`.
        task: that it is trained for.
        mesh: the sequences of a batch are spread over all its devices.
        watchdog: is told of every batch.
        """
        self._watchdog = watchdog
        self._after_each_batch: Callable[[], None] = _nothing
        self._model = model
        self._task = task
        self._mesh = mesh
        self._everywhere = jax.jit(lambda tree: tree, out_shardings=replicated(mesh))

        def initial_memory() -> Tree | None:
            return model.initial_memory(task.config.evaluation.batch_size) if task.carries_memory else None

        self._initial_memory = jax.jit(initial_memory, out_shardings=batch_sharding(mesh))

    @classmethod
    def of(cls, run: Run, *, watchdog: Watchdog = watchdog_lib.OFF) -> Self:
        """For the model of a run, on the run's mesh."""
        return cls(run.model, tasks.from_config(run.config), run.mesh, watchdog=watchdog)

    @property
    def task(self) -> Task:
        """What the model is trained for."""
        return self._task

    @contextlib.contextmanager
    def reporting(self, after_each_batch: Callable[[], None]) -> Iterator[None]:
        """A context in which every batch is reported; what ``after_each_batch`` raises ends the evaluation."""
        self._after_each_batch = after_each_batch
        try:
            yield
        finally:
            self._after_each_batch = _nothing

    def compiled(self, function: BatchFunction) -> Any:
        """A function for :meth:`collect` and :meth:`each_batch`, jitted so that each array lies where they need it."""
        return jax.jit(function, out_shardings=(replicated(self._mesh), batch_sharding(self._mesh)))

    def apply(self, variables: Tree, batch: Batch, memory: Tree | None, *, traced: bool = False) -> Applied:
        """Applies the model to a batch, for use in a :data:`BatchFunction`: what is not used is not computed.

        Args:
          variables: what ``model.apply`` takes.
          batch: of the task's evaluation.
          memory: of the batch before.
          traced: whether the MoE layers shall leave what they did.
        """
        task = self._task
        prepared = {**batch, **task.prepare(None, batch)}
        (outputs, aux), left = self._model.apply(
            variables | {"params": gathered(variables["params"])},
            prepared["inputs"],
            train=False,
            sequence_mask=task.mask(prepared),
            token_mask=task.token_mask(prepared),
            memory=memory,
            mutable=[TRACE] if traced else [],
        )
        return Applied(
            kept=task.kept(outputs, aux, prepared),
            aux=aux,
            memory=aux["memory"] if task.carries_memory else None,
            counted=task.counted_tokens(prepared),
            trace=left.get(TRACE, {}),
        )

    def collect(
        self,
        function: BatchFunction,
        variables: Tree,
        source: Any,
        *,
        keep: Callable[[Any], Tree] = lambda outputs: outputs,
    ) -> Collected:
        """What a function gives for all readable records.

        Args:
          function: see :data:`BatchFunction`.
          variables: what ``model.apply`` takes.
          source: the records.
          keep: called with what the function gave of each batch; gives arrays [B, ...] of it, which are collected. By
            default these are all that the function gives.

        Raises:
          ValueError: more unreadable records than ``data.max_skipped_share``, or other classes than the model has.
        """
        skipped = SkippedRecords(self._task.config.data.max_skipped_share)
        found = []
        for outputs, batch in self.each_batch(function, variables, source, skipped=skipped):
            facts = {name: batch[name] for name in self._task.facts}
            chosen = (keep(outputs), facts, batch["index"])
            found.append(jax.tree.map(lambda values, mask=batch["mask"]: np.asarray(values)[mask], chosen))
        outputs, facts, indices = jax.tree.map(lambda *parts: np.concatenate(parts), *found)
        del found
        if np.any(np.diff(indices) < 0):  # such as windows of several streams of text
            order = np.argsort(indices)
            outputs, facts, indices = jax.tree.map(lambda values: values[order], (outputs, facts, indices))
        return Collected(outputs, facts, indices, processes.total(skipped.count))

    def each_batch(
        self, function: BatchFunction, variables: Tree, source: Any, *, skipped: SkippedRecords, ahead: int = AHEAD
    ) -> Iterator[tuple[Any, dict[str, np.ndarray]]]:
        """Calls a function with one batch of a source after the other, and gives what is done, in that order.

        Args:
          function: see :data:`BatchFunction`.
          variables: what ``model.apply`` takes.
          source: the records.
          skipped: counts this process's unreadable records, of the batches ahead as well.
          ahead: batches that are started before the one ahead of them is given; 0: none. It is 0 where that is unsafe.

        Yields:
          what the function gave, which is there, and of the whole batch ``mask``, ``index`` (number of the record) and
          the task's facts.

        Raises:
          ValueError: as :meth:`collect`.
        """
        process_index, process_count = processes.index_and_count()
        if process_count > 1 and self._mesh.devices.flat[0].platform == "cpu":
            ahead = 0  # two devices of each of two processes wait for each other for ever, with 20 batches in flight
        batches = self._task.evaluation_batches(source, skipped, process_index, process_count)
        sharding = batch_sharding(self._mesh)
        memory = self._initial_memory()
        started: collections.deque[tuple[Any, dict[str, Array]]] = collections.deque()

        def finished() -> tuple[Any, dict[str, np.ndarray]]:
            outputs, facts = jax.block_until_ready(started.popleft())
            self._watchdog.finished("a batch of evaluation")
            self._after_each_batch()
            return outputs, {name: np.asarray(values) for name, values in facts.items()}

        self._watchdog.expect_pause()  # to compile
        for local in batches:
            batch = {name: jax.make_array_from_process_local_data(sharding, local[name]) for name in local}
            with jax.set_mesh(self._mesh):
                outputs, memory = function(variables, batch, memory)
                facts = self._everywhere({name: batch[name] for name in ("mask", "index", *self._task.facts)})
            started.append((outputs, facts))
            if len(started) > ahead:
                yield finished()
        while started:
            yield finished()
        self._watchdog.expect_pause()  # what is made of all batches may take long


def _nothing() -> None:
    """Nobody asked for reports."""
