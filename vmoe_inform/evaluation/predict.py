"""Logits of a model for every image of a source, and what its routers did on the way."""

import contextlib
import functools
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from vmoe_inform import checks
from vmoe_inform.axes import Array, Bool, Float, Tree
from vmoe_inform.config import Config
from vmoe_inform.data import classes
from vmoe_inform.data.images import augment
from vmoe_inform.data.pipeline import Batch, SkippedRecords, evaluation_batches, workers_for_one_pass
from vmoe_inform.data.sources import Source
from vmoe_inform.evaluation.adversarial import Attack, margin_losses
from vmoe_inform.evaluation.results import LayerRouting
from vmoe_inform.evaluation.suites.base import AttackedPredictions, Features, Predictions
from vmoe_inform.nn.router import TRACE
from vmoe_inform.nn.vit import VisionTransformer
from vmoe_inform.routing import effective_neighbours, routing_entropy
from vmoe_inform.sharding import processes
from vmoe_inform.sharding import watchdog as watchdog_lib
from vmoe_inform.sharding.mesh import batch_sharding, replicated
from vmoe_inform.sharding.rules import gathered
from vmoe_inform.sharding.watchdog import Watchdog

_CHOSEN = "chosen"
PerImage = dict[str, dict[str, Array]]
Chosen = dict[str, np.ndarray]  # by MoE layer: experts of every token [n, N, K], the first choice first


def _routing_per_image(trace: Mapping[str, Any]) -> PerImage:
    """Of each MoE layer and image: mean entropy [B] in nats, load [B, E], mean effective neighbours [B] (1 if tokens
    do not mix), dropped share [B], and the experts of each token [B, N, K]."""
    layers = {}
    for block, left in trace.items():
        layer = left["moe"]
        routing = layer["routing"]
        entropy = routing_entropy(routing.informed)
        neighbours = jnp.ones_like(entropy) if routing.graph is None else effective_neighbours(routing.graph)
        layers[block] = {
            "entropy": jnp.mean(entropy, axis=-1),
            "load": jnp.mean(layer["load"], axis=1),
            "effective_neighbours": jnp.mean(neighbours, axis=-1),
            "dropped": jnp.mean(layer["dropped"], axis=-1),
            _CHOSEN: layer["indices"],
        }
    return layers


def _nothing() -> None:
    """Nobody asked for reports."""


class Predictor:
    """A model compiled for evaluation on a mesh.

    Several processes read the batches that one would read, a part each, and each gets what all of them found; so all
    have to ask for the same predictions in the same order. An image's predictions depend on the set that it is in, by
    the images of its group, and not on processes, devices or batch size.
    """

    def __init__(self, model: VisionTransformer, config: Config, mesh: Mesh, *, watchdog: Watchdog = watchdog_lib.OFF):
        """Args:
        model: from :func:`vmoe_inform.nn.models.from_config`.
        config: data (normalisation, threads) and evaluation (batch size).
        mesh: the images of a batch are spread over all its devices.
        watchdog: is told of every batch.
        """
        self._watchdog = watchdog
        self._after_each_batch: Callable[[], None] = _nothing
        self._config = config
        self._mesh = mesh
        self._sharding = batch_sharding(mesh)  # of a batch
        self._model = model

        def apply(variables: Tree, images: Array, mask: Array, **options: Any) -> Any:
            return model.apply(
                variables | {"params": gathered(variables["params"])},
                augment.normalize(images, config.data),
                train=False,
                sequence_mask=mask,
                **options,
            )

        def logits_of(variables: Tree, images: Array, mask: Array) -> Float[Array, "B classes"]:
            return apply(variables, images, mask)[0]

        def routing_of(variables: Tree, images: Array, mask: Array) -> tuple[Float[Array, "B classes"], PerImage]:
            (logits, _), left = apply(variables, images, mask, mutable=[TRACE])
            return logits, _routing_per_image(left.get(TRACE, {}))

        def features_of(variables: Tree, images: Array, mask: Array) -> Float[Array, "B F"]:
            return apply(variables, images, mask)[1]["features"]

        def attacked_logits_of(
            attack: Attack, variables: Tree, images: Array, mask: Array, labels: Array, indices: Array
        ) -> tuple[Float[Array, "B classes"], Bool[Array, " B"]]:
            def loss(pixels: Array) -> Array:
                return jnp.sum(jnp.where(mask, margin_losses(logits_of(variables, pixels, mask), labels), 0.0))

            adversarial, without_gradient = attack.perturb(jax.grad(loss), images.astype(jnp.float32), indices)
            return logits_of(variables, adversarial, mask), without_gradient

        self._logits, self._routing, self._features = (
            jax.jit(function, out_shardings=replicated(mesh)) for function in (logits_of, routing_of, features_of)
        )
        self._attacked_logits = jax.jit(attacked_logits_of, static_argnums=0, out_shardings=replicated(mesh))
        self._everywhere = jax.jit(lambda tree: tree, out_shardings=replicated(mesh))

    @contextlib.contextmanager
    def reporting(self, after_each_batch: Callable[[], None]) -> Iterator[None]:
        """A context in which every batch is reported; what ``after_each_batch`` raises ends the evaluation."""
        self._after_each_batch = after_each_batch
        try:
            yield
        finally:
            self._after_each_batch = _nothing

    def predict(
        self,
        variables: Tree,
        source: Source,
        *,
        crop: float | None = None,
    ) -> Predictions:
        """Logits of every readable image, in record order.

        Args:
          variables: what ``model.apply`` takes.
          source: the images.
          crop: side of the centred square that is looked at, as a share of the shorter side; None:
            ``data.evaluation_crop``.

        Raises:
          ValueError: more unreadable records than ``data.max_skipped_share``, or other classes than the model has.
        """
        logits, labels, indices, skipped = self._run(self._logits, variables, source, crop=crop)
        return Predictions(logits, labels, indices, skipped)

    def predict_attacked(self, variables: Tree, source: Source, attack: Attack) -> AttackedPredictions:
        """As :meth:`predict`, of images changed to raise the loss of :func:`margin_losses` with their labels.

        The gradient is that through the whole model in evaluation mode; which experts a token goes to may change from
        step to step, but has no gradient itself.

        Args:
          variables, source: as for :meth:`predict`.
          attack: from :mod:`vmoe_inform.evaluation.adversarial`.
        """
        function = functools.partial(self._attacked_logits, attack)
        outputs, labels, indices, skipped = self._run(function, variables, source, inputs=("label", "index"))
        logits, without_gradient = outputs
        return AttackedPredictions(logits, labels, indices, skipped, without_gradient)

    def features(self, variables: Tree, source: Source) -> Features:
        """What the model's head sees of every readable image, in record order; args and errors as :meth:`predict`."""
        return Features(*self._run(self._features, variables, source))

    def predict_with_routing(
        self, variables: Tree, source: Source
    ) -> tuple[Predictions, dict[str, LayerRouting], Chosen]:
        """As :meth:`predict`; of each MoE layer the means over images; and every token's experts."""
        (logits, layers), labels, indices, skipped = self._run(self._routing, variables, source)
        routing: dict[str, LayerRouting] = {}
        chosen: Chosen = {}
        for block, columns in layers.items():
            chosen[block] = columns.pop(_CHOSEN)
            means = {name: np.mean(values, axis=0) for name, values in columns.items()}
            means["load"] /= means["load"].sum()  # where experts choose, a token may count more or less than once
            routing[block] = LayerRouting(
                entropy=means["entropy"].item(),
                load=tuple(means["load"].tolist()),
                effective_neighbours=means["effective_neighbours"].item(),
                dropped=means["dropped"].item(),
            )
        return Predictions(logits, labels, indices, skipped), routing, chosen

    def lower(self, variables: Tree) -> jax.stages.Lowered:
        """One batch of :meth:`predict`, ready to be compiled; ``variables`` may be shapes with shardings."""
        size, count = self._config.model.image_size_px, self._config.evaluation.batch_size
        images = jax.ShapeDtypeStruct((count, size, size, 3), jnp.uint8, sharding=self._sharding)
        mask = jax.ShapeDtypeStruct((count,), jnp.bool_, sharding=self._sharding)
        with jax.set_mesh(self._mesh):
            return self._logits.lower(variables, images, mask)

    def flops(self, variables: Tree) -> float:
        """Floating-point operations of one batch of evaluation on each device, as the compiler states them: the body
        of a loop counts once, however often it runs."""
        with jax.set_mesh(self._mesh):
            compiled: Any = self.lower(variables).compile()
        return float(compiled.cost_analysis()["flops"])

    def _run(
        self,
        function: Callable[..., Any],
        variables: Tree,
        source: Source,
        *,
        crop: float | None = None,
        inputs: tuple[str, ...] = (),
    ) -> tuple[Any, np.ndarray, np.ndarray, int]:
        """What a function of (variables, images, mask, *inputs of the batch) gives for all readable images, their
        labels and indices, ordered by the latter, and the number of records that could not be read."""
        skipped = SkippedRecords(self._config.data.max_skipped_share)
        found = []
        for outputs, batch in self.each_batch(function, variables, source, skipped=skipped, crop=crop, inputs=inputs):
            chosen = (outputs, batch["label"], batch["index"])
            found.append(jax.tree.map(lambda values, mask=batch["mask"]: np.asarray(values)[mask], chosen))
        whole = jax.tree.map(lambda *parts: np.concatenate(parts), *found)
        order = np.argsort(whole[2])  # worker processes give batches in an order of their own
        outputs, labels, indices = jax.tree.map(lambda values: values[order], whole)
        return outputs, labels, indices, processes.total(skipped.count)

    def each_batch(
        self,
        function: Callable[..., Any],
        variables: Tree,
        source: Source,
        *,
        skipped: SkippedRecords,
        crop: float | None = None,
        inputs: tuple[str, ...] = (),
    ) -> Iterator[tuple[Any, dict[str, np.ndarray]]]:
        """Calls a function with one batch of a source after the other.

        Args:
          function: of (variables, images uint8, mask, *inputs); what it gives has to be whole on every device.
          variables: what ``model.apply`` takes.
          source: the images.
          skipped: counts this process's unreadable records.
          crop: as for :meth:`predict`.
          inputs: names of what else of the batch the function takes: ``label``, ``index``.

        Yields:
          what the function gave, and of the whole batch ``mask``, ``label`` and ``index`` (number of the record).

        Raises:
          ValueError: as :meth:`predict`.
        """
        self._check_classes(source)
        self._watchdog.expect_pause()  # to compile
        for local in self._batches(source, skipped, crop):
            batch = {name: jax.make_array_from_process_local_data(self._sharding, local[name]) for name in local}
            with jax.set_mesh(self._mesh):
                outputs = function(variables, *(batch[name] for name in ("image", "mask", *inputs)))
                facts = self._everywhere({name: batch[name] for name in ("mask", "label", "index")})
            whole = {name: np.asarray(values) for name, values in facts.items()}
            self._watchdog.finished("a batch of evaluation")
            self._after_each_batch()
            yield outputs, whole
        self._watchdog.expect_pause()  # what is made of all batches may take long

    def _check_classes(self, source: Source) -> None:
        """Raises ValueError for a source whose labels would mean other classes than the model's."""
        number, names = self._config.model.num_classes, self._config.data.class_names
        if source.num_classes != number:
            raise checks.error("data", f"the model's {number} classes", source.num_classes)
        if names and source.class_names != names:
            classes.check_same(source.class_names, names, "data")
            raise checks.error("data", "labels in the order of the model's classes", "the same classes in another")

    def _batches(self, source: Source, skipped: SkippedRecords, crop: float | None) -> Iterator[Batch]:
        """This process's part of every batch."""
        data = self._config.data
        process_index, process_count = processes.index_and_count()
        return evaluation_batches(
            source,
            image_size_px=self._config.model.image_size_px,
            batch_size=self._config.evaluation.batch_size // process_count,
            skipped=skipped,
            crop=data.evaluation_crop if crop is None else crop,
            num_threads=data.num_threads,
            num_workers=workers_for_one_pass(source, data, process_count),
            process_index=process_index,
            process_count=process_count,
            total=processes.total,
        )
