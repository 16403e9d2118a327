"""Accuracy of a linear classifier on the model's features, learned from all training images."""

from collections.abc import Mapping

from vmoe_inform.config import ImageConfig
from vmoe_inform.data import sources
from vmoe_inform.data.sources import Source
from vmoe_inform.evaluation.results import SuiteResult
from vmoe_inform.evaluation.suites._transfer import both_splits, hit_accuracy, hit_scores
from vmoe_inform.evaluation.suites.base import Predictions, RecordSet, Scores, Suite, TrainedModel, test_split
from vmoe_inform.evaluation.suites.registry import register
from vmoe_inform.evaluation.transfer import linear_logits


@register("linear", title="Linear: a linear classifier of the model's features", short_title="linear classifier")
def linear(config: ImageConfig) -> Suite:
    """Logistic regression on the features of all training images."""
    source = test_split(config.data)

    def predict(model: TrainedModel, _: Source) -> Predictions:
        train = model.features(sources.training(config.data))
        test = model.features(source)
        logits = linear_logits(train.values, train.labels, test.values, num_classes=source.num_classes)
        return Predictions(logits, test.labels, test.indices, test.skipped + train.skipped)

    sets = {"linear": RecordSet(lambda: source, predict)}

    def summarize(scores: Mapping[str, Scores]) -> SuiteResult:
        return hit_accuracy(scores["linear"])

    return Suite("linear", sets, hit_scores, summarize, source.origin, lambda: both_splits(config))
