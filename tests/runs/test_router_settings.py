"""A trained model with other routers, which nobody trains."""

import jax
import numpy as np
import pytest

from tests import tiny
from vmoe_inform import config as config_lib
from vmoe_inform.nn import models
from vmoe_inform.runs import router_settings
from vmoe_inform.runs.checkpoint_path import CheckpointPath
from vmoe_inform.runs.run import Run, SavedRun
from vmoe_inform.sharding.mesh import make_mesh

INFORM = "model.router.inform"
TEMPERATURE = "model.router.options.similarity.temperature"


def run_of(router):
    config = config_lib.parse(tiny.config_dict(router))
    model = models.from_config(config.model)
    return Run("run", None, 8, config, model, tiny.variables(model), make_mesh(1, 1, jax.devices()[:1]))


def saved_of(router, folder):
    config = config_lib.parse(tiny.config_dict(router))
    return SavedRun("run", CheckpointPath(folder), 8, (4, 8), config, config, "older")


@pytest.fixture(scope="module")
def plain():
    return run_of("vmoe")


def test_another_router_has_the_arrays_that_were_trained(plain):
    informed = plain.rerouted({INFORM: "similarity", TEMPERATURE: "sqrt_dim"})
    assert informed.config.model.router.options["similarity"]["temperature"] == "sqrt_dim"
    assert all(jax.tree.leaves(jax.tree.map(lambda a, b: a is b, plain.variables, informed.variables)))
    images = jax.ShapeDtypeStruct((2, 32, 32, 3), np.float32)
    logits, _ = jax.eval_shape(lambda shown: informed.model.apply(informed.variables, shown, train=False), images)
    assert logits.shape == (2, 10)
    # Nothing else of the router has changed, as it would have for the preset similarity_vmoe.
    assert informed.config.model.router.options["top_experts"] == {"renormalize": False}


def test_a_router_without_its_inform_step_leaves_the_step_s_arrays():
    symphony = run_of("symphony_vmoe")
    plain = symphony.rerouted({INFORM: "none"})
    assert "routing" in symphony.variables
    assert set(plain.variables) == {"params"}
    assert plain.config.model.router.inform_steps == ()


def test_what_has_not_been_learned_cannot_be_had(plain):
    message = (
        r"^inform=symphony, without training: expected a router that learns no arrays but those of the run; "
        r"received one that learns routing/block_1/moe/router/symphony/state \[4, 4\]$"
    )
    with pytest.raises(ValueError, match=message):
        plain.rerouted({INFORM: "symphony"})
    message = (
        r"^inform=attention, attention.sigma=estimated, without training: expected a router that learns no arrays but "
        r"those of the run; received one that learns routing/block_1/moe/router/attention/state/variance \[\]$"
    )
    with pytest.raises(ValueError, match=message):
        plain.rerouted({INFORM: "attention", "model.router.options.attention.sigma": "estimated"})
    with pytest.raises(ValueError, match=r"one that learns params/block_1/moe/experts/.* and \d more"):
        plain.rerouted({"model.moe.num_experts": 6})


def test_experts_that_were_trained_are_not_left_out():
    moe = {"experts": np.ones((4, 3)), "shared": np.ones((1, 3)), "router": {"linear": {"kernel": np.ones((3, 4))}}}
    given, wanted = ({"params": {"block_1": {"moe": part}}} for part in (moe, {"experts": moe["experts"]}))
    message = (
        r"^shared_experts=0, without training: expected a model with all arrays of the run but those of its routers; "
        r"received one without params/block_1/moe/shared \[1, 3\]$"
    )
    with pytest.raises(ValueError, match=message):
        router_settings.variables_for(given, wanted, {"model.moe.shared_experts": 0})


def test_a_trained_adjacency_is_mixed_with_the_identity_without_training():
    mixed = run_of("symphony_vmoe").rerouted({"model.router.options.symphony.identity_share": 0.9})
    assert mixed.config.model.router.options["symphony"]["identity_share"] == 0.9


def test_an_estimated_sigma_can_be_replaced_and_centered(tmp_path):
    field = "model.router.options.attention."
    estimated = saved_of("attention_vmoe@attention.sigma=estimated", tmp_path)
    assert "routing" not in estimated.rerouted({f"{field}sigma": 2.0}).shapes
    centered = estimated.rerouted({f"{field}center": True, f"{field}normalize": "unit"})
    assert centered.shapes["routing"] == estimated.shapes["routing"]


def test_inform_and_inform_by_layer_replace_each_other():
    config = config_lib.parse(tiny.config_dict("alternate_vmoe"))
    both = router_settings.with_settings(config, {INFORM: "similarity"}).model.router
    assert (both.inform, both.inform_by_layer) == ("similarity", ())
    config = config_lib.parse(tiny.config_dict("similarity_vmoe"))
    each = router_settings.with_settings(config, {"model.router.inform_by_layer": ("attention",)}).model.router
    assert (each.inform, each.inform_by_layer) == ("none", ("attention",))


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("data.source", "digits", "--config: expected a field of model.router or model.moe.*received 'data.source'"),
        ("model.num_layers", 3, "--config: expected a field of model.router or model.moe"),
        ("model.router.noise_std", 0.0, "--config: expected a setting that changes what an evaluated router does"),
        ("model.moe.capacity_factor", 2.0, "--config: expected a setting that changes"),
        ("model.router.options.symphony.decay", 0.5, "--config: expected a setting that changes"),
        ("model.router.options.frozen.growth_share", 0.5, "--config: expected a setting that changes"),
        ("model.router.options.importance.weight", 0.5, "--config: expected a setting that changes"),
        (INFORM, "infrom", "model.router.inform: expected one of"),
        ("model.moe.num_selected_experts", 9, "num_selected_experts: expected at most .* 4; received 9"),
    ],
)
def test_settings_that_change_no_router_are_refused(plain, field, value, message):
    with pytest.raises(ValueError, match=message):
        plain.rerouted({field: value})


def test_a_dense_model_has_no_router(plain):
    config = config_lib.override(plain.config, {"model.moe.layers": "none", "model.router.losses": ()})
    with pytest.raises(ValueError, match="workdir: expected a run with MoE layers"):
        router_settings.with_settings(config, {INFORM: "similarity"})


def test_a_saved_run_with_other_routers_is_the_same_checkpoint(tmp_path):
    saved = saved_of("vmoe", tmp_path)
    router = saved.rerouted({INFORM: "similarity", TEMPERATURE: 0.5, "model.router.options.attention.sigma": 2.0})
    assert router.settings == {INFORM: "similarity", TEMPERATURE: 0.5}  # it has no attention step
    assert (router.path, router.step, router.trained) == (saved.path, 8, saved)
    assert router.config_hash != saved.config_hash
    again = router.rerouted({INFORM: "attention"})  # in place of the others
    assert (again.settings, again.trained) == ({INFORM: "attention"}, saved)
    assert router.at(4).trained == saved.at(4)
    with pytest.raises(FileNotFoundError, match="checkpoint"):
        router.load()


def test_labels():
    settings = {INFORM: ["attention", "similarity"], TEMPERATURE: 0.10, "model.moe.num_selected_experts": 4}
    label = router_settings.label(settings)
    assert label == "inform=attention+similarity, similarity.temperature=0.1, num_selected_experts=4"
    assert router_settings.label({"model.router.inform_by_layer": ()}) == "inform_by_layer=none"
