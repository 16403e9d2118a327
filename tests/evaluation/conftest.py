"""The sample of ImageNet, and an evaluation of it that nothing interrupts."""

import pytest

from tests.evaluation.sample_evaluations import NUM_SETS, CountingPredictor, evaluate_sample

from . import imagenet_sample as sample


@pytest.fixture(scope="session")
def directory(tmp_path_factory):
    directory = tmp_path_factory.mktemp("imagenet")
    sample.write(directory)
    return directory


@pytest.fixture(scope="session")
def whole(directory, tmp_path_factory):
    """An evaluation that nothing interrupts: its folder, results and lines."""
    workdir, predictor = tmp_path_factory.mktemp("whole"), CountingPredictor()
    results, lines = evaluate_sample(workdir, sample.config(directory), predictor)
    assert len(predictor.predicted) == NUM_SETS  # the clean images too are predicted once
    (workers,) = set(predictor.workers)  # of all sets
    assert workers is not None
    assert predictor.task._workers is None
    return workdir, results, lines
