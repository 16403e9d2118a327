"""The watchdog, in processes that it may end.

They say themselves what time it is, so that the speed of the machine does not matter.
"""

import subprocess
import sys

import pytest

from tests.processes import ROOT
from vmoe_inform import command_line
from vmoe_inform.sharding import watchdog

_PROCESS = """
import threading, time
from vmoe_inform.sharding.watchdog import Watchdog

now = 0.0

def for_ever():
    threading.Event().wait()

with Watchdog({seconds}, {start_seconds}, clock=lambda: now) as dog:
    now += {starts_for}
    if {starts_for} > {start_seconds} and {seconds}:
        for_ever()
    for step in range(6):
        time.sleep(0.05)  # so that the watchdog looks between two steps
        now += 0.2
        dog.finished(f"step {{step + 1}}")
    if {stuck}:
        def stuck_in_a_collective():
            global now
            now += 0.4
            for_ever()
        stuck_in_a_collective()
now += 1000.0
time.sleep(0.1)
print("done")
"""


def _run(**options) -> subprocess.CompletedProcess[str]:
    defaults = {"seconds": 0.3, "start_seconds": 0.3, "starts_for": 0.0, "stuck": False}
    script = _PROCESS.format(**(defaults | options))
    return subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False)


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
    ended = _run(starts_for=0.6)
    assert ended.returncode == watchdog.STUCK
    assert "received nothing after the start" in ended.stderr


@pytest.mark.parametrize(
    "options",
    [{}, {"starts_for": 0.6, "start_seconds": 30.0}, {"seconds": None, "starts_for": 0.6}],
    ids=["steps in time", "a compilation has time of its own", "off"],
)
def test_what_goes_on_is_left_alone(options):
    ended = _run(**options)
    assert (ended.returncode, ended.stdout) == (0, "done\n")
