"""A run is found without being loaded, and loaded from the checkpoint that was asked for."""

import json
import pathlib
import shutil
import zipfile

import chex
import jax
import numpy as np
import pytest

from vmoe_inform.config import identity
from vmoe_inform.nn import models
from vmoe_inform.runs import run as runs
from vmoe_inform.runs.checkpoint_path import CheckpointPath
from vmoe_inform.runs.folder import hash_by_older_versions, read_config
from vmoe_inform.sharding.mesh import make_mesh

GOLDEN = pathlib.Path(__file__).parents[1] / "golden" / "checkpoint_of_23f955b.zip"


@pytest.fixture(scope="module")
def golden(tmp_path_factory):
    """Two steps of a tiny run with a moving average and Symphony's state, by an older version."""
    folder = tmp_path_factory.mktemp("runs") / "golden"
    with zipfile.ZipFile(GOLDEN) as archive:
        archive.extractall(folder)
    return folder


def test_a_run_is_found_without_reading_a_checkpoint(golden, tmp_path):
    shutil.copytree(golden, tmp_path / "run")
    for path in (tmp_path / "run" / "checkpoints" / "2" / "state").glob("d/*"):
        path.write_bytes(b"")
    saved = runs.find(tmp_path / "run", here={"data.num_threads": 3})
    assert (saved.name, saved.folder, saved.step, saved.kept_steps) == ("run", tmp_path / "run", 2, (2,))
    assert saved.path == CheckpointPath(tmp_path / "run")  # the newest, whichever that is
    assert saved.recorded == read_config(golden)
    assert saved.config.data.num_threads == 3 != saved.recorded.data.num_threads
    assert saved.config_hash == identity.config_hash(read_config(golden))  # what differs here makes no other run of it
    assert saved.older_hash == hash_by_older_versions(golden)
    with pytest.raises(ValueError, match=r"checkpoint 2 in .*: expected whole files"):
        saved.load()


def test_a_loaded_run_says_what_it_is_and_where_it_is_from(golden):
    run = runs.load(str(golden), name="mine")
    assert (run.name, run.folder, run.step, run.class_names) == ("mine", golden, 2, ())
    assert run.config == read_config(golden)
    assert set(run.variables) == {"params", "routing"}
    assert run.mesh.size == jax.device_count()
    chex.assert_trees_all_equal_shapes(
        run.variables, jax.eval_shape(lambda: models.initialize(run.model, jax.random.key(0)))
    )
    size = run.config.model.image_size_px
    images = jax.ShapeDtypeStruct((run.config.model.moe.group_size_sequences, size, size, 3), np.float32)
    logits, _ = jax.eval_shape(lambda shown: run.model.apply(run.variables, shown, train=False), images)
    assert logits.shape == (images.shape[0], run.config.model.num_classes)


def test_a_checkpoint_is_loaded_onto_the_mesh_that_is_asked_for(golden):
    saved = runs.find(golden).at(2)
    assert saved.path == CheckpointPath(golden, 2)
    one = saved.load(make_mesh(1, 1, jax.devices()[:1]))
    assert {leaf.sharding.mesh.size for leaf in jax.tree.leaves(one.variables)} == {1}
    chex.assert_trees_all_equal(jax.device_get(one.variables), jax.device_get(saved.load().variables))


def test_routing_states_are_those_of_all_checkpoints(golden):
    (step,), (state,) = zip(*runs.find(golden).routing_states().items(), strict=True)
    assert step == 2
    chex.assert_trees_all_equal(state, jax.device_get(runs.load(golden).variables["routing"]))


def test_the_newest_intact_checkpoint_stands_in_only_where_no_step_is_named(golden, tmp_path, warnings):
    shutil.copytree(golden, tmp_path, dirs_exist_ok=True)
    shutil.copytree(tmp_path / "checkpoints" / "2", tmp_path / "checkpoints" / "3")  # says that it is of step 2
    assert runs.find(tmp_path).step == 3
    assert runs.load(tmp_path).step == 2
    assert any("taking checkpoint 2 instead" in line for line in warnings)
    for refused in (lambda: runs.load(tmp_path, 3), lambda: runs.find(tmp_path).load()):
        with pytest.raises(ValueError, match=r"checkpoint 3 in .*: expected whole files .* as if its folder"):
            refused()


def test_what_is_not_there_is_said(golden, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"workdir: expected a run with config.json"):
        runs.find(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"checkpoint: expected one of step 5 in .*; received those of 2$"):
        runs.find(golden, 5)
    (tmp_path / "config.json").write_text(json.dumps(json.loads((golden / "config.json").read_text())))
    with pytest.raises(FileNotFoundError, match=r"checkpoint: expected one in"):
        runs.find(tmp_path)
    with pytest.raises(ValueError, match=r"^data: expected one of the keys .*; received 'folder'"):
        runs.find(golden, here={"data.folder": "/data"})
