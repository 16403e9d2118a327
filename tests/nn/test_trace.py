"""Statistics of a trace: means over the real tokens of each sequence."""

import types

import jax.numpy as jnp
import numpy as np

from vmoe_inform.nn.trace import layer_statistics


def trace(dropped):
    """Of one layer with two experts; padding is what no expert takes."""
    probabilities = jnp.asarray([[[0.5, 0.5], [1.0, 0.0], [0.25, 0.75]]])
    indices = jnp.asarray([[[0], [0], [1]]])
    routing = types.SimpleNamespace(informed=probabilities, normalized=probabilities, base_indices=indices, graph=None)
    left = {
        "routing": routing,
        "load": probabilities,
        "dropped": jnp.asarray([dropped]),
        "indices": indices,
    }
    return {"block_0": {"moe": left}}


def test_padding_counts_nowhere():
    mask = jnp.asarray([[True, True, False]])
    found = layer_statistics(trace([0.0, 0.5, 1.0]), mask)["block_0"]
    np.testing.assert_allclose(found.dropped, [0.25])
    np.testing.assert_allclose(found.entropy, [np.log(2) / 2], rtol=1e-6)
    np.testing.assert_allclose(found.load, [[0.75, 0.25]])
    np.testing.assert_allclose(found.effective_neighbours, [1.0])
    np.testing.assert_allclose(found.margin, [0.5])  # 0 and 1
    assert found.collapsed.tolist() == [True]


def test_without_padding_all_tokens_count():
    everywhere = layer_statistics(trace([0.0, 0.5, 1.0]))["block_0"]
    np.testing.assert_allclose(everywhere.dropped, [0.5])
    np.testing.assert_allclose(everywhere.margin, [0.5])  # 0, 1 and 0.5
    assert everywhere.collapsed.tolist() == [False]
    nothing = layer_statistics(trace([0.0, 0.5, 1.0]), jnp.zeros((1, 3), bool))["block_0"]
    assert nothing.dropped.tolist() == [0.0]
