"""Fresh parameters are the ones that runs had before: golden values, which JAX 0.10.2 and 0.12.0.1 agree on.

A change of key order, of a type or of how much the compiler does would change what every run starts from.
"""

import hashlib

import jax
import numpy as np
import pytest

from vmoe_inform import config as config_lib
from vmoe_inform.config import files
from vmoe_inform.nn import models
from vmoe_inform.sharding.rules import path_name
from vmoe_inform.training import program as program_lib

VISION, LANGUAGE = "digits:router=vmoe", "wordnet:size=tiny"
FIELDS = {VISION: {"model.num_layers": 2}, LANGUAGE: {}}

# Normal draws, for which the inverse of the error function is computed: with the least optimisation, as tests have it,
# their last bits are others. The values are the first, the middle and the last of one for each way to draw.
NORMAL = {
    VISION: {
        "params/block_0/mlp/hidden/bias": [2.0062525e-06, 7.0602727e-07, -2.5045665e-07],
        "params/block_1/moe/router/linear/kernel": [-0.0062401802, -0.1100455, 0.060837213],
        "params/patch_embedding/kernel": [0.05227325, -0.017838757, -0.06584277],
        "params/position_embedding": [0.00152285, 0.02180368, -0.018146498],
    },
    LANGUAGE: {
        "params/block_1/moe/experts/output/bias": [1.6757258e-06, 9.1295874e-07, 1.2631892e-06],
        "params/vocabulary/embedding": [-0.01706733, -0.033640184, -0.0082163466],
    },
}
_WAYS = ("mlp/hidden/bias", "mlp/output/bias", "experts/hidden/bias", "experts/output/bias", "linear/kernel")
_EMBEDDINGS = ("patch_embedding/kernel", "position_embedding", "vocabulary/embedding")
# All others are uniform or constant, and the same bits whatever is optimised.
HASH_OF_OTHERS = {
    VISION: "2fa06fb920b9934fd3b0917a2d3090de05b68564fc336b6ebacae5f5dae760a7",
    LANGUAGE: "c9d8671eba484fb00af7599219b335d942ab994e33b4897744643396cbb1294d",
}
HASH_OF_ALL_AS_USERS_HAVE_THEM = {
    VISION: "10f2cd1a4b933729a9e0cf06a9109d4c33b4ae600142784526b3860f3104f123",
    LANGUAGE: "96211f67c5ca1f47e473c6dc2265cc723f45fcc0b20ab267f4ca5d957db4b4cf",
}


def leaves(variables):
    return [(path_name(path), np.asarray(leaf)) for path, leaf in jax.tree_util.tree_leaves_with_path(variables)]


def digest(named):
    """Of names, types, shapes and bits."""
    found = hashlib.sha256()
    for name, leaf in named:
        found.update(f"{name} {leaf.dtype} {leaf.shape}".encode() + leaf.tobytes())
    return found.hexdigest()


@pytest.mark.parametrize("config", [VISION, LANGUAGE])
def test_they_are_those_of_before(config):
    model = models.from_config(config_lib.parse(files.load(config, FIELDS[config])).model)
    found = leaves(models.initialize(model, jax.random.key(0)))
    assert digest((n, leaf) for n, leaf in found if not n.endswith((*_WAYS, *_EMBEDDINGS))) == HASH_OF_OTHERS[config]
    for name, leaf in found:
        if name in NORMAL[config]:
            values = leaf.ravel()[[0, leaf.size // 2, -1]]
            np.testing.assert_allclose(values, NORMAL[config][name], rtol=1e-6, err_msg=name)
    assert NORMAL[config].keys() <= dict(found).keys()


@pytest.mark.slow
@pytest.mark.parametrize("config", [VISION, LANGUAGE])
def test_they_are_the_same_bits_for_users(config):
    """By the program that a run starts with, compiled as for users, whom no test's quick compiler serves."""
    before = jax.config.read("jax_disable_most_optimizations")
    jax.config.update("jax_disable_most_optimizations", False)
    try:
        program = program_lib.build(config_lib.parse(files.load(config, FIELDS[config])), 1000, jax.devices()[:1])
        with program.in_use():
            state = jax.device_get(program.initialize())
    finally:
        jax.config.update("jax_disable_most_optimizations", before)
    assert digest(leaves({"params": state.params})) == HASH_OF_ALL_AS_USERS_HAVE_THEM[config]
