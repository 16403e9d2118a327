"""Signals: the first asks for an end after a save, the second is noted, the third ends at once."""

import signal
import subprocess
import sys

import pytest

from tests import processes
from vmoe_inform.training.stopping import StopRequest

PROGRAM = """
import signal
from vmoe_inform import command_line
from vmoe_inform.training.stopping import StopRequest

def main(arguments):
    if arguments[2] == "ignored":
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    with StopRequest() as stop:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.raise_signal(number)
        print("still saving", stop.received, flush=True)
        signal.raise_signal(signal.Signals[arguments[1]])
    raise AssertionError("not reached")

command_line.run(main, operands="a signal and how it was handled")
"""


@pytest.fixture
def handlers():
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield before
    assert {number: signal.getsignal(number) for number in before} == before


@pytest.mark.parametrize("second", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_is_noted(handlers, capfd, second):
    with StopRequest() as stop:
        signal.raise_signal(signal.SIGTERM)
        assert capfd.readouterr().err == ""
        signal.raise_signal(second)
        assert stop.received == "SIGTERM"
    (line,) = capfd.readouterr().err.splitlines()
    assert line.startswith(f"{second.name} after SIGTERM: stopping when the step is saved")


def test_the_third_interrupts_a_notebook(handlers):
    with StopRequest() as stop:
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert stop.received == "SIGINT"


@pytest.mark.parametrize(
    ("third", "before", "code"),
    [("SIGTERM", "default", -signal.SIGTERM), ("SIGINT", "default", 130), ("SIGINT", "ignored", -signal.SIGINT)],
)
def test_the_third_ends_a_command_line(third, before, code):
    command = [sys.executable, "-c", PROGRAM, third, before]
    ended = subprocess.run(command, cwd=processes.ROOT, capture_output=True, text=True)
    assert ended.returncode == code, ended.stderr
    assert ended.stdout == "still saving SIGTERM\n"
    assert f"{third}: ending at once; steps since the last checkpoint are lost\n" in ended.stderr
    assert "Traceback" not in ended.stderr
