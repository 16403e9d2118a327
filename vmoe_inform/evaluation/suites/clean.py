"""The test images as they are."""

import dataclasses
from collections.abc import Mapping

from vmoe_inform.config import ImageConfig
from vmoe_inform.evaluation import metrics
from vmoe_inform.evaluation.metric_registry import AURC, NLL, TOP5, Metric
from vmoe_inform.evaluation.results import SuiteResult
from vmoe_inform.evaluation.suites.base import TEST_SET, Scores, Suite, test_split
from vmoe_inform.evaluation.suites.labelled import accuracy, accuracy_suite
from vmoe_inform.evaluation.suites.registry import register

ECE = Metric("ece", "expected calibration error", less_is_better=True)


@register(
    "clean",
    title="Clean test images",
    short_title="clean",
    details=(TOP5, NLL, ECE, AURC),
    sentence="{run} names {right} of {count} clean test images right.",
)
def clean(config: ImageConfig) -> Suite:
    """The test split: accuracy and calibration, with the bins of the reliability diagram."""
    source = test_split(config.data)

    def summarize(scores: Mapping[str, Scores]) -> SuiteResult:
        own = scores[TEST_SET]
        diagram = metrics.reliability(own["hit"], own["confidence"], config.evaluation.ece_bins)
        measured = accuracy(own, source.class_names)
        measures = {**measured.metrics, "ece": metrics.calibration_error(diagram)}
        return dataclasses.replace(measured, metrics=measures, reliability=diagram)

    return dataclasses.replace(accuracy_suite(TEST_SET, source), summarize=summarize)
