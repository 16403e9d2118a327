"""The runs of a study. Every mistake in a study is found here, before anything is trained.

A study is the product of routers and seeds. Every router is trained with the same seeds, and so with the same order of
the data. It is compared with one of the routers seed by seed.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from vmoe_inform import checks, storage, tasks, text
from vmoe_inform import config as config_lib
from vmoe_inform.config import Config, files
from vmoe_inform.config.identity import Effect
from vmoe_inform.runs.folder import check_same_run
from vmoe_inform.training import program, setup

RESULT_FILE = "result.json"


@dataclasses.dataclass(frozen=True)
class PlannedRun:
    """One router trained with one seed.

    Attributes:
      router: as the user named it.
      config: of the run; its seed is the run's.
      folder: of the run.
      measured_steps: the steps that are measured: some before the end, by default an epoch, and the end.
    """

    router: str
    config: Config
    folder: storage.Path
    measured_steps: tuple[int, int]

    @property
    def name(self) -> str:
        """In words, for messages."""
        return f"{self.router}, seed {self.config.seed}"

    @property
    def place(self) -> str:
        """ROUTER/seed_SEED, its folder in the study's; without spaces or commas, for command lines."""
        return "/".join(self.folder.parts[-2:])

    @property
    def total_steps(self) -> int:
        return self.measured_steps[-1]

    @property
    def is_finished(self) -> bool:
        """Whether it is trained and measured; the result is the last thing that a run writes."""
        return storage.exists(self.folder / RESULT_FILE)


def check_request(
    routers: Sequence[str], *, against: str, num_seeds: int, jobs: int, file: str, overrides: Mapping[str, Any]
) -> None:
    """Checks the arguments of a study, where that needs no configs.

    Raises:
      ValueError: no router, one given twice, ``against`` not among them, fewer than two seeds, or no job. Also a router
        or a seed in the config, which the study sets itself.
    """
    if not routers:
        raise checks.error("--routers", "a comma list of routers", checks.NOTHING)
    for router in routers:
        if router == "help":
            raise checks.error("--routers", "names of routers, or help alone", ",".join(routers))
        if routers.count(router) > 1:
            raise checks.error("--routers", f"each router once, {router} too", ",".join(routers))
    if against not in routers:
        raise checks.error("--against", f"one of the routers {', '.join(routers)}", against)
    if num_seeds < 2:
        raise checks.error("--seeds", "2 or more (one seed has no interval)", num_seeds)
    if jobs < 1:
        raise checks.error("--jobs", "1 or more", jobs)
    argument = files.split(file)[1] or ""
    if any(item.strip().startswith("router=") for item in argument.split(",")):
        raise checks.error("--config", "an argument without router=, which --routers sets", file)
    if "seed" in overrides:
        raise checks.error("--config.seed", "nothing: --seeds says how many, counted from 0", overrides["seed"])


def with_router(file: str, router: str) -> str:
    """``configs/digits.py:experts=4`` -> ``configs/digits.py:experts=4,router=ROUTER``."""
    name, argument = files.split(file)
    return f"{name}:{argument},router={router}" if argument else f"{name}:router={router}"


def make(
    routers: Sequence[str],
    *,
    num_seeds: int,
    workdir: storage.Path,
    load: Callable[[str], Any],
    steps_between: int | None = None,
) -> dict[str, list[PlannedRun]]:
    """The runs of a study by router, in order of their seeds.

    Args:
      routers: names of routers.
      num_seeds: seeds 0 to num_seeds - 1.
      workdir: of the study.
      load: router -> its config, as :func:`vmoe_inform.config.parse` takes it.
      steps_between: training steps between the two measurements; None for an epoch.

    Raises:
      ValueError: an impossible config, two equal routers, or a ``workdir`` with runs of another config. Also a training
        that is not longer than ``steps_between``.
      FileNotFoundError: missing data.
    """
    runs: dict[str, list[PlannedRun]] = {}
    num_records: dict[config_lib.DataConfig, int] = {}
    for router in routers:
        config = config_lib.parse(load(router))
        setup.check_names(config)
        for other, its_runs in runs.items():
            if its_runs[0].config == dataclasses.replace(config, seed=0):
                raise checks.error("--routers", f"routers that differ, also after overrides, from {other}", router)
        for other, its_runs in runs.items():
            layers = its_runs[0].config.model.moe_layers
            if layers != config.model.moe_layers:
                raise checks.error(
                    "--config",
                    f"MoE layers in the same blocks for all routers (say where=last2 or alike in its argument): those "
                    f"of {other} are {layers}",
                    f"{config.model.moe_layers} for {router}",
                )
        if config.data not in num_records:
            num_records[config.data] = tasks.from_config(config).num_records
        measured = _measured_steps(config, num_records[config.data], steps_between)
        runs[router] = [
            PlannedRun(
                router,
                dataclasses.replace(config, seed=seed),
                workdir / "runs" / folder_name(router) / f"seed_{seed}",
                measured,
            )
            for seed in range(num_seeds)
        ]
    for run in every(runs):
        check_same_run(run.folder, run.config, may_change=(Effect.MACHINE,))  # the others decide its result
    return runs


def every(runs: Mapping[str, Sequence[PlannedRun]]) -> list[PlannedRun]:
    """All runs, the first seed of every router before the second of any."""
    return [run for of_one_seed in zip(*runs.values(), strict=True) for run in of_one_seed]


def folder_name(router: str) -> str:
    """The router's name as a folder's, see :func:`vmoe_inform.text.file_name`."""
    return text.file_name(router)


def _measured_steps(config: Config, num_records: int, steps_between: int | None) -> tuple[int, int]:
    total = program.total_steps(config, num_records)
    if steps_between is not None:
        if steps_between >= total:
            raise checks.error("--steps_between", f"less than the {total:,} training steps", steps_between)
        return total - steps_between, total
    before = total - round(num_records / config.train.batch_size)
    if before < 1 or before == total:
        field = "train.epochs" if config.train.epochs is not None else "train.steps"
        steps = num_records / config.train.batch_size
        raise checks.error(
            field,
            f"more than one epoch of {steps:.4g} steps, since the last two are compared (or --steps_between=STEPS)",
            config.train.epochs or config.train.steps,
        )
    return before, total
