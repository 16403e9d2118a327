"""launch/tpu_worker.sh: training on a worker is started once, and survives the connection that started it."""

import os
import pathlib
import shutil
import signal
import subprocess
import time

import pytest

from tests.launch.stand_ins import left_of, stand_in
from tests.processes import ROOT

# Each start is noted; training saves at SIGTERM, and ends by itself when there is a file `end` with its exit code.
_TRAINS = """
echo "training $*"
trap 'echo saved; exit 75' TERM
until [ -s "$HOME/end" ]; do sleep 0.05; done
exit "$(cat "$HOME/end")"
"""


@pytest.fixture
def home(tmp_path):
    """The home folder of a worker, with the repository and an environment whose python is a stand-in."""
    (tmp_path / "vmoe_inform/launch").mkdir(parents=True)
    for name in ("tpu_worker.sh", "install.sh"):
        shutil.copy(ROOT / "launch" / name, tmp_path / "vmoe_inform/launch")
    (tmp_path / "vmoe_inform/.venv").mkdir()
    stand_in(tmp_path / "vmoe_inform/.venv/bin", "python", _TRAINS)
    stand_in(tmp_path / "bin", "curl", "echo 0")
    yield tmp_path
    (tmp_path / "end").write_text("0")
    pid = tmp_path / "train.pid"
    if pid.exists():
        wait_for(lambda: not pathlib.Path("/proc", pid.read_text().strip()).exists())


def wait_for(condition) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def begin(home: pathlib.Path, *words: str) -> subprocess.Popen[str]:
    environment = {"HOME": str(home), "PATH": f"{home / 'bin'}:{os.environ['PATH']}", "LOG": str(home / "calls")}
    command = ["vmoe_inform/launch/tpu_worker.sh", *words]
    pipe = subprocess.PIPE
    return subprocess.Popen(
        command, cwd=home, env=environment, stdout=pipe, stderr=pipe, text=True, start_new_session=True
    )


def worker(home: pathlib.Path, *words: str) -> tuple[int, str, str]:
    process = begin(home, *words)
    printed, errors = process.communicate(timeout=60)
    return process.returncode, printed, errors


def starts(home: pathlib.Path) -> int:
    log = home / "train.log"
    return log.read_text().count("training -m vmoe_inform.train") if log.exists() else 0


def test_a_second_start_finds_the_first_running_and_follows_it(home):
    assert worker(home, "start", "--config=a b") == (0, "", "")  # it returns while training runs
    wait_for(lambda: starts(home) == 1)
    following = begin(home, "follow")
    assert following.stdout is not None
    assert following.stdout.readline() == "training -m vmoe_inform.train --config=a b\n"
    os.killpg(following.pid, signal.SIGKILL)  # the connection is lost
    following.communicate()

    assert worker(home, "start", "--config=a b") == (0, "tpu_worker: training is running already\n", "")
    code, _, errors = worker(home, "start", "--config=other")
    assert (code, errors) == (2, "tpu_worker: expected no other training here; running with: --config=a b\n")
    again = begin(home, "follow", "5")
    (home / "end").write_text("69")
    printed, _ = again.communicate(timeout=60)
    assert (again.returncode, starts(home)) == (69, 1)
    assert printed == "training -m vmoe_inform.train --config=a b\n"
    assert left_of(following.pid) == left_of(again.pid) == []


@pytest.mark.parametrize(("slice_id", "shown"), [(0, "training"), (1, "")])
def test_the_first_slice_shows_its_output(home, slice_id, shown):
    metadata = (
        f"case $* in *tpu-env) echo \"ACCELERATOR_TYPE: 'v5litepod-16'\"; echo \"MEGASCALE_SLICE_ID: '{slice_id}'\" ;;"
    )
    stand_in(home / "bin", "curl", f"{metadata} *) echo 0 ;; esac")
    worker(home, "start")
    (home / "end").write_text("0")
    code, printed, _ = worker(home, "follow")
    assert (code, printed[:8]) == (0, shown)


def test_the_next_start_shows_its_own_output_and_exit_code(home):
    for code in (75, 0):
        assert worker(home, "start", f"--code={code}")[0] == 0
        (home / "end").write_text(str(code))
        assert worker(home, "follow") == (code, f"training -m vmoe_inform.train --code={code}\n", "")
        (home / "end").unlink()
    assert starts(home) == 2


def test_stop_saves_and_is_told_from_a_preemption(home):
    assert worker(home, "stop") == (0, "", "")  # nothing is running
    worker(home, "start")
    wait_for(lambda: starts(home) == 1)
    assert worker(home, "stop")[0] == 0
    code, printed, _ = worker(home, "follow")
    assert (code, printed.splitlines()[-1]) == (130, "saved")


def test_training_that_was_killed_with_all_around_it_may_start_again(home):
    worker(home, "start")
    wait_for(lambda: starts(home) == 1)
    pid = int((home / "train.pid").read_text())
    os.killpg(os.getpgid(pid), signal.SIGKILL)
    assert worker(home, "follow")[0] == 137
    worker(home, "start")
    wait_for(lambda: starts(home) == 2)


def test_the_environment_stays_while_the_requirements_do(home):
    """Unpacking the next commit, as tpu_run.sh does, leaves it; only new requirements install again."""
    stamp = home / "vmoe_inform/.venv/installed"
    stand_in(home / "vmoe_inform/launch", "install.sh", f"echo 1 >'{stamp}'")
    stand_in(home / "vmoe_inform/.venv/bin", "python", "")
    for _ in range(2):
        assert worker(home, "install")[0] == 0
    calls = (home / "calls").read_text().splitlines()
    assert [call for call in calls if "pip" in call] == ["python -m pip install -q -e .[tpu,gcs]"]
    script = (ROOT / "launch/tpu_run.sh").read_text()
    (unpack,) = [line for line in script.splitlines() if line.strip().startswith("local unpack=")]
    (home / "vmoe_inform/old.py").touch()
    command = unpack.strip().removeprefix("local unpack=").strip("'")
    subprocess.run(["bash", "-c", command], cwd=home, check=True)
    assert [path.name for path in (home / "vmoe_inform").iterdir()] == [".venv"]


def test_another_word_is_one_line(home):
    assert worker(home, "begin") == (
        2, "", "tpu_worker: expected install, start, follow or stop; received begin\n"
    )  # fmt: skip
