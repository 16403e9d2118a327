"""A model's outputs for every record of a source, and what its routers did on the way."""

import contextlib
import dataclasses
import functools
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from vmoe_inform.axes import Array, Bool, Float, Int, Tree
from vmoe_inform.data.skipped import SkippedRecords
from vmoe_inform.data.sources import Source
from vmoe_inform.evaluation.adversarial import Attack, margin_losses
from vmoe_inform.evaluation.results import LayerRouting
from vmoe_inform.evaluation.suites.base import AttackedPredictions, Features
from vmoe_inform.nn.models import Model
from vmoe_inform.nn.router import TRACE
from vmoe_inform.nn.trace import LayerStatistics, layer_statistics
from vmoe_inform.sharding import processes
from vmoe_inform.sharding import watchdog as watchdog_lib
from vmoe_inform.sharding.mesh import batch_sharding, replicated
from vmoe_inform.sharding.rules import gathered
from vmoe_inform.sharding.watchdog import Watchdog
from vmoe_inform.tasks import Headline, Task
from vmoe_inform.tasks.predictions import Answers
from vmoe_inform.tasks.task import Batch

Chosen = dict[str, np.ndarray]  # by MoE layer: experts of every token [n, N, K], the first choice first
# Of (variables, batch, memory): what it gives, whole on every device, and the memory for the next batch.
BatchFunction = Callable[[Tree, Batch, Tree | None], tuple[Any, Tree | None]]


def _nothing() -> None:
    """Nobody asked for reports."""


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


class Predictor:
    """A model compiled for evaluation on a mesh.

    Several processes read their parts of the batches that one would read, and each gets the results of all. So all have
    to ask for the same predictions in the same order. A record's predictions depend on its set, by the sequences of its
    group. They do not depend on processes, devices or batch size.
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
        self._task = task
        self._mesh = mesh

        def apply(variables: Tree, batch: Batch, memory: Tree | None, **options: Any) -> tuple[Any, dict[str, Array]]:
            """What the model gives, and the prepared batch."""
            prepared = {**batch, **task.prepare(None, batch)}
            variables = variables | {"params": gathered(variables["params"])}
            found = model.apply(
                variables,
                prepared["inputs"],
                train=False,
                sequence_mask=task.mask(prepared),
                token_mask=task.token_mask(prepared),
                memory=memory,
                **options,
            )
            return found, prepared

        def kept(variables: Tree, batch: Batch, memory: Tree | None) -> tuple[Tree, Tree | None]:
            (outputs, aux), prepared = apply(variables, batch, memory)
            return task.kept(outputs, aux, prepared), self.memory_for_next(aux)

        def routing(
            variables: Tree, batch: Batch, memory: Tree | None
        ) -> tuple[tuple[Tree, dict[str, LayerStatistics]], Tree | None]:
            ((outputs, aux), left), prepared = apply(variables, batch, memory, mutable=[TRACE])
            statistics = layer_statistics(left.get(TRACE, {}), task.counted_tokens(prepared))
            return (task.kept(outputs, aux, prepared), statistics), self.memory_for_next(aux)

        def features(variables: Tree, batch: Batch, memory: Tree | None) -> tuple[Float[Array, "B F"], Tree | None]:
            (_, aux), _ = apply(variables, batch, memory)
            return aux["features"], self.memory_for_next(aux)

        def attacked(
            attack: Attack, variables: Tree, batch: Batch, memory: Tree | None
        ) -> tuple[tuple[Float[Array, "B classes"], Bool[Array, " B"]], Tree | None]:
            def logits_of(inputs: Array) -> Float[Array, "B classes"]:
                return kept(variables, {**batch, task.input_field: inputs}, memory)[0]

            def loss(inputs: Array) -> Array:
                losses = margin_losses(logits_of(inputs), batch["label"])
                return jnp.sum(jnp.where(batch["mask"], losses, 0.0))

            inputs = batch[task.input_field].astype(jnp.float32)
            adversarial, without_gradient = attack.perturb(jax.grad(loss), inputs, batch["index"])
            return (logits_of(adversarial), without_gradient), None

        self._kept, self._routing, self._features = map(self.compiled, (kept, routing, features))
        self._attacked = jax.jit(attacked, static_argnums=0, out_shardings=(replicated(mesh), batch_sharding(mesh)))
        self._everywhere = jax.jit(lambda tree: tree, out_shardings=replicated(mesh))

        def initial_memory() -> Tree | None:
            return model.initial_memory(task.config.evaluation.batch_size) if task.carries_memory else None

        self._initial_memory = jax.jit(initial_memory, out_shardings=batch_sharding(mesh))

    def compiled(self, function: BatchFunction) -> Any:
        """A function for :meth:`collect` and :meth:`each_batch`, jitted so that each array lies where they need it."""
        return jax.jit(function, out_shardings=(replicated(self._mesh), batch_sharding(self._mesh)))

    def memory_for_next(self, aux: Mapping[str, Any]) -> Tree | None:
        """What the model carries to the next batch, of its ``aux``; None where batches do not continue each other."""
        return aux["memory"] if self._task.carries_memory else None

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

    def headline(self, variables: Tree) -> Headline:
        """The number that the task is known by, of its test records.

        Args:
          variables: what ``model.apply`` takes.

        Raises:
          ValueError: as :meth:`collect`.
        """
        found = self.collect(self._kept, variables, self._task.test_source)
        return self._task.headline(found.outputs, found.facts)

    def predict(self, variables: Tree, source: Source) -> Answers:
        """What the model says of every readable record, in record order: of classifiers, logits.

        Args:
          variables: what ``model.apply`` takes.
          source: the records.

        Raises:
          ValueError: as :meth:`collect`.
        """
        return self._answers(self.collect(self._kept, variables, source))

    def predict_attacked(self, variables: Tree, source: Source, attack: Attack) -> AttackedPredictions:
        """As :meth:`predict`, of images changed to raise the loss of :func:`margin_losses` with their labels.

        The gradient passes through the whole model in evaluation mode. A token's experts may change from step to step,
        but have no gradient themselves.

        Args:
          variables, source: as for :meth:`predict`.
          attack: from :mod:`vmoe_inform.evaluation.adversarial`.
        """
        found = self.collect(functools.partial(self._attacked, attack), variables, source)
        logits, without_gradient = found.outputs
        return AttackedPredictions(logits, found.facts["label"], found.indices, found.skipped, without_gradient)

    def features(self, variables: Tree, source: Source) -> Features:
        """What the model's head sees of every readable record, in record order; args and errors as :meth:`predict`."""
        found = self.collect(self._features, variables, source)
        return Features(found.outputs, found.facts["label"], found.indices, found.skipped)

    def predict_with_routing(self, variables: Tree, source: Source) -> tuple[Answers, dict[str, LayerRouting], Chosen]:
        """As :meth:`predict`; of each MoE layer the means over all records; and every token's experts."""
        found = self.collect(self._routing, variables, source)
        outputs, layers = found.outputs
        routing = {block: _means(layer) for block, layer in layers.items()}
        chosen = {block: layer.chosen for block, layer in layers.items()}
        return self._answers(dataclasses.replace(found, outputs=outputs)), routing, chosen

    def each_answer(
        self, variables: Tree, source: Source, *, skipped: SkippedRecords, experts: bool = False
    ) -> Iterator[tuple[tuple[Tree, dict[str, Array]], dict[str, np.ndarray]]]:
        """What the model says of one batch after the other, of which nothing is kept.

        Args:
          variables, source, skipped: as for :meth:`each_batch`.
          experts: whether the experts of all tokens are wanted.

        Yields:
          what the task keeps, with the experts by MoE layer (none unless they are wanted) [B, ...]; and of the whole
          batch as :meth:`each_batch`.
        """
        for found, batch in self.each_batch(
            self._routing if experts else self._kept, variables, source, skipped=skipped
        ):
            kept, layers = found if experts else (found, {})
            yield (kept, {block: layer.chosen for block, layer in layers.items()}), batch

    def _answers(self, found: Collected) -> Answers:
        return self._task.answers(found.outputs, found.facts, found.indices, found.skipped)

    def lower(self, variables: Tree) -> jax.stages.Lowered:
        """One batch of :meth:`predict`, ready to be compiled; ``variables`` may be shapes with shardings."""
        count = self._task.config.evaluation.batch_size
        sharding = batch_sharding(self._mesh)
        memory = jax.eval_shape(self._initial_memory)
        batch, memory = jax.tree.map(
            lambda of: jax.ShapeDtypeStruct(of.shape, of.dtype, sharding=sharding),
            (self._task.evaluation_shapes(count), memory),
        )
        with jax.set_mesh(self._mesh):
            return self._kept.lower(variables, batch, memory)

    def flops(self, variables: Tree) -> float:
        """Floating-point operations of one batch of evaluation on each device, as the compiler states them.

        The body of a loop counts once.
        """
        with jax.set_mesh(self._mesh):
            compiled: Any = self.lower(variables).compile()
        return float(compiled.cost_analysis()["flops"])

    def collect(self, function: BatchFunction, variables: Tree, source: Source) -> Collected:
        """What a function gives for all readable records.

        Args:
          function: see :data:`BatchFunction`; gives arrays [B, ...].
          variables: what ``model.apply`` takes.
          source: the records.

        Raises:
          ValueError: more unreadable records than ``data.max_skipped_share``, or other classes than the model has.
        """
        skipped = SkippedRecords(self._task.config.data.max_skipped_share)
        found = []
        for outputs, batch in self.each_batch(function, variables, source, skipped=skipped):
            facts = {name: batch[name] for name in self._task.facts}
            chosen = (outputs, facts, batch["index"])
            found.append(jax.tree.map(lambda values, mask=batch["mask"]: np.asarray(values)[mask], chosen))
        whole = jax.tree.map(lambda *parts: np.concatenate(parts), *found)
        order = np.argsort(whole[2])  # worker processes give batches in an order of their own
        outputs, facts, indices = jax.tree.map(lambda values: values[order], whole)
        return Collected(outputs, facts, indices, processes.total(skipped.count))

    def each_batch(
        self, function: BatchFunction, variables: Tree, source: Source, *, skipped: SkippedRecords
    ) -> Iterator[tuple[Any, dict[str, np.ndarray]]]:
        """Calls a function with one batch of a source after the other.

        Args:
          function: see :data:`BatchFunction`.
          variables: what ``model.apply`` takes.
          source: the records.
          skipped: counts this process's unreadable records.

        Yields:
          what the function gave, and of the whole batch ``mask``, ``index`` (number of the record) and the task's
          facts.

        Raises:
          ValueError: as :meth:`collect`.
        """
        process_index, process_count = processes.index_and_count()
        batches = self._task.evaluation_batches(source, skipped, process_index, process_count)
        sharding = batch_sharding(self._mesh)
        memory = self._initial_memory()
        self._watchdog.expect_pause()  # to compile
        for local in batches:
            batch = {name: jax.make_array_from_process_local_data(sharding, local[name]) for name in local}
            with jax.set_mesh(self._mesh):
                outputs, memory = function(variables, batch, memory)
                facts = self._everywhere({name: batch[name] for name in ("mask", "index", *self._task.facts)})
            whole = {name: np.asarray(values) for name, values in facts.items()}
            self._watchdog.finished("a batch of evaluation")
            self._after_each_batch()
            yield outputs, whole
        self._watchdog.expect_pause()  # what is made of all batches may take long


def _means(layer: LayerStatistics) -> LayerRouting:
    load = np.mean(layer.load, axis=0)
    load = load / load.sum()  # where experts choose, a token may count more or less than once
    return LayerRouting(
        entropy=np.mean(layer.entropy).item(),
        load=tuple(load.tolist()),
        effective_neighbours=np.mean(layer.effective_neighbours).item(),
        dropped=np.mean(layer.dropped).item(),
    )
