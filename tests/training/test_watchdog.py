"""The watchdog, in processes that it may end."""

import subprocess
import sys

import pytest

from tests.processes import ROOT
from vmoe_inform import command_line
from vmoe_inform.training import watchdog

_PROCESS = """
import sys, threading, time
from vmoe_inform.training.watchdog import Watchdog

with Watchdog({seconds}, {start_seconds}) as dog:
    if {compiles}:
        time.sleep(0.6)
    for step in range({steps}):
        time.sleep(0.1)
        dog.finished(f"step {{step + 1}}")
    if {stuck}:
        def stuck_in_a_collective():
            threading.Event().wait()
        stuck_in_a_collective()
time.sleep(0.4)
print("done")
"""


def _run(**options) -> subprocess.CompletedProcess[str]:
    defaults = {"seconds": 0.3, "start_seconds": 0.3, "compiles": False, "steps": 6, "stuck": False}
    script = _PROCESS.format(**(defaults | options))
    return subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=20, check=False
    )


@pytest.mark.parametrize("start_seconds", [0.3, 30.0])
def test_a_stuck_step_ends_the_process_and_says_where(start_seconds):
    ended = _run(stuck=True, start_seconds=start_seconds)
    assert ended.returncode == watchdog.STUCK == command_line.STUCK
    expected = "error: watchdog: expected something to be finished within 0.3 s"
    assert expected in ended.stderr
    assert "received nothing after step 6. All threads" in ended.stderr
    assert "in stuck_in_a_collective" in ended.stderr
    assert ended.stdout == ""


def test_a_start_that_takes_too_long():
    ended = _run(compiles=True)
    assert ended.returncode == watchdog.STUCK
    assert "received nothing after the start" in ended.stderr


@pytest.mark.parametrize(
    "options",
    [{}, {"compiles": True, "start_seconds": 30.0}, {"seconds": None, "compiles": True}],
    ids=["steps in time", "a compilation has time of its own", "off"],
)
def test_what_goes_on_is_left_alone(options):
    ended = _run(**options)
    assert (ended.returncode, ended.stdout) == (0, "done\n")
