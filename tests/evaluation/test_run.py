"""What is evaluated again, and what is not."""

import dataclasses
import json

import pytest

from vmoe_inform import config as config_lib
from vmoe_inform.config import Config, ModelConfig
from vmoe_inform.evaluation import run

CONFIG = Config(model=ModelConfig(num_classes=10, image_size_px=32, patch_size_px=8))
FINISHED = {
    "checkpoint_step": 8,
    "config_hash": config_lib.config_hash(CONFIG),
    "suites": {"a": {"top1": 1.0, "count": 1}},
    "routing": {},
}


class Restored(Exception):
    """The checkpoint was asked for, which is to say that something is predicted."""


def _evaluate(workdir, suites=("a",), *, config=CONFIG, step=8):
    def restore():
        raise Restored

    place = run.Place(workdir)
    place.folder.mkdir(exist_ok=True)
    place.results.write_text(json.dumps(FINISHED))
    return run.evaluate(place, config, step, suites, restore=restore)


def test_what_is_there_for_this_checkpoint_is_kept(tmp_path):
    assert _evaluate(tmp_path) == FINISHED
    with pytest.raises(Restored):
        _evaluate(tmp_path, ("a", "clean"))


@pytest.mark.parametrize("other", [{"step": 4}, {"config": dataclasses.replace(CONFIG, seed=1)}], ids=str)
def test_results_of_another_checkpoint_are_not_mixed_in(tmp_path, other):
    with pytest.raises(Restored):
        _evaluate(tmp_path, (), **other)  # not even what belongs to no suite
