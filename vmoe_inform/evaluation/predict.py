"""A model's outputs for every record of a source, and what its routers did on the way."""

import dataclasses
import functools
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from vmoe_inform.axes import Array, Bool, Float, Tree
from vmoe_inform.data.skipped import SkippedRecords
from vmoe_inform.data.sources import Source
from vmoe_inform.evaluation.adversarial import Attack, margin_losses
from vmoe_inform.evaluation.results import LayerRouting
from vmoe_inform.evaluation.runner import Collected, Runner
from vmoe_inform.evaluation.suites.base import AttackedPredictions, Features
from vmoe_inform.nn.models import Model
from vmoe_inform.nn.router import tokens_choose
from vmoe_inform.nn.trace import LayerStatistics, layer_statistics
from vmoe_inform.sharding import watchdog as watchdog_lib
from vmoe_inform.sharding.mesh import batch_sharding, replicated
from vmoe_inform.sharding.watchdog import Watchdog
from vmoe_inform.tasks import Headline, Task
from vmoe_inform.tasks.predictions import Answers
from vmoe_inform.tasks.task import Batch

Chosen = dict[str, np.ndarray]  # by MoE layer: experts of every token [n, N, K], the first choice first


class Predictor(Runner):
    """A model compiled for evaluation on a mesh."""

    def __init__(self, model: Model, task: Task, mesh: Mesh, *, watchdog: Watchdog = watchdog_lib.OFF):
        """Args:
        model: from :func:`vmoe_inform.nn.models.from_config`.
        task: that it is trained for.
        mesh: the sequences of a batch are spread over all its devices.
        watchdog: is told of every batch.
        """
        super().__init__(model, task, mesh, watchdog=watchdog)

        def kept(variables: Tree, batch: Batch, memory: Tree | None) -> tuple[Tree, Tree | None]:
            found = self.apply(variables, batch, memory)
            return found.kept, found.memory

        def routing(
            variables: Tree, batch: Batch, memory: Tree | None
        ) -> tuple[tuple[Tree, dict[str, LayerStatistics]], Tree | None]:
            found = self.apply(variables, batch, memory, traced=True)
            return (found.kept, layer_statistics(found.trace, found.counted)), found.memory

        def features(variables: Tree, batch: Batch, memory: Tree | None) -> tuple[Float[Array, "B F"], Tree | None]:
            found = self.apply(variables, batch, memory)
            return found.aux["features"], found.memory

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
        model = self._task.config.model
        has_margin = tokens_choose(model.router) and model.moe.num_selected_experts < model.moe.num_experts
        routing = {block: _means(layer, has_margin=has_margin) for block, layer in layers.items()}
        chosen = {block: layer.chosen for block, layer in layers.items()}
        return self._answers(dataclasses.replace(found, outputs=outputs)), routing, chosen

    def each_answer(
        self, variables: Tree, source: Source, *, skipped: SkippedRecords, experts: bool = False
    ) -> Iterator[tuple[tuple[Tree, dict[str, Array]], dict[str, np.ndarray]]]:
        """What the model says of one batch after the other, of which nothing is kept.

        No batch is read before the one ahead of it is given, so ``skipped`` is that of the batches given.

        Args:
          variables, source, skipped: as for :meth:`each_batch`.
          experts: whether the experts of all tokens are wanted.

        Yields:
          what the task keeps, with the experts by MoE layer (none unless they are wanted) [B, ...]; and of the whole
          batch as :meth:`each_batch`.
        """
        for found, batch in self.each_batch(
            self._routing if experts else self._kept, variables, source, skipped=skipped, ahead=0
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


def _means(layer: LayerStatistics, *, has_margin: bool) -> LayerRouting:
    load = np.mean(layer.load, axis=0)
    # Where experts choose, or tokens take any number, a token may count more or less than once, or all not at all.
    load = load / (load.sum() or 1.0)
    return LayerRouting(
        entropy=np.mean(layer.entropy).item(),
        load=tuple(load.tolist()),
        effective_neighbours=np.mean(layer.effective_neighbours).item(),
        dropped=np.mean(layer.dropped).item(),
        collapsed=np.mean(layer.collapsed).item(),
        margin=np.mean(layer.margin).item() if has_margin else None,
    )
