"""One checkpoint of a run, and what its model says of images."""

import functools
from collections.abc import Callable
from typing import Any

import numpy as np

from vmoe_inform.axes import Tree
from vmoe_inform.config import Config
from vmoe_inform.data.images import pixels as images_lib
from vmoe_inform.data.sources import Source
from vmoe_inform.evaluation import metrics
from vmoe_inform.evaluation.adversarial import Attack
from vmoe_inform.evaluation.predict import Chosen, Predictor
from vmoe_inform.evaluation.suites.base import (
    TEST_SET,
    AttackedPredictions,
    Entry,
    Features,
    ImageSet,
    Predictions,
    Suite,
    test_split,
)

_NUM_EXAMPLES = 8


class RestoredRun:
    """Predictions of one restored model; those of the clean images are made once, for all that need them."""

    def __init__(self, config: Config, predictor: Predictor, variables: dict[str, Tree]):
        """Args:
        config: of the run.
        predictor: of its model.
        variables: of one of its checkpoints.
        """
        self.variables = variables
        self._config = config
        self._predictor = predictor
        self._clean_source = test_split(config.data)

    @functools.cached_property
    def clean(self) -> tuple[Predictions, dict[str, dict[str, Any]], Chosen]:
        """Predictions for the clean images, what the routers did, and the experts of every token."""
        return self._predictor.predict_with_routing(self.variables, self._clean_source)

    def predict(self, source: Source, *, crop: float | None = None) -> Predictions:
        """Predictions for images as they are; ``crop`` replaces ``data.evaluation_crop``."""
        return self._predictor.predict(self.variables, source, crop=crop)

    def predict_attacked(self, source: Source, attack: Attack) -> AttackedPredictions:
        """Predictions for images that are changed so that the model mistakes them."""
        return self._predictor.predict_attacked(self.variables, source, attack)

    def features(self, source: Source) -> Features:
        """What the model's head sees of each image."""
        return self._predictor.features(self.variables, source)

    def predict_set(self, name: str, image_set: ImageSet, source: Source) -> Predictions:
        """Predictions for the set ``name`` of a suite, whose images are ``source``."""
        return self.clean[0] if name == TEST_SET else image_set.predict(self, source)

    def measure(self, suite: Suite, *, before_each_set: Callable[[], None] = lambda: None) -> Entry:
        """The suite's entry of ``results.json``, with nothing kept on the way.

        Args:
          suite: loaded for the run's config.
          before_each_set: called before each set of images is predicted; what it raises ends the measurement.
        """
        scores = {}
        for name, image_set in suite.sets.items():
            before_each_set()
            scores[name] = suite.score(name, self.predict_set(name, image_set, image_set.load()))
        return suite.entry(scores)

    def examples(self) -> dict[str, Any]:
        """Clean images with their experts: up to half of them taken for something else, then others, each from all over
        the set, which may be sorted by class.

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
        model, crop = self._config.model, self._config.data.evaluation_crop
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
