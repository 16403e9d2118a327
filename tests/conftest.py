"""Every test runs on eight virtual CPU devices, with implicit rank promotion an error."""

import os
import tempfile
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
    _quick = "--xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1"
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {_quick}".strip()
    # A program that several tests compile (a run that is resumed, the tiny model, an operation that is run by itself)
    # is compiled once, for all workers and all processes that tests start.
    # Set JAX_COMPILATION_CACHE_DIR to keep the programs for the next run.
    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        _compiled = tempfile.TemporaryDirectory(prefix="compiled_")
        os.environ["JAX_COMPILATION_CACHE_DIR"] = _compiled.name
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
    os.environ["JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES"] = "-1"

import jax
import jaxtyping
import pytest

from tests import imagenet_tiny

jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_numpy_rank_promotion", "raise")


def pytest_configure(config: pytest.Config) -> None:
    """What another process is still writing into the cache cannot be read yet: then it is compiled once more."""
    config.addinivalue_line("filterwarnings", "default:Error reading persistent compilation cache:UserWarning")


@pytest.fixture
def shapes_unchecked() -> Iterator[None]:
    """Turns off the tests' checker of annotated shapes, for tests of the errors that users get without it."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.fixture(scope="session")
def prepared_imagenet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """TFDS' data directory with a tiny ``imagenet2012``, made once for all workers (tests/imagenet_tiny.py)."""
    base = tmp_path_factory.getbasetemp()
    return imagenet_tiny.prepared(base.parent if "PYTEST_XDIST_WORKER" in os.environ else base)
