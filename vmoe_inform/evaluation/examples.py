"""Examples for the report: clean records with what the model said of them and the experts of their tokens."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from vmoe_inform.axes import Int
from vmoe_inform.config import Config, ImageConfig
from vmoe_inform.data.images import pixels
from vmoe_inform.data.sources import Source
from vmoe_inform.evaluation import metrics
from vmoe_inform.tasks.predictions import Predictions

Arrays = dict[str, np.ndarray]  # as the file of examples holds them
Chosen = Mapping[str, Int[np.ndarray, "n N K"]]  # experts of every token by MoE layer, the first choice first

_NUM_EXAMPLES = 8


def choose(config: Config, source: Any, answers: Any, chosen: Chosen) -> Arrays:
    """A few records, each from all over the set, which may be sorted.

    Args:
      config: of the run.
      source: the clean test records.
      answers: of the model, for all of them.
      chosen: the experts of their tokens.

    Returns:
      arrays [n, ...] by name, with ``experts/<block>``, the first choice of each token.
    """
    return _DOMAINS[config.model.inputs](config, source, answers, chosen)


def _images(config: ImageConfig, source: Source, predictions: Predictions, chosen_experts: Chosen) -> Arrays:
    """Up to half of the images misclassified, then others.

    Returns:
      ``image`` uint8 [n, P, P, 3], ``label`` and ``prediction`` (class names) [n], ``confidence`` [n], and
      ``experts/<block>`` [n, rows, columns].
    """
    predicted = np.argmax(predictions.logits, axis=-1)
    chosen = _wrong_and_right(predicted == predictions.labels)
    size, side = config.model.image_size_px, config.model.image_size_px // config.model.patch_size_px
    crop = source.crop_in(config.data)
    names = np.asarray(source.class_names)
    return {
        "image": np.stack(
            [pixels.to_square(source.records[int(i)]["image"], size, crop) for i in predictions.indices[chosen]]
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


def _wrong_and_right(is_right: np.ndarray) -> Int[np.ndarray, " k"]:
    """Numbers of up to half wrong answers, then right ones."""
    wrong, right = np.flatnonzero(~is_right), np.flatnonzero(is_right)
    num_wrong = min(len(wrong), max(_NUM_EXAMPLES // 2, _NUM_EXAMPLES - len(right)))
    return np.concatenate([_spread(wrong, num_wrong), _spread(right, _NUM_EXAMPLES - num_wrong)])


def _spread(values: np.ndarray, number: int) -> np.ndarray:
    """``number`` of the values, or all if they are fewer, at even distances."""
    number = min(number, len(values))
    return values[np.arange(number) * len(values) // max(number, 1)]


_DOMAINS: Mapping[str, Callable[[Any, Any, Any, Chosen], Arrays]] = {"images": _images}  # by ``model.inputs``
