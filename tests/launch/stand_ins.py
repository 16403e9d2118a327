"""Stand-ins for the programs that launch scripts call, and what is left of a session."""

import os
import pathlib
import subprocess

ROOT = pathlib.Path(__file__).parents[2]
SLICE = (
    "--name=pod",
    "--zone=us-west4-a",
    "--type=v5litepod-16",
    "--version=v2-alpha-tpuv5-lite",
    "--share=10.0.0.2:/vol",
)
TRAIN = ("--", "--config=configs/digits.py", "--workdir=/mnt/share/run", "--config.model.router.inform=('a', 'b')")


def stand_in(folder: pathlib.Path, name: str, text: str) -> None:
    """A program ``name`` in ``folder`` that does what the shell script ``text`` says, with its call noted in LOG."""
    folder.mkdir(exist_ok=True)
    path = folder / name
    path.write_text(f'#!/usr/bin/env bash\necho "{name} $*" >>"$LOG"\n{text}\n')
    path.chmod(0o755)


def run(tmp_path, *command: str, **environment: str) -> tuple[int, str, str, list[str]]:
    """Exit code, output, errors, and the calls of stand-ins, which come first on the path."""
    log = tmp_path / "log"
    done = subprocess.run(
        command,
        cwd=ROOT,
        env={"PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}", "LOG": str(log), "TMPDIR": "/tmp", **environment},
        capture_output=True,
        text=True,
    )
    return done.returncode, done.stdout, done.stderr, log.read_text().splitlines() if log.exists() else []


def left_of(session: int) -> list[str]:
    """Command lines of the processes of a session that have not ended."""
    found = []
    for process in pathlib.Path("/proc").glob("[0-9]*"):
        try:
            state, _, _, of = (process / "stat").read_text().rpartition(")")[2].split()[:4]
            command_line = (process / "cmdline").read_text().replace("\0", " ")
            if int(of) == session and state != "Z" and command_line:  # without one it is ending
                found.append(command_line)
        except OSError:
            continue
    return found
