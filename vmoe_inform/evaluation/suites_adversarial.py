"""Test images changed within a small bound so that the model mistakes them, by the gradient through all of it."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from vmoe_inform.config import Config
from vmoe_inform.data.sources import Source
from vmoe_inform.evaluation.adversarial import Attack, FastGradientSign, ProjectedGradient
from vmoe_inform.evaluation.records import SelectedRecords
from vmoe_inform.evaluation.suites import (
    CLEAN,
    SUITES,
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
    """Accuracy under the attack, and that for the same images as they are."""
    source = test_split(config.data)
    wanted = config.evaluation.attack.images
    number = len(source.records) if wanted is None else min(wanted, len(source.records))
    # Evenly over the split: many are sorted by class, and their first images would show a few classes only.
    chosen = np.arange(number) * len(source.records) // number
    attacked = Source(SelectedRecords(source.records, tuple(chosen.tolist())), source.class_names, source.origin)

    def predict(model: TrainedModel, images: Source) -> Predictions:
        return model.predict_attacked(images, attack)

    def score(set_name: str, predictions: Predictions) -> Scores:
        scores = accuracy_scores(predictions)
        return scores if set_name == CLEAN else scores | {"index": chosen[scores["index"]].astype(np.int32)}

    def summarize(scores: Mapping[str, Scores]) -> Entry:
        clean, own = scores[CLEAN], scores[name]
        same = np.isin(clean["index"], own["index"])
        return {
            **accuracy(own, source.class_names),
            "clean_top1": float(clean["hit"][same].mean()),
            **settings,
        }

    sets = {
        CLEAN: ImageSet(lambda: source),
        name: ImageSet(lambda: attacked, predict, {**settings, "images": number}),
    }
    return Suite(name, sets, score, summarize, source.origin)
