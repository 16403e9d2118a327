"""The launch scripts: read by shellcheck, and run with stand-ins for the programs that reach other machines."""

import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
from subprocess import PIPE

import pytest

from vmoe_inform import config as config_lib
from vmoe_inform.config import files
from vmoe_inform.studies import plan

ROOT = pathlib.Path(__file__).parents[2]
SCRIPTS = sorted([*(ROOT / "launch").glob("*.sh"), *(ROOT / "launch").glob("*.sbatch"), ROOT / ".ci/run"])
SLICE = (
    "--name=pod",
    "--zone=us-west4-a",
    "--type=v5litepod-16",
    "--version=v2-alpha-tpuv5-lite",
    "--share=10.0.0.2:/vol",
)
TRAIN = ("--", "--config=configs/digits.py", "--workdir=/mnt/share/run", "--config.model.router.inform=('a', 'b')")


def stand_in(folder: pathlib.Path, name: str, text: str) -> None:
    """A program ``name`` in ``folder`` that does what the shell script ``text`` says, with its call noted in LOG."""
    folder.mkdir(exist_ok=True)
    path = folder / name
    path.write_text(f'#!/usr/bin/env bash\necho "{name} $*" >>"$LOG"\n{text}\n')
    path.chmod(0o755)


def run(tmp_path, *command: str, **environment: str) -> tuple[int, str, str, list[str]]:
    """Exit code, output, errors, and the calls of stand-ins, which come first on the path."""
    log = tmp_path / "log"
    done = subprocess.run(
        command,
        cwd=ROOT,
        env={"PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}", "LOG": str(log), "TMPDIR": "/tmp", **environment},
        capture_output=True,
        text=True,
    )
    return done.returncode, done.stdout, done.stderr, log.read_text().splitlines() if log.exists() else []


def test_shellcheck_finds_nothing():
    shellcheck = shutil.which("shellcheck", path=f"{pathlib.Path(sys.executable).parent}:{os.environ['PATH']}")
    assert shellcheck is not None
    assert len(SCRIPTS) >= 6
    done = subprocess.run([shellcheck, *map(str, SCRIPTS)], capture_output=True, text=True)
    assert done.stdout + done.stderr == ""
    assert done.returncode == 0


# ------------------------------------------------------------------------------------------------------------ TPU pods


def test_a_dry_run_prints_every_command_and_runs_none(tmp_path):
    for name in ("gcloud", "git"):
        stand_in(tmp_path / "bin", name, "exit 1")
    code, printed, errors, calls = run(tmp_path, "launch/tpu_pod.sh", *SLICE, "--spot", "--delete", "--dry-run", *TRAIN)
    assert (code, errors, calls) == (0, "", [])
    quote = lambda text: "'" + text.replace("'", r"'\''") + "'"
    ssh = "+ gcloud compute tpus tpu-vm ssh pod --zone=us-west4-a --worker=all "
    flags = " ".join(quote(flag) for flag in TRAIN[1:])
    assert printed.splitlines() == [
        "+ gcloud compute tpus tpu-vm create pod --zone=us-west4-a --accelerator-type=v5litepod-16 "
        "--version=v2-alpha-tpuv5-lite --spot",
        "+ git archive --format=tar.gz --output=/tmp/vmoe_inform.XXXXXX HEAD",
        "+ gcloud compute tpus tpu-vm scp /tmp/vmoe_inform.XXXXXX pod:vmoe_inform.tar.gz --zone=us-west4-a "
        "--worker=all",
        ssh
        + quote(
            "--command=mountpoint -q /mnt/share || { sudo apt-get install -y -qq nfs-common && sudo mkdir -p "
            "/mnt/share && sudo mount -t nfs '10.0.0.2:/vol' /mnt/share && sudo chmod a+rwx /mnt/share; }"
        ),
        ssh
        + quote(
            "--command=if [ -e train.lock ] && ! flock --nonblock train.lock true; then echo training is running: "
            "nothing is installed; else mkdir -p vmoe_inform && find vmoe_inform -mindepth 1 -maxdepth 1 ! -name .venv "
            "-exec rm -rf {} + && tar -xzf vmoe_inform.tar.gz -C vmoe_inform && "
            "vmoe_inform/launch/tpu_worker.sh install; fi"
        ),
        ssh + quote(f"--command=vmoe_inform/launch/tpu_worker.sh start {flags}"),
        ssh + quote("--command=vmoe_inform/launch/tpu_worker.sh follow"),
        "+ gcloud compute tpus tpu-vm delete pod --zone=us-west4-a --quiet",
    ]


def test_a_run_in_a_bucket_needs_no_share(tmp_path):
    stand_in(tmp_path / "bin", "gcloud", "exit 1")
    flags = (*SLICE[:4], "--dry-run", "--", "--workdir=gs://bucket/run")
    code, printed, errors, _ = run(tmp_path, "launch/tpu_queue.sh", *flags)
    assert (code, errors, "/mnt/share" in printed) == (0, "", False)
    assert "tpu_worker.sh start '\\''--workdir=gs://bucket/run'\\''" in printed


# STATES holds what `describe` says, one line a call; CODES the exit codes of training, one line a start.
_GCLOUD = """
next() { head -n 1 "$1"; sed -i 1d "$1"; }
case "$*" in
*describe*) next "$STATES" ;;
*"tpu_worker.sh follow"*) exit "$(next "$CODES")" ;;
esac
"""


def run_pod(tmp_path, states: list[str], codes: list[int], *flags: str) -> tuple[int, list[str]]:
    """Exit code of the script, and what it did with the slice."""
    stand_in(tmp_path / "bin", "gcloud", _GCLOUD)
    stand_in(tmp_path / "bin", "git", "")
    (tmp_path / "states").write_text("".join(f"{state}\n" for state in states))
    (tmp_path / "codes").write_text("".join(f"{code}\n" for code in codes))
    places = {"STATES": str(tmp_path / "states"), "CODES": str(tmp_path / "codes"), "RECONNECT_SECONDS": "0"}
    code, _, _, calls = run(tmp_path, "launch/tpu_pod.sh", *SLICE, *flags, *TRAIN, **places)
    verbs = {"tpu-vm create": "create", "tpu-vm delete": "delete", "tpu_worker.sh start": "train"}
    verbs |= {"tpu_worker.sh follow 5": "again"}
    return code, [verb for call in calls for words, verb in verbs.items() if words in call]


def test_a_preempted_slice_is_made_again(tmp_path):
    code, done = run_pod(tmp_path, ["READY", "PREEMPTED", "PREEMPTED", "PREEMPTED"], [255, 0])
    assert (code, done) == (0, ["train", "delete", "create", "train"])


def test_stopped_training_goes_on_on_the_same_slice_up_to_the_limit(tmp_path):
    code, done = run_pod(tmp_path, ["READY"] * 9, [75] * 9, "--restarts=2", "--delete")
    assert (code, done) == (75, ["train"] * 3 + ["delete"])


def test_a_lost_or_stuck_worker_is_a_reason_to_start_again(tmp_path):
    code, done = run_pod(tmp_path, ["READY"] * 9, [69, 124, 134, 0])
    assert (code, done) == (0, ["train"] * 4)


def test_a_lost_connection_starts_nothing_twice(tmp_path):
    code, done = run_pod(tmp_path, ["READY"] * 9, [255, 255, 0])
    assert (code, done) == (0, ["train", "again", "again"])


def test_what_was_stopped_by_its_user_is_not_started_again(tmp_path):
    code, done = run_pod(tmp_path, ["READY"] * 9, [130])
    assert (code, done) == (130, ["train"])


def test_what_cannot_be_installed_is_not_started(tmp_path):
    stand_in(tmp_path / "bin", "gcloud", 'case "$*" in *describe*) echo READY ;; *scp*) exit 1 ;; esac')
    stand_in(tmp_path / "bin", "git", "")
    code, _, _, calls = run(tmp_path, "launch/tpu_pod.sh", *SLICE, *TRAIN)
    assert code == 1
    assert not any("ssh" in call for call in calls)


def test_stop_reaches_all_workers(tmp_path):
    stand_in(tmp_path / "bin", "gcloud", "")
    code, _, _, calls = run(tmp_path, "launch/tpu_pod.sh", *SLICE[:2], "--stop")
    ssh = "gcloud compute tpus tpu-vm ssh pod --zone=us-west4-a --worker=all --command="
    assert (code, calls) == (0, [f"{ssh}vmoe_inform/launch/tpu_worker.sh stop"])


def test_bad_input_is_not_tried_again(tmp_path):
    code, done = run_pod(tmp_path, ["READY"] * 9, [2] * 9)
    assert (code, done) == (2, ["train"])


def test_a_slice_is_deleted_on_request_alone(tmp_path):
    stand_in(tmp_path / "bin", "gcloud", "")
    code, _, _, calls = run(tmp_path, "launch/tpu_pod.sh", *SLICE[:2], "--delete")
    assert (code, calls) == (0, ["gcloud compute tpus tpu-vm delete pod --zone=us-west4-a --quiet"])


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (SLICE, "expected -- and the flags of vmoe_inform.train, --stop or --delete"),
        ((*SLICE, "--stop", *TRAIN), "--stop: expected neither -- nor --delete"),
        (("--zone=z", "--delete"), "expected --name and --zone"),
        ((*SLICE[:3], *TRAIN), "expected --type and --version"),
        ((*SLICE[:4], *TRAIN), "expected --share, or --workdir=gs://BUCKET/NAME"),
        ((*SLICE, "--restarts=many", *TRAIN), "--restarts: expected an integer >= 0; received many"),
        ((*SLICE, "--restarts=08", *TRAIN), "--restarts: expected an integer >= 0; received 08"),
        ((*SLICE, "--spott", *TRAIN), "received --spott"),
        ((*SLICE, "--spot", "--reserved", *TRAIN), "expected one of --spot and --reserved"),
        ((*SLICE, "--slices=2", *TRAIN), "--slices: expected launch/tpu_queue.sh for several slices; received 2"),
    ],
)
def test_bad_flags_of_the_pod_script(tmp_path, flags, message):
    code, printed, errors, _ = run(tmp_path, "launch/tpu_pod.sh", "--dry-run", *flags)
    assert (code, printed) == (2, "")
    assert message in errors


# --------------------------------------------------------------------------------------------------------------- SLURM


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


# -------------------------------------------------------------------------------------------- processes of this machine

# In place of python: what it is asked for the port it asks Python; else it does what ACT says for its process.
_PYTHON = """
if [ "$1" = -c ]; then exec "$REAL" "$@"; fi
for word in "$@"; do case "$word" in --process_id=*) number="${word#*=}" ;; esac; done
eval "$ACT"
"""


def start_local(tmp_path, act: str, number: str = "2", devices: str = "4", **variables: str) -> subprocess.Popen[str]:
    stand_in(tmp_path / "bin", "python", _PYTHON)
    environment = {**os.environ, "PYTHON": str(tmp_path / "bin/python"), "REAL": sys.executable, "ACT": act}
    # As a terminal starts it: nohup, and libtpu in the process of the tests, leave signals ignored.
    terminal = ["env", "--default-signal=HUP,INT,TERM"]
    return subprocess.Popen(
        [*terminal, "launch/local_multiprocess.sh", number, devices, "--", "--config=c.py"],
        cwd=ROOT,
        env={**environment, "LOG": str(tmp_path / "log"), "SECONDS_TO_END": "5", **variables},
        stdout=PIPE,
        stderr=PIPE,
        text=True,
        start_new_session=True,
    )


def left_of(session: int) -> list[str]:
    """Command lines of the processes of a session that have not ended."""
    found = []
    for process in pathlib.Path("/proc").glob("[0-9]*"):
        try:
            state, _, _, of = (process / "stat").read_text().rpartition(")")[2].split()[:4]
            command_line = (process / "cmdline").read_text().replace("\0", " ")
            if int(of) == session and state != "Z" and command_line:  # without one it is ending
                found.append(command_line)
        except OSError:
            continue
    return found


def test_each_process_gets_its_number_and_its_lines_are_marked(tmp_path):
    process = start_local(tmp_path, 'echo "I have $JAX_NUM_CPU_DEVICES"; echo wrong >&2')
    printed, errors = process.communicate()
    assert process.returncode == 0
    assert sorted(printed.splitlines()) == ["[0] I have 4", "[1] I have 4"]
    assert sorted(errors.splitlines()) == ["[0] wrong", "[1] wrong"]
    calls = [call for call in (tmp_path / "log").read_text().splitlines() if "-m" in call]
    ports = {call.split("--coordinator_address=127.0.0.1:")[1].split()[0] for call in calls}
    assert len(ports) == 1
    assert sorted(call.split()[-1] for call in calls) == ["--process_id=0", "--process_id=1"]
    assert all("-m vmoe_inform.train --config=c.py" in call and "--num_processes=2" in call for call in calls)


@pytest.mark.parametrize("other", ["exec sleep 60", "trap '' TERM; while true; do sleep 0.1; done"])
def test_when_one_process_fails_the_others_are_ended(tmp_path, other):
    """Also one that does not listen; the exit code is that of the first."""
    process = start_local(tmp_path, f'if [ "$number" = 1 ]; then exit 7; fi; {other}', "3")
    process.communicate(timeout=20)
    assert process.returncode == 7


# Notes each signal, and takes a second to save after the first.
_SAVES = """
trap 'echo INT; stop=1' INT
trap 'echo TERM; stop=1' TERM
echo ready
until [ "${stop:-}" ]; do sleep 0.05; done
for part in 1 2 3 4 5 6 7 8 9 10; do sleep 0.1; done
echo saved
exit 75
"""


@pytest.mark.parametrize(
    ("number", "whole_group", "received"),
    [
        (signal.SIGTERM, False, "TERM"),
        (signal.SIGINT, True, "INT"),  # Ctrl-C goes to all processes of the terminal
        (signal.SIGHUP, True, "TERM"),  # as does the end of the terminal
        (signal.SIGTERM, True, "TERM"),
    ],
)
def test_a_signal_goes_to_all_processes_once_and_leaves_none(tmp_path, number, whole_group, received):
    process = start_local(tmp_path, _SAVES)
    assert process.stdout is not None
    ready = {process.stdout.readline(), process.stdout.readline()}
    assert ready == {"[0] ready\n", "[1] ready\n"}
    os.killpg(process.pid, number) if whole_group else process.send_signal(number)
    printed, errors = process.communicate(timeout=60)
    assert sorted(printed.splitlines()) == [f"[{i}] {said}" for i in range(2) for said in (received, "saved")], errors
    assert process.returncode == 75
    assert left_of(process.pid) == []


@pytest.mark.parametrize("visible", ["3,GPU-8f2e,5", None])
def test_each_process_gets_a_gpu_of_its_own(tmp_path, visible):
    stand_in(tmp_path / "bin", "nvidia-smi", "printf '0\\n1\\n'")
    path = f"{tmp_path / 'bin'}:{os.environ['PATH']}"
    variables = {"PATH": path} | ({} if visible is None else {"CUDA_VISIBLE_DEVICES": visible})
    process = start_local(tmp_path, 'echo "$JAX_PLATFORMS $CUDA_VISIBLE_DEVICES"', devices="gpu", **variables)
    printed, errors = process.communicate(timeout=60)
    first, second = ("0", "1") if visible is None else ("3", "GPU-8f2e")
    assert sorted(printed.splitlines()) == [f"[0] cuda,cpu {first}", f"[1] cuda,cpu {second}"], errors


@pytest.mark.parametrize(
    ("visible", "words"), [("1", "1 visible ones (CUDA_VISIBLE_DEVICES is 1)"), ("", "0 visible ones")]
)
def test_gpus_that_are_not_visible_are_refused(tmp_path, visible, words):
    process = start_local(tmp_path, "echo started", devices="gpu", CUDA_VISIBLE_DEVICES=visible)
    printed, errors = process.communicate(timeout=60)
    assert (process.returncode, printed) == (2, "")
    assert f"expected a GPU for each of 2 processes; received {words}" in errors


def test_bad_arguments_of_the_local_script(tmp_path):
    for arguments in (("0", "4", "--"), ("2", "4"), ("2", "four", "--")):
        code, _, errors, _ = run(tmp_path, "launch/local_multiprocess.sh", *arguments)
        assert code == 2
        assert "expected NUM_PROCESSES DEVICES_PER_PROCESS -- FLAGS" in errors
    code, _, errors, _ = run(tmp_path, "launch/local_multiprocess.sh", "2", "4", "--", SECONDS_TO_END="soon")
    assert code == 2
    assert errors == "local_multiprocess: SECONDS_TO_END: expected an integer >= 0; received soon\n"


@pytest.mark.parametrize("script", ["quickstart", "rehearse_imagenet"])
def test_a_folder_that_is_none_is_refused_before_anything_is_made(tmp_path, script):
    """Where bash would make a folder ``gs:``, or ``mkdir`` take ``--help`` for its own."""
    (tmp_path / "launch").mkdir()
    shutil.copy(ROOT / f"launch/{script}.sh", tmp_path / "launch")
    for arguments in (("--help",), ("gs://bucket/runs",), ("one", "two")):
        code, printed, errors, _ = run(tmp_path, str(tmp_path / f"launch/{script}.sh"), *arguments)
        assert (code, printed) == (2, "")
        assert errors.startswith(f"{script}: expected ")
        assert errors.endswith(f"; received {' '.join(arguments)}\n")
        assert [path.name for path in tmp_path.iterdir()] == ["launch"]


# ------------------------------------------------------------------------------------------------------- documentation


def test_the_documentation_names_what_is_there():
    text = (ROOT / "docs" / "launching.md").read_text()
    files = ("local_multiprocess.sh", "tpu_queue.sh", "tpu_pod.sh", "gke_jobset.yaml", "slurm.sbatch", "Dockerfile")
    assert all(f"launch/{name}" in text for name in files)
    assert set(re.findall(r"launch/([\w.]+\.(?:sh|yaml|sbatch))", text)) <= {
        p.name for p in (ROOT / "launch").iterdir()
    }
    (block,) = [block for block in re.findall(r"```\n(.*?)```", text, re.DOTALL) if "tpu_queue.sh --name" in block]
    done = subprocess.run(["bash", "-c", block], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("+ gcloud") == 7


# ------------------------------------------------------------------------------------------------------------- studies

# Notes its call; a study of one learning rate scores as much as its rate, and other programs are Python's.
STUDY = r"""
[ "$1" = - ] && exec "$REAL_PYTHON" "$@"
for argument; do
    case "$argument" in --workdir=*/learning_rates/*)
        folder="${argument#--workdir=}"
        mkdir -p "$folder"
        score="{\"score/$SUITE\": {\"mean\": {\"mean\": $(basename "$folder")}}}"
        echo "{\"routers\": {\"plain\": {\"measures\": $score}}}" >"$folder/study.json" ;;
    esac
done
"""


@pytest.mark.parametrize(
    ("data", "suite", "plain", "best", "jobs"),
    [("fashion_mnist", "clean", "vmoe", "0.004", "6"), ("wordnet", "perplexity", "smoe_top2", "0.0015", "1")],
)
def test_a_study_has_the_best_rate_of_the_plain_router_on_held_out_records(tmp_path, data, suite, plain, best, jobs):
    stand_in(tmp_path / "bin", "python", STUDY)
    folder = tmp_path / "study"
    code, printed, errors, calls = run(
        tmp_path,
        *("launch/study_routers.sh", data, str(folder), "--config.train.batch_size=4"),
        **{
            "PYTHON": "python",
            "REAL_PYTHON": sys.executable,
            "SUITE": suite,
            "SEEDS": "7",
            "JOBS": jobs,
            "ROUTERS": "base,soft",
        },
    )
    assert (code, printed) == (0, f"learning rate {best}\n"), errors
    *choosing, _, study = calls
    assert len(choosing) == 3
    for call in choosing:
        assert re.search(rf" --routers={plain} --seeds=2 .*--config.data.validation_share=0.1667 ", f"{call} ")
    assert f" --routers={plain},base,soft --seeds=7 --jobs={jobs} --workdir={folder} " in study
    assert study.endswith(f" --config.train.batch_size=4 --config.optimizer.learning_rate={best}")
    assert "validation_share" not in study
    if data == "wordnet":
        assert study.count("--config.train.batch_size=") == 1  # a flag takes the place of the script's


def test_the_routers_of_a_study_have_their_moe_layers_in_the_same_blocks():
    text = (ROOT / "launch" / "study_routers.sh").read_text()
    studies = re.findall(r"plain=(\w+)\n +config=(\S+)\n.*?routers=\((.*?)\n    \)", text, re.DOTALL)
    assert [plain for plain, *_ in studies] == ["vmoe", "smoe_top2"]
    for plain, file, listed in studies:
        names = [re.sub("#.*", "", line).strip() for line in listed.strip().splitlines()]
        assert len(names) > 15
        loaded = [files.load(plan.with_router(file, name)) for name in (plain, *names)]
        assert len({config_lib.parse_model(config.model).moe_layers for config in loaded}) == 1


@pytest.mark.parametrize(
    ("arguments", "environment", "message"),
    [
        ((), {}, "study_routers: expected fashion_mnist or wordnet, and a folder; received nothing"),
        (("cifar",), {}, "study_routers: expected fashion_mnist or wordnet; received cifar"),
        (("wordnet", "--seeds=3"), {}, "study_routers: expected .* a folder; received wordnet --seeds=3"),
        (("wordnet",), {"SEEDS": "1"}, "study_routers: expected SEEDS of 2 or more .*; received 1 and 1"),
    ],
)
def test_a_study_that_cannot_be(tmp_path, arguments, environment, message):
    code, printed, errors, _ = run(tmp_path, "launch/study_routers.sh", *arguments, **environment)
    assert (code, printed) == (2, "")
    assert re.fullmatch(message, errors.strip())
