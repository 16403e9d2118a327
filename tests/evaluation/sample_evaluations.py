"""Evaluations of the sample with a stand-in for the model, which may be killed."""

import dataclasses
import json

import jax
import numpy as np

from vmoe_inform import tasks
from vmoe_inform.config import ImageConfig, VisionModelConfig, identity
from vmoe_inform.evaluation import run
from vmoe_inform.evaluation.evaluator import Evaluator
from vmoe_inform.evaluation.files import EvaluationFiles
from vmoe_inform.evaluation.suites.base import AttackedPredictions
from vmoe_inform.evaluation.work import look
from vmoe_inform.nn import models
from vmoe_inform.runs.checkpoint_path import CheckpointPath
from vmoe_inform.runs.run import Run, SavedRun
from vmoe_inform.sharding.mesh import make_mesh

from . import imagenet_sample as sample

CONFIG = ImageConfig(model=VisionModelConfig(num_classes=10, image_size_px=32, patch_size_px=8))
FINISHED = {
    "checkpoint_step": 8,
    "config_hash": identity.config_hash(CONFIG),
    "model": {"parameters": 1, "router": {"score": "linear", "inform": "none"}},
    "suites": {"a": {"top1": 1.0, "count": 1}},
    "routing": {},
}


def undated(results):
    """Without the times at which suites were evaluated."""
    suites = {name: dataclasses.replace(result, evaluated="") for name, result in results.suites.items()}
    return dataclasses.replace(results, suites=suites, missing={})


def saved_run(folder, config, *, step=8, named=None, here=None, older_hash="older"):
    path = CheckpointPath(folder, named)
    return SavedRun("run", path, step, (step,), config, config if here is None else here, older_hash)


def files_of(folder, step=None):
    return EvaluationFiles(CheckpointPath(folder, step))


def write_results(folder, value):
    files_of(folder).results.write_text(json.dumps(value))


SUITES = ("clean", "c", "r", "a", "o", "v2", "sketch", "real", "fgsm")
# Each of them asks for its own set, once, and all of them for the clean images, once.
NUM_SETS = 1 + 75 + 6


class Killed(BaseException):
    """What ends a process."""


class CountingPredictor:
    """In place of a model: logits by the records' names, and a kill after a number of sets."""

    def __init__(self, sets_to_live=10**6):
        self.sets_to_live = sets_to_live
        self.predicted = []
        self.workers = []

    def predict(self, variables, source):
        if len(self.predicted) == self.sets_to_live:
            raise Killed
        self.predicted.append(source.records.name(0))
        self.workers.append(self.task._workers)
        return sample.predictions(sample.logits_by_name(source, seed=1), sample.labels_of(source))

    def predict_attacked(self, variables, source, attack):
        found = self.predict(variables, source)
        return AttackedPredictions(**vars(found), without_gradient=np.zeros(len(found.labels), bool))

    def predict_with_routing(self, variables, source):
        return self.predict(variables, source), {}, {}


def evaluate_sample(folder, config, predictor, *, suites=SUITES, predictions=None, say=None, **options):
    """As :func:`vmoe_inform.evaluation.run.evaluate` does it, with another predictor; None: with none."""
    lines, saved = [], saved_run(folder, config, **options)
    say = lines.append if say is None else say
    work = look(saved, suites, again=predictions is not None)
    if work.is_left:
        mesh, model = make_mesh(1, 1, jax.devices()[:1]), models.from_config(config.model)
        evaluated = Run("run", folder, saved.step, saved.config, model, {"params": {}}, mesh)
        predictor.task = tasks.from_config(saved.config)
        run.complete(work, Evaluator(evaluated, predictor), predictions=predictions, say=say)
    return run.conclude(work, say=say), lines
