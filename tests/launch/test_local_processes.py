"""The script that starts processes on this machine, with a stand-in for Python."""

import os
import signal
import subprocess
import sys
from subprocess import PIPE

import pytest

from tests.launch.stand_ins import ROOT, left_of, run, stand_in

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
