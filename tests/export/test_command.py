"""The command: what it writes, what it leaves where it cannot, and what it says of bad input."""

import importlib.metadata
import pathlib
import re
import subprocess
import sys

import pytest

from tests import processes
from vmoe_inform.export import folder as folder_lib
from vmoe_inform.export import program

ROOT = pathlib.Path(__file__).parents[2]

# What runs a command where nothing is installed but requirements.txt.
PLAINLY_INSTALLED = """
import runpy, sys

hidden = set(sys.argv.pop(1).split(","))


class Hidden:
    @staticmethod
    def find_spec(name, path=None, target=None):
        if name.partition(".")[0] in hidden:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


sys.meta_path.insert(0, Hidden)
runpy.run_module("vmoe_inform.export", run_name="__main__", alter_sys=True)
"""


def test_a_program_is_written_without_what_only_tests_install(workdir, tmp_path):
    names = [re.split("[=;]", line)[0] for line in (ROOT / "requirements-test.txt").read_text().splitlines()]
    of_tests = {name.lower().replace("_", "-") for name in names}
    hidden = [
        module
        for module, owners in importlib.metadata.packages_distributions().items()
        if {owner.lower().replace("_", "-") for owner in owners} <= of_tests
    ]
    assert {"tensorflow", "keras", "safetensors"} <= set(hidden)
    flags = [f"--workdir={workdir}", f"--directory={tmp_path / 'a'}", "--to=jax_export", "--platforms=cpu"]
    command = [sys.executable, "-c", PLAINLY_INSTALLED, ",".join(hidden), *flags]
    subprocess.run(command, cwd=ROOT, check=True)
    assert (tmp_path / "a" / "model.jax_export").is_file()


def test_a_program_that_cannot_be_made_leaves_no_file(loaded, tmp_path, monkeypatch):
    def build(run, platforms):
        raise ValueError("no program")

    monkeypatch.setattr(program, "build", build)
    saved, run = loaded
    with pytest.raises(ValueError, match="no program"):
        folder_lib.write(saved, run, tmp_path, ("jax_export",))
    assert list(tmp_path.iterdir()) == []


CASES = {
    ("--directory={there}/a",): "--workdir: expected the folder of a run; received nothing",
    ("--workdir={run}",): "--directory: expected a folder to write; received nothing",
    ("--workdir={run}", "--directory={there}"): "--directory: expected an empty folder, or one that is not there yet",
    ("--workdir={run}", "--directory={there}/file"): "--directory: expected an empty folder, or one that is not",
    ("--workdir={run}@8", "--directory={there}/a"): "checkpoint: expected one of step 8 in",
    (
        "--workdir={run}",
        "--directory={there}/a",
        "--to=onnx",
    ): "--to: expected some of safetensors, jax_export; received",
    ("--workdir={run}", "--directory={there}/a", "--to="): "--to: expected ",
    (
        "--workdir={run}",
        "--directory={there}/a",
        "--platforms=gpu",
    ): "--platforms: expected some of cpu, cuda, rocm, tpu",
}
GOOD = ("--workdir={run}@7", "--directory={there}/new/folder", "--licence=mit")


@pytest.fixture(scope="module")
def ended(workdir, tmp_path_factory):
    there = tmp_path_factory.mktemp("there")
    (there / "file").touch()
    command_lines = (*CASES, GOOD)
    lines = [tuple(one.format(run=workdir, there=there) for one in arguments) for arguments in command_lines]
    found = processes.run_many("export", lines, tmp_path_factory.mktemp("ended"), imports=("export.folder",))
    return dict(zip(command_lines, found, strict=True)), there


def test_the_command_names_the_files_that_it_has_written(ended):
    found, there = ended
    code, printed, errors = found[GOOD]
    assert code == 0, errors
    folder = there / "new" / "folder"
    assert printed.splitlines() == [str(folder / name) for name in ("README.md", "model.safetensors", "config.json")]
    assert sorted(path.name for path in folder.iterdir()) == ["README.md", "config.json", "model.safetensors"]


@pytest.mark.parametrize("arguments", CASES)
def test_bad_input_is_one_line(ended, arguments):
    found, there = ended
    code, printed, errors = found[arguments]
    assert (code, printed) == (2, "")
    assert errors.splitlines()[-1].startswith(f"error: {CASES[arguments]}")
    assert not (there / "a").exists()
