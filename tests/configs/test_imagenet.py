"""The recipes of configs/imagenet.py: their schedules by hand, and a step of each, traced."""

import math

import chex
import jax
import numpy as np
import pytest

from configs import digits, imagenet
from vmoe_inform import config as config_lib
from vmoe_inform.evaluation import suites
from vmoe_inform.nn.auxiliary_losses import loss_weights
from vmoe_inform.routing.steps import Duration
from vmoe_inform.training import program
from vmoe_inform.training.optimizer import make_schedule

IMAGES = 1_281_167
RECIPES = ("vmoe300", "deit", "finetune384")
EVERY_RECIPE = pytest.mark.parametrize("recipe", RECIPES)


def parsed(recipe: str) -> config_lib.Config:
    return config_lib.parse(imagenet.get_config(f"recipe={recipe},router=attention_vmoe"))


# Steps -> learning rate. vmoe300: 300 x 1,281,167 / 8,192 = 46,917.8 steps; half of the warm-up, its end, half of the
# way from there to the end, the end. deit: 300 x 1,281,167 / 1,024 = 375,341.9 steps, of which five epochs warm up; the
# cosine is half way down in the middle.
SCHEDULES = {
    "vmoe300": (46_918, {0: 0.0, 5_000: 1.5e-3, 10_000: 3e-3, 28_459: 1.505e-3, 46_918: 1e-5}),
    "deit": (375_342, {0: 0.0, 3_128: 5e-4, 6_256: 1e-3, 190_799: 5.05e-4, 375_342: 1e-5}),
    "finetune384": (10_000, {0: 0.0, 250: 1.5e-3, 500: 3e-3, 5_250: 1.505e-3, 10_000: 1e-5}),
}


@EVERY_RECIPE
def test_schedules(recipe):
    config = parsed(recipe)
    steps, rates = SCHEDULES[recipe]
    assert program.total_steps(config, IMAGES) == steps
    schedule = make_schedule(config.optimizer, steps)
    np.testing.assert_allclose([schedule(step) for step in rates], list(rates.values()), rtol=1e-4, atol=1e-9)
    config_lib.check_duration(
        config_lib.parse(imagenet.get_config(f"recipe={recipe},router=stablemoe")), Duration(steps)
    )


def test_a_tenth_of_the_run_is_what_stablemoe_learns_in():
    for recipe, (steps, _) in SCHEDULES.items():
        options = imagenet.get_config(f"recipe={recipe}").model.router.options
        assert options.distilled.switch_step == round(steps / 10)


def test_the_default_is_the_originals_recipe():
    assert imagenet.get_config() == imagenet.get_config("recipe=vmoe300")
    config = config_lib.parse(imagenet.get_config())
    model, moe, router = config.model, config.model.moe, config.model.router
    assert (moe.num_experts, model.moe_layers, moe.num_selected_experts) == (8, (5, 7), 2)
    assert (moe.capacity_factor, moe.capacity_factor_evaluation, moe.group_size_sequences) == (1.05, 4.0, 8)
    assert (router.noise_std, loss_weights(router)) == (1.0, {"importance": 0.005, "load": 0.005})
    assert (model.num_tokens, model.classifier, model.representation_size) == (50, "token", 512)
    assert model.head_bias_initial_value == pytest.approx(math.log(1 / 1000))
    assert (config.train.loss, config.train.mixup_alpha, config.train.cutmix_alpha) == ("sigmoid", 0.2, 0.0)
    optimizer = config.optimizer
    assert (optimizer.name, optimizer.beta1, optimizer.beta2, optimizer.epsilon) == ("adamw", 0.9, 0.999, 1e-8)
    assert (optimizer.weight_decay, optimizer.gradient_clip_norm) == (0.1, 1.0)
    assert (config.data.randaugment_layers, config.data.randaugment_magnitude) == (2, 10.0)
    assert (config.data.crop, config.data.crop_min_area, config.data.evaluation_crop) == ("inception", 0.05, 0.875)


def test_every_suite_is_evaluated():
    assert sorted(imagenet.get_config().evaluation.suites) == sorted(suites.names("classification"))


def test_the_argument_still_picks_the_model():
    config = config_lib.parse(imagenet.get_config("variant=S/16,experts=32,where=every2,recipe=deit"))
    assert (config.model.patch_size_px, config.model.moe.num_experts) == (16, 32)
    assert config.model.moe_layers == (1, 3, 5, 7)
    assert config.model.representation_size is None


@EVERY_RECIPE
def test_a_training_step_is_traced(recipe):
    """Of a model of two narrow blocks; at the recipe's image size, with all that happens on the device."""
    config = imagenet.get_config(f"recipe={recipe},variant=Ti/32,experts=4,where=last1,router=attention_vmoe")
    config.model.num_layers = 2
    config.train.batch_size = config.evaluation.batch_size = 64
    built = program.build(config_lib.parse(config), 50_000)
    with built.in_use():
        state, metrics = jax.eval_shape(built.train_step, built.state_shapes, built.batch_shapes)
    chex.assert_trees_all_equal_shapes_and_dtypes(state, built.state_shapes)
    assert {"loss", "losses/load", "routing/block_1/dropped"} <= set(metrics)
    assert state.params["position_embedding"].shape[1] == 1 + (config.model.image_size_px // 32) ** 2


def test_bad_recipe():
    with pytest.raises(ValueError, match=r"recipe: expected one of vmoe300, deit, finetune384; received 'vit'"):
        imagenet.get_config("recipe=vit")
    with pytest.raises(ValueError, match=r"config argument: expected one of the keys router, .*; received 'recipe'"):
        digits.get_config("recipe=deit")
