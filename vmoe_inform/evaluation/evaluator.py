"""What the model of a run says of images."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from vmoe_inform import config as config_lib
from vmoe_inform import tasks
from vmoe_inform.config import sizes
from vmoe_inform.data.images import pixels as images_lib
from vmoe_inform.data.sources import Source
from vmoe_inform.evaluation import metrics
from vmoe_inform.evaluation.adversarial import Attack
from vmoe_inform.evaluation.predict import Chosen, Predictor
from vmoe_inform.evaluation.results import LayerRouting, SuiteResult
from vmoe_inform.evaluation.suites.base import (
    TEST_SET,
    AttackedPredictions,
    Features,
    ImageSet,
    Predictions,
    Suite,
    test_split,
)
from vmoe_inform.runs.run import Run
from vmoe_inform.sharding import watchdog as watchdog_lib
from vmoe_inform.sharding.watchdog import Watchdog

_NUM_EXAMPLES = 8


class Evaluator:
    """What a run's model says of images; the predictions of the clean ones are made once, for all that need them."""

    def __init__(self, run: Run, predictor: Predictor):
        """Args:
        run: whose model is evaluated.
        predictor: of its model; the checkpoints of a run can share one.
        """
        self.run = run
        self._predictor = predictor
        self._clean_source = test_split(run.config.data)

    @classmethod
    def of(cls, run: Run, watchdog: Watchdog = watchdog_lib.OFF) -> "Evaluator":
        """With a predictor on the run's mesh; ``watchdog`` is told of every batch.

        Raises:
          ValueError: batches that the mesh cannot share out, or that this machine cannot hold.
        """
        config_lib.check_evaluation_batch(run.config, run.mesh.size)
        sizes.check_memory(run.config, run.mesh.size, jax.local_device_count(), train=False)
        return cls(run, Predictor(run.model, tasks.from_config(run.config), run.mesh, watchdog=watchdog))

    @functools.cached_property
    def clean(self) -> tuple[Predictions, dict[str, LayerRouting], Chosen]:
        """Predictions for the clean images, what the routers did, and the experts of every token."""
        return self._predictor.predict_with_routing(self.run.variables, self._clean_source)

    def predict(self, source: Source) -> Predictions:
        """Predictions for images as they are."""
        return self._predictor.predict(self.run.variables, source)

    def predict_attacked(self, source: Source, attack: Attack) -> AttackedPredictions:
        """Predictions for images that are changed so that the model mistakes them."""
        return self._predictor.predict_attacked(self.run.variables, source, attack)

    def features(self, source: Source) -> Features:
        """What the model's head sees of each image."""
        return self._predictor.features(self.run.variables, source)

    def predict_set(self, name: str, image_set: ImageSet, source: Source) -> Predictions:
        """Predictions for the set ``name`` of a suite, whose images are ``source``."""
        return self.clean[0] if name == TEST_SET else image_set.predict(self, source)

    def measure(self, suite: Suite, *, before_each_set: Callable[[], None] = lambda: None) -> SuiteResult:
        """The suite's result, with nothing kept on the way.

        Args:
          suite: loaded for the run's config.
          before_each_set: called before each set of images is predicted; what it raises ends the measurement.
        """
        scores = {}
        for name, image_set in suite.sets.items():
            before_each_set()
            scores[name] = suite.score(name, self.predict_set(name, image_set, image_set.load()))
        return suite.result(scores)

    def examples(self) -> dict[str, Any]:
        """Clean images with their experts: up to half of them misclassified, then others.

        Each is from all over the set, which may be sorted by class.

        Returns:
          ``image`` uint8 [n, P, P, 3], ``label`` and ``prediction`` (class names) [n], ``confidence`` [n], and
          ``experts/<block>`` [n, rows, columns], the first choice of each patch.
        """
        predictions, _, chosen_experts = self.clean
        predicted = np.argmax(predictions.logits, axis=-1)
        wrong = np.flatnonzero(predicted != predictions.labels)
        right = np.flatnonzero(predicted == predictions.labels)
        num_wrong = min(len(wrong), max(_NUM_EXAMPLES // 2, _NUM_EXAMPLES - len(right)))
        chosen = np.concatenate([_spread(wrong, num_wrong), _spread(right, _NUM_EXAMPLES - num_wrong)])
        config = config_lib.as_images(self.run.config)
        model, crop = config.model, self._clean_source.crop_in(config.data)
        size, side = model.image_size_px, model.image_size_px // model.patch_size_px
        records = self._clean_source.records
        names = np.asarray(self._clean_source.class_names)
        return {
            "image": np.stack(
                [images_lib.to_square(records[int(i)]["image"], size, crop) for i in predictions.indices[chosen]]
            ),
            "label": names[predictions.labels[chosen]],
            "prediction": names[predicted[chosen]],
            "confidence": metrics.max_probability(predictions.logits[chosen]).astype(np.float32),
            # The class token, where there is one, comes first.
            **{
                f"experts/{block}": experts[chosen, -side * side :, 0].reshape(-1, side, side)
                for block, experts in chosen_experts.items()
            },
        }


def _spread(values: np.ndarray, number: int) -> np.ndarray:
    """``number`` of the values, or all if they are fewer, at even distances."""
    number = min(number, len(values))
    return values[np.arange(number) * len(values) // max(number, 1)]
