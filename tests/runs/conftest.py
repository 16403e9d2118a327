"""A run with two checkpoints, and a copy of it for damage."""

import pathlib
import shutil

import pytest

from tests.runs.states_by_hand import write


@pytest.fixture(scope="module")
def two(tmp_path_factory) -> pathlib.Path:
    """A run with the checkpoints 1 and 2."""
    workdir = tmp_path_factory.mktemp("run")
    write(workdir, 1, 2)
    return workdir


@pytest.fixture
def damaged(two, tmp_path) -> pathlib.Path:
    """A copy of it, for damage to the second."""
    return pathlib.Path(shutil.copytree(two, tmp_path / "run"))
