"""Logits of a model for every image of a source, and what its routers did on the way."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from vmoe_inform import checks
from vmoe_inform.axes import Array, Float, Tree
from vmoe_inform.config import Config
from vmoe_inform.data import augment
from vmoe_inform.data.pipeline import SkippedRecords, evaluation_batches
from vmoe_inform.data.sources import Source
from vmoe_inform.evaluation.suites import Predictions
from vmoe_inform.nn.router import TRACE
from vmoe_inform.nn.vit import VisionTransformer
from vmoe_inform.routing import effective_neighbours, routing_entropy
from vmoe_inform.sharding.mesh import batch_sharding, replicated

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


class Predictor:
    """A model compiled for evaluation on a mesh."""

    def __init__(self, model: VisionTransformer, config: Config, mesh: Mesh):
        """Args:
        model: from :func:`vmoe_inform.models.from_config`.
        config: data (normalisation, threads) and evaluation (batch size).
        mesh: the images of a batch are spread over all its devices.
        """
        self._config = config
        self._mesh = mesh
        self._model = model

        def logits_of(variables: Tree, images: Array, mask: Array) -> Float[Array, "B classes"]:
            return model.apply(variables, augment.normalize(images, config.data), train=False, image_mask=mask)[0]

        def routing_of(variables: Tree, images: Array, mask: Array) -> tuple[Float[Array, "B classes"], PerImage]:
            (logits, _), left = model.apply(
                variables, augment.normalize(images, config.data), train=False, image_mask=mask, mutable=[TRACE]
            )
            return logits, _routing_per_image(left.get(TRACE, {}))

        self._logits, self._routing = (
            jax.jit(function, out_shardings=replicated(mesh)) for function in (logits_of, routing_of)
        )

    def predict(self, variables: Tree, source: Source) -> Predictions:
        """Logits of every readable image, in record order.

        Args:
          variables: what ``model.apply`` takes.
          source: the images.

        Raises:
          ValueError: more unreadable records than ``data.max_skipped_share``, or more classes than the model has.
        """
        return self._run(variables, source, with_routing=False)[0]

    def predict_with_routing(
        self, variables: Tree, source: Source
    ) -> tuple[Predictions, dict[str, dict[str, Any]], Chosen]:
        """As :meth:`predict`, and of each MoE layer the means over images: ``entropy`` (nats, of the informed
        probabilities), ``load`` (E shares), ``effective_neighbours``, ``dropped`` (share); and every token's experts.
        """
        predictions, batches = self._run(variables, source, with_routing=True)
        routing: dict[str, dict[str, Any]] = {}
        chosen: Chosen = {}
        for block in batches[0]:
            columns = {name: np.concatenate([batch[block][name] for batch in batches]) for name in batches[0][block]}
            chosen[block] = columns.pop(_CHOSEN)
            means = {name: np.mean(values, axis=0) for name, values in columns.items()}
            means["load"] /= means["load"].sum()  # where experts choose, a token may count more or less than once
            routing[block] = {name: values.tolist() for name, values in means.items()}
        return predictions, routing, chosen

    def first_choices(self, variables: Tree, images: np.ndarray) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """Logits, and of each MoE layer the first-choice expert of every patch [B, rows, columns].

        Args:
          variables: what ``model.apply`` takes.
          images: uint8 [B, P, P, 3], at most a batch of evaluation.
        """
        count, batch_size = len(images), self._config.evaluation.batch_size
        padded = np.concatenate([images, np.zeros((batch_size - count, *images.shape[1:]), images.dtype)])
        logits, layers = self._call(self._routing, variables, padded, np.arange(batch_size) < count)
        side = self._config.model.image_size_px // self._config.model.patch_size_px
        # The class token, where there is one, comes first.
        maps = {
            block: np.asarray(layer[_CHOSEN])[:count, -side * side :, 0].reshape(count, side, side)
            for block, layer in layers.items()
        }
        return np.asarray(logits)[:count], maps

    def lower(self, variables: Tree) -> jax.stages.Lowered:
        """One batch of :meth:`predict`, ready to be compiled; ``variables`` may be shapes with shardings."""
        size, count = self._config.model.image_size_px, self._config.evaluation.batch_size
        sharding = batch_sharding(self._mesh)
        images = jax.ShapeDtypeStruct((count, size, size, 3), jnp.uint8, sharding=sharding)
        mask = jax.ShapeDtypeStruct((count,), jnp.bool_, sharding=sharding)
        with jax.set_mesh(self._mesh):
            return self._logits.lower(variables, images, mask)

    def flops(self, variables: Tree) -> float:
        """Floating-point operations of one batch of evaluation on each device, as the compiler states them: the body
        of a loop counts once, however often it runs."""
        with jax.set_mesh(self._mesh):
            compiled: Any = self.lower(variables).compile()
        return float(compiled.cost_analysis()["flops"])

    def _call(self, function: Callable[..., Any], variables: Tree, images: np.ndarray, mask: np.ndarray) -> Any:
        sharding = batch_sharding(self._mesh)
        with jax.set_mesh(self._mesh):
            return function(variables, *jax.device_put((images, mask), sharding))

    def _run(
        self, variables: Tree, source: Source, *, with_routing: bool
    ) -> tuple[Predictions, list[dict[str, dict[str, np.ndarray]]]]:
        classes = self._config.model.num_classes
        if source.num_classes > classes:
            raise checks.error("data", f"at most the model's {classes} classes", source.num_classes)
        skipped = SkippedRecords(self._config.data.max_skipped_share)
        logits, labels, routing = [], [], []
        batches = evaluation_batches(
            source,
            image_size_px=self._config.model.image_size_px,
            batch_size=self._config.evaluation.batch_size,
            skipped=skipped,
            num_threads=self._config.data.num_threads,
        )
        for batch in batches:
            mask = batch["mask"]
            if with_routing:
                batch_logits, layers = self._call(self._routing, variables, batch["image"], mask)
                routing.append(jax.tree.map(lambda values, mask=mask: np.asarray(values)[mask], layers))
            else:
                batch_logits = self._call(self._logits, variables, batch["image"], mask)
            logits.append(np.asarray(batch_logits)[mask])
            labels.append(batch["label"][mask])
        return Predictions(np.concatenate(logits), np.concatenate(labels), skipped.count), routing
