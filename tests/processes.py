"""The command lines as a user starts them, in processes of their own."""

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


# To import takes far longer than to find a mistake in a command line: a process forks for each, before JAX has threads,
# when all is imported that the command imports by and by.
_FORKS = """
import os, sys, importlib, runpy
module, *imports = [f"vmoe_inform.{name}" for name in sys.argv[1:]]
for name in ("vmoe_inform.command_line", *imports):
    importlib.import_module(name)
for line in sys.stdin.read().splitlines():
    folder, *arguments = line.split("\\t")
    if os.fork() == 0:
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
    code = os.waitstatus_to_exitcode(os.wait()[1])
    with open(os.path.join(folder, "code"), "w") as file:
        file.write(str(code))
"""


def run_many(
    module: str, command_lines: list[tuple[str, ...]], folder: pathlib.Path, *, imports: tuple[str, ...] = ()
) -> list[tuple[int, str, str]]:
    """Exit code, output and errors of each of these command lines, which share one process's imports.

    ``imports`` are the modules of the package that the command imports when it starts.
    """
    folders = [folder / str(number) for number in range(len(command_lines))]
    for each in folders:
        each.mkdir()
    lines = ["\t".join((str(each), *arguments)) for each, arguments in zip(folders, command_lines, strict=True)]
    process = _start("-c", _FORKS, module, *imports)
    printed, errors = process.communicate("\n".join(lines))
    assert process.returncode == 0, printed + errors
    read = lambda each, name: (each / name).read_text()
    return [(int(read(each, "code")), read(each, "stdout"), read(each, "stderr")) for each in folders]


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
