"""The parts of the accelerator check: what is written when, what one that fails leaves, and the deadline."""

import json
import threading

import pytest

from tests import processes
from vmoe_inform.performance.accelerator import lines, results, run
from vmoe_inform.performance.accelerator.clock import Clock, OutOfTimeError
from vmoe_inform.performance.accelerator.results import PathRow, ResumeRow
from vmoe_inform.performance.accelerator.sizes import SMALL

ROW = PathRow("dispatch", "gather", "reference", "float32", 1e-7, 2e-7, 1e-4, True)
WRONG = PathRow("dispatch", "einsum", "reference", "float32", 0.5, None, 1e-4, False, "not finite")


def parts(monkeypatch, **functions):
    monkeypatch.setattr(run, "PARTS", functions)


def test_rows_are_written_as_they_are_found_and_read_again(monkeypatch, tmp_path):
    file = tmp_path / "found.json"
    seen = []

    def first(context):
        yield ROW
        seen.append(results.read(file))
        yield "bfloat16 was left out"
        yield WRONG

    def second(context):
        yield ResumeRow("in a file", 3, 3, 1)

    parts(monkeypatch, paths=first, resume=second)
    report = run.check(minutes=1, names=("resume", "paths"), sizes=SMALL, file=file)
    (part,) = seen[0].parts
    assert (part.name, part.state, part.rows) == ("paths", "cut short", (ROW,))
    assert results.read(file) == report
    assert [(part.name, part.state, part.note) for part in report.parts] == [
        ("paths", "done", "bfloat16 was left out"),
        ("resume", "done", ""),
    ]
    assert report.parts[0].rows == (ROW, WRONG)
    assert report.disagreements == 2  # a path, and a resumed run
    shown = "\n".join(lines.of_report(report))
    assert "2 found wrong" in shown
    assert "sizes for a CPU" in shown


def test_a_part_that_fails_or_has_no_time_does_not_keep_the_others_from_running(monkeypatch, capsys):
    def fails(context):
        yield ROW
        raise RuntimeError("INTERNAL: no such kernel\nand a long trace")

    def has_no_time(context):
        raise OutOfTimeError("out of time: all of it")
        yield

    def works(context):
        yield ROW

    parts(monkeypatch, paths=fails, training=has_no_time, trace=works)
    report = run.check(minutes=1, names=tuple(run.PARTS), sizes=SMALL)
    assert [(part.state, len(part.rows), part.note) for part in report.parts] == [
        ("failed", 1, "RuntimeError: INTERNAL: no such kernel"),
        ("left out", 0, "out of time: all of it"),
        ("done", 1, ""),
    ]
    assert report.disagreements == 1
    assert "no such kernel" in capsys.readouterr().err  # with its trace


def test_at_the_deadline_all_that_was_found_is_handed_over(monkeypatch, tmp_path):
    file, ended, for_ever, found = tmp_path / "found.json", threading.Event(), threading.Event(), []

    def hangs(context):
        yield ROW
        for_ever.wait()

    def end(report):
        found.append(report)
        ended.set()

    def never(context):
        yield WRONG

    parts(monkeypatch, paths=hangs, trace=never)
    options = {"minutes": 0.005, "names": ("paths", "trace"), "sizes": SMALL, "file": file, "at_deadline": end}
    threading.Thread(target=run.check, kwargs=options, daemon=True).start()
    assert ended.wait(60)
    for_ever.set()
    assert [(part.name, part.state, len(part.rows)) for part in found[0].parts] == [
        ("paths", "cut short", 1),
        ("trace", "left out", 0),
    ]
    assert results.read(file) == found[0]


def test_a_clock_says_what_is_left_out():
    times = iter([0.0, 1.0, 4.0, 11.0])
    clock = Clock(10.0, lambda: next(times))
    clock.need(8.0, "all")
    with pytest.raises(OutOfTimeError, match="out of time: the rest"):
        clock.need(8.0, "the rest")
    assert clock.left == 0.0


@pytest.mark.parametrize(("names", "expected"), [(("path",), "'path'.*did you mean 'paths'"), ((), "received nothing")])
def test_unknown_parts(names, expected):
    with pytest.raises(ValueError, match=f"--parts: expected some of paths, .*{expected}"):
        run.check(minutes=1, names=names)


@pytest.mark.slow
def test_the_command_finds_nothing_wrong_on_a_cpu(tmp_path):
    file = tmp_path / "found.json"
    flags = [f"--json={file}", "--minutes=20"]
    shown = processes.run("accelerator_check", *flags)
    report = results.read(file)
    assert "nothing found wrong" in shown
    assert [(part.name, part.state) for part in report.parts] == [(name, "done") for name in run.PARTS]
    assert json.loads(file.read_text())["version"] == results.VERSION
    assert {row.agrees for row in report.parts[0].rows} <= {True, None}
    assert all(row.learns for row in report.parts[1].rows)
    assert [row.differing_arrays for row in report.parts[2].rows] == [0, 0, 0]
    assert (tmp_path / "found.trace").is_dir()
