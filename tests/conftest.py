"""Every test runs on eight virtual CPU devices, with implicit rank promotion an error."""

import gc
import importlib.metadata
import logging
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path

# Before numpy and jax are imported, and in the environment, so that the processes that tests start do the same. With
# one worker process a core, thread pools of their own only get in each other's way. NPROC is what XLA's CPU client
# sizes its pools by (it takes at least one thread a device).
if "PYTEST_XDIST_WORKER" in os.environ:
    for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS", "NPROC"):
        os.environ.setdefault(_name, "1")
else:
    # Tests compile many small programs, which takes far longer than to run them. Hence no optimisation that takes
    # long, and kernels from XLA's older emitters, in one module: a training step compiles in a third of the time.
    os.environ["JAX_PLATFORMS"] = "cpu"
    os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] = "1"
    # A flag that this version of XLA does not know would end the process without a word of pytest's.
    _quick = ["--xla_cpu_parallel_codegen_split_count=1"]
    if importlib.metadata.version("jaxlib").startswith("0.10."):
        _quick.append("--xla_cpu_use_fusion_emitters=false")
    os.environ["XLA_FLAGS"] = " ".join([*os.environ.get("XLA_FLAGS", "").split(), *_quick])
    # A program that several tests compile (a run that is resumed, the tiny model, an operation that is run by itself)
    # is compiled once, for all workers and all processes that tests start.
    # Set JAX_COMPILATION_CACHE_DIR to keep the programs for the next run.
    if not os.environ.get("JAX_COMPILATION_CACHE_DIR"):
        _compiled = tempfile.TemporaryDirectory(prefix="compiled_")
        os.environ["JAX_COMPILATION_CACHE_DIR"] = _compiled.name
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
    os.environ["JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES"] = "-1"

import jax
import jaxtyping
import playwright.sync_api
import pytest

from tests import bucket_server as bucket_server_lib
from tests import imagenet_tiny
from vmoe_inform import registry, storage

# What runs in the background of a script ignores SIGINT, and so would all processes that tests start.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_numpy_rank_promotion", "raise")


def pytest_configure(config: pytest.Config) -> None:
    """What another process is still writing into the cache cannot be read yet: then it is compiled once more."""
    config.addinivalue_line("filterwarnings", "default:Error reading persistent compilation cache:UserWarning")


# Tracing allocates far more than it leaves as garbage. With Python's own threshold an eighth of all processor time went
# into searching for garbage, most of it among what was imported and collected, which stays.
gc.set_threshold(100_000)


def pytest_collection_finish() -> None:
    gc.freeze()


# The files with the longest tests come first, so that at the end there are only short ones to share out.
_LONGEST = ("test_study", "test_two_processes", "test_drill", "test_lost_processes", "test_command_lines")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: item.path.stem not in _LONGEST)


_NO_BROWSER = "no Chromium to look at pages with (on Debian: apt-get install chromium libatomic1)"


@pytest.fixture(scope="session")
def browser() -> Iterator[playwright.sync_api.Browser]:
    """Headless Chromium. Without one the tests that ask for it are skipped, as the last line of the run says."""
    path = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    driver_starts = subprocess.run([sys.executable, "-m", "playwright", "--version"], capture_output=True)
    if path is None or driver_starts.returncode != 0:
        pytest.skip(_NO_BROWSER)
    with playwright.sync_api.sync_playwright() as driver:
        started = driver.chromium.launch(executable_path=path)
        yield started
        started.close()


def pytest_unconfigure(config: pytest.Config) -> None:
    """After pytest's own last line, so that nobody takes a run without a browser for a whole one."""
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    if reporter is not None:  # a worker process has none
        skipped = [report for report in reporter.stats.get("skipped", ()) if _NO_BROWSER in str(report.longrepr)]
        if skipped:
            reporter.write_line(f"NOT RUN: {len(skipped)} tests: {_NO_BROWSER}", red=True, bold=True)


@pytest.fixture(autouse=True)
def plugins_of_one_test() -> Iterator[None]:
    """What a test registers is no plug-in of the next test's runs."""
    before = dict(registry._registering)
    yield
    registry._registering.clear()
    registry._registering.update(before)


@pytest.fixture
def shapes_unchecked() -> Iterator[None]:
    """Turns off the tests' checker of annotated shapes, for tests of the errors that users get without it."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.fixture
def warnings() -> Iterator[list[str]]:
    """What is warned of; absl's logger does not hand records on to pytest by itself."""
    found: list[str] = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: found.append(record.getMessage())
    logger = logging.getLogger("absl")
    logger.addHandler(handler)
    yield found
    logger.removeHandler(handler)


@pytest.fixture(scope="session")
def bucket_server() -> Iterator[bucket_server_lib.BucketServer]:
    """The bucket gs://test, for the libraries of this process and of those that it starts."""
    with bucket_server_lib.BucketServer(page=4) as server, bucket_server_lib.in_environment(server):
        yield server


@pytest.fixture
def bucket_folder(bucket_server: bucket_server_lib.BucketServer) -> Iterator[storage.Path]:
    """A folder of the bucket that no other test uses. No fault is left over when the test ends."""
    yield storage.path("folder", f"gs://{bucket_server_lib.BUCKET}/{uuid.uuid4().hex}")
    assert bucket_server.faults_left == 0


@pytest.fixture(scope="session")
def prepared_imagenet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """TFDS' data directory with a tiny ``imagenet2012``, made once for all workers (tests/imagenet_tiny.py)."""
    base = tmp_path_factory.getbasetemp()
    return imagenet_tiny.prepared(base.parent if "PYTEST_XDIST_WORKER" in os.environ else base)
