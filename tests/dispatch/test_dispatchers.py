"""The contract of every registered dispatcher: outputs and gradients are those of the obvious one."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend.core import jaxprs_in_params
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from vmoe_inform import dispatch
from vmoe_inform.dispatch.segment_products import segment_linear

WIDTH = 6
# G groups of S tokens, K of E experts, C slots
SHAPES = {
    "smallest": (1, 1, 1, 1, 1),
    "dropping": (2, 8, 2, 4, 2),
    "enough": (2, 8, 2, 4, 8),
    "larger-than-group": (1, 5, 2, 3, 12),
    "all-experts": (2, 4, 3, 3, 4),
}
FAST = [name for name in dispatch.DISPATCHERS if name != "reference"]
DISPATCHER = pytest.mark.parametrize("name", FAST)


def expert_function(parameters):
    """Experts with a bias, so that an empty slot's output is not zero and would show if it leaked."""

    def experts(rows, where=None):
        kernel, bias = (parameters[name].astype(rows.dtype) for name in ("kernel", "bias"))
        if where is None:
            return jnp.tanh(jnp.einsum("egtd,edf->egtf", rows, kernel) + bias[:, None, None])
        if isinstance(where, dispatch.Segments):
            return jnp.tanh(segment_linear(rows, kernel, bias, where))
        index = jnp.minimum(where, len(bias) - 1)  # a block of no expert may give anything
        return jnp.tanh(jnp.einsum("xtd,xdf->xtf", rows, kernel[index]) + bias[index][:, None])

    return experts


def make(shape, seed=0, groups=None):
    num_groups, size, selected, num_experts, _ = shape
    num_groups = groups or num_groups
    rng = np.random.default_rng(seed)
    probabilities = rng.dirichlet(np.ones(num_experts), size=(num_groups, size)) * np.linspace(1, 2, num_experts)
    indices = np.argsort(-probabilities, axis=-1)[..., :selected]
    normal = lambda *dims: jnp.asarray(rng.normal(size=dims), jnp.float32)
    inputs = {
        "tokens": normal(num_groups, size, WIDTH),
        "weights": jnp.asarray(np.take_along_axis(probabilities, indices, axis=-1), jnp.float32),
        "parameters": {"kernel": normal(num_experts, WIDTH, WIDTH), "bias": normal(num_experts, WIDTH)},
    }
    return inputs, jnp.asarray(indices, jnp.int32), normal(num_groups, size, WIDTH)


def run(name, inputs, indices, shape, batch_priority=False):
    assignment = dispatch.assign_slots(
        inputs["weights"],
        indices,
        num_experts=shape[3],
        capacity=shape[4],
        priority=inputs["weights"][..., 0] if batch_priority else None,
    )
    return dispatch.DISPATCHERS[name](inputs["tokens"], assignment, expert_function(inputs["parameters"]))


@functools.cache
def outputs_and_gradients(name, shape, batch_priority=False):
    @jax.jit
    def function(inputs, indices, cotangent):
        def loss(inputs):
            outputs = run(name, inputs, indices, shape, batch_priority)
            return jnp.sum(outputs.astype(jnp.float32) * cotangent), outputs

        gradients, outputs = jax.grad(loss, has_aux=True)(inputs)
        return outputs, gradients

    return function


def assert_trees_close(one, two, tolerance):
    for (path, a), b in zip(jax.tree.leaves_with_path(one), jax.tree.leaves(two), strict=True):
        np.testing.assert_allclose(
            np.asarray(a, np.float32), np.asarray(b, np.float32), rtol=tolerance, atol=tolerance, err_msg=str(path)
        )


@DISPATCHER
@pytest.mark.parametrize(
    ("shape", "batch_priority"),
    [*((name, False) for name in SHAPES), ("dropping", True)],
)
def test_outputs_and_gradients_equal_the_reference(name, shape, batch_priority):
    shape = SHAPES[shape]
    arguments = make(shape)
    assert_trees_close(
        outputs_and_gradients(name, shape, batch_priority)(*arguments),
        outputs_and_gradients("reference", shape, batch_priority)(*arguments),
        1e-5,
    )


@pytest.mark.parametrize("name", dispatch.DISPATCHERS)
def test_outputs_equal_a_loop_over_tokens(name):
    shape = SHAPES["dropping"]
    arguments = make(shape)
    outputs, _ = outputs_and_gradients(name, shape)(*arguments)
    inputs, indices, _ = arguments
    kept = np.asarray(dispatch.assign_slots(inputs["weights"], indices, num_experts=4, capacity=2).kept)
    inputs, indices = jax.device_get((inputs, indices))
    kernel, bias = (np.asarray(inputs["parameters"][key], np.float64) for key in ("kernel", "bias"))
    expected = np.zeros(inputs["tokens"].shape)
    for g, s, k in zip(*np.nonzero(kept), strict=True):
        e = indices[g, s, k]
        expected[g, s] += inputs["weights"][g, s, k] * np.tanh(inputs["tokens"][g, s] @ kernel[e] + bias[e])
    assert not kept.all()
    np.testing.assert_allclose(outputs, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", dispatch.DISPATCHERS)
def test_dropped_assignments_contribute_nothing_and_get_no_gradient(name):
    # Six tokens that all choose expert 1 of 3, which has two slots: tokens 2 to 5 are dropped.
    shape = (1, 6, 1, 3, 2)
    inputs, _, cotangent = make(shape)
    indices = jnp.ones((1, 6, 1), jnp.int32)
    outputs, gradients = outputs_and_gradients(name, shape)(inputs, indices, cotangent)
    for array in (outputs, gradients["tokens"], gradients["weights"]):
        np.testing.assert_array_equal(array[0, 2:], 0.0)
        assert np.abs(array[0, :2]).min() > 0
    # The experts nobody chose learn nothing, whatever an empty slot gave.
    for gradient in gradients["parameters"].values():
        np.testing.assert_array_equal(np.asarray(gradient)[[0, 2]], 0.0)
        assert np.abs(gradient[1]).max() > 0


@pytest.mark.parametrize("name", dispatch.DISPATCHERS)
def test_bfloat16_tokens_give_bfloat16_outputs_and_gradients(name):
    shape = SHAPES["dropping"]
    inputs, indices, cotangent = make(shape)
    half = {**inputs, "tokens": inputs["tokens"].astype(jnp.bfloat16)}
    result = outputs_and_gradients(name, shape)(half, indices, cotangent)
    assert result[0].dtype == result[1]["tokens"].dtype == jnp.bfloat16
    assert result[1]["weights"].dtype == result[1]["parameters"]["kernel"].dtype == jnp.float32
    # 8 bits of mantissa, sums of about ten terms of size 1.
    assert_trees_close(result, outputs_and_gradients("reference", shape)(inputs, indices, cotangent), 0.1)


@pytest.mark.parametrize("name", dispatch.DISPATCHERS)
def test_jit_equals_eager_and_compiles_once(name):
    shape = SHAPES["dropping"]
    traces = []

    @jax.jit
    def function(inputs, indices):
        traces.append(None)
        return run(name, inputs, indices, shape)

    for seed in (0, 1):
        inputs, indices, _ = make(shape, seed)
        np.testing.assert_allclose(function(inputs, indices), run(name, inputs, indices, shape), rtol=1e-5, atol=1e-6)
    assert len(traces) == 1


@pytest.mark.parametrize("name", dispatch.DISPATCHERS)
def test_vmap_equals_a_loop(name):
    shape = SHAPES["dropping"]
    made = [make(shape, seed) for seed in (0, 1, 2)]
    stack = lambda trees: jax.tree.map(lambda *leaves: np.stack(leaves), *trees)
    stacked = stack(made)
    function = outputs_and_gradients(name, shape)
    looped = stack([function(*arguments) for arguments in made])
    assert_trees_close(jax.vmap(function)(*stacked), looped, 1e-5)


@pytest.mark.parametrize("name", dispatch.DISPATCHERS)
def test_one_device_equals_eight_that_share_the_groups(name):
    shape = SHAPES["dropping"]
    inputs, indices, cotangent = make(shape, groups=8)
    function = outputs_and_gradients(name, shape)
    alone = function(inputs, indices, cotangent)
    mesh = Mesh(np.array(jax.devices()), ("groups",))
    assert mesh.size == 8
    by_group, everywhere = NamedSharding(mesh, PartitionSpec("groups")), NamedSharding(mesh, PartitionSpec())
    shared = {
        "tokens": jax.device_put(inputs["tokens"], by_group),
        "weights": jax.device_put(inputs["weights"], by_group),
        "parameters": jax.device_put(inputs["parameters"], everywhere),
    }
    together = function(shared, jax.device_put(indices, by_group), jax.device_put(cotangent, by_group))
    assert together[0].sharding.is_equivalent_to(by_group, 3)
    assert_trees_close(together, alone, 1e-5)


def scatter_operand_shapes(jaxpr):
    for equation in jaxpr.eqns:
        if equation.primitive.name.startswith("scatter"):
            yield equation.invars[0].aval.shape
        for inner in jaxprs_in_params(equation.params):
            yield from scatter_operand_shapes(inner)


def test_gather_has_no_scatter_of_wide_rows():
    shape = SHAPES["dropping"]
    arguments = make(shape)
    program = jax.make_jaxpr(outputs_and_gradients("gather", shape))(*arguments)
    operands = list(scatter_operand_shapes(program.jaxpr))
    assert operands  # the map from slots to assignments: integers
    assert all(WIDTH not in operand for operand in operands)

    # The same search finds the scatter-add that a plain gather of rows is differentiated to.
    loss = lambda table, index: jnp.sum(jnp.take_along_axis(table, index, axis=1) ** 2)
    plain = jax.make_jaxpr(jax.grad(loss))(arguments[0]["tokens"], arguments[1][..., :1])
    assert [operand[-1] for operand in scatter_operand_shapes(plain.jaxpr)] == [WIDTH]
