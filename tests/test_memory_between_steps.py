"""Commands on CPUs keep the memory of a step for the next one."""

import os
import pathlib
import platform
import subprocess
import sys

import pytest

from vmoe_inform.command_line import _memory, _run

# Takes, fills and frees 64 MiB ten times, after what a command does, and prints the pages that the system had to clear.
# A thread does it: those of XLA have heaps of their own otherwise.
STEPS = """
import ctypes, importlib.util, resource, sys, threading
found = importlib.util.spec_from_file_location("memory", sys.argv[1])  # alone: all of the package takes seconds
memory = importlib.util.module_from_spec(found)
found.loader.exec_module(memory)
memory.keep_between_steps()
libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
def steps():
    for _ in range(10):
        array = ctypes.c_void_p(libc.malloc(ctypes.c_size_t(64 * 2**20)))
        ctypes.memset(array, 1, 64 * 2**20)
        libc.free(array)
thread = threading.Thread(target=steps)
thread.start()
thread.join()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def pages(**environment: str) -> int:
    others = {name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "GLIBC_", "LD_"))}
    ran = subprocess.run(
        [sys.executable, "-c", STEPS, str(_memory.__file__)],
        env=others | environment,
        capture_output=True,
        text=True,
        check=True,
    )
    return int(ran.stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="needs glibc, whose memory it is")
def test_pages_are_cleared_once_and_not_for_each_step():
    of_a_step = 64 * 2**20 // os.sysconf("SC_PAGESIZE")
    kept = pages(JAX_PLATFORMS="cpu")
    assert of_a_step // 512 <= kept < 2 * of_a_step  # at least, if the system takes pages of 2 MiB
    assert pages(JAX_PLATFORMS="tpu,cpu") > 5 * kept
    for name, value in (("MALLOC_ARENA_MAX", "0"), ("GLIBC_TUNABLES", "glibc.malloc.tcache_count=0")):
        assert pages(JAX_PLATFORMS="cpu", **{name: value}) > 5 * kept  # the user's choice holds


def test_commands_do_so_before_anything_else(monkeypatch):
    done = []
    monkeypatch.setattr(_memory, "keep_between_steps", lambda: done.append("kept"))
    monkeypatch.setattr(_run.app, "run", lambda main, flags_parser: done.append("run"))
    _run.run(lambda arguments: 0)
    assert done == ["kept", "run"]


@pytest.mark.parametrize(
    ("platforms", "devices", "expected"),
    [
        ("cpu", ("nvidia0",), False),
        ("cuda,cpu", (), True),
        (None, (), False),
        (None, ("nvidiactl", "null"), False),
        (None, ("nvidia0",), True),
        (None, ("accel3",), True),
        (None, ("vfio/7",), True),
    ],
)
def test_accelerators_are_those_of_the_environment_or_of_the_machine(
    monkeypatch, tmp_path, platforms, devices, expected
):
    monkeypatch.delenv("JAX_PLATFORMS", raising=False)
    if platforms is not None:
        monkeypatch.setenv("JAX_PLATFORMS", platforms)
    for name in devices:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    monkeypatch.setattr(_memory, "_DEVICES", pathlib.Path(tmp_path))
    assert _memory._has_accelerators() is expected
