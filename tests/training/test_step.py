"""The training step: what it optimises, and that devices and accumulation do not change it."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from tests import tiny
from vmoe_inform import config as config_lib
from vmoe_inform.config import presets
from vmoe_inform.data import sources
from vmoe_inform.data.images import augment
from vmoe_inform.data.images.pixels import to_square
from vmoe_inform.nn import models
from vmoe_inform.nn import router as router_lib
from vmoe_inform.nn.step_variables import OBSERVED, update_states
from vmoe_inform.routing import steps
from vmoe_inform.tasks.classification import cross_entropy
from vmoe_inform.training import program as program_lib
from vmoe_inform.training.optimizer import make_optimizer, make_schedule
from vmoe_inform.training.step import split_batch


def _batch(count: int = 16) -> dict[str, np.ndarray]:
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (count, 32, 32, 3), np.uint8)
    return {"image": images, "label": random.integers(0, 10, count).astype(np.int32)}


def _program(num_devices: int = 8, **overrides) -> program_lib.Program:
    return program_lib.build(config_lib.parse(tiny.config_dict(**overrides)), 20, jax.devices()[:num_devices])


def _initialized(program: program_lib.Program):
    with program.in_use():
        return jax.device_get(program.initialize())


def _two_steps(program: program_lib.Program, start):
    """State after two steps from ``start``, and the losses."""
    losses = []
    with program.in_use():
        state = jax.device_put(start, jax.tree.map(lambda leaf: leaf.sharding, program.state_shapes))
        for _ in range(2):
            state, metrics = program.train_step(state, program.to_devices(_batch()))
            losses.append(float(metrics["loss"]))
    return jax.device_get(state), losses


def test_one_device_begins_with_what_eight_begin_with():
    programs = _program(1, router="alternate_vmoe"), _program(router="alternate_vmoe", mesh__expert=4)
    chex.assert_trees_all_close(*map(_initialized, programs), rtol=1e-6)


# What could depend on where an image is: graphs over tokens, states of the whole batch, choices within a group.
# Symphony: tests/sharding/test_meshes.py. That graphs over tokens stay within an image: tests/nn/test_models.py.
@pytest.mark.parametrize(
    "router",
    [
        "switch_expert_choice@switch.over=batch",
        *(pytest.param(router, marks=pytest.mark.slow) for router in ("alternate_vmoe", "stablemoe", "base")),
    ],
)
def test_one_device_equals_eight(router):
    """On 1 device, and on 2 x 4 with sharded experts: the same within float32 reassociation, routing state included.

    Bound: losses 1e-5 relative; parameters 5e-5 absolute, a tenth of one Adam step in the warm-up (2e-3 / 4).
    """
    # A single block compiles faster; alternating needs two.
    shape = {} if router == "alternate_vmoe" else tiny.ONE_BLOCK
    if "expert_choice" in router:  # with all augmentation that looks at other images or draws an image's own noise
        shape = shape | {"train__mixup_alpha": 0.4, "train__cutmix_alpha": 0.4, "data__random_erasing": 0.5}
    one = _program(1, router=router, **shape)
    start = _initialized(one)
    state, losses = _two_steps(one, start)
    other_state, other_losses = _two_steps(_program(router=router, mesh__expert=4, **shape), start)
    np.testing.assert_allclose(other_losses, losses, rtol=1e-5)
    chex.assert_trees_all_close(state.routing, other_state.routing, atol=1e-5)
    chex.assert_trees_all_close(state.params, other_state.params, atol=5e-5)


@pytest.fixture(scope="module")
def digits_batches():
    """Four batches of 16 digits."""
    data = config_lib.parse(tiny.config_dict()).data
    records = sources.load(data, data.train_split).records
    images = np.stack([to_square(records[i]["image"], 32) for i in range(64)])
    labels = np.array([records[i]["label"] for i in range(64)], np.int32)
    return [{"image": images[i : i + 16], "label": labels[i : i + 16]} for i in range(0, 64, 16)]


TRAINED = (
    *(name for name in tiny.SYSTEMS if name != "vmoe"),  # alternate_vmoe has its steps
    "symphony_across_layers_remoe",
    "symphony_oja_loss_free",
    "adaptive_clusters_smoe_top2",
    "eigenbasis_smoe_top2",
)
PAPERS = [name for name in tiny.INFORMED if not name.startswith(tiny.BEYOND_THE_PAPERS)]


def _descent(router: str):
    """Config, model, and one step of descent: from parameters and routing state to these, entropy and norm.

    Descent instead of the run's optimizer, and one block where that is enough, halve the time that compiling takes.
    """
    shape = {**tiny.ONE_BLOCK}
    if router in (
        "alternate_vmoe",
        "symphony_across_layers_remoe",
        "adaptive_clusters_smoe_top2",
    ):  # these need two MoE layers
        shape = {"model__moe__layers": (0, 1)}
    config = config_lib.parse(tiny.config_dict(router, **shape))
    model = models.from_config(config.model)

    def loss_of(params, state, batch, progress):
        images = augment.normalize(batch["image"], config.data)
        (logits, aux), left = model.apply(
            {"params": params, "routing": state},
            images,
            train=True,
            progress=progress,
            mutable=[OBSERVED],
            rngs={"routing": jax.random.key(1)},
        )
        entropy = cross_entropy(logits, jax.nn.one_hot(batch["label"], 10), "softmax")
        return entropy + aux["auxiliary_loss"], (entropy, left.get(OBSERVED, {}))

    def descend(params, state, batch, progress):
        gradients, (entropy, observed) = jax.grad(loss_of, has_aux=True)(params, state, batch, progress)
        state = update_states(config.model.router, params, state, observed, steps.Duration(20))
        norm = optax.tree.norm(gradients)
        return jax.tree.map(lambda p, g: p - 0.1 * g / norm, params, gradients), state, entropy, norm

    return config, model, descend


@pytest.mark.parametrize("router", TRAINED)
def test_every_step_trains_on_digits(router, digits_batches):
    """20 steps of gradient descent: the loss falls, all gradients are finite, and states move as declared."""
    config, model, descend = _descent(router)
    variables = tiny.variables(model)
    params, before = variables["params"], variables.get("routing", {})
    descend = jax.jit(descend)
    losses, state = [], before
    for step in range(20):
        params, state, entropy, norm = descend(params, state, digits_batches[step % 4], step / 20)
        assert np.isfinite(norm)
        losses.append(float(entropy))
    assert np.mean(losses[-4:]) < 0.99 * np.mean(losses[:4])
    updated = {step.name for step in router_lib.variable_steps(config.model.router) if step.update_state is not None}
    for ordinal, block in enumerate(before):
        for name, old in before[block]["moe"]["router"].items():
            if ordinal == 0 and name == "adaptive_clusters":
                continue  # nothing to learn without a layer before
            pairs = zip(*map(jax.tree.leaves, (old, state[block]["moe"]["router"][name])), strict=True)
            assert all(np.array_equal(*pair) for pair in pairs) == (name not in updated)


def test_what_is_trained_has_every_registered_step():
    routers = [_descent(router)[0].model.router for router in TRAINED]
    assert {name for router in routers for name in router.step_names} >= set(steps.all_steps()) - set(steps.LOSS_STEPS)


# The other presets put the same steps together; compiling them all would take minutes.
@pytest.mark.parametrize("router", sorted({*presets.ROUTERS, *PAPERS} - set(TRAINED)))
def test_every_preset_has_gradients_and_keeps_the_form_of_its_state(router, digits_batches):
    _, model, descend = _descent(router)
    variables = jax.eval_shape(functools.partial(models.initialize, model), jax.random.key(0))
    params, state = variables["params"], variables.get("routing", {})
    new_params, new_state, entropy, _ = jax.eval_shape(descend, params, state, digits_batches[0], 0.5)
    chex.assert_trees_all_equal_shapes_and_dtypes((params, state), (new_params, new_state))
    assert entropy.shape == ()


def test_k_grows_over_the_training(digits_batches):
    """With K from 1 to 2 over half of the run, the second choices exist from the quarter on."""
    overrides = {"k_end": 2, "growth_share": 0.5}
    config = tiny.config_dict("smoe_dropout", model__moe__num_selected_experts=1)
    config.model.router.options.frozen.update(overrides)
    model = models.from_config(config_lib.parse(config).model)
    variables = tiny.variables(model)

    @jax.jit
    def trained(progress):
        (_, _), left = model.apply(
            variables, jnp.ones((2, 32, 32, 3)), train=True, progress=progress, mutable=["intermediates", "routing"]
        )
        layer = left["intermediates"]["block_1"]["moe"]
        return layer["weights"], layer["indices"]

    for progress, active in ((0.0, 1), (0.24, 1), (0.26, 2), (1.0, 2)):
        weights, indices = jax.device_get(trained(progress))
        assert indices.shape[-1] == 2
        np.testing.assert_array_equal(indices[..., 1] < 4, active == 2)  # 4 stands for no expert
        np.testing.assert_array_equal(weights[..., 1] > 0, active == 2)
        np.testing.assert_allclose(np.sum(weights, axis=-1), 1.0, rtol=1e-6)
    _, left = jax.jit(lambda v: model.apply(v, jnp.ones((2, 32, 32, 3)), mutable="intermediates"))(variables)
    assert left["intermediates"]["block_1"]["moe"]["indices"].shape[-1] == 1  # evaluation has the K of the layer
    with pytest.raises(ValueError, match=r"progress: expected a share of the training .*'frozen'.*received None"):
        jax.eval_shape(lambda v: model.apply(v, jnp.ones((2, 32, 32, 3)), train=True, mutable=OBSERVED), variables)


def test_stablemoe_freezes_its_light_router_at_the_switch(digits_batches):
    config = config_lib.parse(tiny.config_dict("stablemoe", **tiny.ONE_BLOCK))  # the switch is at step 10
    program = program_lib.build(config, 20, jax.devices()[:1])
    distillation, frozen = [], []
    with program.in_use():
        state = program.initialize()
        for step in range(14):
            before = jax.device_get(state.params["block_0"]["moe"]["router"]["distilled"])
            state, metrics = program.train_step(state, program.to_devices(digits_batches[step % 4]))
            distillation.append(float(metrics["losses/distillation"]))
            kept = jax.device_get(state.routing["block_0"]["moe"]["router"]["distilled"]["state"])
            frozen.append(kept["centroids"])
            if step == 9:
                np.testing.assert_array_equal(kept["embedding"], before["embedding"])
    assert all(loss > 0 for loss in distillation[:10])
    assert all(loss == 0 for loss in distillation[10:])
    assert not frozen[8].any()
    assert frozen[9].any()
    np.testing.assert_array_equal(frozen[9], frozen[13])


@pytest.mark.parametrize("router", ["vmoe", "symphony_loss_free", "stablemoe"])
def test_accumulation_equals_the_whole_batch(router):
    """Without noise and augmentation: gradient, losses that look at a group, dropped tokens, and routing states.

    The state counts its updates at the switch of stablemoe: one for each step, not for each part.
    """
    still = {"model__router__noise_std": 0.0, "data__random_shift_px": 0}
    still |= {"model__router__losses": ("importance", "z"), "model__moe__capacity_factor": 0.6, "train__batch_size": 32}
    still |= {"model__moe__group_size_sequences": 2, **tiny.ONE_BLOCK}
    ends, metrics = [], []
    for parts in (1, 2):
        config = tiny.config_dict(router, **still, train__gradient_accumulation_steps=parts)
        config.model.router.options.distilled.switch_step = 2
        config.model.router.options.symphony.update_every = 2
        program = program_lib.build(config_lib.parse(config), 20, jax.devices()[:2])
        with program.in_use():
            state = program.initialize()
            for _ in range(3):
                state, of_step = program.train_step(state, program.to_devices(_batch(32)))
        ends.append(jax.device_get(state))
        metrics.append(jax.device_get(of_step))
    assert metrics[0]["routing/block_0/dropped"] > 0.05
    chex.assert_trees_all_close(*metrics, rtol=1e-4, atol=1e-6)
    chex.assert_trees_all_close(*(end.routing for end in ends), rtol=1e-5)
    chex.assert_trees_all_close(*(end.params for end in ends), atol=5e-5)
    if router == "stablemoe":
        assert int(ends[1].routing["block_0"]["moe"]["router"]["distilled"]["state"]["step"]) == 3


def test_the_parts_of_a_batch_keep_its_groups():
    """Of each device's 4 images [0, 4) and [4, 8), the first group goes into the first part."""
    parts = split_batch({"image": jnp.arange(8)}, parts=2, group=2)["image"]
    np.testing.assert_array_equal(parts, [[0, 1, 4, 5], [2, 3, 6, 7]])


@pytest.fixture(scope="module")
def program():
    """Of a run with much of what a training step may do."""
    return _program(
        router="attention_vmoe",
        train__mixup_alpha=0.2,
        train__label_smoothing=0.1,
        train__ema_decay=0.5,
        train__loss="sigmoid",
        **tiny.ONE_BLOCK,
    )


def test_no_recompilation_and_the_loss_falls(program):
    with program.in_use():
        state = program.initialize()
        first = jax.device_get(state.params)
        losses = []
        for _ in range(40):
            state, metrics = program.train_step(state, program.to_devices(_batch()))
            losses.append(float(metrics["loss"]))
        assert program.train_step._cache_size() == 1
    assert np.mean(losses[-3:]) < 0.9 * losses[0]
    assert int(state.step) == 40
    # The moving average lies between where the parameters were and where they are.
    bias, average = np.asarray(state.params["head"]["bias"]), np.asarray(state.ema_params["head"]["bias"])
    assert np.all(np.abs(average - first["head"]["bias"]) <= np.abs(bias - first["head"]["bias"]) + 1e-3)
    assert np.any(average != bias)


def test_randomness_comes_from_the_step(program):
    with program.in_use():

        def load_loss(step: int) -> float:
            """What a step draws shows in the load loss of the same parameters on the same images."""
            state = program.initialize().replace(step=jnp.asarray(step, jnp.int32))
            return float(program.train_step(state, program.to_devices(_batch()))[1]["losses/load"])

        assert load_loss(3) == load_loss(3)
        assert load_loss(3) != load_loss(4)


def test_cross_entropy_golden_values():
    logits, targets = jnp.array([[0.0, 0.0], [jnp.log(3.0), 0.0]]), jnp.array([[1.0, 0.0], [0.0, 1.0]])
    # softmax: -log(1/2) and -log(1/4), mean = 1.5 log 2
    np.testing.assert_allclose(cross_entropy(logits, targets, "softmax"), 1.5 * np.log(2), rtol=1e-6)
    # sigmoid: log 2 + log 2 for the first; for the second -log(1 - 3/4) - log(1/2) = 3 log 2; mean = 2.5 log 2
    np.testing.assert_allclose(cross_entropy(logits, targets, "sigmoid"), 2.5 * np.log(2), rtol=1e-6)


def _optimizer(**overrides) -> config_lib.OptimizerConfig:
    return config_lib.parse(tiny.config_dict(**{f"optimizer__{k}": v for k, v in overrides.items()})).optimizer


def test_schedules():
    # warm-up 0 -> 1 over 4 steps, then to 0.2 over 16: half way (step 12) linear 0.6, cosine 0.6
    for kind, half in (("linear", 0.6), ("cosine", 0.6), ("constant", 1.0)):
        schedule = make_schedule(
            _optimizer(schedule=kind, learning_rate=1.0, end_learning_rate=0.2, warmup_steps=4), 20
        )
        np.testing.assert_allclose([schedule(0), schedule(2), schedule(4), schedule(12)], [0, 0.5, 1, half], rtol=1e-6)
    with pytest.raises(ValueError, match=r"warmup_steps: expected less than the 4 training .*; received 4"):
        make_schedule(_optimizer(warmup_steps=4), 4)


def test_weight_decay_acts_on_matching_paths_only():
    params = {"a": {"kernel": jnp.ones(2), "bias": jnp.ones(2)}}
    optimizer = make_optimizer(_optimizer(weight_decay=0.1, learning_rate=0.5, schedule="constant", warmup_steps=0), 20)
    zeros = jax.tree.map(jnp.zeros_like, params)
    updates, _ = optimizer.update(zeros, optimizer.init(params), params)
    # Adam's update of a zero gradient is zero; what is left is -learning_rate * weight_decay * parameter = -0.05
    np.testing.assert_allclose(updates["a"]["kernel"], -0.05, rtol=1e-6)
    np.testing.assert_array_equal(updates["a"]["bias"], 0.0)


def test_clipping_limits_the_global_norm():
    params = {"a": {"kernel": jnp.zeros(2)}}
    optimizer = make_optimizer(_optimizer(gradient_clip_norm=1.0, weight_decay=0.0), 20)
    clipped = optimizer.init(params)
    gradients = {"a": {"kernel": jnp.array([30.0, 40.0])}}
    _, clipped = optimizer.update(gradients, clipped, params)
    first_moment = optax.tree_utils.tree_get(clipped, "mu")["a"]["kernel"]
    np.testing.assert_allclose(first_moment, [0.06, 0.08], rtol=1e-5)  # (1 - 0.9) * gradient / 50


def test_descent_with_momentum():
    """From gradients 1 and 1 with momentum 1/2: steps of 1 and 1/2 + 1, times the learning rate 0.1."""
    config = _optimizer(
        name="sgd", momentum=0.5, learning_rate=0.1, schedule="constant", warmup_steps=0, weight_decay=0.0,
        gradient_clip_norm=None,
    )  # fmt: skip
    params = {"a": {"kernel": jnp.zeros(2)}}
    optimizer, gradients = make_optimizer(config, 20), {"a": {"kernel": jnp.ones(2)}}
    updates, state = optimizer.update(gradients, optimizer.init(params), params)
    np.testing.assert_allclose(updates["a"]["kernel"], -0.1, rtol=1e-6)
    updates, _ = optimizer.update(gradients, state, params)
    np.testing.assert_allclose(updates["a"]["kernel"], -0.15, rtol=1e-6)


def test_every_optimizers_state_has_its_place_on_the_mesh():
    for name in ("adamw", "adam", "sgd"):
        state = _program(optimizer__name=name, optimizer__weight_decay=0.0, mesh__expert=4).state_shapes.opt_state
        moments = [leaf for leaf in jax.tree.leaves(state) if leaf.shape == (4, 16, 32)]  # of the experts' kernels
        assert [leaf.sharding.spec for leaf in moments] == [jax.P("expert", "fsdp")] * (1 if name == "sgd" else 2)
