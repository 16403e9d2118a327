"""Work in blocks of rows gives what whole matrices give, and never has an N x N matrix."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend.core import jaxprs_in_params

from vmoe_inform import routing
from vmoe_inform.routing.blocks import map_row_blocks

N, D, H, F, E = 6, 4, 3, 2, 5
SIZES = (1, 3, 4)  # rows of blocks: each its own, a divisor of N, and one that leaves a smaller block
MASK = jnp.asarray(np.random.default_rng(0).random((N, N)) < 0.5).at[2].set(False)  # a token with an empty row


def sizes(tokens):
    """Shapes of what the functions take; no other size is that of N."""
    return {
        "similarity": {"probabilities": (tokens, E), "tokens": (tokens, D), "weight": (D, D)},
        "attention": {
            "probabilities": (tokens, E),
            "queries": (H, tokens, F),
            "keys": (H, tokens, F),
            "means": (H, tokens, D),
            "outputs": (tokens, D),
        },
    }


def arrays(function, tokens=N):
    rng = np.random.default_rng(1)
    shapes = sizes(tokens)[function].items()
    made = {name: jnp.asarray(rng.normal(size=shape), jnp.float32) for name, shape in shapes}
    return made | {"probabilities": jax.nn.softmax(made["probabilities"])}


FUNCTIONS = {"similarity": routing.similarity_informed, "attention": routing.attention_informed}
SETTINGS = pytest.mark.parametrize(
    ("name", "options"),
    [
        pytest.param(name, options, id=f"{name}-{'-'.join(map(str, options.values()))}" if options else name)
        for name, options in [
            ("similarity", {}),
            ("similarity", {"metric": "cosine", "temperature": 1e-3}),
            ("similarity", {"mask": "causal", "temperature": "sqrt_dim"}),
            ("similarity", {"mask": MASK}),
            ("attention", {"sigma": 1e-3}),
            ("attention", {"heads": "posterior", "sigma": 3.0}),
            ("attention", {"mask": "causal", "sigma": 3.0}),
            ("attention", {"mask": MASK}),
            ("attention", {"mask": MASK, "heads": "posterior", "sigma": 3.0, "normalize": "sqrt_dim", "center": True}),
        ]
    ],
)


def values_and_gradients(name, options, block_size, inputs):
    function = functools.partial(FUNCTIONS[name], **options, block_size=block_size)

    def loss(learned):
        values = function(**learned)
        return jnp.sum(jnp.sin(values)), values

    gradients, values = jax.grad(loss, has_aux=True)(inputs)
    return values, gradients


@SETTINGS
def test_the_block_size_changes_neither_values_nor_gradients(name, options):
    inputs = arrays(name)
    whole, *in_blocks = jax.jit(
        lambda inputs: [values_and_gradients(name, options, size, inputs) for size in (None, *SIZES)]
    )(inputs)
    # Gradients are divided by what the exponents are: so are their roundings.
    scale = min(options.get("sigma", 1.0) ** 2, 1e-3 if "temperature" in options else 1.0)
    for values, gradients in in_blocks:
        np.testing.assert_allclose(values, whole[0], rtol=1e-5)
        chex.assert_trees_all_close(gradients, whole[1], rtol=1e-4, atol=1e-6 / scale)


def test_a_block_of_all_tokens_is_the_whole_matrix():
    def program(name, block_size):
        return str(jax.make_jaxpr(lambda inputs: values_and_gradients(name, {}, block_size, inputs))(arrays(name)))

    for name in FUNCTIONS:
        assert program(name, N) == program(name, N + 3) == program(name, None)


def square_matrices(jaxpr, size):
    """Arrays with more than one axis of that size that a program makes."""
    for equation in jaxpr.eqns:
        for variable in equation.outvars:
            if getattr(variable.aval, "shape", ()).count(size) > 1:
                yield variable.aval
        for inner in jaxprs_in_params(equation.params):
            yield from square_matrices(inner, size)


@SETTINGS
def test_no_matrix_of_all_pairs_of_tokens_is_made_also_for_gradients(name, options):
    tokens = 11
    options = {**options}
    if "mask" in options and not isinstance(options["mask"], str):
        options["mask"] = jnp.ones((tokens, tokens), bool)

    def found(block_size):
        function = lambda inputs: values_and_gradients(name, options, block_size, inputs)
        return list(square_matrices(jax.make_jaxpr(function)(arrays(name, tokens)).jaxpr, tokens))

    in_blocks = found(4)
    assert not [array for array in in_blocks if array.dtype != bool]  # a mask that is given is there
    assert isinstance(options.get("mask", ""), jax.Array) or not in_blocks
    assert [array for array in found(None) if array.dtype == jnp.float32]


def test_memory_grows_with_the_tokens_and_not_with_their_square():
    def temporary_bytes(name, tokens, block_size):
        shapes = {key: jax.ShapeDtypeStruct(shape, jnp.float32) for key, shape in sizes(tokens)[name].items()}
        program = jax.jit(lambda inputs: values_and_gradients(name, {}, block_size, inputs)[1])
        return program.lower(shapes).compile().memory_analysis().temp_size_in_bytes

    for name in FUNCTIONS:
        # Four times the tokens: 4 times the memory in blocks, 16 times for whole matrices.
        assert temporary_bytes(name, 1024, 32) < 4.4 * temporary_bytes(name, 256, 32)
        assert temporary_bytes(name, 1024, None) > 10 * temporary_bytes(name, 256, None)


@pytest.mark.parametrize("axis", [0, 1, -2])
def test_rows_along_any_axis(axis):
    array = jnp.arange(3 * 7 * 2.0).reshape(3, 7, 2)
    rows = {"array": jnp.moveaxis(array, 1, axis), "missing": None}
    double = lambda rows: {"twice": 2 * rows["array"], "missing": rows["missing"]}
    blocks = map_row_blocks(double, rows, block_size=3, axis=axis)
    np.testing.assert_array_equal(blocks["twice"], 2 * rows["array"])
    assert blocks["missing"] is None
