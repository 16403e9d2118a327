"""The model's operations: worked out by hand, and against the products in the traced program."""

import math

import jax
import jax.extend.core
import jax.numpy as jnp
import pytest

from tests import tiny
from vmoe_inform import config as config_lib
from vmoe_inform.nn import models
from vmoe_inform.nn.operations import training_flops_per_image


def _model(**overrides) -> config_lib.ModelConfig:
    return config_lib.parse(tiny.config_dict(**overrides)).model


def test_by_hand():
    """Two blocks of width 16, the second with 2 of 4 experts; 4 patches of 16 x 16 pixels and a class token: N = 5."""
    embedding = 2 * 4 * (16 * 16 * 3) * 16  # 98,304
    projections, attention, mlp = 4 * 2 * 5 * 16**2, 2 * 2 * 5**2 * 16, 2 * 2 * 5 * 16 * 32  # 10,240; 1,600; 10,240
    head = 2 * 16 * 10
    forward = embedding + 2 * (projections + attention) + 3 * mlp + head
    assert forward == 153_024
    assert training_flops_per_image(_model()) == 3 * forward


def _products(jaxpr) -> int:
    """Operations of all matrix products and convolutions of a traced function."""
    total = 0
    for equation in jaxpr.eqns:
        if equation.primitive.name == "dot_general":
            (contracted, _), _ = equation.params["dimension_numbers"]
            left = equation.invars[0].aval.shape
            total += 2 * equation.outvars[0].aval.size * math.prod(left[axis] for axis in contracted)
        elif equation.primitive.name == "conv_general_dilated":  # kernel [rows, columns, inputs, outputs]
            total += 2 * equation.outvars[0].aval.size * math.prod(equation.invars[1].aval.shape[:-1])
        for inner in jax.extend.core.jaxprs_in_params(equation.params):
            total += _products(inner)
    return total


@pytest.mark.parametrize(
    ("overrides", "router_flops"),
    [
        ({"model__moe__layers": "none"}, 0),
        ({"model__moe__layers": "none", "model__classifier": "gap", "model__representation_size": 24}, 0),
        ({"model__moe__layers": "none", "model__classifier": "map"}, 0),
        # 2 images x 5 tokens in a group: with a capacity factor of 1 each of 4 experts has 10 * 2 / 4 = 5 slots, all
        # of which are computed. What does not count: the router's product of each token with 4 experts, and picking the
        # weights of 2 of them, which is one with zeros and ones.
        ({}, 2 * 5 * 16 * 4 + 2 * 5 * 2 * 4),
    ],
    ids=["class token", "mean and tanh layer", "pooling by attention", "experts"],
)
def test_the_traced_forward_pass_has_these_products(overrides, router_flops):
    config = _model(
        model__moe__capacity_factor_evaluation=1.0,
        model__moe__capacity_multiple_of=1,
        model__moe__dispatch="gather",
        **overrides,
    )
    model = models.from_config(config)
    variables = jax.eval_shape(lambda: models.initialize(model, jax.random.key(0)))
    images = jax.ShapeDtypeStruct((2, 32, 32, 3), jnp.float32)
    traced = jax.make_jaxpr(lambda v, i: model.apply(v, i)[0])(variables, images)
    assert _products(traced.jaxpr) == 2 * (training_flops_per_image(config) / 3 + router_flops)
