"""What the tests of imports share: one small checkpoint of V-MoE, and processes that import it."""

from collections.abc import Iterator

import numpy as np
import pytest

from tests import processes
from tests.interop.checkpoint_files import GIVEN, TINY
from vmoe_inform.interop import (
    checkpoint_import,
    formats,
)
from vmoe_inform.interop.checkpoint_import import CheckpointImport


@pytest.fixture(scope="session")
def arrays() -> dict[str, np.ndarray]:
    return {name: array.read() for name, array in formats.open_checkpoint(TINY).arrays.items()}


@pytest.fixture(scope="session")
def found() -> CheckpointImport:
    return checkpoint_import.prepare(str(TINY), given=GIVEN)


@pytest.fixture(scope="session")
def commands(tmp_path_factory) -> Iterator[processes.Forks]:
    imports = ("interop.write_run", "interop.comparison", "interop.table", "interop.run_config", "interop.references")
    with processes.Forks("import_checkpoint", tmp_path_factory.mktemp("commands"), imports=imports) as forks:
        yield forks
