"""The suites fewshot and linear: what they ask of a model, and what they make of it."""

import dataclasses
import gc
import weakref

import jax
import numpy as np
import pytest

from tests import tiny
from vmoe_inform import config as config_lib
from vmoe_inform import tasks
from vmoe_inform.data.sources import ArrayRecords, Source
from vmoe_inform.evaluation import suites
from vmoe_inform.evaluation.predict import Predictor
from vmoe_inform.evaluation.suites.base import Features, NotAvailable
from vmoe_inform.nn import models
from vmoe_inform.sharding.mesh import make_mesh
from vmoe_inform.sharding.watchdog import Watchdog

CONFIG = config_lib.parse(tiny.config_dict(evaluation__shots=(5, 1)))
SKIPPED = 3  # the number of a record that cannot be read, wherever there are enough


class Pixels:
    """A model whose features are the pixels, and that cannot read one of the records."""

    def __init__(self):
        self.asked = []

    def features(self, source):
        self.asked.append(len(source.records))
        kept = [index for index in range(len(source.records)) if index != SKIPPED]
        records = [source.records[index] for index in kept]
        values = np.stack([np.asarray(record["image"], np.float32).ravel() for record in records])
        return Features(values, np.array([record["label"] for record in records]), np.array(kept), 1)


def entry_of(suite, model):
    predictions = {name: own.predict(model, own.load()) for name, own in suite.sets.items()}
    return suite.result({name: suite.score(name, own) for name, own in predictions.items()})


def test_few_shot():
    model = Pixels()
    entry = entry_of(suites.load("fewshot", CONFIG), model)
    assert model.asked == [10 * 5, 364]  # once for all numbers of shots: five images of each digit, and the test split
    assert list(entry.top1_by_shots) == ["1", "5"]
    assert 0.3 < entry.top1_by_shots["1"] < entry.top1_by_shots["5"] == entry.metrics["top1"]
    # Of the share p of the 363 images that were read: sqrt(p (1 - p) / 363) with either of n and n - 1 in it.
    assert entry.standard_errors["top1"] == pytest.approx(
        (entry.metrics["top1"] * (1 - entry.metrics["top1"]) / 363) ** 0.5, rel=0.01
    )
    assert (entry.count, entry.skipped, entry.seed) == (363, 2, 0)
    assert entry == entry_of(suites.load("fewshot", CONFIG), Pixels())


def test_few_shot_keeps_no_model_but_the_last():
    """A suite that is evaluated during training sees a new model each time, with features of many images."""
    suite, first = suites.load("fewshot", CONFIG), Pixels()
    entry_of(suite, first)
    kept = weakref.ref(first)
    del first
    entry_of(suite, Pixels())
    gc.collect()
    assert kept() is None


def test_more_shots_than_images_are_not_available():
    """The digits' training split has 1,433 images, fewer than 150 of some."""
    evaluation = dataclasses.replace(CONFIG.evaluation, shots=(1, 150))
    suite = suites.load("fewshot", dataclasses.replace(CONFIG, evaluation=evaluation))
    with pytest.raises(NotAvailable, match=r"evaluation.shots: expected at most the \d+ training images of class"):
        entry_of(suite, Pixels())


def test_linear_learns_from_all_training_images(monkeypatch):
    model = Pixels()
    entry = entry_of(suites.load("linear", CONFIG), model)
    assert model.asked == [1433, 364]
    assert entry.metrics["top1"] > 0.9  # of the pixels; logistic regression is known to do well here
    assert (set(entry.metrics), set(entry.standard_errors)) == ({"top1"}, {"top1"})


class RecordingWatchdog(Watchdog):
    """Keeps what it is told."""

    def __init__(self):
        super().__init__(None, 0.0)
        self.told = []

    def expect_pause(self):
        self.told.append("pause")

    def finished(self, what):
        self.told.append(what)


def test_features_are_what_the_head_sees():
    config = config_lib.parse(
        tiny.config_dict(model__num_layers=1, model__moe__layers=(), model__representation_size=8)
    )
    model = models.from_config(config.model)
    variables = models.initialize(model, jax.random.key(0))
    head = variables["params"]["head"]
    head["kernel"] = jax.random.normal(jax.random.key(1), head["kernel"].shape)
    watchdog = RecordingWatchdog()
    predictor = Predictor(model, tasks.from_config(config), make_mesh(1, 1, jax.devices()[:1]), watchdog=watchdog)
    images = np.random.default_rng(0).integers(0, 256, (70, 32, 32, 3), np.uint8)
    source = Source(ArrayRecords(images, np.arange(70) % 10), tuple("0123456789"))
    features, predictions = predictor.features(variables, source), predictor.predict(variables, source)
    assert watchdog.told == ["pause", "a batch of evaluation", "a batch of evaluation", "pause"] * 2
    assert features.values.shape == (70, 8)
    assert np.all(np.abs(features.values) < 1)  # behind the tanh
    np.testing.assert_allclose(features.values @ head["kernel"] + head["bias"][None], predictions.logits, atol=1e-5)
    np.testing.assert_array_equal(features.labels, np.arange(70) % 10)
    np.testing.assert_array_equal(features.indices, np.arange(70))
