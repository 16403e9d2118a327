"""MoE layers with each way to move tokens: what auto picks, dropout in experts, and one device against eight."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from absl import logging

from tests import tiny
from vmoe_inform import config as config_lib
from vmoe_inform.nn.mlp import Mlp, biases_of_blocks
from vmoe_inform.nn.moe import MoeLayer
from vmoe_inform.nn.router import Surroundings
from vmoe_inform.performance import costs
from vmoe_inform.sharding.mesh import make_mesh
from vmoe_inform.training import program as program_lib

IMAGES, TOKENS = 8, 5


def make_layer(**moe) -> MoeLayer:
    config = tiny.config_dict().model
    config.router.noise_std, config.router.losses = 0.0, ("importance",)
    config.moe.group_size_sequences = 1
    config.moe.update(moe)
    # Matrices of 2^16 entries, from which on a CPU works on blocks of rows
    config.hidden_size, config.mlp_size = 128, 512
    return MoeLayer(config_lib.parse_model(config))


def make_tokens() -> jax.Array:
    return jnp.asarray(np.random.default_rng(0).normal(size=(IMAGES, TOKENS, 128)), jnp.float32)


@pytest.fixture(scope="module")
def variables():
    layer = make_layer(dispatch="gather")
    return jax.jit(lambda key: layer.init(key, make_tokens(), Surroundings(), train=False))(jax.random.key(0))


def outputs(layer, variables, tokens, *, train=False, seed=1):
    return jax.jit(lambda variables, tokens, key: layer.apply(
        variables, tokens, Surroundings(), train=train, rngs={"dropout": key}
    )[0])(variables, tokens, jax.random.key(seed))  # fmt: skip


def test_auto_says_what_it_picks_and_why(variables, caplog):
    tokens = make_tokens()
    logging.set_verbosity(logging.INFO)
    with caplog.at_level("INFO"):
        # Evaluation has four times the slots it needs, but at most one for each token: 4 experts x 8, of 5 x 2 choices
        by_itself = outputs(make_layer(dispatch="auto"), variables, tokens)
    assert "dispatch 'auto' is 'ragged': 4 x 8 slots for 10 assignments of a group, 3.20 times as many" in caplog.text
    by_gather = outputs(make_layer(dispatch="gather"), variables, tokens)
    np.testing.assert_allclose(by_itself, by_gather, atol=1e-5)
    assert np.abs(by_gather).max() > 0.1


def test_shared_experts_add_what_their_mlps_give_every_token(variables):
    layer, tokens = make_layer(dispatch="gather", shared_experts=2), make_tokens()
    shapes = jax.eval_shape(lambda key: layer.init(key, tokens, Surroundings(), train=False), jax.random.key(0))
    random = np.random.default_rng(1)
    shared = jax.tree.map(
        lambda leaf: jnp.asarray(0.1 * random.normal(size=leaf.shape), jnp.float32), shapes["params"]["shared"]
    )
    assert shared["hidden"]["kernel"].shape == (2, 128, 512)
    added = outputs(layer, {"params": {**variables["params"], "shared": shared}}, tokens)
    routed = outputs(make_layer(dispatch="gather"), variables, tokens)
    mlp = Mlp(512)
    each = [mlp.apply({"params": jax.tree.map(lambda leaf, i=i: leaf[i], shared)}, tokens, train=False) for i in (0, 1)]
    np.testing.assert_allclose(added, routed + each[0] + each[1], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("dispatch", ["ragged", "gather"])
def test_experts_dropout_differs_on_every_device_and_is_off_in_evaluation(variables, dispatch):
    """The same image on each of eight devices: whatever differs is the dropout."""
    layer = make_layer(dispatch=dispatch, expert_dropout_rate=0.5, capacity_factor=4.0)
    tokens = jnp.broadcast_to(make_tokens()[:1], (IMAGES, TOKENS, 128))
    with jax.set_mesh(make_mesh(8, 1)):
        trained = np.asarray(outputs(layer, variables, tokens, train=True))
        again = np.asarray(outputs(layer, variables, tokens, train=True, seed=2))
        evaluated = np.asarray(outputs(layer, variables, tokens))
    assert all(np.abs(trained[i] - trained[j]).max() > 0.01 for i in range(IMAGES) for j in range(i))
    assert np.abs(trained - again).max() > 0.01
    np.testing.assert_allclose(evaluated, np.broadcast_to(evaluated[:1], evaluated.shape), atol=1e-6)
    np.testing.assert_allclose(
        evaluated, outputs(make_layer(dispatch=dispatch), variables, tokens), atol=1e-5
    )  # a layer without dropout


def make_program(num_devices, **overrides) -> program_lib.Program:
    # One block, whose experts get as many tokens as come
    shape = {"model__num_layers": 1, "model__moe__layers": (0,), "model__moe__capacity_factor": 4.0}
    config = config_lib.parse(tiny.config_dict(**shape, **overrides))
    return program_lib.build(config, 20, jax.devices()[:num_devices])


def one_step(program, start):
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (16, 32, 32, 3), np.uint8)
    batch = {"image": images, "label": random.integers(0, 10, 16).astype(np.int32)}
    with program.in_use():
        state = jax.device_put(start, jax.tree.map(lambda leaf: leaf.sharding, program.state_shapes))
        compiled = program.train_step.lower(program.state_shapes, program.batch_shapes).compile()
        state, metrics = compiled(state, program.to_devices(batch))
    return jax.device_get(state.opt_state), jax.device_get(metrics), costs.of(compiled).collectives


def assert_nothing_else_than_sums(collectives):
    """On CPUs the probabilities of all images go to everyone three times at most, as top_k is not cut up there."""
    num_bytes = dict(collectives).pop("all-gather", (0, 0))[1]
    assert num_bytes <= 3 * 16 * TOKENS * 4 * 4  # images, tokens, experts, bytes; tokens have 16 numbers
    assert set(collectives) - {"all-gather"} == {"all-reduce"}


def test_eight_devices_sort_their_own_tokens():
    """With ragged dispatch: loss and gradients (Adam's first moments) of one device, and only gradients are summed."""
    one = make_program(1, model__moe__dispatch="ragged")
    with one.in_use():
        start = jax.device_get(one.initialize())
    # The head begins at zero, with which no gradient would reach the experts.
    start.params["head"]["kernel"] = np.random.default_rng(1).normal(size=start.params["head"]["kernel"].shape) * 0.1
    start.params["head"]["kernel"] = start.params["head"]["kernel"].astype(np.float32)
    moments, metrics, alone = one_step(one, start)
    other_moments, other_metrics, together = one_step(make_program(8, model__moe__dispatch="ragged"), start)
    assert set(alone) <= {"all-reduce"}
    assert_nothing_else_than_sums(together)
    chex.assert_trees_all_close(other_metrics, metrics, rtol=1e-5, atol=1e-6)
    chex.assert_trees_all_close(other_moments, moments, rtol=1e-4, atol=1e-6)


def test_experts_on_four_of_eight_devices_each_get_their_rows_by_one_all_to_all():
    program = make_program(8, mesh__expert=4, model__moe__dispatch="gather")
    with program.in_use():
        compiled = program.train_step.lower(program.state_shapes, program.batch_shapes).compile()
    collectives = costs.of(compiled).collectives
    assert collectives["all-to-all"][0] == 4  # to the experts and back, and the gradients the same way
    del collectives["all-to-all"]
    assert_nothing_else_than_sums(collectives)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            {"model__moe__dispatch": "fastest"},
            r"model.moe.dispatch: expected one of auto, .*ragged.*; received 'fastest'",
        ),
        (
            {"model__moe__dispatch": "ragged", "mesh__expert": 2},
            r"mesh.expert: expected 1 with model.moe.dispatch = 'ragged', which needs all experts .*; received 2",
        ),
    ],
)
def test_what_the_config_refuses(overrides, message):
    with pytest.raises(ValueError, match=message):
        config_lib.parse(tiny.config_dict(**overrides))


def test_the_number_of_experts_of_a_token_is_a_metric_where_it_is_not_fixed():
    """So are loads then shares of all choices. Padding does not count: of the first four tokens of each image."""
    config = tiny.config_dict("remoe", model__moe__group_size_sequences=1).model
    layer = MoeLayer(config_lib.parse_model(config))
    tokens = jnp.asarray(np.random.default_rng(0).normal(size=(IMAGES, TOKENS, 16)), jnp.float32)
    real = jnp.broadcast_to(jnp.arange(TOKENS) < 4, (IMAGES, TOKENS))

    @jax.jit
    def apply(key):
        variables = layer.init(key, tokens, Surroundings(), train=False)
        metrics = layer.apply(variables, tokens, Surroundings(), train=False, real=real)[1]
        return metrics["experts_per_token"], metrics["load"], variables["params"]["router"]["relu"]["kernel"]

    found, load, kernel = apply(jax.random.key(0))
    chosen = np.asarray(tokens)[:, :4] @ kernel > 0
    assert found == pytest.approx(np.mean(np.sum(chosen, axis=-1)))
    np.testing.assert_allclose(load, np.sum(chosen, axis=(0, 1)) / np.sum(chosen), rtol=1e-5)
    fixed = MoeLayer(config_lib.parse_model(tiny.config_dict(model__moe__group_size_sequences=1).model))

    def names(key):
        return dict.fromkeys(fixed.init_with_output(key, tokens, Surroundings(), train=False)[0][1], ())

    assert "experts_per_token" not in jax.eval_shape(names, jax.random.key(0))


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_biases_row_by_row_are_those_of_the_blocks(dtype):
    bias = jnp.asarray(np.random.default_rng(0).integers(-8, 8, (3, 6)), dtype)  # small integers: exact in both types
    expert_of_block = jnp.array([0, 0, 2, 3])  # the last block is of no expert
    gradient = jnp.asarray(np.random.default_rng(1).integers(-8, 8, (4, 5, 6)), dtype)

    def both(by_row):
        def rows(bias):
            biases = biases_of_blocks(bias, expert_of_block, 5, by_row=by_row)
            return jnp.broadcast_to(biases, gradient.shape)

        found, pull_back = jax.vjp(rows, bias)
        return found, pull_back(gradient)[0]

    by_row, by_block = both(True), both(False)
    chex.assert_trees_all_equal(by_row, by_block)
    np.testing.assert_array_equal(
        by_row[0], jnp.concatenate([bias, jnp.zeros_like(bias[:1])])[expert_of_block][:, None].repeat(5, 1)
    )
    np.testing.assert_array_equal(
        by_row[1], jnp.stack([gradient[:2].sum((0, 1)), jnp.zeros(6, dtype), gradient[2].sum(0)])
    )
