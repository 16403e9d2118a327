"""Schedulers of clusters, to which ``study --submit=NAME`` hands its runs; one file each."""

from vmoe_inform.registry import Registry
from vmoe_inform.studies.schedulers.kubernetes import Kubernetes
from vmoe_inform.studies.schedulers.scheduler import Request, Scheduler
from vmoe_inform.studies.schedulers.slurm import Slurm

__all__ = ["SCHEDULERS", "Request", "Scheduler"]

SCHEDULERS: Registry[Scheduler] = Registry("scheduler")
SCHEDULERS.add("slurm", Slurm())
SCHEDULERS.add("k8s", Kubernetes())
