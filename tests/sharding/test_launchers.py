"""What the environment says about the processes of a run; processes that JAX would leave alone are refused."""

import re

import pytest

from vmoe_inform.sharding import launchers, processes

SLURM = {
    "SLURM_JOB_ID": "5",
    "SLURM_STEP_NODELIST": "localhost",
    "SLURM_NTASKS": "2",
    "SLURM_PROCID": "1",
    "SLURM_LOCALID": "1",
}


SLICES = {"MEGASCALE_NUM_SLICES": "3", "MEGASCALE_SLICE_ID": "2", "MEGASCALE_COORDINATOR_ADDRESS": "first:8081"}


@pytest.mark.parametrize(
    ("environment", "attribute", "count"),
    [
        ({}, "", 1),
        (SLURM, "", 2),
        (dict.fromkeys(SLURM, ""), "", 1),  # an empty variable is as good as none
        ({"TPU_WORKER_HOSTNAMES": "", "MEGASCALE_NUM_SLICES": "", "JAX_PLATFORMS": ""}, "", 1),
        ({"TPU_WORKER_HOSTNAMES": "a,b,c,d"}, "", 4),
        ({"TPU_WORKER_HOSTNAMES": "localhost"}, "", 1),
        (SLICES | {"TPU_WORKER_HOSTNAMES": "a,b"}, "", 6),
        (SLICES | {"TPU_WORKER_HOSTNAMES": "localhost"}, "", 3),  # slices of one host each
        ({}, "unknown:unknown:10.0.0.1,unknown:unknown:10.0.0.2", 2),
        ({"JAX_PLATFORMS": "cpu"}, "10.0.0.1,10.0.0.2", 1),
        ({"JAX_PLATFORMS": "tpu,cpu"}, "10.0.0.1,10.0.0.2", 2),
        (
            {"SLURM_JOB_ID": "5", "SLURM_NTASKS": "8", "SLURM_PROCID": "0", "SLURM_LOCALID": "0"},
            "",
            1,
        ),  # a batch script
        (SLURM | {"PMI_SIZE": "2", "PMI_RANK": "1"}, "", 2),  # srun --mpi=pmi2
        (SLURM | {"CUDA_VISIBLE_DEVICES": "0,1,2,3"}, "", 2),
        (SLURM | {"CUDA_VISIBLE_DEVICES": "0", "JAX_PLATFORMS": "cpu"}, "", 2),
        (SLURM | {"SLURM_LOCALID": "0", "SLURM_STEP_NUM_NODES": "2", "CUDA_VISIBLE_DEVICES": "3"}, "", 2),
        ({"OMPI_COMM_WORLD_SIZE": "1", "OMPI_COMM_WORLD_RANK": "0"}, "", 1),
        ({"WORLD_SIZE": "4"}, "", 1),  # a variable of another program: no launcher leaves the rank out
    ],
)
def test_what_the_environment_says(environment, attribute, count):
    attributes = {"worker-network-endpoints": attribute}
    assert launchers.count_processes(environment, lambda name: attributes.get(name, "")) == count


TPU_ENV = "ACCELERATOR_TYPE: 'v5litepod-4'\nMEGASCALE_COORDINATOR_ADDRESS: '10.0.0.1'\nWORKER_ID: '0'\n"


@pytest.mark.parametrize(
    ("environment", "tpu_env", "count"),
    [
        ({}, TPU_ENV + "MEGASCALE_NUM_SLICES: '2'\nMEGASCALE_SLICE_ID: '0'", 4),
        ({}, TPU_ENV, 2),
        ({}, "", 2),
        # JAX reads these metadata only where the environment says nothing
        (SLICES, TPU_ENV + "MEGASCALE_NUM_SLICES: '2'\nMEGASCALE_SLICE_ID: '0'", 6),
        ({"MEGASCALE_NUM_SLICES": ""}, TPU_ENV + "MEGASCALE_NUM_SLICES: '2'\nMEGASCALE_SLICE_ID: '0'", 2),
    ],
)
def test_a_tpu_vm_asks_its_metadata_for_slices(environment, tpu_env, count):
    attributes = {"worker-network-endpoints": "10.0.0.1,10.0.0.2", "tpu-env": tpu_env}
    assert launchers.count_processes(environment, attributes.__getitem__) == count


@pytest.mark.parametrize(
    ("without", "slice_id", "message"),
    [
        (
            "MEGASCALE_COORDINATOR_ADDRESS",
            "2",
            r"^processes: expected .* with MEGASCALE_NUM_SLICES=3; received \['M.*C",
        ),
        ("MEGASCALE_SLICE_ID", "2", r"^processes: expected .* with MEGASCALE_NUM_SLICES=3; received \['M.*_ID'\]$"),
        ("", "3", "^MEGASCALE_SLICE_ID: expected 0 to 2; received '3'$"),
    ],
)
def test_slices_that_do_not_know_each_other_are_refused(without, slice_id, message):
    environment = SLICES | {"TPU_WORKER_HOSTNAMES": "a,b", "MEGASCALE_SLICE_ID": slice_id}
    environment.pop(without, None)
    with pytest.raises(ValueError, match=message):
        launchers.count_processes(environment, lambda name: "")


BY_HAND = "processes: expected --coordinator_address, --num_processes and --process_id for each process .* that "


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({"OMPI_COMM_WORLD_SIZE": "4", "OMPI_COMM_WORLD_RANK": "0"}, f"{BY_HAND}mpirun starts, or .*_SIZE=4'"),
        ({"PMI_SIZE": "4", "PMI_RANK": "3"}, f"{BY_HAND}mpiexec starts, or .*; received 'PMI_SIZE=4'"),
        ({"MV2_COMM_WORLD_SIZE": "2", "MV2_COMM_WORLD_RANK": "1"}, f"{BY_HAND}mpirun_rsh starts, or .*_SIZE=2'"),
        ({"WORLD_SIZE": "8", "RANK": "0"}, f"{BY_HAND}torchrun starts, or .*; received 'WORLD_SIZE=8'"),
        # mpirun within a SLURM job starts its own processes by one task on each node
        (SLURM | {"OMPI_COMM_WORLD_SIZE": "8", "OMPI_COMM_WORLD_RANK": "1"}, f"{BY_HAND}mpirun starts, or "),
        ({"OMPI_COMM_WORLD_SIZE": "many", "OMPI_COMM_WORLD_RANK": "0"}, "OMPI_COMM_WORLD_SIZE: expected an integer"),
        ({"SLURM_JOB_ID": "5", "SLURM_PROCID": "1"}, "all variables of a SLURM step .* 'none of SLURM_STEP_NODELIST, "),
        (
            {"SLURM_STEP_NUM_TASKS": "4", "SLURM_PROCID": "0"},
            "all variables of a SLURM step .* 'none of SLURM_JOB_ID, ",
        ),
        (SLURM | {"SLURM_NTASKS": "two"}, "SLURM_NTASKS: expected an integer; received 'two'"),
        # a GPU for each task: the second has none of its number, and the first shares the node with the second
        (SLURM | {"CUDA_VISIBLE_DEVICES": "1"}, "^CUDA_VISIBLE_DEVICES: expected the GPUs of all 2 tasks of this node"),
        (
            SLURM
            | {"SLURM_PROCID": "0", "SLURM_LOCALID": "0", "SLURM_STEP_NUM_NODES": "1", "ROCR_VISIBLE_DEVICES": "0"},
            "^ROCR_VISIBLE_DEVICES: expected the GPUs of all 2 tasks",
        ),
    ],
)
def test_processes_that_jax_cannot_bring_together_are_refused(monkeypatch, environment, message):
    with pytest.raises(ValueError, match=re.compile(message)):
        launchers.count_processes(environment, lambda name: "")
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    processes.initialize(num_processes=1)  # each is a run of its own
