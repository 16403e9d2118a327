"""Test images changed within a small bound so that the model mistakes them, by the gradient through all of it."""

import dataclasses
from collections.abc import Mapping

from vmoe_inform.config import ImageConfig
from vmoe_inform.data import sources
from vmoe_inform.data.records import SelectedRecords
from vmoe_inform.data.sources import Source
from vmoe_inform.evaluation.adversarial import Attack
from vmoe_inform.evaluation.metric_registry import Metric, contributions_of, metric_versions, score_versions
from vmoe_inform.evaluation.results import AttackFacts, SuiteResult
from vmoe_inform.evaluation.suites.base import (
    TEST_SET,
    AttackedPredictions,
    Predictions,
    RecordSet,
    Scores,
    Suite,
    TrainedModel,
    test_split,
)
from vmoe_inform.evaluation.suites.labelled import accuracy, accuracy_scores

UNCHANGED = "unchanged"  # the set of the images that are attacked, as they are
ROWS = (
    Metric("clean_top1", "the same images before the attack", "before the attack"),
    Metric(
        "without_gradient",
        "images whose gradient vanished: the attack says nothing of them",
        "without gradient",
        less_is_better=True,
    ),
)


def attacked_suite(
    name: str, attack: Attack, facts: AttackFacts, config: ImageConfig, seed: int | None = None
) -> Suite:
    """Accuracy under the attack, that for the same images as they are, and how many had no gradient."""
    source = test_split(config.data)
    chosen = sources.evenly(source, config.evaluation.attack.images)
    number = len(chosen)
    attacked = dataclasses.replace(source, records=SelectedRecords(source.records, tuple(chosen.tolist())))

    # Of all images, the predictions that every suite shares. Some are predicted by themselves, as they are attacked, in
    # the same groups of images that share experts' slots.
    before = TEST_SET if number == len(source.records) else UNCHANGED
    settings = {name: value for name, value in dataclasses.asdict(facts).items() if value is not None}
    settings |= {} if seed is None else {"seed": seed}

    def predict(model: TrainedModel, images: Source) -> Predictions:
        return model.predict_attacked(images, attack)

    def score(_: str, predictions: Predictions) -> Scores:
        scores = accuracy_scores(predictions)
        if isinstance(predictions, AttackedPredictions):
            scores["without_gradient"] = predictions.without_gradient
        return scores | {"index": chosen[scores["index"]].astype("int32")}

    def summarize(scores: Mapping[str, Scores]) -> SuiteResult:
        shares = {
            "clean_top1": float(scores[before]["hit"].mean()),
            "without_gradient": float(scores[name]["without_gradient"].mean()),
        }
        return dataclasses.replace(accuracy(scores[name], source.class_names, also=shares), attack=facts, seed=seed)

    sets = {
        before: RecordSet(lambda: attacked, settings={"images": number}),
        name: RecordSet(lambda: attacked, predict, {**settings, "images": number}),
    }
    return Suite(
        name,
        sets,
        score,
        summarize,
        source.origin,
        metric_versions=metric_versions(),
        score_versions=score_versions(),
        contributions=lambda scores: contributions_of(scores[name]),
    )
