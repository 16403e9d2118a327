"""A real SLURM on this machine: one controller and one node, reachable from this machine alone."""

import contextlib
import dataclasses
import getpass
import os
import pathlib
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "scontrol", "scancel")
_PATH = f"{os.environ['PATH']}:/usr/sbin:/sbin"  # where the daemons are installed
_ENDED = ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT")
# A job that was requeued waits for as long as its credential is valid (cred_expire).
_CONFIG = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller_port}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
CredType=cred/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=30
CommunicationParameters=NoInAddrAny,NoCtldInAddrAny
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmdParameters=config_overrides
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
SchedulerParameters=batch_sched_delay=0,sched_interval=1
ReturnToService=2
NodeName={host} NodeAddr=127.0.0.1 Port={node_port} CPUs=4 RealMemory=1000
PartitionName=low Nodes=ALL Default=YES PriorityTier=1 GraceTime=120 State=UP
PartitionName=high Nodes=ALL PriorityTier=10 PreemptMode=OFF State=UP
"""


def missing_programs() -> list[str]:
    """Those of SLURM and MUNGE that are not installed."""
    return [name for name in PROGRAMS if shutil.which(name, path=_PATH) is None]


@dataclasses.dataclass(frozen=True)
class Cluster:
    """Commands of a running SLURM."""

    folder: pathlib.Path

    def command(self, *words: str, directory: pathlib.Path | None = None, **environment: str) -> str:
        """Runs a command of SLURM that has to succeed, and returns what it printed."""
        every = self._environment(environment)
        done = subprocess.run(words, cwd=directory, env=every, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout.strip()

    def submit(self, *words: str, directory: pathlib.Path, **environment: str) -> "Job":
        """``sbatch`` in a directory; the job has four tasks and no GPU."""
        sizes = ("--nodes=1", "--ntasks-per-node=4", "--gpus-per-node=0", "--cpus-per-task=1", "--mem-per-cpu=100M")
        command = ("sbatch", "--parsable", *sizes, f"--output={self.folder}/%j.log", *words)
        return Job(self, self.command(*command, directory=directory, **environment))

    def _environment(self, more: dict[str, str]) -> dict[str, str]:
        ours = {"SLURM_CONF": str(self.folder / "slurm.conf"), "PATH": _PATH}
        return {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")} | ours | more


@dataclasses.dataclass(frozen=True)
class Job:
    """A job that was submitted."""

    cluster: Cluster
    number: str

    def fields(self) -> dict[str, str]:
        """What ``scontrol show job`` says: JobState, Restarts, ExitCode and others."""
        return dict(re.findall(r"(\w+)=(\S*)", self.cluster.command("scontrol", "show", "job", self.number)))

    def log(self) -> str:
        """Output of all its starts."""
        path = self.cluster.folder / f"{self.number}.log"
        return path.read_text() if path.exists() else ""

    def wait(self, condition: Callable[["Job"], bool], seconds: float = 600.0) -> None:
        """Waits until something holds, as long as the job has not ended."""
        deadline = time.monotonic() + seconds
        while not condition(self):
            fields = self.fields()
            ended = fields["JobState"] in _ENDED and not condition(self)
            if ended or time.monotonic() > deadline:
                raise AssertionError(f"{fields}\n{self.log()}")
            time.sleep(0.5)

    def wait_for_end(self) -> tuple[str, str, str]:
        """Its state, ``CODE:SIGNAL`` and restarts when it has ended and does not wait in the queue."""
        self.wait(lambda job: job.fields()["JobState"] in _ENDED)
        fields = self.fields()
        return fields["JobState"], fields["ExitCode"], fields["Restarts"]


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


@contextlib.contextmanager
def running(folder: pathlib.Path) -> Iterator[Cluster]:
    """Starts MUNGE, the controller and a node, and ends them."""
    host = socket.gethostname().partition(".")[0]
    for name in ("state", "spool"):
        (folder / name).mkdir()
    key = folder / "munge.key"
    key.touch(0o600)
    key.write_bytes(os.urandom(1024))
    ports = {"controller_port": free_port(), "node_port": free_port()}
    config = folder / "slurm.conf"
    config.write_text(_CONFIG.format(folder=folder, host=host, user=getpass.getuser(), **ports))
    (folder / "cgroup.conf").touch()
    munge = [f"--{name}-file={folder}/munge.{name}" for name in ("key", "pid", "log", "seed")]
    daemons = (
        ["munged", "--foreground", "--force", f"--socket={folder}/munge.socket", *munge],
        ["slurmctld", "-D", "-c", "-f", str(config)],
        ["slurmd", "-D", "-f", str(config)],
    )
    cluster = Cluster(folder)
    with contextlib.ExitStack() as stack:
        for words in daemons:
            log = stack.enter_context(open(folder / f"{words[0]}.log", "wb"))
            environment = os.environ | {"PATH": _PATH, "SLURM_CONF": str(config)}
            process = subprocess.Popen(words, env=environment, stdout=log, stderr=log)
            stack.callback(process.wait)
            stack.callback(process.terminate)
            until = time.monotonic() + 10
            while words[0] == "munged" and not (folder / "munge.socket").exists() and time.monotonic() < until:
                time.sleep(0.05)
        deadline = time.monotonic() + 60
        while "idle" not in (state := _state(cluster)):
            said = "".join((folder / f"{words[0]}.log").read_text() for words in daemons)
            assert time.monotonic() < deadline, f"{state}\n{said}"
            time.sleep(0.5)
        yield cluster


def _state(cluster: Cluster) -> str:
    try:
        return cluster.command("sinfo", "--noheader", "--format=%T")
    except AssertionError as problem:
        return str(problem)
