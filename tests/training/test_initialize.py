"""Runs that start from another run's parameters."""

import re

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests import tiny
from vmoe_inform import config as config_lib
from vmoe_inform.nn import models
from vmoe_inform.runs import run as runs
from vmoe_inform.runs.folder import check_same_run, write_config
from vmoe_inform.runs.reading import CheckpointReader
from vmoe_inform.training import initialize, loop, program
from vmoe_inform.training.initialize import adapt, resize_position_embedding


def test_two_by_two_positions_become_four_by_four():
    """Pixel i of four lies at (i + 1/2) / 2 - 1/2 of two: -1/4, 1/4, 3/4, 5/4; outside the ends are repeated.

    So the weights of the second are 0, 1/4, 3/4, 1 along each axis, and of the values 0, 4; 8, 12 the rows are as
    below. The class token stays in front.
    """
    embedding = jnp.array([100.0, 0, 4, 8, 12]).reshape(1, 5, 1)
    rows = np.array([[0, 1, 3, 4], [2, 3, 5, 6], [6, 7, 9, 10], [8, 9, 11, 12.0]])
    resized = resize_position_embedding(embedding, num_tokens=17, has_class_token=True)
    np.testing.assert_allclose(resized[0, :, 0], [100, *rows.ravel()], rtol=1e-6)
    without = resize_position_embedding(embedding[:, 1:], num_tokens=16, has_class_token=False)
    np.testing.assert_allclose(without[0, :, 0], rows.ravel(), rtol=1e-6)


def test_positions_of_the_same_size_stay():
    embedding = jax.random.normal(jax.random.key(0), (1, 10, 3))
    resized = resize_position_embedding(embedding, num_tokens=10, has_class_token=True)
    np.testing.assert_array_equal(resized, embedding)


def _config(**overrides) -> config_lib.Config:
    """By default that of tests/training/test_loop.py, with which compiled programs are shared."""
    return config_lib.parse(tiny.config_dict(**({"router": "symphony_vmoe", "train__ema_decay": 0.9} | overrides)))


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """A run that keeps a moving average: its folder, and what evaluation takes of it."""
    folder = tmp_path_factory.mktemp("source")
    loop.train(_config(), folder, stop_at_step=8)
    return folder, runs.load(folder).variables


def _fresh(config):
    built = program.build(config, 20)
    with built.in_use():
        return built, built.initialize()


def test_a_run_starts_with_the_other_runs_averages_and_states(source):
    """The same variables give the same logits."""
    folder, variables = source
    built, fresh = _fresh(_config(seed=1))
    with built.in_use():
        state = initialize.from_run(folder, fresh, built, built.task.config)
    chex.assert_trees_all_equal(state.variables(), variables)
    chex.assert_trees_all_equal(state.variables(averaged=True), variables)
    assert np.any(jax.tree.leaves(state.routing)[0] != jax.tree.leaves(fresh.routing)[0])
    assert int(state.step) == 0
    assert int(state.seed) == 1
    chex.assert_trees_all_equal(state.opt_state, fresh.opt_state)
    jax.tree.map(lambda leaf, shape: chex.assert_equal(leaf.sharding, shape.sharding), state, built.state_shapes)


def test_a_larger_image_and_a_new_head(source):
    """48 px instead of 32: 9 patches instead of 4; behind a tanh layer, the head sees other features."""
    folder, variables = source
    config = _config(model__image_size_px=48, model__representation_size=8)
    built, fresh = _fresh(config)
    with built.in_use():
        state = initialize.from_run(folder, fresh, built, built.task.config)
    params, saved = dict(state.params), dict(variables["params"])
    for name in ("pre_logits", "head"):
        chex.assert_trees_all_equal(params.pop(name), fresh.params[name])
    del saved["head"]
    expected = resize_position_embedding(saved.pop("position_embedding"), num_tokens=10, has_class_token=True)
    np.testing.assert_allclose(params.pop("position_embedding"), expected, rtol=1e-5, atol=1e-6)
    chex.assert_trees_all_equal(params, saved)
    chex.assert_trees_all_equal(state.routing, variables["routing"])


def test_more_experts_are_copies_on_devices_that_share_them(source, warnings):
    folder, variables = source
    built, fresh = _fresh(_config(model__moe__num_experts=8, mesh__expert=2))
    with built.in_use():
        state = initialize.from_run(folder, fresh, built, built.task.config)
    jax.tree.map(lambda leaf, shape: chex.assert_equal(leaf.sharding, shape.sharding), state, built.state_shapes)
    moe, theirs = (params["block_1"]["moe"]["experts"] for params in (state.params, variables["params"]))
    jax.tree.map(
        lambda new, old: np.testing.assert_array_equal(new, np.tile(old, (2, *(1,) * (old.ndim - 1)))), moe, theirs
    )
    chex.assert_trees_all_equal(state.params, state.ema_params)
    chex.assert_trees_all_equal(state.routing, fresh.routing)
    assert warnings == ["block_1: 8 experts are copies of the checkpoint's 4; the router has their rows and columns"]


def test_training_starts_there_and_a_resumed_run_does_not_look_again(source, tmp_path):
    folder, variables = source
    config = _config(train__initial_checkpoint=str(folder))
    started = loop.train(config, tmp_path, stop_at_step=1)
    # The warm-up begins with a learning rate of 0.
    chex.assert_trees_all_equal(started.state.variables(), {**variables, "routing": started.state.routing})
    folder.rename(folder.with_name("elsewhere"))
    try:
        assert loop.train(config, tmp_path, stop_at_step=2).steps_done == 2
        with pytest.raises(FileNotFoundError, match="initial_checkpoint: expected the folder of a run, with"):
            loop.train(config, tmp_path / "new", stop_at_step=1)
    finally:
        folder.with_name("elsewhere").rename(folder)


@pytest.mark.parametrize("theirs", ["same", "other order", "others", "unknown"])
def test_the_head_is_of_the_classes_with_these_names(source, tmp_path, warnings, theirs):
    folder, variables = source
    digits = tuple("0123456789")
    names = {"same": digits, "other order": digits[::-1], "others": ("rain", "sun", *digits[2:]), "unknown": ()}[theirs]
    (tmp_path / "checkpoints").symlink_to(folder / "checkpoints")
    write_config(tmp_path, config_lib.with_class_names(_config(), names))
    built, fresh = _fresh(config_lib.with_class_names(_config(seed=1), digits))
    with built.in_use():
        state = initialize.from_run(tmp_path, fresh, built, built.task.config)
    expected = {
        "same": variables["params"]["head"],
        "other order": jax.tree.map(lambda leaf: leaf[..., ::-1], variables["params"]["head"]),
        "others": fresh.params["head"],
        "unknown": variables["params"]["head"],
    }[theirs]
    chex.assert_trees_all_equal(state.params["head"], expected)
    chex.assert_trees_all_equal(state.params["block_1"], variables["params"]["block_1"])
    assert state.params["head"]["kernel"].sharding == fresh.params["head"]["kernel"].sharding
    said = {
        "others": "head starts anew: the classes of .*missing: 0, 1; unknown: rain, sun",
        "unknown": "no record",
    }
    assert [bool(re.search(said[theirs], line)) for line in warnings] == [True] if theirs in said else not warnings


def _variables(**overrides) -> dict:
    """Shapes of a model's variables; arrays, since nothing here looks at their values."""
    state = program.build(_config(**overrides), 20).state_shapes
    return {"params": state.params, "routing": state.routing}


@pytest.mark.parametrize("classifier", ["token", "gap"])
def test_positions_are_interpolated_with_and_without_a_class_token(classifier):
    saved, fresh = (
        tiny.variables(
            models.from_config(tiny.config_dict(model__classifier=classifier, model__image_size_px=size).model)
        )
        for size in (32, 48)
    )
    found = adapt(7, saved, fresh)["params"].pop("position_embedding")
    first = int(classifier == "token")
    assert found.shape[1] == first + 9
    np.testing.assert_array_equal(found[:, :first], saved["params"]["position_embedding"][:, :first])
    corners = found[0, first:].reshape(3, 3, -1)[::2, ::2].reshape(4, -1)  # those of two by two repeat their ends
    np.testing.assert_allclose(corners, saved["params"]["position_embedding"][0, first:], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"model__hidden_size": 32}, r"params/block_0/attention/key/bias: expected \(2, 16\); received \(2, 8\)"),
        ({"model__patch_size_px": 8}, r"params/patch_embedding/kernel: expected \(8, 8, .*received \(16, 16, "),
        ({"model__classifier": "gap"}, r"class_token: expected None.*position_embedding: expected \(1, 4, 16\); rec"),
        ({"model__num_layers": 3}, r"params/block_2/attention/key/bias: expected \(2, 8\); received None"),
    ],
)
def test_another_model_is_refused(overrides, message):
    if "model__patch_size_px" in overrides:  # the same number of patches, larger
        overrides |= {"model__image_size_px": 16}
    with pytest.raises(ValueError, match=message):
        adapt(7, _variables(), _variables(**overrides))


def test_a_table_of_positions_goes_with_no_other_number_of_them():
    """Positions of a hash layer are not resized, as those of embeddings are."""

    def variables(num_tokens):
        table = jnp.zeros((num_tokens, 4))
        return {"params": {}, "routing": {"block_1": {"moe": {"router": {"hash": {"state": table}}}}}}

    with pytest.raises(
        ValueError, match=r"another model. routing/.*/hash/state: expected \(10, 4\); received \(5, 4\)"
    ):
        adapt(7, variables(5), variables(10))


def test_another_inform_step_starts_with_a_fresh_state():
    """Symphony has no parameters: a run without it can go on with it, and the other way round."""
    plain, symphony = _variables(router="attention_vmoe"), _variables()
    assert adapt(7, plain, symphony)["routing"] == symphony["routing"]
    assert adapt(7, symphony, plain)["routing"] == {}


def test_a_run_does_not_start_from_itself(tmp_path):
    config = _config(train__initial_checkpoint=str(tmp_path / "x" / ".."))
    with pytest.raises(ValueError, match=r"initial_checkpoint: expected the folder of another run than the workdir"):
        check_same_run(tmp_path, config)


def test_a_run_without_a_checkpoint_says_so(source, tmp_path):
    folder, _ = source
    (tmp_path / "config.json").write_text((folder / "config.json").read_text())
    built, fresh = _fresh(_config())
    with pytest.raises(FileNotFoundError, match=r"checkpoint: expected one in .*; received none"):
        initialize.from_run(tmp_path, fresh, built, built.task.config)
    with CheckpointReader(folder) as checkpoints:  # and nothing was written where nothing is to be written
        assert checkpoints.latest_step() == 8
