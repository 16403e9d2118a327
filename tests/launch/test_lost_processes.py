"""Two processes of a run, of which one is told to stop, killed or stopped: what the other does, and what resumes.

Each test starts from a copy of its own of the same stopped run. Nothing here has to be done in a given time, since a
step takes minutes where dozens of processes share a core. A process has one device: of several, those whose peer has
gone leave the others of their process waiting inside of XLA, for the watchdog.
"""

import contextlib
import dataclasses
import itertools
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator

import numpy as np
import pytest

from tests.processes import ROOT
from tests.sharding.test_processes import free_address
from vmoe_inform import exit_codes
from vmoe_inform.data import sources
from vmoe_inform.data.images.pipeline import SkippedRecords, train_iterator
from vmoe_inform.drill.kills import checkpoint_steps
from vmoe_inform.runs.checkpoints import Checkpoints
from vmoe_inform.runs.folder import read_config
from vmoe_inform.training import program
from vmoe_inform.training.writers.jsonl import read_metrics

FLAGS = (
    "--config=configs/digits.py:router=vmoe,variant=Ti/16,experts=2,where=0",
    "--config.model.num_layers=1",
    "--config.model.hidden_size=8",
    "--config.model.mlp_size=8",
    "--config.model.num_heads=1",
    "--config.model.patch_size_px=16",
    "--config.model.classifier=token",
    "--config.model.representation_size=None",
    "--config.model.moe.group_size_sequences=1",
    "--config.data.random_rotation_degrees=0.0",
    "--config.data.random_zoom=0.0",
    "--config.train.ema_decay=0.0",
    "--config.train.steps=1000000",
    "--config.train.batch_size=16",
    "--config.train.log_every_steps=1",
    "--config.train.watchdog_seconds=None",
    "--config.optimizer.warmup_steps=2",
    "--config.evaluation.batch_size=64",
    "--config.evaluation.every_steps=None",
    "--config.checkpoint.every_steps=1000000",
)


@dataclasses.dataclass
class Ended:
    """Of each process the exit code and what it said."""

    codes: list[int]
    said: list[str]


@contextlib.contextmanager
def two_processes(workdir: pathlib.Path, *flags: str, checkpoints: int) -> Iterator[list[subprocess.Popen[bytes]]]:
    """Training by two processes of one device each, when it has done three steps and there are these checkpoints."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    environment |= {"JAX_NUM_CPU_DEVICES": "1", "JAX_CPU_COLLECTIVES_IMPLEMENTATION": "gloo"}
    address, before = free_address(), len(_steps_logged(workdir))
    with contextlib.ExitStack() as stack:
        started = []
        for number in range(2):
            log = stack.enter_context(open(_log(workdir, number), "wb"))
            place = (f"--coordinator_address={address}", "--num_processes=2", f"--process_id={number}")
            command = [sys.executable, "-m", "vmoe_inform.train", *FLAGS, *flags, f"--workdir={workdir}", *place]
            process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=log, stderr=log)
            stack.callback(process.wait)
            stack.callback(process.kill)  # before it is waited for
            started.append(process)
        while len(_steps_logged(workdir)) < before + 3 or len(checkpoint_steps(workdir)) < checkpoints:
            assert [process.poll() for process in started] == [None, None], _log(workdir, 0).read_text()
            time.sleep(0.05)
        yield started


def send(workdir: pathlib.Path, number: signal.Signals, *flags: str, checkpoints: int = 0) -> Ended:
    """Trains, sends process 1 the signal, and waits for process 0; then for process 1, unless it is stopped."""
    with two_processes(workdir, *flags, checkpoints=checkpoints) as (first, second):
        second.send_signal(number)
        first.wait()
        if number == signal.SIGSTOP:
            second.kill()
        second.wait()
    return Ended([first.returncode, second.returncode], [_log(workdir, n).read_text() for n in range(2)])


def _log(workdir: pathlib.Path, number: int) -> pathlib.Path:
    return workdir.with_name(f"{workdir.name}.{number}.log")


def _steps_logged(workdir: pathlib.Path) -> list[int]:
    return [entry["step"] for entry in read_metrics(workdir / "metrics.jsonl") if "loss" in entry]


@pytest.fixture(scope="module")
def stopped(tmp_path_factory) -> tuple[pathlib.Path, Ended]:
    """A run of which one process was told to stop when there were two checkpoints: its folder, and how both ended."""
    workdir = tmp_path_factory.mktemp("runs") / "run"
    return workdir, send(workdir, signal.SIGTERM, "--config.checkpoint.every_steps=2", checkpoints=2)


@pytest.fixture
def workdir(stopped, tmp_path) -> pathlib.Path:
    """A copy of the stopped run."""
    return pathlib.Path(shutil.copytree(stopped[0], tmp_path / "run"))


def test_one_is_told_to_stop_and_both_save_the_same_step(stopped):
    workdir, ended = stopped
    assert ended.codes == [exit_codes.STOPPED] * 2, ended.said
    steps = [re.findall(r"saved step (\d+) of", said) for said in ended.said]
    assert steps[0] == steps[1] == [str(checkpoint_steps(workdir)[-1])]


def test_both_fall_back_to_the_same_checkpoint_and_one_is_killed(workdir):
    *_, older, newest = checkpoint_steps(workdir)
    damaged = max((workdir / "checkpoints" / str(newest)).glob("state/**/d/*"), key=lambda path: path.stat().st_size)
    damaged.write_bytes(damaged.read_bytes()[:-1])
    ended = send(workdir, signal.SIGKILL)
    assert all(f"taking checkpoint {older} instead" in said for said in ended.said), ended.said
    assert (workdir / "checkpoints" / f"damaged_{newest}").is_dir()
    # The other notices at once: no checkpoint is being saved, for which it would wait.
    assert ended.codes == [exit_codes.MISSING_PROCESS, -signal.SIGKILL], ended.said
    (line,) = [line for line in ended.said[0].splitlines() if line.startswith("error: ")]
    assert "expected all 2 to continue" in line


@pytest.mark.slow
def test_one_is_stopped_and_the_other_ends_by_its_watchdog(workdir):
    ended = send(workdir, signal.SIGSTOP, "--config.train.watchdog_seconds=60.0")
    assert ended.codes[0] == exit_codes.STUCK, ended.said
    (line,) = [line for line in ended.said[0].splitlines() if line.startswith("error: ")]
    assert "within 60 s (train.watchdog_seconds" in line
    assert "in process 0 of 2; another may be stopped or gone" in line


def test_one_process_goes_on_where_two_were(workdir):
    config = read_config(workdir)
    source = sources.load(config.data, config.data.train_split)
    batches = lambda: train_iterator(
        source,
        image_size_px=config.model.image_size_px,
        batch_size=16,
        seed=config.seed,
        data=config.data,
        skipped=SkippedRecords(0.0),
    )
    with contextlib.closing(batches()) as data, contextlib.closing(batches()) as whole:
        with Checkpoints(workdir, keep=3) as checkpoints:
            state = checkpoints.restore(program.build(config, 1_000_000).state_shapes, data)
            assert int(state.step) == checkpoints.latest_step() == checkpoint_steps(workdir)[-1]
        expected = next(itertools.islice(whole, int(state.step), None))
        received = next(data)
    for name in expected:
        np.testing.assert_array_equal(received[name], expected[name])
