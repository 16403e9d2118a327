"""The model's operations: worked out by hand, against the traced products, and against what is compiled."""

import dataclasses
import math

import jax
import jax.extend.core
import jax.numpy as jnp
import pytest

from tests import tiny
from vmoe_inform import config as config_lib
from vmoe_inform.nn import models
from vmoe_inform.nn.operations import forward_flops_per_sequence, training_flops_per_sequence


def _model(**overrides) -> config_lib.ModelConfig:
    return config_lib.parse(tiny.config_dict(**overrides)).model


def test_by_hand():
    """Two blocks of width 16, the second with 2 of 4 experts; 4 patches of 16 x 16 pixels and a class token: N = 5."""
    embedding = 2 * 4 * (16 * 16 * 3) * 16  # 98,304
    projections, attention, mlp = 4 * 2 * 5 * 16**2, 2 * 2 * 5**2 * 16, 2 * 2 * 5 * 16 * 32  # 10,240; 1,600; 10,240
    router, head = 2 * 5 * 16 * 4, 2 * 16 * 10
    forward = embedding + 2 * (projections + attention) + 3 * mlp + router + head
    assert forward == 153_664
    assert forward_flops_per_sequence(_model()) == forward
    # Half of the choices found no slot: one MLP for each token is left; so with one expert each.
    assert forward_flops_per_sequence(_model(), kept=0.5) == forward_flops_per_sequence(_model(), k=1) == forward - mlp
    assert forward_flops_per_sequence(_model(model__moe__shared_experts=3)) == forward + 3 * mlp
    # Two gradients for every product, but none for the pixels.
    assert training_flops_per_sequence(_model()) == 3 * forward - embedding
    assert training_flops_per_sequence(_model(), kept=0.5) == 3 * (forward - mlp) - embedding


def _products(jaxpr) -> int:
    """Operations of all matrix products and convolutions of a traced function."""
    total = 0
    for equation in jaxpr.eqns:
        if equation.primitive.name == "dot_general":
            (contracted, _), _ = equation.params["dimension_numbers"]
            left = equation.invars[0].aval.shape
            total += 2 * equation.outvars[0].aval.size * math.prod(left[axis] for axis in contracted)
        elif equation.primitive.name == "conv_general_dilated":
            total += 2 * equation.outvars[0].aval.size * _positions_and_inputs(equation)
        for inner in jax.extend.core.jaxprs_in_params(equation.params):
            total += _products(inner)
    return total


def _positions_and_inputs(equation) -> int:
    """Numbers that a convolution sums for one of its own: those of the kernel but for its output features."""
    kernel, spec = equation.invars[1].aval.shape, equation.params["dimension_numbers"].rhs_spec
    return math.prod(kernel) // kernel[spec[0]]


@pytest.mark.parametrize(
    ("overrides", "others"),
    [
        ({"model__moe__layers": "none"}, 0),
        ({"model__moe__layers": "none", "model__classifier": "gap", "model__representation_size": 24}, 0),
        ({"model__moe__layers": "none", "model__classifier": "map"}, 0),
        # 2 images x 5 tokens in a group: with a capacity factor of 1 each of 4 experts has 10 * 2 / 4 = 5 slots, all
        # of which are computed. What does not count is picking the weights of 2 of the 4 experts, which is a product
        # with zeros and ones.
        ({"model__moe__shared_experts": 3}, 2 * 5 * 2 * 4),
    ],
    ids=["class token", "mean and tanh layer", "pooling by attention", "experts"],
)
def test_the_traced_passes_have_these_products(overrides, others):
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
    assert _products(traced.jaxpr) == 2 * (forward_flops_per_sequence(config) + others)
    gradient = jax.make_jaxpr(jax.grad(lambda v, i: jnp.sum(model.apply(v, i)[0] ** 2)))(variables, images)
    # The gradients of the biases of query, key, value and output are sums over tokens, done as products with ones.
    biases = 2 * 4 * 2 * config.num_tokens * config.hidden_size
    assert _products(gradient.jaxpr) == 2 * (training_flops_per_sequence(config) + others + biases)


TEXT = {
    "inputs": "tokens", "vocabulary_size": 50, "num_tokens": 6, "num_layers": 2, "hidden_size": 8, "mlp_size": 12,
    "num_heads": 2, "moe": {"layers": "none"},
}  # fmt: skip
PREVIOUS = {"attention_style": "previous", "attention_span": 9, "block": "post_ln_double"}


def test_text_by_hand():
    """6 tokens, 2 blocks of width 8; with the memory, keys and values of 9 tokens more, and relative keys."""
    blocks, head = 2 * (4 * 2 * 6 * 8**2 + 2 * 2 * 6**2 * 8 + 2 * 2 * 6 * 8 * 12), 2 * 6 * 8 * 50
    causal = config_lib.parse_model(TEXT)
    assert forward_flops_per_sequence(causal) == blocks + head
    assert training_flops_per_sequence(causal) == 3 * (blocks + head)
    previous = config_lib.parse_model(TEXT | PREVIOUS)
    memory = 2 * 2 * 2 * 9 * 8**2
    attention = 2 * (2 * 2 * 6 * 9 * 8 + 2 * 6 * 9 * 8 - 2 * 2 * 6**2 * 8)
    assert forward_flops_per_sequence(previous) == blocks + head + memory + attention
    assert training_flops_per_sequence(previous) == 3 * (blocks + head + attention) + 2 * memory
    classifier = config_lib.parse_model({**TEXT, "num_classes": 5})
    assert forward_flops_per_sequence(classifier) == blocks + 2 * 8 * 5


def test_the_traced_pass_of_text_has_these_products():
    model = models.from_config(TEXT)
    variables = jax.eval_shape(lambda: models.initialize(model, jax.random.key(0)))
    tokens = jax.ShapeDtypeStruct((3, 6), jnp.int32)
    traced = jax.make_jaxpr(lambda v, t: model.apply(v, t)[0])(variables, tokens)
    assert _products(traced.jaxpr) == 3 * forward_flops_per_sequence(model.config)
    gradient = jax.make_jaxpr(jax.grad(lambda v, t: jnp.sum(model.apply(v, t)[0] ** 2)))(variables, tokens)
    biases = 2 * 4 * 2 * 6 * 8  # see above
    assert _products(gradient.jaxpr) == 3 * (training_flops_per_sequence(model.config) + biases)


@pytest.mark.parametrize("classifier", ["token", "map"])
def test_they_are_nearly_all_that_is_compiled(classifier):
    """What is left is elementwise: LayerNorms, GELU, softmax, additions."""
    sizes = {"image_size_px": 32, "patch_size_px": 8, "num_layers": 1, "hidden_size": 512, "num_classes": 10}
    config = config_lib.parse_model({**sizes, "classifier": classifier, "moe": {"layers": "none"}})
    model = models.from_config(config)
    images = jax.ShapeDtypeStruct((4, 32, 32, 3), jnp.float32)
    variables = jax.eval_shape(lambda: models.initialize(model, jax.random.key(0)))

    def forward(variables, images):
        return model.apply(variables, images)[0]

    def training(variables, images):
        return jax.grad(lambda v: jnp.sum(forward(v, images) ** 2))(variables)

    for function, formula in ((forward, forward_flops_per_sequence), (training, training_flops_per_sequence)):
        compiled = jax.jit(function).lower(variables, images).cost_analysis()["flops"]
        assert 1.0 < compiled / (4 * formula(config)) < 1.02


def test_every_router_counts_the_same():
    counts = {
        forward_flops_per_sequence(_model(router=router)) for router in ("vmoe", "symphony_vmoe", "attention_vmoe")
    }
    assert len(counts) == 1
    more_experts = dataclasses.replace(_model().moe, num_experts=8)
    more = forward_flops_per_sequence(dataclasses.replace(_model(), moe=more_experts))
    assert more - forward_flops_per_sequence(_model()) == 2 * 5 * 16 * 4
