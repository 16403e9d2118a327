"""Compares routers: trains each with the same seeds and the same order of the data, and measures all of them.

    python -m vmoe_inform.study --config=configs/digits.py --routers=vmoe,similarity_vmoe --seeds=3 --workdir=DIR

Writes the runs to DIR/runs, and DIR/study.md with its figures (for people) and DIR/study.json (for programs). Every
router is compared with the one of --against. Started again on the same DIR it does only what is left; more routers
and seeds may be added. The data may be moved, but other images than those of the finished runs are refused. With
JAX_COMPILATION_CACHE_DIR=FOLDER in the environment, what runs compile alike is compiled once. Exit codes: 0 all done, 1
some runs failed, 2 bad input, 75 stopped by SIGTERM or SIGINT after saving.
"""

import pathlib
import sys
from typing import Annotated

from vmoe_inform import checks, command_line, storage, text
from vmoe_inform.config import files as config_files
from vmoe_inform.config import presets

_Seeds = Annotated[int, checks.Bound(at_least=2, at_most=1000)]
_Jobs = Annotated[int, checks.Bound(at_least=1, at_most=1024)]
_CONFIG = command_line.define_config()
_ROUTERS = command_line.define(
    "routers", tuple[checks.Name, ...], None, "Routers to compare: presets, as in the config's argument router=NAME."
)
_SEEDS = command_line.define("seeds", _Seeds, 3, "Runs of each router: seeds 0 to SEEDS - 1.")
_WORKDIR = command_line.define_path("workdir", "Folder of the study.")
_JOBS = command_line.define("jobs", _Jobs, 1, "Processes at a time; with 1 the runs are done in this one.")
_AGAINST = command_line.define(
    "against", checks.Name, None, "Router that the others are compared with; by default the first."
)
_STEPS_BETWEEN = command_line.define(
    "steps_between", checks.PositiveInt | None, None, "Training steps between the two measurements; None: an epoch."
)

FAILED = 1  # exit code


def main(_: list[str]) -> int:
    """Returns the exit code."""
    from vmoe_inform.studies import execute, plan, report

    routers = list(_ROUTERS.value or ())
    if routers == ["help"]:
        print(presets.describe_routers())
        return 0
    file, overrides = _CONFIG.required_file, _CONFIG.fields
    workdir = pathlib.Path(command_line.required(_WORKDIR, "a folder for the study"))
    against = _AGAINST.value if _AGAINST.value is not None else (routers or [""])[0]
    plan.check_request(
        routers, against=against, num_seeds=_SEEDS.value, jobs=_JOBS.value, file=file, overrides=overrides
    )
    runs = plan.make(
        routers,
        num_seeds=_SEEDS.value,
        workdir=workdir,
        load=lambda router: config_files.load(plan.with_router(file, router), overrides),
        steps_between=_STEPS_BETWEEN.value,
    )
    config_files.check_options_are_used(overrides, [of_router[0].config.model.router for of_router in runs.values()])
    storage.check_writable(workdir, "--workdir")
    outcome = execute.execute(plan.every(runs), jobs=_JOBS.value)
    if outcome.stopped:
        return command_line.STOPPED
    for name, reason in outcome.failures.items():
        print(text.printable(f"error: {name}: {reason}"), file=sys.stderr)
    finished = {router: of_router for router, of_router in runs.items() if all(run.is_finished for run in of_router)}
    if against in finished:
        report.write(workdir, finished, against=against, file=file, overrides=overrides)
        command_line.say(
            f"{workdir / report.TABLES_FILE}: {len(finished)} of {len(runs)} routers, {_SEEDS.value} seeds"
        )
    else:
        print(f"error: no comparison without all runs of {against}", file=sys.stderr)
    return FAILED if outcome.failures else 0


if __name__ == "__main__":
    command_line.run(main)
