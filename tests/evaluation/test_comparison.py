"""Two models, of which each record's answers are known, compared on all suites of images."""

import numpy as np
import pytest

from vmoe_inform.evaluation import comparison, suites
from vmoe_inform.evaluation.comparison import Comparison, SuiteComparison
from vmoe_inform.evaluation.paired import Difference
from vmoe_inform.evaluation.results import Data
from vmoe_inform.evaluation.suites.base import AttackedPredictions, Features
from vmoe_inform.evaluation.units import Unit
from vmoe_inform.storage import DamagedFileError

from . import imagenet_sample as sample

SUITES = ("clean", "real", "v2", "c", "r", "a", "sketch", "o", "fgsm", "linear", "fewshot")


class Model:
    """What a model may say that knows nothing, decided by the records' names and a seed."""

    def __init__(self, seed):
        self.seed = seed

    def predict(self, source):
        return sample.predictions(sample.logits_by_name(source, self.seed), sample.labels_of(source))

    def predict_attacked(self, source, attack):
        found = self.predict(source)
        return AttackedPredictions(**vars(found), without_gradient=np.zeros(len(found.labels), bool))

    def features(self, source):
        found = self.predict(source)
        return Features(found.logits, found.labels, found.indices, found.skipped)

    def scores(self, suite):
        return {name: suite.score(name, each.predict(self, each.load())) for name, each in suite.sets.items()}


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    directory = tmp_path_factory.mktemp("imagenet")
    sample.write(directory)
    return sample.config(directory, shots=(1,))


@pytest.mark.parametrize("name", SUITES)
def test_a_comparison_has_the_metrics_of_both_results(config, name):
    suite = suites.load(name, config)
    before, after = Model(1).scores(suite), Model(2).scores(suite)
    found = comparison.differences(suite, Unit.all_of(suite), before, after)
    assert next(iter(found)) == suite.headline
    for metric, difference in found.items():
        assert difference.before == pytest.approx(suite.result(before).metrics[metric], abs=1e-7)
        assert difference.after == pytest.approx(suite.result(after).metrics[metric], abs=1e-7)
        assert difference.low <= difference.value <= difference.high
    assert (found[suite.headline].gained is None) == (name in ("c", "o"))  # all others are shares of right answers


def test_sets_of_the_same_images_are_drawn_together(config):
    """The corrupted versions of an image are no independent images: the interval is over the twelve of them."""
    suite = suites.load("c", config)
    before = Model(1).scores(suite)
    after = {name: {**own, "hit": own["index"] < 6} for name, own in before.items()}
    found = comparison.differences(suite, Unit.all_of(suite), before, after)["mean_top1"]
    assert found.count == 12
    hits = np.mean([own["hit"] for name, own in before.items() if name != "clean"], axis=0)
    changes = (np.arange(12) < 6) - hits
    error = changes.std(ddof=1) / np.sqrt(12)
    assert found.high - found.value == pytest.approx(2.20099 * error, rel=1e-5)  # t of 11 degrees of freedom


def test_comparisons_are_read_as_they_were_written(tmp_path):
    difference = Difference(12, 0.5, 0.75, -0.1, 0.6, 0.25, 4, 1)
    written = Comparison(
        8,
        "0123456789abcdef",
        {"model.router.inform": "similarity"},
        {"clean": SuiteComparison(Data("x", "y"), {"top1": difference})},
    )
    comparison.write(tmp_path / "comparison.json", written, within=tmp_path)
    assert comparison.read(tmp_path / "comparison.json", within=tmp_path) == written
    text = (tmp_path / "comparison.json").read_text()
    (tmp_path / "comparison.json").write_text(text.replace("0.25", "2.5"))
    with pytest.raises(DamagedFileError, match=r"top1\.p_value: 2.5 in place of float >= 0 and <= 1"):
        comparison.read(tmp_path / "comparison.json", within=tmp_path)
