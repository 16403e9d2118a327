"""Completes the runs of a study, in this process or in several in parallel."""

import contextlib
import dataclasses
import multiprocessing
import multiprocessing.connection
import os
import sys
import traceback
from collections.abc import Iterator, Sequence
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess

from vmoe_inform import plugins, storage
from vmoe_inform.studies import measure
from vmoe_inform.studies.plan import PlannedRun
from vmoe_inform.studies.progress import Progress
from vmoe_inform.training.stopping import Stopped, StopRequest

_LOOK_EVERY_SECONDS = 0.5
_DONE = "done"
_STOPPED = "stopped"


@dataclasses.dataclass(frozen=True)
class Outcome:
    """How the runs ended.

    Attributes:
      stopped: a signal came before all runs were done.
      failures: by the run's name, what went wrong, in one line.
    """

    stopped: bool
    failures: dict[str, str]


def execute(runs: Sequence[PlannedRun], *, jobs: int, others: Sequence[PlannedRun] = ()) -> Outcome:
    """Completes every run that is not finished; one that fails does not keep the others from being done.

    With ``jobs = 1`` this process does the runs one after the other. Otherwise each has a new process, whose output
    goes to ``log.txt`` in the run's folder. This process must not have initialised JAX's devices, which on accelerators
    belong to one process. SIGTERM and SIGINT are passed on to the processes, which save and stop.

    Args:
      runs: in the order in which they are begun.
      jobs: processes at a time.
      others: runs of the study that are done elsewhere.

    Raises:
      ValueError: finished runs are of other images than the config names now.
    """
    for run in runs:
        measure.put_damaged_aside(run)
    measure.check_data([*runs, *others])
    left = [run for run in runs if not run.is_finished]
    with StopRequest() as stop, Progress(runs):
        reports = _one_by_one(left, stop) if jobs == 1 else _in_processes(left, jobs, stop)
    failures = {name: words for name, words in reports.items() if words not in (_DONE, _STOPPED)}
    return Outcome(stop.received is not None and any(not run.is_finished for run in runs), failures)


def _one_by_one(runs: Sequence[PlannedRun], stop: StopRequest) -> dict[str, str]:
    reports = {}
    for run in runs:
        if stop.received is None:
            reports[run.name] = _attempt(run, stop)
    return reports


def _attempt(run: PlannedRun, stop: StopRequest) -> str:
    """Completes the run; says how that ended. A failure's traceback goes to the run's log."""
    try:
        measure.complete(run, stop)
    except Stopped:
        return _STOPPED
    except Exception as problem:
        with storage.appending(_log(run), within=run.folder) as log:
            traceback.print_exc(file=log)
        return f"{type(problem).__name__}: {problem} ({_log(run)})"
    return _DONE


def _log(run: PlannedRun) -> storage.Path:
    return run.folder / measure.LOG_FILE


def _in_processes(runs: Sequence[PlannedRun], jobs: int, stop: StopRequest) -> dict[str, str]:
    context = multiprocessing.get_context("spawn")  # a forked process would share JAX's threads and locks
    waiting = list(runs)
    working: dict[int, tuple[PlannedRun, BaseProcess, Connection]] = {}
    reports: dict[str, str] = {}
    told = False
    while working or (waiting and stop.received is None):
        while waiting and len(working) < jobs and stop.received is None:
            run = waiting.pop(0)
            receiver, sender = context.Pipe(duplex=False)
            process = context.Process(target=_work, args=(run, sender), name=run.name)
            with _share_of_cores(jobs):
                process.start()
            sender.close()
            working[process.sentinel] = (run, process, receiver)
        if stop.received is not None and not told:
            for _, running, _ in working.values():
                running.terminate()  # SIGTERM
            told = True
        for sentinel in multiprocessing.connection.wait(list(working), timeout=_LOOK_EVERY_SECONDS):
            assert isinstance(sentinel, int)
            run, ended, receiver = working.pop(sentinel)
            ended.join()
            reports[run.name] = _report(run, ended.exitcode, receiver, stopping=told)
            receiver.close()
    return reports


@contextlib.contextmanager
def _share_of_cores(jobs: int) -> Iterator[None]:
    """Sizes XLA's pools of CPU threads (NPROC) of new processes for their share of the cores.

    So there are at most as many threads as cores. A value of the user stays."""
    if os.environ.get("NPROC"):
        yield
        return
    os.environ["NPROC"] = str(max(1, (os.cpu_count() or 1) // jobs))
    try:
        yield
    finally:
        del os.environ["NPROC"]


def _report(run: PlannedRun, exit_code: int | None, receiver: Connection, *, stopping: bool) -> str:
    try:
        return receiver.recv()
    except EOFError:  # it ended before it could say how: killed, or a signal before it could note one
        return _STOPPED if stopping else f"its process ended with exit code {exit_code} ({_log(run)})"


def _work(run: PlannedRun, sender: Connection) -> None:
    """The work of a process."""
    with StopRequest() as stop, storage.appending(_log(run), within=run.folder) as log:
        for standard in (1, 2):
            os.dup2(log.fileno(), standard)
        missing = plugins.load(run.config.plugins, files=True)
        report = f"plug-ins that cannot be imported: {missing}" if missing else _attempt(run, stop)
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
    sender.send(report)
