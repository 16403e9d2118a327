"""Reads from the environment how many processes a launcher has started, and whether JAX can join them.

A process that takes itself for the only one, although it is not, would train a run of its own in the same folder.
"""

import glob
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping

from vmoe_inform import checks

_BY_HAND = "--coordinator_address, --num_processes and --process_id for each process (docs/launching.md)"
_ALONE = "--num_processes=1 for runs of one process"
# What jax.distributed.initialize needs to find in a job step of SLURM.
_SLURM = ("SLURM_JOB_ID", "SLURM_STEP_NODELIST", "SLURM_NTASKS", "SLURM_PROCID", "SLURM_LOCALID")
# Launchers that JAX does not know, by the variables with the number of processes and the number of this one.
_OTHERS = {
    "mpirun": ("OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_RANK"),  # Open MPI
    "mpiexec": ("PMI_SIZE", "PMI_RANK"),  # MPICH, Intel MPI; and SLURM's, for programs that use MPI
    "mpirun_rsh": ("MV2_COMM_WORLD_SIZE", "MV2_COMM_WORLD_RANK"),  # MVAPICH2
    "torchrun": ("WORLD_SIZE", "RANK"),
}
_VISIBLE = ("CUDA_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES")
# Which slice this is of how many, and the address of the first slice's worker 0.
_NUM_SLICES, _SLICE = "MEGASCALE_NUM_SLICES", "MEGASCALE_SLICE_ID"
_COORDINATOR = "MEGASCALE_COORDINATOR_ADDRESS"
_METADATA = "http://metadata.google.internal/computeMetadata/v1/instance/attributes/"


def count_processes(environment: Mapping[str, str], tpu_vm_attribute: Callable[[str], str] | None = None) -> int:
    """Number of processes that the launcher of this one has started; by default 1.

    SLURM steps of several tasks, GKE and TPU VMs are known, the latter with one slice or several. An empty variable
    counts as none.

    Args:
      environment: variables of this process.
      tpu_vm_attribute: reads an attribute of a TPU VM's metadata, ``""`` if there is none; by default those of this
        machine.

    Raises:
      ValueError: a launcher unknown to JAX has started several, or a SLURM step lacks variables. Also if a task does
        not see the GPUs of the others on its node, or several slices do not say which one this is.
    """
    step = _slurm_step(environment)
    for launcher, (size, rank) in _OTHERS.items():
        found = (environment.get(size, ""), environment.get(rank, ""))
        if found[1] and _number(environment, size, 1) > 1 and found != step:
            raise checks.error("processes", f"{_BY_HAND} that {launcher} starts, or {_ALONE}", f"{size}={found[0]}")
    if step is not None:
        return int(step[0])
    platforms = environment.get("JAX_PLATFORMS", "")
    if platforms and "tpu" not in platforms.split(","):
        return 1
    return _tpu_workers(environment, tpu_vm_attribute or _tpu_vm_attribute)


def _tpu_workers(environment: Mapping[str, str], attribute: Callable[[str], str]) -> int:
    """Workers of all TPU slices of this job. GKE tells a pod in its environment, a TPU VM asks its metadata."""
    told = environment.get("TPU_PROCESS_ADDRESSES") or environment.get("TPU_WORKER_HOSTNAMES")
    workers = told or attribute("worker-network-endpoints")
    if not workers:
        return 1
    slices = environment
    if not told and _NUM_SLICES not in environment:  # queued resources of several nodes
        slices = _tpu_vm_variables(attribute("tpu-env"))
    num_slices = _number(slices, _NUM_SLICES, 1)
    if num_slices > 1:
        missing = [name for name in (_SLICE, _COORDINATOR) if not slices.get(name)]
        if missing:
            raise checks.error("processes", f"{_SLICE} and {_COORDINATOR} with {_NUM_SLICES}={num_slices}", missing)
        if _number(slices, _SLICE, 0) >= num_slices:
            raise checks.error(_SLICE, f"0 to {num_slices - 1}", slices[_SLICE])
    return num_slices * len(workers.split(","))


def _tpu_vm_variables(text: str) -> dict[str, str]:
    """Lines such as ``MEGASCALE_NUM_SLICES: '2'`` of the attribute ``tpu-env``."""
    pairs = (line.partition(":")[::2] for line in text.splitlines())
    return {name.strip(): value.strip().strip("'\"") for name, value in pairs}


def _number(environment: Mapping[str, str], name: str, otherwise: int) -> int:
    value = environment.get(name)
    if not value:
        return otherwise
    if not value.isdecimal():
        raise checks.error(name, "an integer", value)
    return int(value)


def _slurm_step(environment: Mapping[str, str]) -> tuple[str, str] | None:
    """Number of tasks, and of this one, in a job step (``srun``); None elsewhere, such as in a batch script."""
    missing = [name for name in _SLURM if not environment.get(name)]
    if missing:
        if _number(environment, "SLURM_PROCID", 0) > 0 or _number(environment, "SLURM_STEP_NUM_TASKS", 1) > 1:
            raise checks.error(
                "processes", f"all variables of a SLURM step ({', '.join(_SLURM)})", f"none of {', '.join(missing)}"
            )
        return None
    tasks, number = _number(environment, "SLURM_NTASKS", 1), _number(environment, "SLURM_LOCALID", 0)
    if tasks > 1:
        _check_gpus(environment, max(number + 1, -(-tasks // _number(environment, "SLURM_STEP_NUM_NODES", tasks))))
    return environment["SLURM_NTASKS"], environment["SLURM_PROCID"]


def _check_gpus(environment: Mapping[str, str], tasks: int) -> None:
    """JAX gives each task the GPU of its number on the node, among all that it sees."""
    if environment.get("JAX_PLATFORMS", "").partition(",")[0] == "cpu":
        return
    for name in _VISIBLE:
        visible = [device for device in environment.get(name, "").split(",") if device]
        if 0 < len(visible) < tasks:
            raise checks.error(
                name,
                f"the GPUs of all {tasks} tasks of this node (srun --gpu-bind=none, and no --gpus-per-task)",
                environment[name],
            )


def _tpu_vm_attribute(name: str) -> str:
    if not (glob.glob("/dev/accel*") or glob.glob("/dev/vfio/[0-9]*")):  # where there are chips, there may be others
        return ""
    request = urllib.request.Request(_METADATA + name, headers={"Metadata-Flavor": "Google"})
    for seconds in (0.5, 1.0, 2.0):
        try:
            with urllib.request.urlopen(request, timeout=2.0) as answer:
                return answer.read().decode()
        except urllib.error.HTTPError as problem:
            if problem.code == 404:
                return ""
        except OSError:
            pass
        time.sleep(seconds)
    return ""
