"""What a run shows: phases with their time, and progress."""

import errno
import io
import subprocess
import sys

import pytest
import rich.console

from tests import processes
from vmoe_inform.training.terminal import Terminal


class _Clock:
    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


def _console(width=40, **options):
    return rich.console.Console(file=io.StringIO(), width=width, **options)


def test_plain_lines_elsewhere_than_on_a_terminal():
    console, clock = _console(), _Clock()
    with Terminal(console=console, clock=clock) as terminal:
        clock.now = 100.0
        terminal.step(150, 400, {"loss": 1.25, "accuracy": 0.5, "images_per_second": 1234.4})
        terminal.step(151, 400)  # no entry, no line
        clock.now = 110.0
        terminal.step(200, 400, {"loss": 1.0, "accuracy": 0.625, "images_per_second": 1300.0})
        terminal.step(200, 400, {"perplexity": 1234.56, "tokens_per_second": 4600.0})
    # 50 steps took 10 s since the first update, so the 200 that are left take 40 s. No line is wrapped at 40 columns.
    assert console.file.getvalue() == (
        " 37 %  step 150/400  loss 1.2500  accuracy 50.0 %  1,234 images/s  ETA -:--\n"
        " 50 %  step 200/400  loss 1.0000  accuracy 62.5 %  1,300 images/s  ETA 0:40\n"
        " 50 %  step 200/400  perplexity 1,234.6  4,600 tokens/s  ETA 0:40\n"
    )


def test_plain_lines_say_when_each_phase_began():
    console, clock = _console(), _Clock()
    terminal = Terminal(console=console, clock=clock)
    terminal.phase("reading the data")
    clock.now = 2.0
    terminal.phase("compiling the training step")
    terminal.advance("evaluating", 1, 2)
    clock.now = 75.0
    terminal.say("step 10: evaluation/clean/top1 0.5")
    assert console.file.getvalue() == (
        "[0:00] reading the data\n[0:02] compiling the training step\n[1:15] step 10: evaluation/clean/top1 0.5\n"
    )


def test_the_time_of_a_phase_passes_on_a_terminal():
    console, clock = _console(70, force_terminal=True), _Clock()
    with Terminal(console=console, clock=clock) as terminal:
        terminal.phase("compiling")
        clock.now = 13.0
        terminal._bar.draw()
        terminal.advance("evaluating clean", 3, 12)
        terminal._bar.draw()
        clock.now = 20.0
        terminal.step(5, 10, {"loss": 0.5, "images_per_second": 1234.0})
        terminal.step(6, 10)  # keeps the metrics of before
        terminal._bar.draw()
    text = console.file.getvalue()
    assert "\x1b[" in text
    for expected in ("compiling  0:13", "evaluating clean  3/12  0:13", "step 6/10  loss 0.5000  1,234 images/s  ETA "):
        assert expected in text


def test_output_that_cannot_be_written_does_not_end_the_run(caplog):
    class Full(io.StringIO):
        def write(self, text):
            raise OSError(errno.ENOSPC, "No space left on device")

    with Terminal(console=rich.console.Console(file=Full())) as terminal:
        terminal.phase("reading the data")
        terminal.step(1, 100, {})
    assert caplog.text.count("No space left on device") == 1


def test_a_reader_that_is_gone_does_not_end_the_run():
    program = """
from vmoe_inform.training.terminal import Terminal
with Terminal() as terminal:
    for step in range(10000):
        terminal.step(step, 10000, {})
raise SystemExit(75)
"""
    with subprocess.Popen([sys.executable, "-c", program], cwd=processes.ROOT, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.stdout.close()
    assert process.returncode == 75


def test_hours_are_shown():
    console, clock = _console(), _Clock()
    with Terminal(console=console, clock=clock) as terminal:
        terminal.step(10, 1000, {})
        clock.now = 60.0
        terminal.step(20, 1000, {})
    # 60 s for 10 steps, 980 left: 5880 s = 1 h 38 min
    assert console.file.getvalue().splitlines()[-1].endswith("ETA 1:38:00")


@pytest.mark.parametrize("options", [{}, {"force_terminal": True}])
def test_other_processes_show_nothing(options):
    console = _console(**options)
    with Terminal(shown=False, console=console) as terminal:
        terminal.phase("reading the data")
        terminal.step(5, 10, {"loss": 0.5})
        terminal.advance("evaluating", 1, 2)
        terminal.say("done")
    assert console.file.getvalue() == ""
