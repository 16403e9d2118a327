"""The command lines as a user starts them, in processes of their own."""

import contextlib
import itertools
import os
import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).parents[1]


def start(module: str, *arguments: str) -> subprocess.Popen[str]:
    """Starts ``python -m vmoe_inform.MODULE``, which compiles as the tests do (see conftest.py)."""
    return _start("-m", f"vmoe_inform.{module}", *arguments)


def run(module: str, *arguments: str, code: int = 0) -> str:
    """Runs one to its end, which has to be this exit code, and returns what it printed."""
    process = start(module, *arguments)
    printed, errors = process.communicate()
    assert process.returncode == code, printed + errors
    return printed


def fail(module: str, *arguments: str) -> str:
    """Runs one that has to find bad input, and returns its errors."""
    process = start(module, *arguments)
    printed, errors = process.communicate()
    assert process.returncode == 2, printed + errors
    return errors


# To import takes longer than to find a mistake in a command line, and as long as to train a tiny model: a process forks
# for each, before JAX has threads, when all is imported that the command imports by and by.
_FORKS = """
import os, sys, importlib, runpy
for name in ("vmoe_inform.command_line", *(f"vmoe_inform.{name}" for name in sys.argv[1:])):
    importlib.import_module(name)
for line in sys.stdin:
    folder, module, *arguments = line.rstrip("\\n").split("\\t")
    if os.fork() == 0:
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        for descriptor, name in ((1, "stdout"), (2, "stderr")):
            os.dup2(os.open(os.path.join(folder, name), os.O_WRONLY | os.O_CREAT), descriptor)
        sys.argv = [module, *arguments]
        try:
            runpy.run_module(module, run_name="__main__", alter_sys=True)
        except SystemExit as end:  # at once: to take all that was imported apart takes longer than the command line
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(end.code or 0)
        raise AssertionError("a command line ends by sys.exit")
    print(os.waitstatus_to_exitcode(os.wait()[1]), flush=True)
"""


class Forks(contextlib.AbstractContextManager["Forks"]):
    """Command lines, one after the other, which share one process's imports."""

    def __init__(self, module: str, folder: pathlib.Path, *, imports: tuple[str, ...] = ()):
        """Args:
        module: of the package, whose command lines they are if nothing else is said.
        folder: for what they print.
        imports: modules of the package that the command imports when it starts.
        """
        self._module, self._folder, self._numbers = module, folder, itertools.count()
        self._process = _start("-c", _FORKS, *imports)

    def __exit__(self, *_: object) -> None:
        self._process.communicate()

    def run(self, *arguments: str, module: str | None = None) -> tuple[int, str, str]:
        """Exit code, output and errors of a command line."""
        folder = self._folder / f"command_line_{next(self._numbers)}"
        folder.mkdir()
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        name = f"vmoe_inform.{module or self._module}"
        self._process.stdin.write("\t".join((str(folder), name, *arguments)) + "\n")
        self._process.stdin.flush()
        code = self._process.stdout.readline()
        assert code, self._process.communicate()
        return int(code), (folder / "stdout").read_text(), (folder / "stderr").read_text()

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


def _start(*arguments: str) -> subprocess.Popen[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    return subprocess.Popen(
        [sys.executable, *arguments],
        cwd=ROOT,
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
