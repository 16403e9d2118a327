"""What ``auto`` means, and that it says why."""

import jax
import numpy as np
import pytest
from jax.sharding import Mesh

from vmoe_inform.dispatch import choice

LARGE, SMALL = choice.LEAST_FOR_LOOP, choice.LEAST_FOR_LOOP - 1


@pytest.mark.parametrize(
    ("platform", "groups", "choices", "experts", "capacity", "kernel_size", "devices", "expected", "words"),
    [
        (
            "cpu",
            4,
            3152,
            8,
            416,
            LARGE,
            1,
            "gather",
            "8 x 416 slots for 3152 assignments of a group, 1.06 times",
        ),
        (
            "tpu",
            4,
            3152,
            8,
            416,
            SMALL,
            1,
            "gather",
            "8 x 416 slots for 3152 assignments of a group, 1.06 times",
        ),
        # 512 rows of each expert: large blocks
        ("cpu", 2, 2048, 8, 320, LARGE, 1, "gather", "1.25 times as many: sorting pays above 1.25"),
        (
            "cpu",
            2,
            2048,
            8,
            324,
            LARGE,
            1,
            "ragged",
            "8 x 324 slots for 2048 assignments of a group, 1.27 times",
        ),
        ("cpu", 1, 2048, 8, 324, LARGE, 1, "gather", "1.27 times as many: sorting pays above 3.0"),
        ("tpu", 2, 2048, 8, 324, LARGE, 1, "gather", "1.27 times as many: sorting pays above 3.0"),
        ("tpu", 2, 2048, 8, 768, LARGE, 1, "gather", "3.00 times as many"),
        ("tpu", 2, 2048, 8, 772, LARGE, 1, "ragged", "3.02 times as many"),
        ("cpu", 2, 2048, 8, 1024, SMALL, 1, "gather", f"experts of {SMALL} numbers are too small"),
        ("tpu", 2, 2048, 8, 1024, SMALL, 1, "ragged", "4.00 times as many"),
        ("gpu", 2, 2048, 8, 1024, LARGE, 1, "gather", "this GPU has no kernels for grouped products"),
        ("tpu", 2, 2048, 8, 1024, LARGE, 4, "gather", "the experts are spread over 4 devices"),
    ],
)
def test_table(platform, groups, choices, experts, capacity, kernel_size, devices, expected, words):
    name, reason = choice.choose_dispatcher(
        platform,
        num_choices=choices,
        num_groups=groups,
        num_experts=experts,
        capacity=capacity,
        kernel_size=kernel_size,
        expert_devices=devices,
    )
    assert name == expected
    assert words in reason


@pytest.mark.parametrize(
    ("platform", "kernel_size", "capacity", "expected"),
    [
        ("cpu", 2**13, 256, "segments"),
        ("cpu", 2**13 - 1, 256, "gather"),
        ("cpu", 2**13, 192, "gather"),  # 3 slots for an assignment: not more than the limit of few rows
        ("cpu", LARGE, 192, "segments"),  # more than that of many rows, where loops over large experts pay
        ("tpu", 2**13 - 1, 256, "ragged"),
    ],
)
def test_small_experts_without_drops(platform, kernel_size, capacity, expected):
    sizes = {"num_choices": 512, "num_groups": 8, "num_experts": 8, "capacity": capacity, "expert_devices": 1}
    name, _ = choice.choose_dispatcher(platform, kernel_size=kernel_size, drops=False, **sizes)
    assert name == expected
    if kernel_size < LARGE and platform == "cpu":
        assert choice.choose_dispatcher(platform, kernel_size=kernel_size, drops=True, **sizes)[0] == "gather"


def test_platform_is_that_of_the_mesh_in_use():
    assert choice.current_platform() == "cpu"
    with jax.set_mesh(Mesh(np.array(jax.devices()[:1]), ("replica",))):
        assert choice.current_platform() == "cpu"
