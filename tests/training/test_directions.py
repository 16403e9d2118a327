"""Adafactor, Lion, and first moments of 16 bits: golden steps, their state, and where it lies on a mesh."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests import tiny
from vmoe_inform import config as config_lib
from vmoe_inform.sharding.mesh import make_mesh
from vmoe_inform.sharding.rules import path_name, tree_shardings
from vmoe_inform.training.optimizer import make_optimizer

PLAIN = {"schedule": "constant", "warmup_steps": 0, "learning_rate": 0.5, "weight_decay": 0.0}


def optimizer_of(**overrides):
    fields = {f"optimizer__{name}": value for name, value in (PLAIN | overrides).items()}
    config = config_lib.parse(tiny.config_dict(**fields, optimizer__gradient_clip_norm=None))
    return make_optimizer(config.optimizer, 20)


def run(optimizer, params, gradients, state=None):
    """The updates of each step, and the last state."""

    @jax.jit
    def steps(params, gradients, state):
        found = []
        for given in gradients:
            updates, state = optimizer.update(given, state, params)
            found.append(updates)
        return found, state

    return steps(params, gradients, jax.jit(optimizer.init)(params) if state is None else state)


def random(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def test_adafactor_takes_the_sign_where_rows_and_columns_explain_the_squares():
    """g_ij^2 = r_i c_j, so that the estimate is exact, and the first step has no past: g / |g|, times the rate."""
    rows, columns = 10.0 ** random(40, 1), 10.0 ** random(1, 48, seed=1)
    gradients = {"mlp": {"kernel": rows * columns * np.sign(random(40, 48, seed=2)), "bias": random(48)}}
    params = jax.tree.map(np.ones_like, gradients)
    (updates,), state = run(optimizer_of(name="adafactor", beta1=0.0), params, [gradients])
    chex.assert_trees_all_close(updates, jax.tree.map(lambda g: -0.5 * np.sign(g), gradients), rtol=1e-4)
    # 40 + 48 numbers for the kernel, and placeholders
    sizes = {path_name(path): leaf.size for path, leaf in jax.tree_util.tree_leaves_with_path(state)}
    assert sum(size for path, size in sizes.items() if path.endswith("mlp/kernel")) == 40 + 48 + 1


def test_adafactor_forgets_by_a_decay_that_rises_to_beta2():
    """Of a bias, from gradients 1, 1 and 4: decays 1 - 2^-0.8 = 0.43, then min(1 - 3^-0.8, 0.5) = 0.5."""
    params = {"bias": np.ones(1, np.float32)}
    gradients = [{"bias": np.full(1, value, np.float32)} for value in (1.0, 1.0, 4.0)]
    updates, _ = run(optimizer_of(name="adafactor", beta1=0.0, beta2=0.5), params, gradients)
    # Second moments 1, 1 and 0.5 + 0.5 * 16 = 8.5; 4 / sqrt(8.5) = 1.37 has a root mean square above 1.
    np.testing.assert_allclose([step["bias"][0] for step in updates], [-0.5, -0.5, -0.5], rtol=1e-5)
    updates, _ = run(optimizer_of(name="adafactor", beta1=0.5), params, gradients[:2])
    np.testing.assert_allclose([step["bias"][0] for step in updates], [-0.25, -0.375], rtol=1e-5)  # the mean's


def test_adafactor_treats_every_expert_as_a_matrix_of_its_own():
    """More experts than rows, and gradients of other sizes: over the bank squares would be averaged."""
    banks = [random(70, 32, 40, seed=seed) * 10.0 ** random(70, 1, 1, seed=9) for seed in (0, 1)]
    whole = [{"block_1": {"moe": {"experts": {"hidden": {"kernel": bank}}}}} for bank in banks]
    apart = [{f"expert_{i}": bank[i] for i in (0, 69)} for bank in banks]
    optimizer = optimizer_of(name="adafactor", beta1=0.0)
    found = [run(optimizer, jax.tree.map(np.ones_like, steps[0]), steps)[0] for steps in (whole, apart)]
    for step, alone in zip(*found, strict=True):
        kernel = step["block_1"]["moe"]["experts"]["hidden"]["kernel"]
        chex.assert_trees_all_close({f"expert_{i}": kernel[i] for i in (0, 69)}, alone, rtol=1e-5)


def test_lion_takes_the_sign_of_a_mean():
    """From 1, then -0.05: 0.9 * (0.01 * 1) + 0.1 * -0.05 = 0.004 still points to the first; then -1 does not."""
    gradients = [{"bias": np.full(1, value, np.float32)} for value in (1.0, -0.05, -1.0)]
    updates, state = run(optimizer_of(name="lion", beta2=0.99), {"bias": np.ones(1, np.float32)}, gradients)
    np.testing.assert_allclose([step["bias"][0] for step in updates], [-0.5, -0.5, 0.5])
    moments = [leaf for leaf in jax.tree.leaves(state) if leaf.ndim]
    np.testing.assert_allclose(moments, [[0.01 * (0.99**2 - 0.05 * 0.99 - 1)]], rtol=1e-5)


@pytest.mark.parametrize("name", ["adafactor", "lion"])
def test_weight_decay_is_decoupled(name):
    params = {"a": {"kernel": np.full((32, 32), 2.0, np.float32), "bias": np.ones(2, np.float32)}}
    (updates,), _ = run(optimizer_of(name=name, weight_decay=0.1), params, [jax.tree.map(np.zeros_like, params)])
    np.testing.assert_allclose(updates["a"]["kernel"], -0.5 * 0.1 * 2.0, rtol=1e-6)
    np.testing.assert_array_equal(updates["a"]["bias"], 0.0)


@pytest.mark.parametrize(
    ("name", "moment"), [("adamw", "mu"), ("adam", "mu"), ("sgd", "trace"), ("lion", "mu"), ("adafactor", "ema")]
)
def test_first_moments_of_16_bits_change_no_step_by_more_than_they_round(name, moment):
    params = {"mlp": {"kernel": random(32, 32)}}
    gradients = [{"mlp": {"kernel": random(32, 32, seed=seed)}} for seed in (1, 2)]
    found = {dtype: run(optimizer_of(name=name, first_moment_dtype=dtype), params, gradients)
             for dtype in ("float32", "bfloat16")}  # fmt: skip
    for dtype, (_, state) in found.items():
        for path, leaf in jax.tree_util.tree_leaves_with_path(state):
            is_first = path_name(path).endswith(f"{moment}/mlp/kernel")
            assert leaf.dtype == (dtype if is_first else jnp.int32 if leaf.ndim == 0 else "float32"), path
    (first, second), (rounded_first, rounded_second) = found["float32"][0], found["bfloat16"][0]
    chex.assert_trees_all_equal(rounded_first, first)  # rounded is what is kept for the next step
    differences = np.abs(rounded_second["mlp"]["kernel"] - second["mlp"]["kernel"])
    if name == "lion":  # signs of means that are nearly 0
        assert np.mean(differences > 0) < 0.01
    else:
        assert 0 < np.max(differences) < 0.02 * np.max(np.abs(second["mlp"]["kernel"]))


def test_adafactor_on_a_mesh_keeps_what_experts_need_with_them():
    """Steps as on one device. Moments of rows and columns are small, and whole on every device but for the experts'."""
    shapes = {
        "block_0/mlp/hidden/kernel": (32, 36),
        "block_1/moe/experts/hidden/kernel": (4, 32, 36),
        "block_1/moe/experts/hidden/bias": (4, 36),
        "block_1/moe/shared/hidden/kernel": (2, 32, 36),
    }
    params, *gradients = ({name: random(*shape, seed=seed) for name, shape in shapes.items()} for seed in (0, 1, 2))
    optimizer = optimizer_of(name="adafactor", first_moment_dtype="bfloat16", weight_decay=0.1)
    alone, _ = run(optimizer, params, gradients)
    mesh = make_mesh(1, 2, jax.devices()[:8], fsdp=4)

    def place(tree, prefix):
        return jax.device_put(tree, tree_shardings({prefix: tree}, mesh)[prefix])

    state = place(jax.jit(optimizer.init)(params), "opt_state")
    specs = {path_name(path): leaf.sharding.spec for path, leaf in jax.tree_util.tree_leaves_with_path(state)}
    of_rows = {path.partition("/v_row/")[2]: spec for path, spec in specs.items() if "/v_row/" in path}
    assert of_rows == {name: jax.P("expert") if "/experts/" in name else jax.P() for name in shapes}
    assert {spec for path, spec in specs.items() if path.endswith("ema/block_1/moe/experts/hidden/kernel")} == {
        jax.P("expert", "fsdp")
    }
    placed = [place(tree, "params") for tree in (params, *gradients)]
    together, _ = run(optimizer, placed[0], placed[1:], state)
    chex.assert_trees_all_close(together, alone, rtol=1e-4, atol=1e-6)
