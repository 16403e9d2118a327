"""The device mesh: axes ``replica`` (data), ``fsdp`` (data, and parameters cut up) and ``expert``."""

import collections
import math
from collections.abc import Callable, Sequence

import jax
import numpy as np
from jax.experimental import mesh_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from vmoe_inform import checks
from vmoe_inform.axes import Array, Tree

REPLICA = "replica"
FSDP = "fsdp"
EXPERT = "expert"
AXES = (REPLICA, FSDP, EXPERT)  # neighbouring devices share out the experts: theirs is the most traffic
BATCH = PartitionSpec(AXES)  # the leading axis over all devices


def make_mesh(replica: int, expert: int, devices: Sequence[jax.Device] | None = None, *, fsdp: int = 1) -> Mesh:
    """A mesh of replica x fsdp x expert devices, also when there is one.

    Devices along ``expert``, then along ``fsdp``, are neighbours in the accelerators' own network. Slices, which a
    slower network connects, hold different replicas.

    Args:
      replica, expert, fsdp: sizes of the axes, see :func:`vmoe_inform.config.mesh_sizes`.
      devices: all devices of all processes by default.

    Raises:
      ValueError: the sizes do not multiply to the number of devices, or experts or fsdp reach across TPU slices.
    """
    devices = jax.devices() if devices is None else devices
    sizes = (replica, fsdp, expert)
    if math.prod(sizes) != len(devices):
        raise checks.error("mesh", f"{' x '.join(AXES)} = {len(devices)} devices", " x ".join(map(str, sizes)))
    return Mesh(_arranged(sizes, devices), AXES, axis_types=(jax.sharding.AxisType.Auto,) * len(AXES))


def slice_count(devices: Sequence[jax.Device]) -> int:
    """Slices that the devices make up: TPU slices, or the groups of GPUs that NVLink connects."""
    return len(_slice_sizes(devices))


def _slice_sizes(devices: Sequence[jax.Device]) -> collections.Counter[int]:
    return collections.Counter(getattr(device, "slice_index", 0) for device in devices)  # CPUs have no slices


def _arranged(sizes: tuple[int, int, int], devices: Sequence[jax.Device]) -> np.ndarray:
    slices = _slice_sizes(devices)
    count, replica = len(slices), sizes[0]
    if count == 1:
        return mesh_utils.create_device_mesh(sizes, devices, allow_split_physical_axes=True)
    if replica % count == 0 and len(set(slices.values())) == 1:
        within = (replica // count, *sizes[1:])
        return mesh_utils.create_hybrid_device_mesh(within, (count, 1, 1), devices, allow_split_physical_axes=True)
    if devices[0].platform == "tpu":
        raise checks.error(
            "mesh.replica",
            f"a multiple of the {count} slices, for experts and fsdp to lie within one (at most {min(slices.values())} "
            "devices)",
            f"{replica} x fsdp {sizes[1]} x expert {sizes[2]}",
        )
    # GPUs reach any other one over the same network; those of a node follow each other.
    return mesh_utils.create_device_mesh(sizes, devices)


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Images of a batch spread over all devices."""
    return NamedSharding(mesh, BATCH)


def replicated(mesh: Mesh) -> NamedSharding:
    """The same array on every device."""
    return NamedSharding(mesh, PartitionSpec())


def constrain(array: Array, *axes: str | tuple[str, ...] | None) -> Array:
    """Fixes how an array lies on the mesh in use (``jax.set_mesh``); without a mesh, the array as it is."""
    if jax.sharding.get_abstract_mesh().empty:
        return array
    return jax.lax.with_sharding_constraint(array, PartitionSpec(*axes))


def axis_size(*axes: str) -> int:
    """Devices along axes of the mesh in use; 1 without a mesh."""
    return math.prod(jax.sharding.get_abstract_mesh().shape.get(axis, 1) for axis in axes)


def on_each_device(function: Callable[..., Tree], whole: Tree, *batches: Tree) -> Tree:
    """``function(whole, *batches)`` on each device for its own part of the batches, and nothing moves between devices.

    Args:
      function: arrays whose first axis is that of the batches, and ``whole``, to arrays of the same first axis.
      whole: arrays that every device has.
      *batches: arrays whose first axis is spread over all devices of the mesh in use; as they are without a mesh.
    """
    if jax.sharding.get_abstract_mesh().empty:
        return function(whole, *batches)
    return jax.shard_map(
        function, in_specs=(PartitionSpec(), *(BATCH for _ in batches)), out_specs=BATCH, check_vma=False
    )(whole, *batches)
