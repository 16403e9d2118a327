"""Parts of the drill, and a short one; the long one is a command (docs/reliability.md)."""

import dataclasses
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys

import pytest

from tests import processes
from tests.launch.test_lost_processes import FLAGS
from tests.runs.states_by_hand import write
from vmoe_inform import checks
from vmoe_inform.drill import kills, run
from vmoe_inform.drill.compare import differing
from vmoe_inform.drill.kills import Kill
from vmoe_inform.drill.training import Training


@pytest.fixture
def process():
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(3600)"]) as started:
        yield started
        started.kill()


def _kill(process, workdir, **options):
    defaults = {"moment": "any", "number": signal.SIGTERM, "seconds": 0.0, "every_steps": 10}
    return kills.kill_one(process, workdir, **(defaults | options))


def test_killed_at_any_moment(process, tmp_path):
    after, code = _kill(process, tmp_path, seconds=0.2, number=signal.SIGKILL)
    assert code == -signal.SIGKILL
    assert after >= 0.2


def test_killed_in_an_evaluation(tmp_path):
    """Its line in the log is the first thing that this process adds to what is there."""
    log = tmp_path / "metrics.jsonl"
    log.write_text('{"step": 10, "loss": 1.0}\n')
    writes = f"""
import time
time.sleep(1.0)
with open({str(log)!r}, "a") as file:
    file.write('{{"step": 15, "loss": 1.0}}\\n')
    file.flush()
    time.sleep(0.3)
    file.write('{{"step": 20, "loss": 1.0}}\\n')
    file.flush()
time.sleep(3600)
"""
    with subprocess.Popen([sys.executable, "-c", writes]) as process:
        _, code = _kill(process, tmp_path, moment="evaluation")
    assert code == -signal.SIGTERM
    assert kills.last_logged(tmp_path)["step"] == 20


def test_a_process_that_is_done_cannot_be_killed(tmp_path):
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        assert _kill(process, tmp_path, moment="save") is None


def test_states_of_a_run(tmp_path):
    folder = tmp_path / "checkpoints"
    assert kills.checkpoint_steps(tmp_path) == []
    for name in ("5", "20", "damaged_30", "40.orbax-checkpoint-tmp"):
        (folder / name).mkdir(parents=True)
    assert kills.checkpoint_steps(tmp_path) == [5, 20]
    assert kills.is_saving(tmp_path)
    (tmp_path / "metrics.jsonl").write_text('{"step": 20, "loss": 1.0}\n{"step": 20, "evalua')
    assert kills.is_evaluating(tmp_path, 10)
    assert not kills.is_evaluating(tmp_path, 15)


def test_every_array_and_the_position_are_compared(tmp_path):
    runs = {name: tmp_path / name for name in ("one", "two", "other")}
    write(runs["one"], 1, 2)
    shutil.copytree(runs["one"], runs["two"])
    assert differing(runs["one"], runs["two"]) == []
    position = runs["two"] / "checkpoints" / "2" / "data" / "process_0-of-1.json"
    (position.parents[1] / "checksums.json").unlink()  # or the change would be found before it is compared
    position.write_text(json.dumps({"next_index": 7}))
    assert differing(runs["one"], runs["two"]) == ["process_0-of-1.json"]
    write(runs["other"], 1)
    found = differing(runs["one"], runs["other"])
    assert {"params/head/kernel", "ema_params/head/kernel", "step", "step of the checkpoint"} <= set(found)
    assert "opt_state/0/mu/head/kernel" not in found  # zero in both


def test_help_lists_the_routers_and_kills_nothing():
    assert "symphony_vmoe " in processes.run("drill", "--router=help")


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--router=vmoe",), "--router: expected a router in --config, or no --config; received 'vmoe'"),
        ((), "evaluation.every_steps: expected a number: training is killed in evaluations too; received None"),
    ],
)
def test_a_config_that_cannot_be_drilled_is_one_line(flags, message):
    assert processes.fail("drill", "--config=digits", *flags).splitlines()[-1] == f"error: {message}"


def test_training_that_refuses_its_router_is_one_line(tmp_path):
    """As when the drill is asked for a router that there is not."""

    class Refuses:
        def log_of(self, workdir):
            return tmp_path / "output.log"

        def start(self, workdir):
            text = "a warning\nerror: router preset: expected one of vmoe; received 'no'\n"
            self.log_of(workdir).write_text(text)
            return subprocess.Popen([sys.executable, "-c", "raise SystemExit(2)"])

    with pytest.raises(checks.InputError, match=r"^router preset: expected one of vmoe; received 'no'$"):
        run.drill(Refuses(), tmp_path, kills=1, seed=0, every_steps=10)


def test_the_table():
    kill = Kill(run=1, moment="save", signal="SIGKILL", after_seconds=1.0, step=20, exit_code=-9)
    of_each = [kill, kill, dataclasses.replace(kill, signal="SIGTERM", exit_code=75)]
    text = run.table(run.Result(of_each, [[], ["params/a"]], seconds=90.0, seconds_uninterrupted=5.0))
    assert "| save | SIGKILL | -9 | 2 |\n| save | SIGTERM | 75 | 1 |" in text
    assert "3 kills in 2 runs; 1 ended bit-identical to the uninterrupted one; 1.5 min" in text


def test_a_short_drill(tmp_path):
    """SIGKILL in a save of a run of 12 steps; if this process comes too late for it, at the next moment of another run.

    After SIGTERM a run resumes in tests/studies/test_study.py and in tests/training/test_loop.py.
    """
    flags = ("--config.train.steps=12", "--config.checkpoint.every_steps=4", "--config.evaluation.every_steps=6")
    cache = pathlib.Path(os.environ["JAX_COMPILATION_CACHE_DIR"])
    training = Training([*FLAGS, *flags], cache, tmp_path)
    result = run.drill(training, tmp_path, kills=1, seed=7, every_steps=6)
    assert result.runs == [[]] * len(result.runs)  # bit-identical
    (kill,) = result.kills
    assert kill.exit_code == -signal.SIGKILL or kill.signal == "SIGTERM"
