"""Processor time of runs from the start of their processes, with stand-ins for training."""

import pathlib

import pytest

from vmoe_inform.performance import start_up

# A program that takes long unless it finds what it has left before.
STAND_IN = """
import os, pathlib, sys
place = os.environ.get("JAX_COMPILATION_CACHE_DIR")
assert (place is None) == (os.environ.get("JAX_ENABLE_COMPILATION_CACHE") == "false")
steps, workdir = sys.argv[1:]
assert steps == "--steps=2" and workdir.startswith("--workdir=")
if place is None or not pathlib.Path(place).exists():
    for _ in range(WORK): pass
if place is not None:
    pathlib.Path(place).mkdir(exist_ok=True)
"""


def checkout(folder: pathlib.Path, work: int, text: str = STAND_IN) -> pathlib.Path:
    (folder / "vmoe_inform").mkdir(parents=True)
    (folder / "vmoe_inform" / "train.py").write_text(text.replace("WORK", str(work)))
    return folder


def test_checkouts_take_turns_and_the_first_is_what_all_is_compared_with(tmp_path, monkeypatch):
    monkeypatch.setattr(start_up, "HERE", checkout(tmp_path / "this", 2_000_000))
    before = checkout(tmp_path / "before", 8_000_000)
    rows = list(start_up.measure(["--steps=2"], before, repeats=1))
    assert [(row.checkout, row.programs) for row in rows] == [
        (name, way) for name in ("before", "this") for way in ("off", "kept", "found")
    ]
    found = {(row.checkout, row.programs): row for row in rows}
    assert found["before", "off"].over_off.median == 1.0
    assert 0.5 < found["before", "kept"].over_off.median < 2.0
    assert found["this", "off"].over_off.median < 0.7
    for row in (found["before", "found"], found["this", "found"]):
        assert row.over_off.median < 0.5
        assert row.processor_seconds.median == pytest.approx(
            row.over_off.median * found["before", "off"].processor_seconds.median
        )


def test_a_run_that_fails_is_an_error_with_what_it_says(tmp_path, monkeypatch):
    failing = "import sys; print('error: no steps', file=sys.stderr); sys.exit(2)"
    monkeypatch.setattr(start_up, "HERE", checkout(tmp_path / "this", 1, failing))
    with pytest.raises(ValueError, match="expected a run that ends well; received 'error: no steps'"):
        list(start_up.measure(["--steps=2"], None, repeats=1))


def test_another_checkout_has_to_be_one(tmp_path):
    with pytest.raises(ValueError, match=r"--before: expected a folder with vmoe_inform/train.py; received"):
        list(start_up.measure([], tmp_path, repeats=1))
