"""Meshes on every topology that the compiler for TPUs knows, and on several slices; nothing is compiled."""

import dataclasses
import itertools
import math

import jax
import numpy as np
import pytest

from vmoe_inform.performance import topology
from vmoe_inform.sharding.chips import CHIPS, Tpu
from vmoe_inform.sharding.mesh import make_mesh, slice_count

LENGTHS = (1, 2, 4, 8, 16)
MOST_DEVICES = 2048


def places(devices) -> np.ndarray:
    """Coordinates of the chip, and number on it."""
    return np.array([(*device.coords, device.core_on_chip) for device in devices])


@pytest.mark.parametrize("chip", [name for name in CHIPS if isinstance(CHIPS[name], Tpu)])
def test_experts_are_neighbours_on_every_topology(chip):
    """Each group of devices that shares out the experts fills a box without holes."""
    checked = 0
    for lengths in itertools.combinations_with_replacement(LENGTHS, CHIPS[chip].axes):
        if math.prod(lengths) > MOST_DEVICES:
            continue
        devices = topology.devices_of(f"{chip}:{'x'.join(map(str, lengths))}")
        for experts in (8, 16, 32):
            expert = math.gcd(experts, len(devices))
            mesh = make_mesh(len(devices) // expert, expert, devices)
            assert mesh.axis_names == ("replica", "fsdp", "expert")
            assert set(mesh.devices.flat) == set(devices)
            found = places(mesh.devices.flat).reshape(-1, expert, 4)
            boxes = np.prod(found.max(axis=1) - found.min(axis=1) + 1, axis=-1)
            np.testing.assert_array_equal(boxes, expert, err_msg=f"{lengths} {experts}")
            checked += 1
    assert checked >= 3 * len(LENGTHS)


@pytest.mark.parametrize("figure", ["v5e:4x4", "v6e:8x8", "v4:2x2x4", "v5p:4x4x4"])
@pytest.mark.parametrize("slices", [2, 3])
def test_slices_hold_different_replicas(figure, slices):
    """No row goes to an expert, and no parameter is gathered, across the network between slices."""
    devices = topology.devices_of(figure, slices)
    assert slice_count(devices) == slices
    for fsdp, expert in ((1, 8), (2, 8), (4, 4), (1, 1)):
        mesh = make_mesh(len(devices) // (fsdp * expert), expert, devices, fsdp=fsdp)
        of_slices = np.vectorize(lambda device: device.slice_index)(mesh.devices)
        assert (of_slices == of_slices[:, :1, :1]).all()
        assert set(mesh.devices.flat) == set(devices)


def test_what_reaches_across_tpu_slices_is_one_line():
    devices = topology.devices_of("v5e:4x4", 2)
    for replica, fsdp, expert in ((1, 1, 32), (1, 32, 1), (1, 2, 16)):
        bound = r"a multiple of the 2 slices, for experts and fsdp to lie within one \(at most 16 devices\)"
        received = f"{replica} x fsdp {fsdp} x expert {expert}"
        with pytest.raises(ValueError, match=f"^mesh.replica: expected {bound}; received '{received}'$"):
            make_mesh(replica, expert, devices, fsdp=fsdp)


@dataclasses.dataclass(frozen=True)
class Gpu:
    id: int
    slice_index: int
    platform: str = "gpu"
    device_kind: str = "NVIDIA H100"


@pytest.mark.parametrize("sizes", [(2, 1, 4), (2, 2, 2), (4, 1, 2), (8, 1, 1), (1, 1, 8), (1, 2, 4)])
def test_gpus_of_a_node_are_neighbours(sizes):
    """JAX gives the GPUs of each node a slice number. Experts may lie on more GPUs than a node has."""
    replica, fsdp, expert = sizes
    devices = [Gpu(number, slice_index=number // 4) for number in range(8)]
    mesh = make_mesh(replica, expert, devices[::-1], fsdp=fsdp)
    assert mesh.devices.shape == sizes
    assert list(mesh.devices.flat) == devices


def test_cpus_are_in_order():
    mesh = make_mesh(2, 2, fsdp=2)
    assert list(mesh.devices.flat) == jax.devices()
    assert slice_count(jax.devices()) == 1
