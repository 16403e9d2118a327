"""What ``auto`` means, and that it says why."""

import jax
import numpy as np
import pytest
from jax.sharding import Mesh

from vmoe_inform.dispatch import choice

LARGE, SMALL = choice.LEAST_FOR_LOOP, choice.LEAST_FOR_LOOP - 1


@pytest.mark.parametrize(
    ("platform", "num_choices", "num_experts", "capacity", "kernel_size", "expert_devices", "expected", "words"),
    [
        ("cpu", 3152, 8, 416, LARGE, 1, "gather", "8 x 416 slots for 3152 assignments of a group, 1.06 times as many"),
        ("tpu", 3152, 8, 416, SMALL, 1, "gather", "8 x 416 slots for 3152 assignments of a group, 1.06 times as many"),
        ("tpu", 100, 5, 25, LARGE, 1, "gather", "5 x 25 slots for 100 assignments of a group, 1.25 times as many"),
        ("tpu", 100, 2, 63, LARGE, 1, "ragged", "2 x 63 slots for 100 assignments of a group, 1.26 times as many"),
        ("cpu", 394, 128, 4, LARGE, 1, "ragged", "128 x 4 slots for 394 assignments of a group, 1.30 times as many"),
        ("cpu", 394, 128, 4, SMALL, 1, "gather", f"experts of {SMALL} numbers are too small"),
        ("tpu", 394, 128, 4, SMALL, 1, "ragged", "1.30 times as many"),
        ("gpu", 394, 128, 4, LARGE, 1, "gather", "no ragged product was measured on GPUs"),
        ("tpu", 394, 128, 4, LARGE, 4, "gather", "the experts are spread over 4 devices"),
    ],
)
def test_table(platform, num_choices, num_experts, capacity, kernel_size, expert_devices, expected, words):
    name, reason = choice.choose_dispatcher(
        platform,
        num_choices=num_choices,
        num_experts=num_experts,
        capacity=capacity,
        kernel_size=kernel_size,
        expert_devices=expert_devices,
    )
    assert name == expected
    assert words in reason


def test_platform_is_that_of_the_mesh_in_use():
    assert choice.current_platform() == "cpu"
    with jax.set_mesh(Mesh(np.array(jax.devices()[:1]), ("replica",))):
        assert choice.current_platform() == "cpu"
