"""Writers by name: what a config may ask for, and a writer of one's own."""

from importlib.machinery import ModuleSpec

import pytest

from tests import tiny
from vmoe_inform import config as config_lib
from vmoe_inform.registry import Registry
from vmoe_inform.training import loop, metrics_logger, writers
from vmoe_inform.training.writers import base


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (("jsonl", "tensorbord"), r"train.writers: expected one of jsonl, .*tensorboard.*; received 'tensorbord'"),
        (("jsonl", "jsonl"), "train.writers: expected each writer once; received"),
        (("tensorboard",), "train.writers: expected 'jsonl' among them, which a run that resumes reads; received"),
    ],
)
def test_bad_names_are_one_clear_error_before_training(tmp_path, names, message):
    with pytest.raises(ValueError, match=message):
        loop.train(config_lib.parse(tiny.config_dict(train__writers=names)), tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("name", "found"), [("wandb", None), ("mlflow", None), ("wandb", ModuleSpec("wandb", None))])
def test_a_missing_package_is_one_clear_error_before_training(tmp_path, monkeypatch, name, found):
    """Also where a folder has the package's name, such as the one that W&B writes."""
    monkeypatch.setattr(base.importlib.util, "find_spec", lambda package: found)
    message = rf"train.writers: expected the package {name} for '{name}' \(pip install 'vmoe-inform\[{name}\]'\)"
    with pytest.raises(ValueError, match=message):
        loop.train(config_lib.parse(tiny.config_dict(train__writers=("jsonl", name))), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_writer_that_does_not_write_is_found_before_training():
    """And not at the first metrics, where a failing writer is only logged."""

    class Mute(base.Writer):
        def __init__(self, opening):
            pass

        def close(self):
            pass

    with pytest.raises(TypeError, match=r"abstract method '?write'?"):
        Mute(None)


def test_a_writer_of_ones_own(tmp_path, monkeypatch, caplog):
    """One class and one line; that it fails does not keep the others from writing."""
    registry: Registry[type[base.Writer]] = Registry("writer")
    for name in ("jsonl", "tensorboard"):
        registry.add(name, base.WRITERS[name])
    for module in (base, metrics_logger):
        monkeypatch.setattr(module, "WRITERS", registry)
    written = []

    @registry.register("mine")
    class Mine(writers.Writer):
        def __init__(self, opening):
            written.append((opening.workdir, opening.start_step, opening.config["seed"]))

        def write(self, step, metrics):
            if step == 2:
                raise RuntimeError("no connection")
            written.append((step, dict(metrics)))

        def close(self):
            written.append("closed")

    names = ("mine", "jsonl")
    with metrics_logger.MetricsLogger(tmp_path, names, start_step=0, config={"seed": 3}) as logger:
        for step in (1, 2, 3):
            logger.log(step, {"loss": step}, prefix="train")
    assert written == [(tmp_path, 0, 3), (1, {"train/loss": 1.0}), (3, {"train/loss": 3.0}), "closed"]
    assert "log (mine): no connection; training continues: metrics are lost until it works" in caplog.text
    assert (tmp_path / "metrics.jsonl").read_text().count("\n") == 3
