"""What is said about how far a study is."""

import io
import itertools
import json

import rich.console

from tests.studies.test_plan import make
from vmoe_inform.studies import plan
from vmoe_inform.studies.progress import Progress, steps_done


def _log(run, step):
    run.folder.mkdir(parents=True, exist_ok=True)
    (run.folder / "metrics.jsonl").write_text(json.dumps({"step": step, "loss": 1.0}) + "\n")


def test_steps_done_are_read_from_the_files(tmp_path):
    run = make(tmp_path, "vmoe")["vmoe"][0]
    assert steps_done(run) == 0
    _log(run, 4)
    assert steps_done(run) == 4
    (run.folder / plan.RESULT_FILE).write_text("{}")
    assert steps_done(run) == 6


def test_plain_lines_where_there_is_no_terminal(tmp_path):
    runs = make(tmp_path, "vmoe")["vmoe"]
    _log(runs[0], 2)
    times = itertools.count(0.0, 10.0)
    output = io.StringIO()
    progress = Progress(runs, console=rich.console.Console(file=output, width=200), clock=lambda: next(times))
    progress.update()
    _log(runs[0], 4)
    progress.update()  # the first ETA is said at once
    _log(runs[0], 5)
    progress.update()  # no run is finished, and less than a minute has gone by
    (runs[0].folder / plan.RESULT_FILE).write_text("{}")
    progress.update()
    assert output.getvalue().splitlines() == [
        " 16 %  0 of 2 runs done  step 2 of 12  ETA -:--",
        # 2 steps since the start in 10 s, 8 to go
        " 33 %  0 of 2 runs done  step 4 of 12  ETA 0:40",
        # 4 steps since the start in 30 s, 6 to go
        " 50 %  1 of 2 runs done  step 6 of 12  ETA 0:45",
    ]


def test_a_bucket_that_does_not_answer_is_no_news(tmp_path, monkeypatch):
    runs = make(tmp_path, "vmoe")["vmoe"]
    _log(runs[0], 2)
    output = io.StringIO()
    progress = Progress(runs, console=rich.console.Console(file=output, width=200))
    with monkeypatch.context() as patch:
        patch.setattr(plan.storage, "exists", lambda _: (_ for _ in ()).throw(OSError(5, "503")))
        progress.update()
    assert output.getvalue() == ""
    progress.update()
    assert output.getvalue() == " 16 %  0 of 2 runs done  step 2 of 12  ETA -:--\n"


def test_the_last_run_is_measured_when_all_are_trained(tmp_path):
    runs = make(tmp_path, "vmoe")["vmoe"]
    output = io.StringIO()
    _log(runs[0], 6)
    _log(runs[1], 6)
    Progress(runs, console=rich.console.Console(file=output, width=200)).update()
    assert output.getvalue() == "100 %  0 of 2 runs done  step 12 of 12  measuring\n"


def test_a_bar_on_a_terminal(tmp_path):
    runs = make(tmp_path, "vmoe")["vmoe"]
    output = io.StringIO()
    console = rich.console.Console(file=output, width=120, force_terminal=True)
    with Progress(runs, console=console):
        _log(runs[0], 6)
    assert "0 of 2 runs done  step 6 of 12" in output.getvalue()
