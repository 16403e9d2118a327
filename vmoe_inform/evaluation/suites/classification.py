"""Accuracy and calibration of a classifier of texts."""

import dataclasses
from collections.abc import Mapping

from vmoe_inform.config import LanguageConfig
from vmoe_inform.evaluation import metrics
from vmoe_inform.evaluation.metric_registry import AURC, NLL, TOP5, metric_versions, score_versions
from vmoe_inform.evaluation.results import SuiteResult
from vmoe_inform.evaluation.suites.base import TEST_SET, RecordSet, Scores, Suite, task_of
from vmoe_inform.evaluation.suites.clean import ECE
from vmoe_inform.evaluation.suites.labelled import accuracy, accuracy_scores
from vmoe_inform.evaluation.suites.registry import register


@register(
    "classification",
    title="Classification of the test texts",
    short_title="classification",
    details=(TOP5, NLL, ECE, AURC),
    tasks=("text_classification",),
    sentence="{run} names the class of {right} of {count} test texts right.",
)
def classification(config: LanguageConfig) -> Suite:
    """The test split: accuracy and calibration, with the bins of the reliability diagram."""
    texts = task_of(config).test_source

    def summarize(scores: Mapping[str, Scores]) -> SuiteResult:
        own = scores[TEST_SET]
        diagram = metrics.reliability(own["hit"], own["confidence"], config.evaluation.ece_bins)
        measured = accuracy(own, texts.class_names)
        values = {**measured.metrics, "ece": metrics.calibration_error(diagram)}
        return dataclasses.replace(measured, metrics=values, reliability=diagram, counted="texts")

    return Suite(
        "classification",
        {TEST_SET: RecordSet(lambda: texts)},
        lambda _, predictions: accuracy_scores(predictions),
        summarize,
        texts.origin,
        metric_versions=metric_versions(),
        score_versions=score_versions(),
    )
