import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vmoe_inform import config as config_lib
from vmoe_inform import tasks
from vmoe_inform.data import sources
from vmoe_inform.data.records import SelectedRecords
from vmoe_inform.evaluation import adversarial
from vmoe_inform.evaluation.adversarial import FastGradientSign, ProjectedGradient
from vmoe_inform.evaluation.predict import Predictor
from vmoe_inform.nn import models
from vmoe_inform.sharding.mesh import make_mesh
from vmoe_inform.sharding.rules import tree_shardings

from .. import tiny

WEIGHTS = jnp.asarray(np.random.default_rng(0).normal(size=(4, 4, 3)), jnp.float32)
IMAGES = jnp.asarray(np.random.default_rng(1).uniform(0, 255, (5, 4, 4, 3)), jnp.float32).at[0, 0].set(0.0)
NO_START = jnp.zeros_like(IMAGES)


def logistic_losses(images):
    """Of each image, log(1 + exp(-w x)): falls along w, wherever x is."""
    return jax.nn.softplus(-jnp.sum(WEIGHTS[None] * images, axis=(1, 2, 3)) / 1000)


gradient = jax.grad(lambda images: jnp.sum(logistic_losses(images)))


def test_fgsm_of_a_linear_model_is_a_step_against_its_weights():
    expected = np.clip(np.asarray(IMAGES) - 8 * np.sign(np.asarray(WEIGHTS)), 0, 255)
    found, without_gradient = adversarial.fgsm(gradient, IMAGES, 8.0)
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    assert not without_gradient.any()


def test_one_whole_step_from_the_image_itself_is_fgsm():
    found, _ = adversarial.pgd(gradient, IMAGES, start=NO_START, epsilon=8.0, step_size=8.0, num_steps=1)
    np.testing.assert_array_equal(found, adversarial.fgsm(gradient, IMAGES, 8.0)[0])


@pytest.mark.parametrize("attack", [FastGradientSign(3.0), ProjectedGradient(3.0, 2.5, 4, seed=0)], ids=str)
def test_change_stays_in_the_ball_and_pixels_in_their_range_and_the_loss_grows(attack):
    found, _ = attack.perturb(gradient, IMAGES, jnp.arange(5))
    assert jnp.abs(found - IMAGES).max() <= 3.0 + 1e-4
    assert jnp.abs(found - IMAGES).max() >= 2.9
    assert found.min() >= 0.0
    assert found.max() <= 255.0
    assert (logistic_losses(found) > logistic_losses(IMAGES)).all()


def test_many_steps_reach_the_corner_of_the_ball_that_is_the_worst_for_a_linear_model():
    attack = ProjectedGradient(epsilon=3.0, step_size=1.0, num_steps=6, seed=0)  # from anywhere 6 are enough
    worst, _ = adversarial.fgsm(gradient, IMAGES, 3.0)
    np.testing.assert_allclose(attack.perturb(gradient, IMAGES, jnp.arange(5))[0], worst, rtol=1e-6)


def test_images_whose_gradient_is_zero_in_some_step_are_named():
    def vanishing(pixels):
        """The first image has no gradient at all; that of the second ends where the first pixel is above 100."""
        alive = jnp.asarray([0.0, 1.0, 1.0, 1.0, 1.0]).at[1].set(pixels[1, 3, 3, 0] <= 100)
        return alive[:, None, None, None] * jnp.ones_like(pixels)

    images = IMAGES.at[1].set(98.0)
    _, without_gradient = adversarial.fgsm(vanishing, images, 3.0)
    assert without_gradient.tolist() == [True, False, False, False, False]
    found, without_gradient = adversarial.pgd(
        vanishing, images, start=NO_START, epsilon=9.0, step_size=1.0, num_steps=5
    )
    assert without_gradient.tolist() == [True, True, False, False, False]
    np.testing.assert_array_equal(found[0], images[0])
    np.testing.assert_array_equal(found[1], 101.0)


def test_margin_is_that_of_the_largest_other_logit_and_its_gradient_does_not_saturate():
    logits, labels = jnp.asarray([[1.0, 4.0, 2.0], [9.0, 1.0, 8.5], [400.0, 0.0, -7.0]]), jnp.asarray([1, 1, 0])
    np.testing.assert_allclose(adversarial.margin_losses(logits, labels), [-2.0, 8.0, -400.0])
    gradients = jax.grad(lambda logits: jnp.sum(adversarial.margin_losses(logits, labels)))(logits)
    np.testing.assert_array_equal(gradients, [[0, -1, 1], [1, -1, 0], [-1, 1, 0]])


def test_random_start_is_of_the_image_not_of_its_batch():
    whole = adversarial.random_start(3, jnp.arange(6), (4, 4, 3), 2.0)
    part = adversarial.random_start(3, jnp.array([4, 1]), (4, 4, 3), 2.0)
    np.testing.assert_array_equal(part, whole[jnp.array([4, 1])])
    assert jnp.abs(whole).max() <= 2.0
    assert jnp.abs(whole).max() > 1.9  # of 288 uniform numbers
    other = adversarial.random_start(4, jnp.arange(6), (4, 4, 3), 2.0)
    assert not np.array_equal(whole, other)


# ------------------------------------------------------------------------------------------- through a whole model

CONFIG = config_lib.parse(tiny.config_dict(evaluation__batch_size=16))


@functools.cache
def variables():
    model = models.from_config(CONFIG.model)
    fresh = models.initialize(model, jax.random.key(0))
    # A fresh head is 0, through which no gradient goes.
    head = jax.random.normal(jax.random.key(1), fresh["params"]["head"]["kernel"].shape)
    return {**fresh, "params": {**fresh["params"], "head": {**fresh["params"]["head"], "kernel": head}}}


def on_devices(number):
    """The model on so many devices: images and an attack, or None, to predictions."""
    mesh = make_mesh(number, 1, jax.devices()[:number])
    predictor = Predictor(models.from_config(CONFIG.model), tasks.from_config(CONFIG), mesh)
    placed = jax.device_put(variables(), tree_shardings(jax.eval_shape(variables), mesh))
    return functools.partial(predictor.predict, placed), functools.partial(predictor.predict_attacked, placed)


def nll(predictions):
    log_probabilities = jax.nn.log_softmax(predictions.logits)
    return -np.take_along_axis(np.asarray(log_probabilities), predictions.labels[:, None], axis=1)[:, 0]


def test_attack_through_the_moe():
    attack = ProjectedGradient(epsilon=4.0, step_size=2.0, num_steps=3, seed=0)
    digits = sources.load(CONFIG.data, "test")
    source = sources.Source(SelectedRecords(digits.records, tuple(range(20))), digits.class_names)
    predict, predict_attacked = on_devices(8)
    clean, attacked = predict(source), predict_attacked(source, attack)
    np.testing.assert_array_equal(attacked.indices, np.arange(20))
    # Capacity and choice of experts jump, so that a single image may escape; the mean may not.
    assert nll(attacked).mean() > nll(clean).mean() + 0.01
    assert (nll(attacked) > nll(clean)).mean() > 0.9
    np.testing.assert_array_equal(predict_attacked(source, attack).logits, attacked.logits)
    _, predict_attacked_on_one = on_devices(1)
    np.testing.assert_allclose(predict_attacked_on_one(source, attack).logits, attacked.logits, atol=1e-3)


def scaled(factor):
    """The variables with a head whose logits are larger by a factor."""
    found = variables()
    head = {name: factor * values for name, values in found["params"]["head"].items()}
    return {**found, "params": {**found["params"], "head": head}}


@pytest.mark.parametrize("attack", [FastGradientSign(4.0), ProjectedGradient(4.0, 2.0, 3, seed=0)], ids=str)
def test_a_head_that_is_larger_by_a_factor_is_attacked_just_the_same(attack):
    digits = sources.load(CONFIG.data, "test")
    source = sources.Source(SelectedRecords(digits.records, tuple(range(20))), digits.class_names)
    task = tasks.from_config(CONFIG)
    predictor = Predictor(models.from_config(CONFIG.model), task, make_mesh(1, 1, jax.devices()[:1]))
    before, after, without = (
        predictor.predict_attacked(scaled(factor), source, attack) for factor in (1.0, 2.0**12, 0.0)
    )
    # Powers of two are exact; at 2^12 the softmax of nearly all images is saturated.
    assert (nll(predictor.predict(scaled(2.0**12), source)) == 0).mean() >= 0.05
    np.testing.assert_array_equal(after.logits, 2.0**12 * before.logits)
    assert not before.without_gradient.any()
    assert not after.without_gradient.any()
    assert without.without_gradient.all()  # a head of zeros passes none
