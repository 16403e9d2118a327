"""The SLURM job, with a stand-in for ``srun``."""

import pytest

from tests.launch.stand_ins import ROOT, TRAIN, run, stand_in

# CODES holds the exit codes of the tasks; srun says those that are not 0 and returns the highest.
_SRUN = """
highest=0
for code in $CODES; do
    [ "$code" -eq 0 ] || echo "srun: error: node1: task 1: Exited with exit code $code" >&2
    [ "$code" -le "$highest" ] || highest="$code"
done
exit "$highest"
"""


@pytest.mark.parametrize(
    ("codes", "restarts", "requeued"),
    [
        ("0 0", 0, False),
        ("75 75", 3, True),
        ("69 137", 0, True),
        ("143 75", 0, True),
        ("124 134", 19, True),
        ("75 75", 20, False),
        ("2 2", 0, False),
        ("2 69", 0, False),
        ("69 1", 0, False),
        ("3 134", 0, False),
        ("69 74", 0, False),
    ],
)
def test_a_slurm_job_returns_to_the_queue_if_that_may_help(tmp_path, codes, restarts, requeued):
    stand_in(tmp_path / "bin", "srun", _SRUN)
    stand_in(tmp_path / "bin", "scontrol", "")
    job = {"SLURM_SUBMIT_DIR": str(ROOT), "SLURM_JOB_ID": "7", "SLURM_RESTART_COUNT": str(restarts)}
    job |= {"SLURM_CPUS_PER_TASK": "8", "CODES": codes}
    received, printed, errors, calls = run(tmp_path, "launch/slurm.sbatch", *TRAIN[1:3], **job)
    highest = max(map(int, codes.split()))
    assert received == highest
    assert printed.count("Exited with exit code") == sum(code != "0" for code in codes.split())
    options, train = calls[0].split(" .venv/bin/python ")
    assert options == "srun --wait=60 --cpus-per-task=8 --gpu-bind=none --label"
    assert train == f"-m vmoe_inform.train {TRAIN[1]} {TRAIN[2]}"
    assert calls[1:] == (["scontrol requeue 7"] if requeued else [])
    assert ("not requeued" in errors) == (highest > 0 and not requeued)


def test_tasks_learn_which_devices_to_take_unless_the_user_says_so(tmp_path):
    stand_in(tmp_path / "bin", "srun", 'echo "$JAX_PLATFORMS $XLA_PYTHON_CLIENT_MEM_FRACTION $NCCL_DEBUG"')
    job = {"SLURM_SUBMIT_DIR": str(ROOT), "SLURM_JOB_ID": "7", "JAX_PLATFORMS": ""}
    assert run(tmp_path, "launch/slurm.sbatch", **job)[1] == "cuda,cpu 0.9 WARN\n"
    job |= {"JAX_PLATFORMS": "rocm,cpu", "XLA_PYTHON_CLIENT_MEM_FRACTION": "0.8", "NCCL_DEBUG": "INFO"}
    assert run(tmp_path, "launch/slurm.sbatch", **job)[1] == "rocm,cpu 0.8 INFO\n"


def test_a_task_of_a_study_is_requeued_as_training_is(tmp_path):
    stand_in(tmp_path / "bin", "srun", _SRUN)
    stand_in(tmp_path / "bin", "scontrol", "")
    # The number of the array's last task is that of the array: by it, SLURM would start all others again.
    job = {"SLURM_SUBMIT_DIR": str(ROOT), "SLURM_JOB_ID": "8", "CODES": "75"}
    job |= {"SLURM_ARRAY_JOB_ID": "8", "SLURM_ARRAY_TASK_ID": "1"}
    code, _, _, calls = run(tmp_path, "launch/study.sbatch", "--array=a/seed_0,b/seed_0", **job)
    assert code == 75
    assert calls[0].endswith(" -m vmoe_inform.study --array=a/seed_0,b/seed_0")
    assert calls[1:] == ["scontrol requeue 8_1"]


@pytest.mark.parametrize("number", ["many", "08", "9" * 30])
def test_a_bad_number_of_requeues_is_one_line(tmp_path, number):
    code, _, errors, calls = run(tmp_path, "launch/slurm.sbatch", SLURM_SUBMIT_DIR=str(ROOT), REQUEUES=number)
    assert (code, calls) == (2, [])
    assert errors == f"slurm: REQUEUES: expected an integer >= 0; received {number}\n"


def test_a_slurm_job_asks_for_a_task_a_gpu():
    lines = (ROOT / "launch/slurm.sbatch").read_text().splitlines()
    options = dict(line.removeprefix("#SBATCH --").partition("=")[::2] for line in lines if line.startswith("#SBATCH"))
    assert options["ntasks-per-node"] == options["gpus-per-node"]
    assert options["mem-per-cpu"] == "4G"
    assert options["signal"] == "TERM@300"
    assert "requeue" in options
    assert not any("gpus-per-task" in line for line in lines)  # each task has to see all GPUs
