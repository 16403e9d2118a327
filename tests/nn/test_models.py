import functools
import math
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests import tiny
from vmoe_inform import config as config_lib
from vmoe_inform.config import presets
from vmoe_inform.nn import models
from vmoe_inform.nn import router as router_lib
from vmoe_inform.nn.mlp import ACTIVATIONS
from vmoe_inform.nn.step_variables import OBSERVED, update_states
from vmoe_inform.nn.vit import VisionTransformer
from vmoe_inform.routing.steps import Duration


def _apply(model: VisionTransformer) -> Callable[..., Any]:
    """``model.apply``, compiled: op by op it would take many times as long."""
    return jax.jit(model.apply, static_argnames=("train", "mutable"))


def _images(count: int, size: int = 32) -> jax.Array:
    return jax.random.normal(jax.random.key(7), (count, size, size, 3))


@pytest.mark.parametrize(
    ("variant", "experts", "where", "millions"),
    # V-MoE, arXiv 2106.05974: S/32 with 8 experts in the last two odd blocks; S/16 with 32 experts in every second
    [("S/32", "8", "last2", 57.0), ("S/16", "32", "every2", 286.9)],
)
def test_parameter_counts_of_the_published_models(variant, experts, where, millions):
    config = config_lib.default()
    presets.set_variant(config, variant)
    presets.set_experts(config, experts, where)
    model = models.from_config(config.model)
    shapes = jax.eval_shape(lambda: models.initialize(model, jax.random.key(0)))
    assert round(models.num_parameters(shapes["params"]) / 1e6, 1) == millions


# Without a state, with one that never changes, and with two that training updates; that all presets train is shown in
# tests/training/test_step.py.
@pytest.mark.parametrize("router", ["vmoe", "smoe_dropout", "stablemoe", "symphony_xmoe"])
def test_a_router_applies_trains_and_keeps_its_state_in_evaluation(router):
    model = models.from_config(tiny.config_dict(router).model)
    variables = tiny.variables(model)
    apply = _apply(model)
    (logits, aux), updated = apply(variables, _images(4), train=False, mutable="routing")
    assert logits.shape == (4, 10)
    assert logits.dtype == jnp.float32
    assert np.isfinite(aux["auxiliary_loss"])
    assert set(aux["moe"]) == {f"block_{layer}" for layer in model.config.moe_layers}
    assert "load" not in aux["moe"]["block_1"]["losses"]  # no noise, no load loss

    steps = router_lib.steps_of(model.config.router)
    stateful = router_lib.has_state(model.config.router)
    assert set(variables) == ({"params", "routing"} if stateful else {"params"})
    jax.tree.map(np.testing.assert_array_equal, dict(updated), {"routing": variables["routing"]} if stateful else {})
    # What training does to the states' values is shown in tests/training/test_step.py.
    train = functools.partial(model.apply, train=True, mutable=OBSERVED, rngs={"routing": jax.random.key(1)})
    (_, aux), left = jax.eval_shape(lambda v: train(v, _images(4), progress=0.5), variables)
    assert ("load" in aux["moe"]["block_1"]["losses"]) == (model.config.router.noise_std > 0)
    assert set(left) == ({OBSERVED} if any(step.update_state is not None for step in steps) else set())


@pytest.mark.parametrize("classifier", ["token", "gap", "map"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_classifiers_and_dtypes(classifier, dtype):
    config = tiny.config_dict(model__classifier=classifier, model__dtype=dtype, model__representation_size=8)
    model = models.from_config(config.model)
    variables = jax.eval_shape(functools.partial(models.initialize, model), jax.random.key(0))
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype("float32")}
    num_tokens = variables["params"]["position_embedding"].shape[1]
    assert num_tokens == model.config.num_tokens == 4 + (classifier == "token")
    (logits, aux), left = jax.eval_shape(lambda v: model.apply(v, _images(2), mutable="intermediates"), variables)
    assert logits.shape == (2, 10)
    assert aux["features"].shape == (2, 8)
    assert logits.dtype == aux["features"].dtype == jnp.float32
    routing = left["intermediates"]["block_1"]["moe"]["routing"]
    weights = left["intermediates"]["block_1"]["moe"]["weights"]
    assert {routing.logits.dtype, routing.informed.dtype, weights.dtype} == {jnp.dtype("float32")}


def test_every_layer_norm_takes_its_epsilon_from_the_config():
    """Of normalised tokens the variance is v / (v + epsilon), with the scale 1 of fresh parameters."""
    config = tiny.config_dict(model__classifier="map", model__layer_norm_epsilon=1.0)
    model = models.from_config(config.model)
    capture = functools.partial(
        model.apply,
        capture_intermediates=lambda module, _: isinstance(module, nn.LayerNorm),
        mutable="intermediates",
    )
    _, left = jax.jit(capture)(tiny.variables(model), _images(2))
    captured = flax.traverse_util.flatten_dict(left["intermediates"], sep="/")
    variances = {
        path: np.max(np.var(outputs[0], axis=-1)) for path, outputs in captured.items() if path.endswith("__call__")
    }
    assert len(variances) == 2 * 2 + 2  # of two blocks, at the end, and of the pooling
    assert all(variance < 0.95 for variance in variances.values())


def test_gelu_is_the_tanh_form_or_exact():
    values = np.linspace(-4, 4, 101)
    exact = [value * 0.5 * (1 + math.erf(value / math.sqrt(2))) for value in values]
    tanh = [v / 2 * (1 + math.tanh(math.sqrt(2 / math.pi) * (v + 0.044715 * v**3))) for v in values]
    np.testing.assert_allclose(ACTIVATIONS["gelu_exact"](values), exact, atol=1e-6)
    np.testing.assert_allclose(ACTIVATIONS["gelu"](values), tanh, atol=1e-6)
    assert np.max(np.abs(np.subtract(exact, tanh))) > 1e-4


def test_bfloat16_is_float32_within_its_rounding():
    """The map classifier's features, which pass through all there is: bfloat16 rounds by 2^-8, some tens of times."""
    config = tiny.config_dict(model__classifier="map", model__moe__layers=())
    plain = models.from_config(config.model)
    variables = tiny.variables(plain)
    config.model.dtype = "bfloat16"
    logits, rounded = (_apply(m)(variables, _images(2))[0] for m in (plain, models.from_config(config.model)))
    assert not np.array_equal(rounded, logits)
    np.testing.assert_allclose(rounded, logits, atol=0.05 * float(jnp.std(logits)))


def test_dropout_needs_its_stream_and_changes_training_only():
    overrides = {"dropout_rate": 0.5, "attention_dropout_rate": 0.5, "moe__expert_dropout_rate": 0.5}
    config = tiny.config_dict(**{f"model__{name}": rate for name, rate in overrides.items()})
    model = models.from_config(config.model)
    variables = tiny.variables(model)
    params = variables["params"]

    def train(seed: int) -> jax.Array:
        rngs = {"routing": jax.random.key(0), "dropout": jax.random.key(seed)}
        return _apply(model)({"params": params}, _images(2), train=True, rngs=rngs)[0]

    assert not jnp.allclose(train(0), train(1))
    plain = models.from_config(tiny.config_dict().model)
    evaluated = [_apply(m)({"params": params}, _images(2))[0] for m in (model, plain)]
    np.testing.assert_array_equal(*evaluated)


def test_only_a_router_that_declares_it_gets_the_attention(monkeypatch):
    seen = {}
    original = router_lib.Router.__call__

    def spy(self, tokens, around, **options):
        seen[self.config.inform] = around.attention
        return original(self, tokens, around, **options)

    monkeypatch.setattr(router_lib.Router, "__call__", spy)
    for router in ("vmoe", "similarity_vmoe", "attention_vmoe"):
        model = models.from_config(tiny.config_dict(router).model)
        jax.eval_shape(model.init, jax.random.key(0), _images(2))
    assert seen["none"] is None
    assert seen["similarity"] is None
    assert seen["attention"].queries.shape == (2, 5, 2, 8)  # [B, N, H, F]
    assert seen["attention"].output_kernel.shape == (2, 8, 16)  # [H, F, D]


@pytest.mark.parametrize("dispatch", ["gather", "einsum", "reference"])
def test_an_image_does_not_depend_on_others_when_nothing_is_dropped(dispatch):
    """Decision 1: the token graph spans one image; with room for all tokens, groups do not mix images either."""
    model = models.from_config(tiny.config_dict("alternate_vmoe", model__moe__dispatch=dispatch).model)
    variables = tiny.variables(model)
    images, apply = _images(4), _apply(model)
    together = apply(variables, images)[0]
    np.testing.assert_allclose(apply(variables, images.at[2:].set(0.0))[0][:2], together[:2], atol=1e-5)


@pytest.mark.parametrize("router", ["base", "expert_choice", "soft"])
def test_an_image_is_routed_alone_but_where_experts_choose(router):
    """In evaluation, with room for all tokens; the images of a group compete for the experts of expert choice."""
    model = models.from_config(tiny.config_dict(router).model)
    variables = models.initialize(model, jax.random.key(0))
    variables["params"]["head"]["kernel"] = jax.random.normal(jax.random.key(3), (16, 10))
    images = _images(2)
    apply = _apply(model)
    together, other = apply(variables, images)[0][0], apply(variables, images.at[1].set(2.0))[0][0]
    assert np.allclose(other, together, atol=1e-5) == (router != "expert_choice")


def test_every_expert_takes_its_share_where_experts_choose():
    """S K / E = 10 tokens x 2 / 4 experts = 5 tokens, whatever the capacity factors."""
    config = tiny.config_dict("expert_choice", model__moe__capacity_factor_evaluation=4.0)
    model = models.from_config(config.model)
    variables = tiny.variables(model)
    _, left = _apply(model)(variables, _images(4), mutable="intermediates")
    load = left["intermediates"]["block_1"]["moe"]["load"].reshape(2, 10, 4)
    np.testing.assert_array_equal(jnp.sum(load, axis=1), 5.0)


def test_symphony_has_edges_with_one_expert_a_token():
    """No two experts are chosen together with K = 1, so that the base top 2 are counted."""
    config = tiny.config_dict("symphony_smoe_top1")
    assert config.model.moe.num_selected_experts == 1
    model = models.from_config(config.model)
    variables = tiny.variables(model)
    _, left = _apply(model)(variables, _images(4), train=True, mutable=OBSERVED)
    states = update_states(model.config.router, variables["params"], variables["routing"], left[OBSERVED], Duration(1))
    adjacency = np.asarray(states["block_1"]["moe"]["router"]["symphony"]["state"])
    assert np.any(adjacency[~np.eye(4, dtype=bool)] > 0)
    np.testing.assert_array_equal(adjacency > 0, adjacency.T > 0)


def test_a_router_says_what_it_misses():
    config = models.from_config(tiny.config_dict("attention_vmoe").model).config
    router = router_lib.Router(config.router, config.layer_sizes)
    with pytest.raises(ValueError, match="attention: expected what the router step 'attention' needs; received None"):
        router.init(jax.random.key(0), jnp.zeros((2, 5, 16)), router_lib.Surroundings(), train=False)


def test_filler_images_change_nothing():
    """At the end of a data set a batch is filled up; the filler must not take slots from real tokens."""
    model = models.from_config(tiny.config_dict(model__moe__capacity_factor_evaluation=0.6).model)
    variables = models.initialize(model, jax.random.key(0))
    variables["params"]["head"]["kernel"] = jax.random.normal(jax.random.key(3), (16, 10))
    images = _images(4)
    mask = jnp.array([False, True, False, True])
    logits = [
        _apply(model)(variables, images.at[::2].set(filler), sequence_mask=mask)[0][1::2] for filler in (0.0, 1.0, 5.0)
    ]
    np.testing.assert_array_equal(logits[0], logits[1])
    np.testing.assert_array_equal(logits[0], logits[2])
    unmasked = _apply(model)(variables, images.at[::2].set(0.0))[0][1::2]
    assert not np.allclose(unmasked, logits[0])  # here slots are short, so that it matters


def test_batch_priority_looks_at_informed_probabilities():
    """Decision 5: not at the weights, which renormalisation may have made equal."""
    overrides = {"model__moe__batch_priority": True, "model__moe__capacity_factor_evaluation": 0.5}
    config = tiny.config_dict("similarity_vmoe", **overrides)
    config.model.moe.num_selected_experts = 1
    config.model.router.options.top_experts.renormalize = "one"  # all weights are 1
    model = models.from_config(config.model)
    variables = tiny.variables(model)
    _, left = _apply(model)(variables, _images(2), mutable="intermediates")
    moe = left["intermediates"]["block_1"]["moe"]
    first, chosen = np.max(moe["routing"].informed, axis=-1).ravel(), np.asarray(moe["indices"]).ravel()
    kept = np.asarray(moe["dropped"]).ravel() == 0
    assert 0 < kept.sum() < kept.size
    for expert in range(4):
        of_expert = chosen == expert
        if of_expert.any() and not kept[of_expert].all():
            assert first[of_expert & kept].min() >= first[of_expert & ~kept].max()


def test_bad_input_says_field_expected_received():
    model = models.from_config(tiny.config_dict("symphony_vmoe").model)
    variables = tiny.variables(model)
    with pytest.raises(ValueError, match=r"images: expected shape \(B, 32, 32, 3\); received \(2, 16, 16, 3\)"):
        _apply(model)(variables, _images(2, 16))
    with pytest.raises(ValueError, match=r"batch size: expected a multiple of .*group_size_sequences = 2; received 3"):
        _apply(model)(variables, _images(3))
    with pytest.raises(ValueError, match=r"step 'symphony': expected the collections 'params' and 'routing'"):
        _apply(model)({"params": variables["params"]}, _images(2))
