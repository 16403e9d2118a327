"""Test images changed within a small bound so that the model mistakes them, by the gradient through all of it."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from vmoe_inform.config import Config
from vmoe_inform.data.sources import Source
from vmoe_inform.evaluation.adversarial import MARGIN, Attack, FastGradientSign, ProjectedGradient
from vmoe_inform.evaluation.records import SelectedRecords
from vmoe_inform.evaluation.suites.base import (
    CLEAN,
    SUITES,
    AttackedPredictions,
    Entry,
    ImageSet,
    Predictions,
    Scores,
    Suite,
    TrainedModel,
    accuracy,
    accuracy_scores,
    test_split,
)

UNCHANGED = "unchanged"  # the set of the images that are attacked, as they are


@SUITES.register("fgsm")
def fast_gradient_sign(config: Config) -> Suite:
    """One step along the sign of the gradient (arXiv 1412.6572)."""
    epsilon = config.evaluation.attack.epsilon
    return _suite("fgsm", FastGradientSign(epsilon), {"epsilon": epsilon, "num_steps": 1}, config)


@SUITES.register("pgd")
def projected_gradient(config: Config) -> Suite:
    """Several small steps from a random start (arXiv 1706.06083)."""
    settings = config.evaluation.attack
    attack = ProjectedGradient(settings.epsilon, settings.step_size, settings.num_steps, settings.seed)
    return _suite("pgd", attack, dataclasses.asdict(attack), config)


def _suite(name: str, attack: Attack, settings: Mapping[str, Any], config: Config) -> Suite:
    """Accuracy under the attack, that for the same images as they are, and how many had no gradient."""
    source = test_split(config.data)
    wanted = config.evaluation.attack.images
    number = len(source.records) if wanted is None else min(wanted, len(source.records))
    # Evenly over the split: many are sorted by class, and their first images would show a few classes only.
    chosen = np.arange(number) * len(source.records) // number
    attacked = Source(SelectedRecords(source.records, tuple(chosen.tolist())), source.class_names, source.origin)

    # Of all images, the predictions that every suite shares. Some are predicted by themselves, as they are attacked, in
    # the same groups of images that share experts' slots.
    before = CLEAN if number == len(source.records) else UNCHANGED
    settings = {"loss": MARGIN, **settings}

    def predict(model: TrainedModel, images: Source) -> Predictions:
        return model.predict_attacked(images, attack)

    def score(_: str, predictions: Predictions) -> Scores:
        scores = accuracy_scores(predictions)
        if isinstance(predictions, AttackedPredictions):
            scores["without_gradient"] = predictions.without_gradient
        return scores | {"index": chosen[scores["index"]].astype(np.int32)}

    def summarize(scores: Mapping[str, Scores]) -> Entry:
        return {
            **accuracy(scores[name], source.class_names),
            "clean_top1": float(scores[before]["hit"].mean()),
            "without_gradient": float(scores[name]["without_gradient"].mean()),
            **settings,
        }

    sets = {
        before: ImageSet(lambda: attacked, settings={"images": number}),
        name: ImageSet(lambda: attacked, predict, {**settings, "images": number}),
    }
    return Suite(name, sets, score, summarize, source.origin)
