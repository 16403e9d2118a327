"""What the log says of speed, memory and experts, by hand."""

import dataclasses
import types

import jax
import numpy as np
import pytest

from tests import tiny
from vmoe_inform import config as config_lib
from vmoe_inform import tasks
from vmoe_inform.sharding.chips import CHIPS
from vmoe_inform.training import measurements
from vmoe_inform.training.in_flight import FinishedStep
from vmoe_inform.training.measurements import EXPERT_LOADS, Window


def _device(kind: str, **stats: int) -> types.SimpleNamespace:
    return types.SimpleNamespace(device_kind=kind, memory_stats=lambda: stats or None)


def _window(kind: str = "cpu", count: int = 2, **overrides) -> Window:
    config = config_lib.parse(tiny.config_dict(**overrides))
    mesh = types.SimpleNamespace(devices=np.array([_device(kind) for _ in range(count)], object))
    return Window(tasks.from_config(config), mesh)  # type: ignore[arg-type]


def _step(seconds: float | None, wait: float | None, load: tuple[float, ...] = (0.25, 0.25, 0.5, 0.0)) -> FinishedStep:
    return FinishedStep(1, {EXPERT_LOADS: np.array([load], np.float32)}, seconds, wait)


def test_percentiles_by_hand():
    """Of 1 to 5 seconds: 1 + 4 p, so 3, 4.6 and 4.96."""
    times = measurements.step_times([4.0, 1.0, 5.0, 2.0, 3.0])
    assert times == pytest.approx(
        {"step_seconds/p50": 3.0, "step_seconds/p90": 4.6, "step_seconds/p99": 4.96, "step_seconds/max": 5.0}
    )
    assert measurements.step_times([]) == {}


def test_load_by_hand():
    numbers = measurements.load_numbers(np.array([0.5, 0.25, 0.25, 0.0]))
    # Times 4: 2, 1, 1, 0; mean 1, variance (1 + 0 + 0 + 1) / 4
    expected = {"largest_load": 2.0, "smallest_load": 0.0, "load_cv": 0.5**0.5, "dead_experts": 1.0}
    assert numbers == pytest.approx(expected)
    nobody = measurements.load_numbers(np.zeros(4))  # ReMoE may leave all tokens without an expert
    assert nobody == {"largest_load": 0.0, "smallest_load": 0.0, "load_cv": 0.0, "dead_experts": 4.0}


def test_an_expert_is_dead_if_no_step_of_the_window_gave_it_a_token():
    window = _window()
    window.add(_step(None, None, load=(0.5, 0.5, 0.0, 0.0)))
    window.add(_step(1.0, 0.0, load=(0.5, 0.0, 0.5, 0.0)))
    numbers = window.close()
    assert numbers["routing/block_1/dead_experts"] == 1  # the last; in each step by itself there were two
    assert numbers["routing/block_1/largest_load"] == 2.0
    window.add(_step(1.0, 0.0, load=(0.0, 0.0, 0.5, 0.5)))
    assert window.close()["routing/block_1/dead_experts"] == 2  # what was before does not count


def test_speed_by_hand():
    """Batches of 16 in 1 and 3 seconds, of which 1 second of waiting, after a step that was compiled."""
    window = _window()
    for seconds, wait in ((None, None), (1.0, 0.0), (3.0, 1.0)):
        window.add(_step(seconds, wait))
    numbers = window.close()
    assert (numbers["images_per_second"], numbers["data_wait_share"]) == (8.0, 0.25)
    assert (numbers["step_seconds/p50"], numbers["step_seconds/max"]) == (2.0, 3.0)
    window.add(_step(None, None))
    assert not {"images_per_second", "data_wait_share", "step_seconds/p50"} & window.close().keys()


@pytest.mark.parametrize(
    ("kind", "dtype", "peak"),
    [
        ("TPU v4", "bfloat16", 275e12),
        ("TPU v4", "float32", 275e12),
        ("NVIDIA A100-SXM4-80GB", "bfloat16", 312e12),
        ("NVIDIA A100-SXM4-80GB", "float32", 156e12),
    ],
)
def test_mfu_by_hand(kind, dtype, peak):
    """362,688 operations an image (tests/nn/test_operations.py), 8 images a second, on two devices."""
    window = _window(kind, model__dtype=dtype)
    window.add(_step(2.0, 0.0))
    assert window.close()["mfu"] == pytest.approx(362_688 * 8 / (2 * peak))


def test_a_device_that_is_not_known_has_no_mfu():
    window = _window("NVIDIA GeForce RTX 4090")
    window.add(_step(2.0, 0.0))
    assert "mfu" not in window.close()


def test_memory_is_that_of_the_fullest_device_that_says():
    devices = [_device("TPU v4", peak_bytes_in_use=5), _device("TPU v4", peak_bytes_in_use=7), _device("TPU v4")]
    assert measurements.peak_memory_bytes(devices) == 7  # type: ignore[arg-type]
    assert measurements.peak_memory_bytes(jax.local_devices()) is None  # CPUs do not say


def test_every_device_kind_is_one_chip():
    kinds = [kind for name in CHIPS for kind in CHIPS[name].device_kinds]
    assert len(set(kinds)) == len(kinds)
    for chip in (CHIPS[name] for name in CHIPS):
        assert all(value > 0 for value in dataclasses.asdict(chip).values() if isinstance(value, int | float))


def test_a_model_without_moe_layers_has_no_loads():
    window = _window(model__moe__layers="none")
    window.add(FinishedStep(1, {}, 1.0, 0.0))
    assert not any(name.startswith("routing/") for name in window.close())
