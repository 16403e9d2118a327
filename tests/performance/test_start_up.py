"""Processor time of runs from the start of their processes, with stand-ins for training."""

import pathlib

import pytest

from vmoe_inform.performance import start_up

# A program that has to do WORK, unless it finds what it has left before; it writes down what it has done.
STAND_IN = """
import os, pathlib, sys
assert pathlib.Path("here").exists()
place = os.environ.get("JAX_COMPILATION_CACHE_DIR")
assert (place is None) == (os.environ.get("JAX_ENABLE_COMPILATION_CACHE") == "false")
steps, workdir = sys.argv[1:]
assert steps == "--steps=2" and workdir.startswith("--workdir=")
if place is None or not pathlib.Path(place).exists():
    done = WORK
else:
    done = 1
with open(os.environ["DONE"], "a") as file:
    print(done, file=file)
if place is not None:
    pathlib.Path(place).mkdir(exist_ok=True)
"""


def checkout(folder: pathlib.Path, work: int, text: str = STAND_IN) -> pathlib.Path:
    (folder / "vmoe_inform").mkdir(parents=True)
    (folder / "vmoe_inform" / "__init__.py").touch()
    (folder / "vmoe_inform" / "train.py").write_text(text.replace("WORK", str(work)))
    return folder


@pytest.fixture
def done(tmp_path, monkeypatch):
    """Where stand-ins write what they have done, which counts as processor time; the folder that runs start in."""
    file = tmp_path / "done"
    file.touch()
    (tmp_path / "here").touch()
    (tmp_path / "vmoe_inform").mkdir()  # of another checkout, which is not meant
    (tmp_path / "vmoe_inform" / "train.py").write_text("raise RuntimeError")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DONE", str(file))
    monkeypatch.setattr(start_up, "_of_children", lambda: sum(map(float, file.read_text().split())))
    return file


def test_checkouts_take_turns_and_the_first_is_what_all_is_compared_with(tmp_path, monkeypatch, done):
    monkeypatch.setattr(start_up, "HERE", checkout(tmp_path / "this", 20))
    checkout(tmp_path / "before", 80)
    rows = list(start_up.measure(["--steps=2"], pathlib.Path("before"), repeats=1))
    assert done.read_text().split() == ["80", "80", "1", "20", "20", "1"]
    assert [(row.checkout, row.programs) for row in rows] == [
        (name, way) for name in ("before", "this") for way in ("off", "kept", "found")
    ]
    assert [row.over_off.median for row in rows] == [1.0, 1.0, 1 / 80, 0.25, 0.25, 1 / 80]
    assert [row.processor_seconds.median for row in rows] == [80.0, 80.0, 1.0, 20.0, 20.0, 1.0]


def test_a_run_that_fails_is_an_error_with_what_it_says(tmp_path, monkeypatch):
    failing = "import sys; print('error: no steps', file=sys.stderr); sys.exit(2)"
    monkeypatch.setattr(start_up, "HERE", checkout(tmp_path / "this", 1, failing))
    with pytest.raises(ValueError, match="expected a run that ends well; received 'error: no steps'"):
        list(start_up.measure(["--steps=2"], None, repeats=1))


def test_another_checkout_has_to_be_one(tmp_path):
    with pytest.raises(ValueError, match=r"--before: expected a folder with vmoe_inform/train.py; received"):
        list(start_up.measure([], tmp_path, repeats=1))
