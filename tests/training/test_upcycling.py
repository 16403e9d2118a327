"""Experts that begin as copies: of a dense model's MLP, or of fewer experts."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests import tiny, tiny_text
from vmoe_inform import config as config_lib
from vmoe_inform import tasks
from vmoe_inform.nn import models
from vmoe_inform.training import initialize
from vmoe_inform.training.upcycling import with_copied_experts

# No token is dropped, in training either: what a dense model does to each is then what the experts do.
ROOMY = {"model__moe__capacity_factor": None, "model__moe__capacity_factor_evaluation": None}


@functools.cache
def _model(router="smoe_top2", experts=4, k=2, layers=(1,), **overrides):
    """A tiny model of images, and random variables of it: made once for all tests."""
    config = tiny.config_dict(
        router,
        model__moe__num_experts=experts,
        model__moe__num_selected_experts=k,
        model__moe__layers=layers,
        **(ROOMY | overrides),
    )
    return _with_variables(models.from_config(config.model))


def _with_variables(model):
    return model, tiny.variables(model)


def _copied(before, after, noise=0.0, seed=0):
    """Variables of two models: random ones of the first, and of the second with copies of the first's experts."""
    (_, saved), (_, fresh) = before, after
    copied = initialize.adapt(0, with_copied_experts(saved, fresh, noise=noise, seed=seed), fresh)
    return saved, {name: tree for name, tree in copied.items() if tree}


def _outputs(of, variables):
    model, _ = of
    inputs = jax.random.normal(jax.random.key(1), model.input_shape(4).shape)
    if model.config.inputs == "tokens":
        inputs = jnp.arange(4 * 8, dtype=jnp.int32).reshape(4, 8) % len(tiny_text.WORDS)
    return jax.jit(lambda variables: model.apply(variables, inputs)[0])(variables)


def _dense():
    return _model(layers="none")


@functools.cache
def _dense_outputs():
    return _outputs(_dense(), _dense()[1])


@pytest.mark.parametrize(
    ("router", "k"),
    [
        ("vmoe@top_experts.renormalize=True", 2),
        ("similarity_vmoe", 3),
        ("smoe_top1@top_experts.renormalize=one", 1),
    ],
)
def test_an_upcycled_model_computes_what_the_dense_one_does(router, k):
    """Whatever a router chooses, its experts are one MLP, and the weights of a token sum to 1."""
    sparse = _model(router, k=k)
    _, after = _copied(_dense(), sparse)
    np.testing.assert_allclose(_outputs(sparse, after), _dense_outputs(), rtol=1e-5, atol=1e-5)


def test_an_upcycled_language_model_computes_what_the_dense_one_does(tmp_path):
    tiny_text.write_corpus(tmp_path)
    dense, sparse = (
        _with_variables(models.from_config(tiny_text.config_dict(tmp_path, model__moe__layers=layers).model))
        for layers in ("none", (1,))
    )
    before, after = _copied(dense, sparse)
    np.testing.assert_allclose(_outputs(sparse, after), _outputs(dense, before), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("router", ["vmoe", "symphony_smoe_top2"])
def test_twice_the_experts_with_twice_the_choices_compute_the_same(router):
    """Both copies of a chosen expert are chosen, each with half of its probability. So V-MoE need not renormalise."""
    shared = {"model__moe__shared_experts": 1}  # stays
    few, many = _model(router, **shared), _model(router, experts=8, k=4, **shared)
    before, after = _copied(few, many)
    np.testing.assert_array_equal(
        after["params"]["block_1"]["moe"]["router"]["linear"]["kernel"],
        jnp.tile(before["params"]["block_1"]["moe"]["router"]["linear"]["kernel"], (1, 2)),
    )
    if router == "vmoe":
        np.testing.assert_allclose(_outputs(many, after), _outputs(few, before), rtol=1e-5, atol=1e-5)
    else:  # the adjacency of experts is learned again
        chex.assert_trees_all_equal(after["routing"], many[1]["routing"])


def test_shared_experts_next_to_copies_of_a_dense_mlp_are_refused():
    with pytest.raises(ValueError, match=r"model.moe.shared_experts: expected 0 where experts are copies .*received 2"):
        _copied(_dense(), _model(model__moe__shared_experts=2))


def test_fewer_experts_are_the_first_ones(warnings):
    before, after = _copied(_model(), _model(experts=3))
    moe, theirs = (tree["params"]["block_1"]["moe"] for tree in (after, before))
    jax.tree.map(lambda new, old: np.testing.assert_array_equal(new, old[:3]), moe["experts"], theirs["experts"])
    np.testing.assert_array_equal(moe["router"]["linear"]["bias"], theirs["router"]["linear"]["bias"][:3])
    assert warnings == ["block_1: 3 experts are copies of the checkpoint's 4; the router has their rows and columns"]


@pytest.mark.parametrize(("experts", "moves"), [(6, True), (32, False)])
def test_a_router_whose_inner_width_goes_by_the_number_of_experts_starts_anew(experts, moves, warnings):
    """X-MoE's width is max(8, E / 2): that of 4 and of 6 experts is 8."""
    many = _model("xmoe", experts=experts)
    before, after = _copied(_model("xmoe"), many)
    found, theirs = (tree["params"]["block_1"]["moe"]["router"]["cosine"] for tree in (after, before))
    if moves:
        np.testing.assert_array_equal(found["expert_embeddings"], theirs["expert_embeddings"][np.arange(6) % 4])
        np.testing.assert_array_equal(found["projection"], theirs["projection"])
    else:
        chex.assert_trees_all_equal(found, many[1]["params"]["block_1"]["moe"]["router"]["cosine"])
    assert [line.endswith("the router starts anew") for line in warnings] == [not moves]


def test_a_block_may_be_upcycled_next_to_one_that_has_experts():
    before, after = _copied(_model(), _model(layers=(0, 1)))
    chex.assert_trees_all_equal(after["params"]["block_1"], before["params"]["block_1"])
    np.testing.assert_array_equal(
        after["params"]["block_0"]["moe"]["experts"]["hidden"]["kernel"],
        jnp.stack([before["params"]["block_0"]["mlp"]["hidden"]["kernel"]] * 4),
    )


def test_noise_makes_copies_differ_by_its_share_of_their_spread():
    dense, sparse = _dense(), _model()
    before, after = _copied(dense, sparse, noise=0.5, seed=3)
    source = before["params"]["block_1"]["mlp"]
    for layer, name in (("hidden", "kernel"), ("output", "bias")):
        added = after["params"]["block_1"]["moe"]["experts"][layer][name] - source[layer][name][None]
        assert len(np.unique(added)) == added.size  # no number twice, neither in two experts
        error = 0.5 / np.sqrt(2 * added.size)  # of a standard deviation
        np.testing.assert_allclose(jnp.std(added) / jnp.std(source[layer][name]), 0.5, atol=4 * error)
    chex.assert_trees_all_equal(_copied(dense, sparse, noise=0.5, seed=3)[1], after)
    other = _copied(dense, sparse, noise=0.5, seed=4)[1]["params"]["block_1"]["moe"]["experts"]["hidden"]["kernel"]
    assert np.all(other != after["params"]["block_1"]["moe"]["experts"]["hidden"]["kernel"])


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"model__mlp_size": 64}, r"block_1/mlp/hidden/bias: expected None; received \(32,\)"),
        ({"model__classifier": "gap"}, r"params/class_token: expected None"),
    ],
)
def test_experts_of_another_model_are_refused(overrides, message):
    with pytest.raises(ValueError, match=message):
        _copied(_dense(), _model(**overrides))


def test_another_score_step_is_refused():
    with pytest.raises(ValueError, match=r"router/cosine/.*: expected .*router/linear/bias: expected None; received"):
        _copied(_model(), _model("xmoe", experts=8))


def test_noise_is_for_copies():
    model = _model()
    with pytest.raises(ValueError, match=r"train.upcycling_noise: expected 0 where no expert is a copy; received 0.1"):
        _copied(model, model, noise=0.1)
    with pytest.raises(ValueError, match=r"train.upcycling_noise: expected 0 without train.initial_checkpoint; rec"):
        config_lib.parse(tiny.config_dict(train__upcycling_noise=0.1))


def test_a_training_step_begins_with_the_loss_of_the_dense_model():
    """With room for every token. V-MoE's weights do not sum to 1, and the loss is another one."""
    random = np.random.default_rng(0)
    batch = {"image": random.integers(0, 256, (16, 32, 32, 3), np.uint8), "label": np.arange(16, dtype=np.int32) % 10}
    before = _loss(_dense()[1], batch, layers="none")
    assert before > 0.1
    for router, is_equal in (("smoe_top2", True), ("vmoe", False)):
        _, variables = _copied(_dense(), _model(router, layers=(0, 1)))
        after = _loss(variables, batch, router=router, layers=(0, 1))
        assert (abs(after / before - 1) < 1e-5) == is_equal


def _loss(variables, batch, *, layers, router="smoe_top2"):
    """What a training step minimises, without auxiliary losses."""
    config = config_lib.parse(tiny.config_dict(router, model__moe__layers=layers, **ROOMY))
    task, model = tasks.from_config(config), models.from_config(config.model)
    key = jax.random.key(0)

    def loss(variables, batch):
        prepared = task.prepare((key, key, key), batch)
        outputs, aux = model.apply(variables, prepared["inputs"], train=True, rngs={"routing": key, "dropout": key})
        return task.loss(outputs, aux, prepared)[0]

    return float(jax.jit(loss)(variables, batch))
