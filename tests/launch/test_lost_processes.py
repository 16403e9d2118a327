"""Two processes of a run, of which one is told to stop, killed or stopped: what the other does, and what goes on."""

import contextlib
import dataclasses
import itertools
import os
import pathlib
import re
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
from vmoe_inform.data.pipeline import SkippedRecords, train_iterator
from vmoe_inform.drill import checkpoint_steps
from vmoe_inform.training import program
from vmoe_inform.training.checkpoints import Checkpoints
from vmoe_inform.training.logging import read_metrics
from vmoe_inform.training.run_folder import read_config

WATCHDOG_SECONDS = 20.0  # a step of these takes seconds where many processes share a core
FLAGS = (
    "--config=configs/digits.py:router=vmoe,variant=Ti/16,experts=2,where=0",
    "--config.model.num_layers=1",
    "--config.model.hidden_size=8",
    "--config.model.mlp_size=8",
    "--config.model.num_heads=1",
    "--config.model.patch_size_px=16",
    "--config.model.classifier=token",
    "--config.model.representation_size=None",
    "--config.model.moe.group_size_images=1",
    "--config.data.random_rotation_degrees=0.0",
    "--config.data.random_zoom=0.0",
    "--config.train.ema_decay=0.0",
    "--config.train.epochs=None",
    "--config.train.steps=1000000",
    "--config.train.batch_size=16",
    "--config.train.log_every_steps=1",
    f"--config.train.watchdog_seconds={WATCHDOG_SECONDS}",
    "--config.optimizer.warmup_steps=2",
    "--config.evaluation.batch_size=64",
    "--config.evaluation.every_steps=None",
    "--config.checkpoint.every_steps=2",
)


@dataclasses.dataclass
class Ended:
    """Of each process the exit code and what it said; and the seconds from the signal to the end of process 0."""

    codes: list[int]
    said: list[str]
    seconds: float


@contextlib.contextmanager
def two_processes(workdir: pathlib.Path) -> Iterator[list[subprocess.Popen[bytes]]]:
    """Training by two processes of four devices each, after its first two steps."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    environment |= {"JAX_NUM_CPU_DEVICES": "4", "JAX_CPU_COLLECTIVES_IMPLEMENTATION": "gloo"}
    address, before = free_address(), _steps_logged(workdir)
    with contextlib.ExitStack() as stack:
        started = []
        for number in range(2):
            log = stack.enter_context(open(_log(workdir, number), "wb"))
            place = (f"--coordinator_address={address}", "--num_processes=2", f"--process_id={number}")
            command = [sys.executable, "-m", "vmoe_inform.train", *FLAGS, f"--workdir={workdir}", *place]
            process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=log, stderr=log)
            stack.callback(process.wait)
            stack.callback(process.kill)  # before it is waited for
            started.append(process)
        while len(_steps_logged(workdir)) < len(before) + 3 or len(checkpoint_steps(workdir)) < 2:
            assert [process.poll() for process in started] == [None, None], _log(workdir, 0).read_text()
            time.sleep(0.05)
        yield started


def send(workdir: pathlib.Path, number: signal.Signals) -> Ended:
    """Trains, sends process 1 the signal, and waits for process 0; then for process 1, unless it is stopped."""
    with two_processes(workdir) as (first, second):
        second.send_signal(number)
        since = time.monotonic()
        first.wait(timeout=120)
        seconds = time.monotonic() - since
        if number == signal.SIGSTOP:
            second.kill()
        second.wait(timeout=120)
    return Ended([first.returncode, second.returncode], [_log(workdir, n).read_text() for n in range(2)], seconds)


def _log(workdir: pathlib.Path, number: int) -> pathlib.Path:
    return workdir.with_name(f"{workdir.name}.{number}.log")


def _steps_logged(workdir: pathlib.Path) -> list[int]:
    return [entry["step"] for entry in read_metrics(workdir / "metrics.jsonl") if "loss" in entry]


@pytest.fixture(scope="module")
def workdir(tmp_path_factory) -> pathlib.Path:
    return tmp_path_factory.mktemp("runs") / "run"


def test_one_is_told_to_stop_and_both_save_the_same_step(workdir):
    ended = send(workdir, signal.SIGTERM)
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
    # The other notices at once, unless it waits for the first to save: then it is the watchdog's.
    assert ended.codes[1] == -signal.SIGKILL
    assert ended.codes[0] in (exit_codes.MISSING_PROCESS, exit_codes.STUCK), ended.said
    assert ended.seconds < WATCHDOG_SECONDS + 20
    errors = [line for line in ended.said[0].splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert ("expected all 2 to go on" in errors[0]) == (ended.codes[0] == exit_codes.MISSING_PROCESS)


@pytest.mark.slow
def test_one_is_stopped_and_the_other_ends_by_its_watchdog(workdir):
    ended = send(workdir, signal.SIGSTOP)
    assert ended.codes[0] == exit_codes.STUCK, ended.said
    assert ended.seconds < WATCHDOG_SECONDS + 20
    (line,) = [line for line in ended.said[0].splitlines() if line.startswith("error: ")]
    assert "within 20 s (train.watchdog_seconds" in line
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
