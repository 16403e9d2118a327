import json
import logging as standard_logging
import math
import re
import shutil
import struct
import subprocess
import sys

import jax.numpy as jnp
import pytest
from tensorboardX.proto import event_pb2

from tests import processes
from vmoe_inform import storage
from vmoe_inform.training.metrics_logger import MetricsLogger
from vmoe_inform.training.writers.jsonl import last_step, read_metrics


def lines(workdir):
    def no_constant(name):
        raise AssertionError(f"{name} is not JSON")

    text = (workdir / "metrics.jsonl").read_text()
    return [json.loads(line, parse_constant=no_constant) for line in text.splitlines()]


def events(workdir):
    """All TensorBoard events, oldest file first; a record is length (8 bytes), its CRC (4), data, its CRC (4)."""
    found = []
    for path in sorted((workdir / "tensorboard").iterdir(), key=lambda path: path.stat().st_mtime_ns):
        data = path.read_bytes()
        while data:
            (length,) = struct.unpack("<Q", data[:8])
            found.append(event_pb2.Event.FromString(data[12 : 12 + length]))
            data = data[16 + length :]
    return found


def test_one_json_object_a_line_with_the_step_first(tmp_path):
    with MetricsLogger(tmp_path / "new" / "run") as logger:
        logger.log(5, {"loss": 2.5, "accuracy": jnp.float32(0.5)})
        logger.log(5, {"loss": 3}, prefix="evaluation")
    text = (tmp_path / "new" / "run" / "metrics.jsonl").read_text()
    assert text == '{"step": 5, "loss": 2.5, "accuracy": 0.5}\n{"step": 5, "evaluation/loss": 3.0}\n'


def test_a_line_is_on_disk_when_log_returns(tmp_path):
    with MetricsLogger(tmp_path) as logger:
        logger.log(1, {"loss": 1.0})
        assert lines(tmp_path) == [{"step": 1, "loss": 1.0}]


def test_lines_stay_json_when_training_diverges(tmp_path):
    with MetricsLogger(tmp_path) as logger:
        logger.log(1, {"a": math.nan, "b": math.inf, "c": -math.inf})
    assert lines(tmp_path) == [{"step": 1, "a": "NaN", "b": "Infinity", "c": "-Infinity"}]
    (entry,) = read_metrics(tmp_path / "metrics.jsonl")
    assert math.isnan(entry["a"])
    assert (entry["b"], entry["c"]) == (math.inf, -math.inf)


def test_tensorboard_gets_the_same_numbers(tmp_path):
    with MetricsLogger(tmp_path) as logger:
        logger.log(3, {"loss": 0.25})
        logger.log(4, {"loss": 0.5}, prefix="evaluation")
    scalars = [(event.step, v.tag, v.simple_value) for event in events(tmp_path) for v in event.summary.value]
    assert scalars == [(3, "loss", 0.25), (4, "evaluation/loss", 0.5)]


def test_a_resumed_run_cuts_off_the_steps_that_it_does_again(tmp_path):
    with MetricsLogger(tmp_path) as logger:
        for step in (10, 20, 30):
            logger.log(step, {"loss": float(step), "worst": math.inf})
    with MetricsLogger(tmp_path, start_step=20) as logger:
        logger.log(30, {"loss": -1.0})
    assert lines(tmp_path) == [
        {"step": 10, "loss": 10.0, "worst": "Infinity"},
        {"step": 20, "loss": 20.0, "worst": "Infinity"},
        {"step": 30, "loss": -1.0},
    ]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["metrics.jsonl", "tensorboard"]
    # TensorBoard drops what it read at or after the step of a START event.
    starts = [event.step for event in events(tmp_path) if event.session_log.status == event_pb2.SessionLog.START]
    assert starts == [1, 21]


def test_a_torn_last_line_is_dropped_with_a_warning(tmp_path, caplog):
    (tmp_path / "metrics.jsonl").write_text('{"step": 1, "loss": 1.0}\n{"step": 2, "lo')
    with caplog.at_level(standard_logging.WARNING), MetricsLogger(tmp_path, start_step=5) as logger:
        logger.log(6, {"loss": 6.0})
    assert lines(tmp_path) == [{"step": 1, "loss": 1.0}, {"step": 6, "loss": 6.0}]
    assert "not written to the end" in caplog.text


def test_a_whole_last_line_without_its_newline_is_kept(tmp_path):
    (tmp_path / "metrics.jsonl").write_text('{"step": 1, "loss": 1.0}')
    with MetricsLogger(tmp_path, start_step=1) as logger:
        logger.log(2, {"loss": 2.0})
    assert lines(tmp_path) == [{"step": 1, "loss": 1.0}, {"step": 2, "loss": 2.0}]


def test_a_damaged_file_is_put_aside_and_its_whole_lines_are_kept(tmp_path, caplog):
    text = '{"step": 1}\n{"st\n{"step": "2"}\n{"step": 3}\n{"step": 4}\n'
    (tmp_path / "metrics.jsonl").write_text(text)
    assert [entry["step"] for entry in read_metrics(tmp_path / "metrics.jsonl")] == [1, 3, 4]
    assert (tmp_path / "metrics.jsonl").read_text() == text  # a reader changes nothing
    assert "left out line 2 and 1 more" in caplog.text
    with MetricsLogger(tmp_path, start_step=3):
        pass
    assert lines(tmp_path) == [{"step": 1}, {"step": 3}]
    assert (tmp_path / "damaged_metrics.jsonl").read_text() == text
    assert last_step(tmp_path / "metrics.jsonl") == 3


def test_a_crash_while_a_damaged_file_is_replaced_loses_no_line(tmp_path, monkeypatch):
    text = '{"step": 1}\n{"st\n{"step": 3}\n'
    (tmp_path / "metrics.jsonl").write_text(text)

    def crash(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(storage, "write_text", crash)
        with pytest.raises(KeyboardInterrupt):
            MetricsLogger(tmp_path, start_step=3).__enter__()
    with MetricsLogger(tmp_path, start_step=3) as logger:
        logger.log(4, {"loss": 4.0})
    assert lines(tmp_path) == [{"step": 1}, {"step": 3}, {"step": 4, "loss": 4.0}]
    assert (tmp_path / "damaged_metrics.jsonl").read_text() == text


def test_other_processes_write_nothing(tmp_path):
    with MetricsLogger(tmp_path, is_main_process=False) as logger:
        logger.log(1, {"loss": 1.0})
    assert list(tmp_path.iterdir()) == []


FULL = """
import pathlib, resource, sys
from vmoe_inform import storage
from vmoe_inform.training.metrics_logger import MetricsLogger
room = resource.getrlimit(resource.RLIMIT_FSIZE)
for freed in (True, False):
    try:
        with MetricsLogger(pathlib.Path(sys.argv[1]) / str(freed)) as logger:
            resource.setrlimit(resource.RLIMIT_FSIZE, (2000, room[1]))
            for step in range(1, 101):
                logger.log(step, {"loss": step, "accuracy": 0.5})
            print("all steps done")
            if freed:
                resource.setrlimit(resource.RLIMIT_FSIZE, room)
    except OSError as problem:
        print(problem)
    resource.setrlimit(resource.RLIMIT_FSIZE, room)
"""


def test_a_full_disk_holds_no_step_up_and_loses_nothing_where_there_is_room_again(tmp_path):
    """The limit on the size of a file stands for the disk. The time is for a wait without end: it takes seconds."""
    command = [sys.executable, "-c", FULL, str(tmp_path)]
    ended = subprocess.run(command, cwd=processes.ROOT, capture_output=True, text=True, timeout=300)
    assert ended.returncode == 0, ended.stderr
    done, again, lost = ended.stdout.splitlines()
    assert done == again == "all steps done"
    assert re.search(r"False/metrics.jsonl: expected all numbers of the run; .* its last [\d,]+ bytes are lost$", lost)
    said = [line for line in ended.stderr.splitlines() if "training continues" in line]
    assert len(said) == len(ended.stderr.splitlines()) == 4  # one for each file
    assert "File too large" in said[0]
    assert [line["step"] for line in lines(tmp_path / "True")] == list(range(1, 101))
    scalars = [(event.step, v.tag) for event in events(tmp_path / "True") for v in event.summary.value]
    assert scalars == [(step, name) for step in range(1, 101) for name in ("loss", "accuracy")]
    kept = lines(tmp_path / "False")  # whole lines, up to where the disk was full
    assert 0 < len(kept) < 100
    assert [line["step"] for line in kept] == list(range(1, len(kept) + 1))
    assert [event.step for event in events(tmp_path / "False")][:2] == [0, 1]


def test_a_log_that_is_removed_is_begun_anew(tmp_path):
    with MetricsLogger(tmp_path) as logger:
        logger.log(1, {"loss": 1.0})
        shutil.rmtree(tmp_path / "tensorboard")
        (tmp_path / "metrics.jsonl").unlink()
        logger.log(2, {"loss": 2.0})
    assert lines(tmp_path) == [{"step": 2, "loss": 2.0}]
    first, second = events(tmp_path)
    assert first.file_version == "brain.Event:2"
    assert second.step == 2


def test_a_link_in_the_place_of_the_log_is_not_written_through(tmp_path, caplog):
    (tmp_path / "mine").write_text("mine")
    with pytest.raises(OSError, match=r"metrics.jsonl: expected all numbers"), MetricsLogger(tmp_path) as logger:  # noqa: PT012
        (tmp_path / "metrics.jsonl").unlink()
        (tmp_path / "metrics.jsonl").symlink_to(tmp_path / "mine")
        logger.log(1, {"loss": 1.0})
    assert (tmp_path / "mine").read_text() == "mine"
    assert "received a symbolic link" in caplog.text


def test_metrics_must_be_scalars_with_other_names_than_step(tmp_path):
    with MetricsLogger(tmp_path) as logger:
        with pytest.raises(ValueError, match="'step'"):
            logger.log(1, {"step": 1.0})
        with pytest.raises(ValueError, match=r"metrics\['load'\]: expected a scalar"):
            logger.log(1, {"load": jnp.ones(3)})
    assert lines(tmp_path) == []
    with pytest.raises(ValueError, match="start_step: expected an integer >= 0; received -1"):
        MetricsLogger(tmp_path, start_step=-1)
