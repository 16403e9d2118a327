"""The kernels against attention as it is written, worked out by Pallas' interpreter on a CPU."""

import functools
import re

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AbstractDevice, AbstractMesh, AxisType, use_abstract_mesh

from vmoe_inform import config as config_lib
from vmoe_inform.nn import fused_attention as fused
from vmoe_inform.nn.attention import SelfAttention, _attend
from vmoe_inform.nn.fused_attention import fits, fused_attention
from vmoe_inform.sharding.mesh import AXES

B, N, D = 2, 13, 256  # a prime number of tokens, and more than one block of lanes


def reference(queries, keys, values, num_heads):
    """Outputs and entropies [B, H] with an array for each head, float32."""

    def split(array):
        return array.astype(jnp.float32).reshape(*array.shape[:2], num_heads, -1)

    queries, keys, values = split(queries), split(keys), split(values)
    with jax.default_matmul_precision("float32"):
        logits = jnp.einsum("bihf,bjhf->bhij", queries, keys) / queries.shape[-1] ** 0.5
        weights = jax.nn.softmax(logits, axis=-1)
        attended = jnp.einsum("bhij,bjhf->bihf", weights, values)
    entropies = -jnp.sum(weights * jax.nn.log_softmax(logits, axis=-1), axis=-1)
    return attended.reshape(*attended.shape[:2], -1), jnp.mean(entropies, axis=-1)


def inputs(dtype, tokens=N, width=D):
    rng = np.random.default_rng(0)
    return [jnp.asarray(rng.normal(size=(B, tokens, width)), dtype) for _ in range(4)]


@functools.partial(jax.jit, static_argnums=0)
def with_gradients(attention, arrays):
    *arguments, direction = arrays
    (attended, entropies), pullback = jax.vjp(attention, *arguments)
    return attended, entropies, *pullback((direction.astype(attended.dtype), jnp.ones_like(entropies)))


def compare(dtype, num_heads, arrays, rtol):
    """Errors as shares of the largest value of each array."""
    got = with_gradients(
        lambda q, k, v: fused_attention(q, k, v, num_heads=num_heads, record=True, interpret=True), arrays
    )

    def expected(q, k, v):
        attended, entropies = reference(q, k, v, num_heads)
        return attended, jax.lax.stop_gradient(entropies)

    wanted = with_gradients(expected, [array.astype(jnp.float32) for array in arrays])
    for name, one, other in zip(("attended", "entropies", "queries", "keys", "values"), got, wanted, strict=True):
        assert one.dtype == (jnp.float32 if name == "entropies" else dtype), name
        largest = np.max(np.abs(other))
        np.testing.assert_allclose(one.astype(jnp.float32) / largest, other / largest, rtol=0, atol=rtol, err_msg=name)


# Four heads in a block of lanes, two, one, and one that takes two registers.
@pytest.mark.parametrize(
    ("head_size", "dtype", "rtol"),
    [(32, jnp.bfloat16, 1e-2), (64, jnp.float32, 2e-6), (128, jnp.float32, 2e-6), (256, jnp.bfloat16, 1e-2)],
)
def test_outputs_entropies_and_gradients(head_size, dtype, rtol):
    compare(dtype, D // head_size, inputs(dtype), rtol)


def test_blocks_of_queries():
    arrays = inputs(jnp.float32, tokens=389, width=128)
    # The weights of 389^2 x 4 bytes are more than half a MiB; blocks of 256 and 133 are not.
    assert len(fused._row_blocks(arrays[0][0])) == 2
    compare(jnp.float32, 1, arrays, 2e-6)


def test_large_logits_without_entropies():
    # A logit of 10^3 has no exponential in float32; what is left of the weights is about 1 for the largest.
    queries, keys, values, _ = inputs(jnp.float32, width=128)
    attended, entropies = fused_attention(1e3 * queries, keys, values, num_heads=2, record=False, interpret=True)
    assert entropies is None
    np.testing.assert_allclose(attended, reference(1e3 * queries, keys, values, 2)[0], atol=1e-3)


def test_xla_has_the_same_heads():
    arrays = inputs(jnp.float32, width=128)[:3]
    by_head = [array.reshape(B, N, 4, 32) for array in arrays]
    attended, entropies = _attend(*by_head, record=True, block_size=None)
    wanted = reference(*arrays, 4)
    chex.assert_trees_all_close((attended.reshape(B, N, 128), entropies), wanted, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("tokens", "width", "num_heads", "dtype", "expected"),
    [
        (197, 512, 8, "bfloat16", True),
        (577, 768, 12, "float32", True),
        (577, 1024, 16, "bfloat16", True),
        (197, 1280, 16, "bfloat16", False),  # F = 80 neither divides 128 nor is a multiple of it
        (197, 192, 3, "bfloat16", False),  # D is no multiple of 128
        (197, 256, 3, "bfloat16", False),  # heads of no whole size
        (197, 256, 32, "bfloat16", False),  # F = 8
        (10_000, 512, 8, "bfloat16", False),  # keys and values of an image alone are more than the chip holds
    ],
)
def test_fits(tokens, width, num_heads, dtype, expected):
    assert fits(tokens, width, num_heads, dtype) is expected


def test_wrong_arrays():
    queries, keys, values, _ = inputs(jnp.float32, width=128)
    with pytest.raises(ValueError, match=r"queries, keys, values: .* received .*float32\[2, 12, 128\]"):
        fused_attention(queries, keys[:, 1:], values, num_heads=2, record=False)
    with pytest.raises(ValueError, match=r"queries: .*3 heads.* received 'float32\[2, 13, 128\]'"):
        fused_attention(queries, keys, values, num_heads=3, record=False)


# In the layer


def mesh_of(platform, replica=1, expert=1, kind=None):
    """A mesh of devices that are not there."""
    device = AbstractDevice(device_kind=kind or platform, num_cores=1, platform=platform)
    types = (AxisType.Auto,) * len(AXES)
    return use_abstract_mesh(AbstractMesh((replica, 1, expert), AXES, types, abstract_device=device))


def lowered(layer, platform, *, batch=B, train=False):
    """The text of an attention layer and its gradient before XLA sees it."""
    variables = jax.eval_shape(lambda: layer.init(jax.random.key(0), jnp.zeros((1, N, 128)), train=False, record=False))

    def loss(variables, tokens, key):
        outputs, record = layer.apply(variables, tokens, train=train, record=True, rngs={"dropout": key})
        return jnp.sum(outputs) + jnp.sum(record.head_entropies)

    arguments = variables, jax.ShapeDtypeStruct((batch, N, 128), jnp.float32), jax.eval_shape(lambda: jax.random.key(0))
    return jax.jit(jax.grad(loss)).trace(*arguments).lower(lowering_platforms=(platform,)).as_text()


@pytest.mark.parametrize(
    ("platform", "options", "train", "kernels"),
    [
        ("tpu", {}, False, 2),
        ("tpu", {"implementation": "fused"}, True, 2),
        ("cpu", {}, False, 0),
        ("tpu", {"implementation": "xla"}, False, 0),
        ("tpu", {"block_size": 5}, False, 0),
        ("tpu", {"dropout_rate": 0.1}, True, 0),
        ("tpu", {"dropout_rate": 0.1}, False, 2),
        ("tpu", {"num_heads": 16}, False, 0),  # F = 8
    ],
)
def test_where_the_layer_has_the_kernels(platform, options, train, kernels):
    with mesh_of(platform):
        text = lowered(SelfAttention(**{"num_heads": 2, **options}), platform, train=train)
    assert text.count("tpu_custom_call") == kernels
    # Without them it has the weights of all queries or of a block of them.
    assert (re.search(rf"x(5|{N})x{N}xf32", text) is None) == (kernels > 0)


def test_every_device_has_the_kernels_for_its_own_images():
    with mesh_of("tpu", 4, 2):
        text = lowered(SelfAttention(2), "tpu", batch=16)
    calls = [line for line in text.splitlines() if "tpu_custom_call" in line]
    assert len(calls) == 2
    assert all(f"tensor<2x{N}x128xf32>" in line and "tensor<16x" not in line for line in calls)


@pytest.mark.parametrize(
    ("platform", "options", "message"),
    [
        ("cpu", {"num_heads": 2}, "'auto' or 'xla' on cpu"),
        ("tpu", {"num_heads": 2, "block_size": 4}, "'auto' or 'xla' where the kernel cannot do it"),
        ("tpu", {"num_heads": 16}, "'auto' or 'xla' where the kernel cannot do it; .* N = 13, D = 128, 16 heads"),
    ],
)
def test_insisting_where_the_kernel_cannot(platform, options, message):
    layer = SelfAttention(**options, implementation="fused")
    tokens = jax.ShapeDtypeStruct((B, N, 128), jnp.float32)
    with mesh_of(platform), pytest.raises(ValueError, match=f"model.attention: expected {message}"):
        jax.eval_shape(lambda x: layer.init(jax.random.key(0), x, train=False, record=False), tokens)


@pytest.mark.parametrize(("field", "value"), [("attention_dropout_rate", 0.1), ("attention_block_size", 64)])
def test_insisting_beside_what_the_kernel_does_not_have(field, value):
    with pytest.raises(ValueError, match=f"model.{field}: .*'fused'; received {value}"):
        config_lib.parse_model({"attention": "fused", field: value})


def test_no_block_of_queries_is_a_single_one():
    # 1,025 tokens of bfloat16 are worked on 128 at a time: the last one joins those before it.
    blocks = fused._row_blocks(jnp.zeros((1025, 128), jnp.bfloat16))
    assert [row for block in blocks for row in range(block.start, block.stop)] == [*range(1025)]
    assert len(blocks) > 1
    assert all(block.stop - block.start > 1 for block in blocks)


@pytest.mark.parametrize(
    ("tokens", "lanes", "head_size", "together"),
    [
        (197, 128, 64, [2]),
        (197, 128, 32, [2, 2]),
        (197, 128, 128, [1]),
        (1792, 128, 64, [1, 1]),  # the weights of two heads are too much for the chip's memory
    ],
)
def test_heads_that_are_worked_on_together(tokens, lanes, head_size, together):
    assert fits(tokens, lanes, lanes // head_size, jnp.bfloat16)
    pairs = fused._heads_together(jnp.zeros((tokens, lanes), jnp.bfloat16), head_size)
    assert [len(heads) for heads in pairs] == together


def test_heads_one_by_one(monkeypatch):
    asked = []

    def one_by_one(keys, head_size):
        asked.append(keys.shape)
        return [[head] for head in fused._lanes_of_heads(keys.shape[1], head_size)]

    monkeypatch.setattr(fused, "_heads_together", one_by_one)
    compare(jnp.float32, 4, inputs(jnp.float32), 2e-6)
    assert asked == [(N, D // 2)] * 2  # the kernels of both passes are made anew
