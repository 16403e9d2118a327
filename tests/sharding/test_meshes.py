"""The first steps of a run on any mesh are those on one device, up to the order of float32 sums."""

import functools

import chex
import jax
import numpy as np
import optax
import pytest

from tests import tiny
from vmoe_inform import config as config_lib
from vmoe_inform.training import program as program_lib

STEPS = 5
BOUND = 2e-6  # 16 roundings of float32
SHAPES = [  # of 2, 4 and 8 devices
    (replica, fsdp, expert)
    for replica in (1, 2, 4, 8)
    for fsdp in (1, 2, 4, 8)
    for expert in (1, 2, 4)
    if replica * fsdp * expert in (2, 4, 8)
]
# 2, 4 and 8 devices, and all axes; the others take two minutes: pytest -m slow tests/sharding
QUICK = [(1, 1, 2), (1, 4, 1), (2, 2, 2)]


def _program(replica, fsdp, expert):
    # Descent without memory: the state of optax.trace(0) is the gradient of the last step.
    config = tiny.config_dict(
        "symphony_vmoe", optimizer__name="sgd", optimizer__momentum=0.0, optimizer__weight_decay=0.0,
        optimizer__learning_rate=0.1, optimizer__warmup_steps=0, optimizer__schedule="constant",
        model__num_layers=1, model__moe__layers=(0,), model__moe__shared_experts=2,
        mesh__replica=replica, mesh__fsdp=fsdp, mesh__expert=expert,
    )  # fmt: skip
    return program_lib.build(config_lib.parse(config), STEPS, jax.devices()[: replica * fsdp * expert])


@functools.cache
def _start():
    program = _program(1, 1, 1)
    with program.in_use():
        return jax.device_get(program.initialize())


@functools.cache
def _first_steps(replica, fsdp, expert):
    """Of each step: loss, gradients, and the router's state after it (Symphony's adjacency)."""
    program = _program(replica, fsdp, expert)
    random = np.random.default_rng(0)
    found = []
    with program.in_use():
        state = jax.device_put(_start(), jax.tree.map(lambda leaf: leaf.sharding, program.state_shapes))
        for _ in range(STEPS):
            images, labels = random.integers(0, 256, (16, 32, 32, 3), np.uint8), random.integers(0, 10, 16)
            batch = program.to_devices({"image": images, "label": labels.astype(np.int32)})
            state, metrics = program.train_step(state, batch)
            found.append(jax.device_get((metrics["loss"], optax.tree.get(state.opt_state, "trace"), state.routing)))
    return found


def _check(shape):
    for one, other in zip(_first_steps(1, 1, 1), _first_steps(*shape), strict=True):
        for whole, part in zip(one, other, strict=True):
            largest = max(np.max(np.abs(leaf)) for leaf in jax.tree.leaves(whole))
            chex.assert_trees_all_close(part, whole, rtol=0, atol=BOUND * largest)


@pytest.mark.parametrize("shape", QUICK, ids=str)
def test_first_steps_are_those_of_one_device(shape):
    """The loss, all gradients (to the largest entry of all), and Symphony's adjacency."""
    _check(shape)


@pytest.mark.slow
@pytest.mark.parametrize("shape", sorted(set(SHAPES) - set(QUICK)), ids=str)
def test_first_steps_on_every_other_mesh(shape):
    assert len(SHAPES) == 18
    _check(shape)
