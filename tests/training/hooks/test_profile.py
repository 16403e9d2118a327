"""Traces of a run's steps: which, where, and what stands against it."""

import contextlib
import gzip
import json
import logging
import pathlib

import jax
import jax.numpy as jnp
import pytest

from vmoe_inform import config as config_lib
from vmoe_inform.sharding.watchdog import Watchdog
from vmoe_inform.training.hooks.base import Training
from vmoe_inform.training.hooks.profile import Profile, check_steps


def steps_traced(folder) -> list[list[int]]:
    """Numbers of the steps in each trace of a process's folder, oldest first."""
    found = []
    for path in sorted(folder.glob("plugins/profile/*/*.xplane.pb"), key=lambda path: path.stat().st_mtime_ns):
        planes = jax.profiler.ProfileData.from_file(str(path)).planes
        events = [event for plane in planes for line in plane.lines for event in line.events]
        found.append(sorted(dict(event.stats)["step_num"] for event in events if event.name == "train"))
    return found


def _file(folder: pathlib.Path) -> pathlib.Path:
    path = folder / "file"
    path.touch()
    return path


def _profile(workdir: pathlib.Path, steps: int | None, *, first: int, last: int, process: int = 0) -> Profile:
    watchdog = Watchdog(None, 1.0)
    return Profile(workdir, steps, first_step=first, last_step=last, process=process, watchdog=watchdog)


def _run(profile: Profile, first: int, last: int) -> None:
    """As the loop does, with nothing in the steps."""
    double = jax.jit(lambda x: 2 * x)
    training = Training(None, None, first, last_step=last, total_steps=100)
    with profile:
        while training.step < last:
            with jax.profiler.StepTraceAnnotation("train", step_num=training.step + 1):
                double(jnp.ones(3)).block_until_ready()
            training.step += 1
            if profile.is_due(training.step):
                profile.act(training)
        profile.end(training)


def test_the_trace_has_the_steps_after_the_warm_up(tmp_path):
    _run(_profile(tmp_path, 2, first=20, last=30, process=1), 20, 30)
    assert steps_traced(tmp_path / "profile" / "process_1") == [[24, 25]]
    (perfetto,) = (tmp_path / "profile").rglob("perfetto_trace.json.gz")
    names = [event.get("name") for event in json.loads(gzip.decompress(perfetto.read_bytes()))["traceEvents"]]
    assert names.count("train") == 2


def test_a_run_that_stops_on_the_way_leaves_what_there_is(tmp_path):
    _run(_profile(tmp_path, 5, first=0, last=8), 0, 5)
    assert steps_traced(tmp_path / "profile" / "process_0") == [[4, 5]]


def test_a_trace_that_cannot_be_written_stops_nothing(tmp_path, caplog):
    profile = _profile(tmp_path, 2, first=0, last=5)
    folder = tmp_path / "profile" / "process_0"
    folder.rmdir()
    folder.touch()
    with caplog.at_level(logging.ERROR):
        _run(profile, 0, 5)
    assert "profile: no trace could be written in" in caplog.text
    folder.unlink()
    with contextlib.suppress(RuntimeError):
        jax.profiler.stop_trace()  # JAX 0.10 keeps what it could not write
    with pytest.raises(ValueError, match=r"profile: expected a folder \(Not a directory\); received '.*process_0'"):
        _profile(_file(tmp_path), 2, first=0, last=5)


def test_nothing_is_traced_unless_asked_for(tmp_path):
    _run(_profile(tmp_path, None, first=0, last=5), 0, 5)
    assert list(tmp_path.iterdir()) == []


def test_too_few_steps_are_refused_unless_there_is_a_trace_already(tmp_path, caplog):
    assert check_steps(tmp_path, 5, 8)
    with pytest.raises(ValueError, match=r"profile: expected at most 4: 7 steps are left, of which 3 .*; received 5$"):
        check_steps(tmp_path, 5, 7)
    with pytest.raises(ValueError, match=r"profile: expected None: 0 steps are left, .*; received 5$"):
        check_steps(tmp_path, 5, 0)
    trace = tmp_path / "profile" / "process_0" / "plugins" / "profile" / "2026" / "host.xplane.pb"
    trace.parent.mkdir(parents=True)
    trace.touch()
    with caplog.at_level(logging.WARNING):
        assert not check_steps(tmp_path, 5, 7)
    assert "the earlier one stays" in caplog.text
    _run(_profile(tmp_path, 5, first=23, last=30), 23, 30)  # a start near the end continues


def test_the_setting():
    assert config_lib.parse({"train": {"steps": 1}, "profile": 4}).profile == 4
    assert config_lib.parse({"train": {"steps": 1}}).profile is None  # as runs of before have it
    for wrong in (0, "yes", True):
        with pytest.raises(ValueError, match=r"profile: expected .*; received"):
            config_lib.parse({"profile": wrong, "train": {"steps": 1}})
