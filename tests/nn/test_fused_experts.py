"""The kernels of experts against their MLPs as they are written, worked out by Pallas' interpreter on a CPU."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.nn.test_fused_attention import mesh_of
from tests.nn.test_moe_dispatch import make_layer, make_tokens
from vmoe_inform import config as config_lib
from vmoe_inform.nn import _expert_kernels, counted_dropout
from vmoe_inform.nn.dropout import kept_by
from vmoe_inform.nn.expert_choice import check_kernel
from vmoe_inform.nn.fused_experts import fits, fused_experts
from vmoe_inform.nn.mlp import ACTIVATIONS, apply_experts
from vmoe_inform.nn.router import Surroundings
from vmoe_inform.performance.compiled import compile_for
from vmoe_inform.performance.topology import devices_of

E, T, D = 3, 13, 128  # odd numbers of experts and rows
SEED = jnp.asarray([3, 2**32 - 5], jnp.uint32)


def arrays(hidden_size, rows=T):
    rng = np.random.default_rng(0)

    def normal(*shape, scale=1.0):
        return jnp.asarray(scale * rng.normal(size=shape), jnp.float32)

    hidden = normal(E, D, hidden_size, scale=D**-0.5), normal(E, hidden_size)
    output = normal(E, hidden_size, D, scale=hidden_size**-0.5), normal(E, D)
    return normal(E, rows, D), hidden, output, normal(E, rows, D)


def written_out_mask(shape, rate, seed):
    """As the docstrings say, number by number: entry b of word w of a block is number 128 b + w of 512."""

    def scramble(word):
        for shift, factor in ((16, 0x7FEB352D), (15, 0x846CA68B)):
            word = ((word ^ (word >> shift)) * factor) % 2**32
        return word ^ (word >> 16)

    columns = shape[-1]
    row, column = np.indices((np.prod(shape[:-1]), columns), np.uint64)
    word = row * (columns // 4) + column // 512 * 128 + column % 128
    word = scramble(scramble((word + int(seed[0])) % 2**32) ^ int(seed[1])).astype(np.uint32)
    kept = np.select([column % 512 // 128 == entry for entry in range(4)], kept_by(jnp.asarray(word), rate))
    return np.where(kept, 1 / (1 - rate), 0.0).reshape(shape)


def reference(rows, hidden, output, activation, mask):
    with jax.default_matmul_precision("float32"):
        layer = ACTIVATIONS[activation](jnp.einsum("etd,edm->etm", rows, hidden[0]) + hidden[1][:, None]) * mask
        return jnp.einsum("etm,emd->etd", layer, output[0]) + output[1][:, None]


@pytest.mark.parametrize(
    ("hidden_size", "activation", "rate", "dtype", "most_rows", "rtol"),
    [
        (128, "gelu", 0.0, jnp.float32, 1024, 2e-6),
        (256, "gelu_exact", 0.0, jnp.bfloat16, 1024, 1e-2),
        (1024, "gelu", 0.2, jnp.float32, 16, 2e-6),  # two parts of the hidden layer, and two of the rows, not all full
    ],
)
def test_outputs_and_gradients(monkeypatch, hidden_size, activation, rate, dtype, most_rows, rtol):
    monkeypatch.setattr(_expert_kernels, "_MOST_ROWS", most_rows)
    rows, hidden, output, direction = arrays(hidden_size, rows=T if most_rows == 1024 else 21)
    seed = SEED if rate else None
    mask = written_out_mask((*rows.shape[:2], hidden_size), rate, SEED) if rate else 1.0

    def kernel(rows, hidden, output):
        return fused_experts(
            rows.astype(dtype),
            hidden,
            output,
            activation=ACTIVATIONS[activation],
            dropout_rate=rate,
            seed=seed,
            interpret=True,
        ).astype(jnp.float32)

    def with_gradients(function):
        def both_passes(direction, *given):
            found, pull_back = jax.vjp(function, *given)
            return found, pull_back(direction)

        return jax.jit(both_passes)(direction, rows, hidden, output)

    got = with_gradients(kernel)
    expected = with_gradients(lambda *given: reference(*given, activation, mask))
    for one, other in zip(jax.tree.leaves(got), jax.tree.leaves(expected), strict=True):
        largest = np.max(np.abs(other))
        np.testing.assert_allclose(one / largest, other / largest, rtol=0, atol=rtol)


def test_a_mask_drops_its_share_of_numbers_that_know_nothing_of_each_other():
    rate = 0.2
    shape = (512, 1024)
    masks = [
        np.asarray(counted_dropout.mask(seed, rate, shape, first_row=0, first_column=0, num_columns=1024) > 0)
        for seed in ((jnp.uint32(0), jnp.uint32(0)), (jnp.uint32(0), jnp.uint32(1)), (jnp.uint32(1), jnp.uint32(0)))
    ]
    share = 1 - rate
    deviation = (share * (1 - share) / masks[0].size) ** 0.5
    for mask in masks:
        assert abs(mask.mean() - share) < 5 * deviation
        # Neighbours in a row and a column, and entries of a word
        for other in (np.roll(mask, 1, 1), np.roll(mask, 1, 0), np.roll(mask, 128, 1)):
            assert abs((mask & other).mean() - share**2) < 5 * deviation
        # Rows and columns drop as many as independent numbers do
        for axis, count in ((0, 512), (1, 1024)):
            assert np.var(mask.sum(axis)) == pytest.approx(count * share * (1 - share), rel=0.3)
    for one, other in ((0, 1), (0, 2), (1, 2)):
        assert abs((masks[one] & masks[other]).mean() - share**2) < 5 * deviation
    # What is kept is scaled so that the mean stays
    scaled = counted_dropout.mask((SEED[0], SEED[1]), rate, shape, first_row=0, first_column=0, num_columns=1024)
    assert float(jnp.max(scaled)) == pytest.approx(1 / share)


@pytest.mark.parametrize(
    ("rows", "width", "hidden_size", "dtype", "rate", "expected"),
    [
        (832, 512, 2048, "bfloat16", 0.2, True),
        (3328, 512, 2048, "bfloat16", 0.0, True),
        (832, 768, 3072, "float32", 0.0, True),
        (13, 128, 128, "bfloat16", 0.0, True),
        (13, 128, 128, "bfloat16", 0.2, False),  # not a word for four numbers
        (13, 128, 512, "bfloat16", 0.001, True),
        (13, 352, 1408, "bfloat16", 0.0, False),
        (13, 128, 192, "bfloat16", 0.0, False),
        (20_000, 1024, 4096, "bfloat16", 0.0, False),  # the outputs of an expert alone are more than the chip holds
    ],
)
def test_fits(rows, width, hidden_size, dtype, rate, expected):
    assert fits(rows, width, hidden_size, dtype, rate) is expected


def test_wrong_arrays():
    rows, hidden, output, _ = arrays(128)
    with pytest.raises(ValueError, match=r"rows, hidden, output: .* received .*float32\[3, 13, 128\]"):
        fused_experts(rows, output, (output[0][:, 1:], output[1]), activation=jax.nn.relu)
    wrong = (hidden[0][:, :100], hidden[1]), (output[0][..., :100], output[1][:, :100])
    with pytest.raises(ValueError, match=r"rows: .*see fits.* received .*float32\[3, 13, 100\]"):
        fused_experts(rows[..., :100], *wrong, activation=jax.nn.relu)


# In the layer


def check(width=512):
    check_kernel(832, width, 2048, jnp.bfloat16, 0.2)


def test_where_the_kernel_cannot_be_had():
    with mesh_of("tpu"):
        check()
    with pytest.raises(ValueError, match=r"model.moe.expert_mlp: expected 'xla' \(the kernel is for TPUs\); received"):
        check()
    with mesh_of("tpu"), pytest.raises(ValueError, match=r"model.moe.expert_mlp: .*cannot do 832 rows, D = 500, M"):
        check(width=500)
    with mesh_of("tpu", kind="TPU v4"), pytest.raises(ValueError, match="TPU v4 has less than 48 MiB of memory"):
        check()
    with pytest.raises(ValueError, match=r"model.moe.expert_mlp: .*model.moe.dispatch = 'ragged'.* received 'fused'"):
        config_lib.parse_model({"moe": {"expert_mlp": "fused", "dispatch": "ragged"}})


def test_a_moe_layer_asks_for_it_where_it_applies_experts_and_not_to_make_parameters():
    layer, tokens = make_layer(expert_mlp="fused", dispatch="gather"), make_tokens()
    variables = jax.eval_shape(lambda: layer.init(jax.random.key(0), tokens, Surroundings(), train=False))
    with pytest.raises(ValueError, match=r"model.moe.expert_mlp: .*the kernel is for TPUs"):
        jax.eval_shape(lambda given: layer.apply(given, tokens, Surroundings(), train=False), variables)


def lowered(implementation, rate, mesh):
    hidden_size, groups = 512, 8
    shapes = ((E + 1, D, hidden_size), (E + 1, hidden_size)), ((E + 1, hidden_size, D), (E + 1, D))
    parameters = jax.tree.map(
        lambda shape: jax.ShapeDtypeStruct(shape, jnp.float32), shapes, is_leaf=lambda leaf: isinstance(leaf[0], int)
    )
    rows = jax.ShapeDtypeStruct((E + 1, groups, T, D), jnp.bfloat16)

    def loss(parameters, rows, key):
        found = apply_experts(
            parameters,
            rows,
            dtype=jnp.dtype("bfloat16"),
            dropout_rate=rate,
            dropout_key=key,
            implementation=implementation,
        )
        return jnp.sum(found.astype(jnp.float32))

    with mesh:
        key = jax.eval_shape(lambda: jax.random.key(0))
        traced = jax.jit(jax.value_and_grad(loss, argnums=(0, 1))).trace(parameters, rows, key)
        return traced.lower(lowering_platforms=("tpu",)).as_text()


def test_experts_on_one_device_and_on_many():
    assert lowered("xla", 0.2, mesh_of("tpu")).count("tpu_custom_call") == 0
    text = lowered("fused", 0.2, mesh_of("tpu"))
    assert text.count("tpu_custom_call") == 2
    assert re.search(rf"\b{8 * T}x512x\w+", text) is None  # no hidden layer outside of the kernels
    calls = [line for line in lowered("fused", 0.2, mesh_of("tpu", 4, 2)).splitlines() if "tpu_custom_call" in line]
    assert len(calls) == 2
    # Of 4 experts and 8 groups, a device of 4 x 2 has 2 experts and 2 groups.
    assert all(f"tensor<2x{2 * T}x{D}xbf16>" in line and "tensor<4x" not in line for line in calls)


def test_both_kernels_compile_for_a_tpu_that_is_not_there():
    rows, hidden, output, _ = jax.eval_shape(lambda: arrays(512))
    rows = jax.ShapeDtypeStruct(rows.shape, jnp.bfloat16)

    def both(rows, hidden, output):
        options = {"activation": ACTIVATIONS["gelu"], "dropout_rate": 0.2, "seed": SEED}
        found, pull_back = jax.vjp(lambda *given: fused_experts(*given, **options), rows, hidden, output)
        return pull_back(found)

    costs = compile_for(devices_of("v5e:1x1")[0], both, rows, hidden, output).costs
    assert costs.flops == 7 * 2 * E * T * D * 512
