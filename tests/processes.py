"""The command lines as a user starts them, in processes of their own."""

import atexit
import contextlib
import functools
import itertools
import json
import os
import pathlib
import subprocess
import sys
import tempfile
from collections.abc import Mapping

ROOT = pathlib.Path(__file__).parents[1]


def _environment() -> dict[str, str]:
    """That of this process, without what pytest says of itself."""
    return {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}


_BEFORE_TESTS = _environment()


def start(module: str, *arguments: str) -> subprocess.Popen[str]:
    """Starts ``python -m vmoe_inform.MODULE``, which compiles as the tests do (see conftest.py)."""
    return _start("-m", f"vmoe_inform.{module}", *arguments, environment=_environment())


def run(module: str, *arguments: str, code: int = 0) -> str:
    """The output of a command line, forked as those of :class:`Forks`, that has to end with this exit code."""
    with tempfile.TemporaryDirectory() as folder, Forks(module, pathlib.Path(folder)) as forks:
        ended, printed, errors = forks.run(*arguments)
    assert ended == code, printed + errors
    return printed


def fail(module: str, *arguments: str) -> str:
    """The errors of one that has to find bad input."""
    with tempfile.TemporaryDirectory() as folder, Forks(module, pathlib.Path(folder)) as forks:
        code, printed, errors = forks.run(*arguments)
    assert code == 2, printed + errors
    return errors


# To import takes longer than to find a mistake in a command line, and as long as to train a tiny model: a process forks
# for each, before JAX has threads, when all is imported that the command imports by and by. What is imported is no
# garbage, and stays shared between the forks as long as nobody looks for garbage in it.
_FORKS = """
import gc, json, os, sys, importlib, runpy
importlib.import_module("vmoe_inform.command_line")
for line in sys.stdin:
    imports, environment, module, command_lines = json.loads(line)
    for name in imports:
        importlib.import_module(f"vmoe_inform.{name}")
    gc.freeze()
    started = []
    for folder, arguments in command_lines:
        process = os.fork()
        if process == 0:
            os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
            for descriptor, name in ((1, "stdout"), (2, "stderr")):
                os.dup2(os.open(os.path.join(folder, name), os.O_WRONLY | os.O_CREAT), descriptor)
            os.environ.clear()
            os.environ.update(environment)
            sys.argv = [module, *arguments]
            try:
                runpy.run_module(module, run_name="__main__", alter_sys=True)
            except SystemExit as end:  # at once: to take all that was imported apart takes longer than the command line
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(end.code or 0)
            raise AssertionError("a command line ends by sys.exit")
        started.append(process)
    print(json.dumps([os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) for process in started]), flush=True)
"""


@functools.cache
def _shared() -> subprocess.Popen[str]:
    """The process that forks for all tests of this one. Its imports see the environment as it was before them."""
    process = _start("-c", _FORKS, environment=_BEFORE_TESTS)
    atexit.register(process.communicate)
    return process


class Forks(contextlib.AbstractContextManager["Forks"]):
    """Command lines, one after the other, which share one process's imports."""

    def __init__(
        self,
        module: str,
        folder: pathlib.Path,
        *,
        imports: tuple[str, ...] = (),
        environment: Mapping[str, str] | None = None,
    ):
        """Args:
        module: of the package, whose command lines they are if nothing else is said.
        folder: for what they print.
        imports: modules of the package that the command imports when it starts.
        environment: variables for imports too. With them, imports are shared with no other tests.
        """
        self._module, self._folder, self._numbers = module, folder, itertools.count()
        self._imports, self._environment = imports, environment or {}
        own = {**_BEFORE_TESTS, **self._environment}
        self._own = _start("-c", _FORKS, environment=own) if environment else None

    def __exit__(self, *_: object) -> None:
        if self._own is not None:
            self._own.communicate()

    def run(self, *arguments: str, module: str | None = None) -> tuple[int, str, str]:
        """Exit code, output and errors of a command line, which has the environment of the moment."""
        (ended,) = self.run_together(arguments, module=module)
        return ended

    def run_together(self, *command_lines: tuple[str, ...], module: str | None = None) -> list[tuple[int, str, str]]:
        """Exit code, output and errors of each of these command lines, all of which start at once."""
        folders = [self._folder / f"command_line_{next(self._numbers)}" for _ in command_lines]
        for folder in folders:
            folder.mkdir()
        process = _shared() if self._own is None else self._own
        assert process.stdin is not None
        assert process.stdout is not None
        environment = _environment() | self._environment
        of_module = f"vmoe_inform.{module or self._module}"
        request = (self._imports, environment, of_module, list(zip(map(str, folders), command_lines, strict=True)))
        process.stdin.write(json.dumps(request) + "\n")
        process.stdin.flush()
        codes = process.stdout.readline()
        assert codes, process.communicate()
        return [
            (code, *((folder / name).read_text() for name in ("stdout", "stderr")))
            for code, folder in zip(json.loads(codes), folders, strict=True)
        ]

    def succeed(self, *arguments: str, module: str | None = None) -> str:
        """The output of a command line that has to end with 0."""
        code, printed, errors = self.run(*arguments, module=module)
        assert code == 0, printed + errors
        return printed


def run_many(
    module: str, command_lines: list[tuple[str, ...]], folder: pathlib.Path, *, imports: tuple[str, ...] = ()
) -> list[tuple[int, str, str]]:
    """Exit code, output and errors of each of these command lines, see :class:`Forks`."""
    with Forks(module, folder, imports=imports) as forks:
        return [forks.run(*arguments) for arguments in command_lines]


def _start(*arguments: str, environment: Mapping[str, str]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, *arguments],
        cwd=ROOT,
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
