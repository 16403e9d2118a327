"""Compares routers: trains each with the same seeds and the same order of the data, and measures all of them.

    python -m vmoe_inform.study --config=configs/digits.py --routers=vmoe,similarity_vmoe --seeds=3 --workdir=DIR

Writes DIR/runs, and DIR/study.md with its figures (for people) and DIR/study.json (for programs). Every router is
compared with the one of --against. Started again on the same DIR it does only what is left; more routers and seeds may
be added. See docs/studies.md. Exit codes: 0 all done, or submitted, 1 some failed, 2 bad input, 75 stopped by a signal.
"""

import os
import sys
from typing import Annotated, Any

from vmoe_inform import checks, command_line, exit_codes, storage, text
from vmoe_inform.config import files as config_files
from vmoe_inform.config import presets

_Seeds = Annotated[int, checks.Bound(at_least=2, at_most=1000)]
_Jobs = Annotated[int, checks.Bound(at_least=1, at_most=1024)]
_Names = tuple[checks.Name, ...]
_define = command_line.define
_CONFIG = command_line.define_config()
_ROUTERS = _define("routers", _Names, None, "Routers to compare: presets, as in the config's argument router=NAME.")
_SEEDS = _define("seeds", _Seeds, 3, "Runs of each router: seeds 0 to SEEDS - 1.")
_WORKDIR = command_line.define_run_path("workdir", "Folder of the study.")
_JOBS = _define("jobs", _Jobs | None, None, "Runs at a time; None: one, in this process, or all with --submit.")
_AGAINST = _define("against", checks.Name, None, "Router that the others are compared with; by default the first.")
_STEPS_BETWEEN = _define("steps_between", checks.PositiveInt | None, None, "Steps between measurements; None: 1 epoch.")
_SUBMIT = _define("submit", checks.Name, None, "Hands each run to a cluster: slurm (job array) or k8s (indexed Job).")
_JOB = command_line.define_path("job", "What a run needs there, a script or manifest; by default of launch/.")
_ARRAY = _define("array", _Names, None, "Runs of a cluster's job, set by --submit; this process does one of them.")
_TABLES_OF = command_line.define_run_path("tables_of", "A study.json, also an old one, to write tables of again.")


def main(_: list[str]) -> int:
    """Returns the exit code."""
    from vmoe_inform.studies import execute, plan, report, submit

    if _TABLES_OF.value is not None:
        others = command_line.arguments_without("tables_of", "workdir", "routers", "against")
        command_line.say(report.write_again(_TABLES_OF.value, _WORKDIR.value, _ROUTERS.value, _AGAINST.value, others))
        return 0
    routers = list(_ROUTERS.value or ())
    if routers == ["help"]:
        print(presets.describe_routers())
        return 0
    file, overrides, jobs = _CONFIG.required_file, _CONFIG.fields, _JOBS.value
    workdir = storage.path("--workdir", command_line.required(_WORKDIR, "a folder for the study"))
    against = _AGAINST.value if _AGAINST.value is not None else (routers or [""])[0]
    scheduler = submit.scheduler(_SUBMIT.value, job=_JOB.value, array=_ARRAY.value)

    def load(router: str) -> Any:
        return config_files.load(plan.with_router(file, router), overrides)

    plan.check_request(routers, against=against, num_seeds=_SEEDS.value, jobs=jobs or 1, file=file, overrides=overrides)
    runs = plan.make(routers, num_seeds=_SEEDS.value, workdir=workdir, load=load, steps_between=_STEPS_BETWEEN.value)
    config_files.check_options_are_used(overrides, [of_router[0].config.model.router for of_router in runs.values()])
    storage.check_writable(workdir, "--workdir")
    every = plan.every(runs)
    if scheduler is not None:
        arguments = [f"--workdir={storage.absolute(workdir)}", *command_line.arguments_without(*submit.FLAGS)]
        made = submit.submit(every, scheduler, workdir=workdir, arguments=arguments, job=_JOB.value, at_a_time=jobs)
        command_line.say(str(made))
        if not made.nothing_left:
            return 0
    mine = every if _ARRAY.value is None else [submit.chosen(every, _ARRAY.value, os.environ)]
    outcome = execute.execute(mine, jobs=jobs or 1, others=[run for run in every if run not in mine])
    if outcome.stopped:
        return command_line.STOPPED
    for name, reason in outcome.failures.items():
        print(text.printable(f"error: {name}: {reason}"), file=sys.stderr)
    # Of several processes, the last to finish writes the comparison: an earlier one might write over it.
    if len(mine) == len(every) or all(run.is_finished for run in every):
        command_line.say(report.write_finished(workdir, runs, against=against, file=file, overrides=overrides))
    return exit_codes.FAILED if outcome.failures else 0


if __name__ == "__main__":
    command_line.run(main, keeps_programs=True)
