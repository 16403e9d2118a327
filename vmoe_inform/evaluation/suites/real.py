"""The validation images by ReaL labels, all classes that an image shows (Beyer et al. 2020, arXiv 2006.07159)."""

from collections.abc import Mapping

import numpy as np

from vmoe_inform.config import ImageConfig
from vmoe_inform.data import inspection
from vmoe_inform.data.images import ilsvrc, published
from vmoe_inform.evaluation import metrics
from vmoe_inform.evaluation.metric_registry import AURC, Metric, metric_versions
from vmoe_inform.evaluation.results import SuiteResult
from vmoe_inform.evaluation.suites import _imagenet
from vmoe_inform.evaluation.suites.base import (
    TEST_SET,
    NotAvailable,
    Predictions,
    RecordSet,
    Scores,
    Suite,
    test_split,
)
from vmoe_inform.evaluation.suites.labelled import accuracy
from vmoe_inform.evaluation.suites.registry import register


def examine(request: inspection.Request) -> list[inspection.Finding]:
    """Looks at the labels."""
    finding = inspection.Finding("ReaL", expected_count=request.expected(published.REAL.count))
    try:
        labels = published.real_labels(request.data, request.class_names)
    except published.MissingSuiteError as problem:
        finding.missing = str(problem)
        return [finding]
    except (OSError, ValueError) as problem:
        finding.problems.append(str(problem))
        return [finding]
    finding.origin, finding.count = "labels", len(labels)
    finding.num_classes = len(frozenset().union(*labels.values()))
    if finding.expected_count not in (None, finding.count):
        finding.problems.append(f"expected {finding.expected_count:,} labelled images; received {finding.count:,}")
    return [finding]


@register(
    "real",
    title="ReaL: clean images with all labels that apply",
    short_title="ReaL, reassessed labels",
    details=(AURC, Metric("excluded", "images left out because they have no label", unit="images")),
    published=published.REAL,
    examine=examine,
)
def reassessed_labels(config: ImageConfig) -> Suite:
    """Right if the class is one of several that an image shows; images that show none are left out."""
    _imagenet.check_classes(config)
    source = test_split(config.data)
    try:
        labels = published.real_labels(config.data, source.class_names)
    except published.MissingSuiteError as problem:
        raise NotAvailable(str(problem)) from None

    def labels_of(index: int) -> frozenset[int]:
        name = source.records.name(index)
        number = ilsvrc.validation_number(name)
        key = "" if number is None else ilsvrc.validation_key(number)
        if key not in labels:
            raise NotAvailable(
                "ReaL labels go by the file names of the validation images: expected one like "
                f"{ilsvrc.validation_key(1)}.JPEG that has labels; found {name!r} in split {config.data.test_split!r}"
            )
        return labels[key]

    def score(_: str, predictions: Predictions) -> Scores:
        several = [labels_of(int(index)) for index in predictions.indices]
        kept = np.array([bool(own) for own in several])
        predicted = np.argmax(predictions.logits, axis=1)
        hits = np.array([int(label) in own for label, own in zip(predicted, several, strict=True)])
        return {
            "index": predictions.indices[kept].astype(np.int32),
            "label": predictions.labels[kept].astype(np.int32),
            "predicted": predicted[kept].astype(np.int32),
            "hit": hits[kept],
            "confidence": metrics.max_probability(predictions.logits[kept]).astype(np.float32),
            "log_doubt": metrics.log_doubt(predictions.logits[kept]).astype(np.float32),
            "excluded": np.asarray(len(kept) - kept.sum()),
            "skipped": np.asarray(predictions.skipped),
        }

    def summarize(scores: Mapping[str, Scores]) -> SuiteResult:
        own = scores[TEST_SET]
        if not len(own["hit"]):
            raise NotAvailable("none of the test images has a ReaL label among the model's classes")
        return accuracy(own, source.class_names, also={"excluded": int(own["excluded"])})

    return Suite(
        "real",
        {TEST_SET: RecordSet(lambda: source)},
        score,
        summarize,
        source.origin,
        metric_versions=metric_versions(),
    )
