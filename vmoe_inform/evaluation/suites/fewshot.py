"""Accuracy of a linear classifier on the model's features, learned from few images of each class."""

import dataclasses
import functools
from collections.abc import Mapping

import numpy as np

from vmoe_inform import checks
from vmoe_inform.config import ImageConfig
from vmoe_inform.data import sources
from vmoe_inform.data.images.trees import FileRecords
from vmoe_inform.data.records import SelectedRecords
from vmoe_inform.data.sources import ArrayRecords, Source
from vmoe_inform.evaluation.metric_registry import contributions_of
from vmoe_inform.evaluation.results import SuiteResult
from vmoe_inform.evaluation.suites._transfer import both_splits, hit_accuracy, hit_scores
from vmoe_inform.evaluation.suites.base import (
    Features,
    NotAvailable,
    Predictions,
    RecordSet,
    Scores,
    Suite,
    TrainedModel,
    test_split,
)
from vmoe_inform.evaluation.suites.registry import register
from vmoe_inform.evaluation.transfer import choose_shots, few_shot_logits

_SEED = 0  # of the choice of shots: the same for all models, so that they learn from the same images


@register(
    "fewshot",
    title="Few-shot: a linear classifier learned from few images a class",
    short_title="few-shot",
)
def few_shot(config: ImageConfig) -> Suite:
    """Regularised least squares from ``evaluation.shots`` training images of each class, as V-MoE reports it."""
    source, most = test_split(config.data), max(config.evaluation.shots)

    @functools.lru_cache(maxsize=1)  # for every number of shots; training evaluates many models with one suite
    def features(model: TrainedModel) -> tuple[Features, Features, np.ndarray]:
        """Of chosen training images and of the test images; and the places of the former, [classes, shots]."""
        train = sources.training(config.data)

        def label_of(index: int) -> int:
            records = train.records
            if isinstance(records, ArrayRecords | FileRecords):
                return int(records.labels[index])
            return records[index]["label"]  # reads the image, too

        try:
            chosen = choose_shots(
                label_of,
                len(train.records),
                num_classes=train.num_classes,
                shots=most,
                seed=_SEED,
            )
        except checks.InputError as problem:
            raise NotAvailable(str(problem)) from None
        numbers = tuple(chosen.ravel().tolist())
        learned = model.features(dataclasses.replace(train, records=SelectedRecords(train.records, numbers)))
        return learned, model.features(source), np.arange(chosen.size).reshape(chosen.shape)

    def predict(shots: int, model: TrainedModel, _: Source) -> Predictions:
        train, test, places = features(model)
        own = np.isin(train.indices, places[:, :shots])  # without images that could not be read
        logits = few_shot_logits(train.values[own], train.labels[own], test.values, num_classes=source.num_classes)
        return Predictions(logits, test.labels, test.indices, test.skipped + train.skipped)

    def summarize(scores: Mapping[str, Scores]) -> SuiteResult:
        top1 = {str(shots): float(scores[_set_name(shots)]["hit"].mean()) for shots in sorted(config.evaluation.shots)}
        return dataclasses.replace(hit_accuracy(scores[_set_name(most)]), top1_by_shots=top1, seed=_SEED)

    sets = {
        _set_name(shots): RecordSet(lambda: source, functools.partial(predict, shots), {"shots": shots, "seed": _SEED})
        for shots in sorted(config.evaluation.shots)
    }
    return Suite(
        "fewshot",
        sets,
        hit_scores,
        summarize,
        source.origin,
        lambda: both_splits(config),
        contributions=lambda scores: contributions_of(scores[_set_name(most)]),
    )


def _set_name(shots: int) -> str:
    return f"{shots}_shots"
