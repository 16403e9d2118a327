"""Records of tiny models, of every router."""

import dataclasses
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests import tiny
from vmoe_inform import analysis
from vmoe_inform import config as config_lib
from vmoe_inform.analysis.collect import recording
from vmoe_inform.analysis.collect._sums import add, layer_sums
from vmoe_inform.analysis.collect.adjacencies import adjacencies
from vmoe_inform.analysis.collect.groups import whole_groups
from vmoe_inform.analysis.collect.layers import of_sums
from vmoe_inform.analysis.collect.traces import LayerTrace
from vmoe_inform.analysis.images import tracing
from vmoe_inform.config import presets
from vmoe_inform.nn import models
from vmoe_inform.nn.router import TRACE
from vmoe_inform.routing.steps import INFORM_STEPS, LOSS_STEPS
from vmoe_inform.sharding.mesh import make_mesh

# With the model of ``informed``, every score and select step, and every inform step of the papers.
SYSTEMS = (
    "similarity_xmoe",
    "symphony_smoe_dropout",
    "stablemoe",
    "hash",
    "base",
    "expert_choice",
    "soft",
    "loss_free",
    "remoe",
)
NUM_IMAGES = 10  # with batches of four: two whole ones and half a one


def _images(count=NUM_IMAGES):
    return np.random.default_rng(0).normal(size=(count, 32, 32, 3)).astype(np.float32)


def _model(router, **overrides):
    config = config_lib.parse(tiny.config_dict(router, **overrides))
    return models.from_config(config.model)


@pytest.fixture(scope="module")
def informed():
    """Tokens inform each other, then experts."""
    model = _model("vmoe", model__router__inform=("attention", "symphony"))
    variables = tiny.variables(model)
    state = variables["routing"]["block_1"]["moe"]["router"]["symphony"]
    state["state"] = jnp.asarray(np.random.default_rng(1).dirichlet(np.ones(4), 4), jnp.float32)
    return model, variables


@pytest.fixture(scope="module")
def whole(informed):
    return tracing.trace(*informed, _images(), graphs=True, batch_size=4)


def test_a_record_is_what_the_model_did(informed, whole):
    _, variables = informed
    layer = whole.layers["block_1"]
    assert list(whole.layers) == ["block_1"]
    assert (whole.num_experts, whole.grid, whole.class_token) == (4, (2, 2), True)
    assert whole.logits.shape == (NUM_IMAGES, 10)
    assert all(isinstance(leaf, np.ndarray) for leaf in jax.tree.leaves(layer))
    np.testing.assert_allclose(layer.base.sum(-1), 1.0, atol=1e-5)
    np.testing.assert_allclose(layer.graph.sum(-1), 1.0, atol=1e-5)
    # The graph mixes the base probabilities of the tokens, the adjacency then those of the experts; its rows sum to 1,
    # so that what comes out does not, and is scaled.
    matrix = np.asarray(variables["routing"]["block_1"]["moe"]["router"]["symphony"]["state"])
    mixed = layer.graph @ layer.base @ matrix.T
    np.testing.assert_allclose(layer.informed, mixed / mixed.sum(-1, keepdims=True), atol=1e-5)
    ordered = -np.sort(-layer.informed, axis=-1)
    np.testing.assert_allclose(layer.margin, ordered[..., 1] - ordered[..., 2], atol=1e-6)
    np.testing.assert_array_equal(layer.indices, np.argsort(-layer.informed, axis=-1)[..., :2])
    np.testing.assert_array_equal(layer.base_indices, np.argsort(-layer.base, axis=-1)[..., :2])
    np.testing.assert_allclose(layer.load.sum(-1), 1.0)


def test_a_trace_has_all_that_figures_of_one_set_of_images_take(informed, whole):
    labels, class_names = np.arange(NUM_IMAGES), [str(digit) for digit in range(10)]
    found = analysis.of_trace(informed[0], whole, labels, class_names, name="mine", step=7)
    assert (found.run.step, found.run.count) == (7, NUM_IMAGES)
    assert found.run.score == np.mean(whole.logits.argmax(-1) == labels)
    assert found.layers["block_1"].graph is not None
    assert found.fluctuation is found.against is found.corruptions is None
    assert "margin" in analysis.figures(found)


def test_one_device_and_eight_and_batches_of_any_size_give_the_same(informed, whole):
    mesh = make_mesh(4, 2)
    on_mesh = tracing.trace(*informed, _images(), graphs=True, mesh=mesh)  # one batch of 16
    assert jax.tree.structure(on_mesh.layers) == jax.tree.structure(whole.layers)
    for one, eight in zip(jax.tree.leaves(whole.layers), jax.tree.leaves(on_mesh.layers), strict=True):
        np.testing.assert_allclose(one, eight, atol=2e-5)
    np.testing.assert_allclose(whole.logits, on_mesh.logits, atol=2e-5)


def test_only_what_is_asked_for_leaves_the_devices(informed):
    found = tracing.trace(*informed, _images(4), keep=("indices",), batch_size=4)
    kept = {
        field.name
        for field in dataclasses.fields(LayerTrace)
        if getattr(found.layers["block_1"], field.name) is not None
    }
    assert kept == {"indices"}


def test_images_in_whole_groups_are_routed_as_among_all():
    """Experts choose among the tokens of a group: of eight images in groups of two, four are looked at."""
    model = _model("expert_choice")
    variables = _drawn(model)
    chosen = whole_groups(8, 2, limit=5)
    assert chosen == [0, 1, 4, 5]
    among_all, alone = (
        tracing.trace(model, variables, images, keep=("indices",), batch_size=4).layers["block_1"]
        for images in (_images(8), _images(8)[chosen])
    )
    np.testing.assert_array_equal(alone.indices, among_all.indices[chosen])
    evenly = whole_groups(8, 1, limit=4)  # whose groups are others
    apart = tracing.trace(model, variables, _images(8)[evenly], keep=("indices",), batch_size=4)
    assert np.any(apart.layers["block_1"].indices != among_all.indices[evenly])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"images": np.zeros((4, 16, 16, 3), np.float32)},
            "images: expected shape [n, 32, 32, 3] (model.image_size_px",
        ),
        ({"images": np.zeros((0, 32, 32, 3), np.float32)}, "images: expected shape [n, 32, 32, 3]"),
        ({"images": np.zeros((4, 32, 32, 3), np.uint8)}, "images: expected normalised pixels"),
        ({"batch_size": 3}, "batch_size: expected a multiple of 2 (devices times sequences of a group); received 3"),
        ({"keep": ("graph",)}, "keep: expected names among base, informed"),
        ({"model": _model("expert_choice"), "keep": ("margin",)}, "keep: expected no margins with model.router.select"),
        ({"model": _model("vmoe", model__moe__layers="none")}, "model.moe.layers: expected at least one MoE layer"),
    ],
)
def test_what_cannot_be_traced_is_refused_before_anything_is_compiled(changes, message):
    arguments = {"model": _model("vmoe"), "variables": {}, "images": _images(4)} | changes
    with pytest.raises(ValueError, match=re.escape(message)):
        tracing.trace(**arguments)


# ---------------------------------------------------------------------------------------------------- every router


def _everything(model, variables, images, labels):
    """Records and sums of a batch, as the command makes them."""
    mask = jnp.ones(len(images), bool)
    _, left = model.apply(variables, images, train=False, sequence_mask=mask, mutable=[TRACE])
    layers = recording.records(left[TRACE], model.config)
    real = jnp.ones((len(images), model.config.num_tokens), bool)
    return layers, {block: layer_sums(layer, real, labels, num_classes=10) for block, layer in layers.items()}


def _drawn(model):
    """Random parameters and empty states, for which nothing is compiled."""
    random = np.random.default_rng(0)
    shapes = jax.eval_shape(lambda: models.initialize(model, jax.random.key(0)))
    drawn = {"params": jax.tree.map(lambda leaf: 0.3 * random.normal(size=leaf.shape), shapes["params"])}
    if "routing" in shapes:
        drawn["routing"] = jax.tree.map(lambda leaf: np.zeros(leaf.shape), shapes["routing"])
    return jax.tree.map(lambda values, leaf: jnp.asarray(values, leaf.dtype), drawn, dict(shapes))


@pytest.fixture(scope="module")
def systems():
    """Records and sums of routers that together have every step, compiled together."""
    made = {name: _model(name) for name in SYSTEMS} | {
        "beyond": _model("vmoe", model__router__inform=tiny.BEYOND_THE_PAPERS, model__moe__layers=(0, 1))
    }
    variables = {name: _drawn(model) for name, model in made.items()}
    labels = jnp.arange(4)

    @jax.jit
    def all_of_them(variables, images):
        return {name: _everything(model, variables[name], images, labels) for name, model in made.items()}

    return made, variables, all_of_them(variables, jnp.asarray(_images(4)))


@pytest.mark.parametrize("name", [*SYSTEMS, "beyond"])
def test_every_system_has_records_and_tables(systems, name):
    models_, variables, found = systems
    config = models_[name].config
    layers, sums = jax.device_get(found[name])
    assert list(layers) == recording.block_names(config)
    for ordinal, (block, layer) in enumerate(layers.items()):
        steps = [INFORM_STEPS[step] for step in config.router.inform_steps_of(ordinal)]
        assert (layer.graph is not None) == any(step.graph is not None for step in steps)
        assert (layer.margin is not None) == (config.router.select not in ("expert_choice", "soft", "positive_experts"))
        assert layer.indices.min() >= 0
        assert layer.indices.max() <= config.moe.num_experts
        made = of_sums(add(None, sums[block]))
        assert sum(made.load) == pytest.approx(1.0)
        assert 0 <= made.entropy <= np.log(config.moe.num_experts) + 1e-6
        assert made.specialisation.mutual_information >= 0
        assert (made.margin is None) == (made.flips is None) == (layer.margin is None)
    if "routing" in variables[name]:
        states = {1: variables[name]["routing"]}
        matrices = adjacencies(config, states)
        has_one = name in ("symphony_smoe_dropout", "beyond")  # Symphony, and Symphony by Oja's rule
        assert list(matrices) == (recording.block_names(config) if has_one else [])


def test_every_preset_is_a_product_of_these_steps(systems, informed):
    made = [informed[0], *systems[0].values()]
    together = {step for model in made for step in model.config.router.step_names}
    for name in (*presets.ROUTERS, *tiny.INFORMED):
        config = config_lib.default()
        presets.set_router(config, name)
        assert set(config_lib.parse_model(config.model).router.step_names) - set(LOSS_STEPS) <= together, name
