"""Evaluates checkpoints of runs, and shows them side by side.

    python -m vmoe_inform.evaluate --workdir=DIR[@STEP],... --suites=clean,c,r,a,o [--compare=OTHER_DIR[@STEP],...]

DIR is evaluated at its newest checkpoint, DIR@STEP at the one of that step. ``--workdir`` and ``--compare`` may be
repeated; a value that is an existing folder (with @STEP or not) is that folder, any other is a comma list. Writes
DIR/evaluation/results.json after each suite and report.html of all of them beside the first one's at the end; for
DIR@STEP, results_step_STEP.json and report_step_STEP.html. ``--compare`` only shows what was evaluated before. The
report has the figures of runs that vmoe_inform.analyze looked into, too. ``--suites=all`` evaluates every suite; one
whose data are missing is reported as not available, with what to put where.

Nothing is computed twice: a suite with a result of this checkpoint, config and data is shown from before, which the
table and the report say, with date and data. So are the sets that are done of an unfinished one (DIR/evaluation/units),
if all of their images could be read. Data are known by a fingerprint of their names, labels and 32 images of each set,
wherever they lie. Other data are another evaluation; results on those of before stay under ``other_data`` in
results.json. To have everything computed anew, delete DIR/evaluation.

A suite whose data are damaged is reported as such, the others are evaluated, and the exit code is 2. So it is if none
of the suites can be evaluated for a run.

``--data_directory``, ``--suites_directory``, ``--num_workers``, ``--batch_size`` and ``--generate_corruptions`` say how
it is on this machine, in place of the run's settings. The same data elsewhere make no other results of it.

Several processes (docs/launching.md) share out the images of each set, and the first of them writes. They are started
as those of vmoe_inform.train; 69 is the exit code if not all came or one has gone. The run's watchdog holds here
too (124): ``train.watchdog_seconds`` for a batch, ``train.watchdog_start_seconds`` for what is done between sets.
"""

import pathlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from absl import flags

from vmoe_inform import checks, command_line, storage, text
from vmoe_inform.evaluation import suites as suites_lib
from vmoe_inform.runs import checkpoint_path
from vmoe_inform.runs.checkpoint_path import CheckpointPath
from vmoe_inform.runs.folder import read_config
from vmoe_inform.sharding import processes

if TYPE_CHECKING:
    from vmoe_inform.evaluation.results import Results

_JOIN_PROCESSES = command_line.define_processes()
_WORKDIR = flags.DEFINE_multi_string(
    "workdir", [], "Folders of runs, each with @STEP for another than the newest checkpoint."
)
_SUITES = command_line.define(
    "suites",
    tuple[checks.Name, ...],
    None,
    f"Suites, or 'all' of {', '.join(suites_lib.names())}; by default those of each run's config (evaluation.suites).",
)
_REPORT = flags.DEFINE_bool("report", True, "Print the table and write report.html.")
_COMPARE = flags.DEFINE_multi_string(
    "compare", [], "Folders of other evaluated runs, or FOLDER@STEP, to stand beside these."
)
_PREDICTIONS = command_line.define_path("predictions", "Folder for the logits, labels and names of all images.")
_HERE = command_line.define_machine()


def main(_: list[str]) -> int:
    """Returns the exit code."""
    paths = checkpoint_path.parse_list(_WORKDIR.value, flag="--workdir")
    if not paths:
        raise checks.error("--workdir", "the folder of a run", None)
    others = checkpoint_path.parse_list(_COMPARE.value, flag="--compare")
    names = checkpoint_path.names_of([*paths, *others])
    for path in paths:
        read_config(path.folder)  # imports the plug-ins of the run, whose suites may be asked for
    suites = list(suites_lib.names()) if _SUITES.value == ("all",) else _SUITES.value
    if suites is not None:
        if not suites or "all" in suites:
            raise checks.error("--suites", "at least one suite, or all alone", ",".join(suites))
        suites_lib.check_names(suites, "--suites")
    _JOIN_PROCESSES()
    from vmoe_inform.evaluation import earlier, run
    from vmoe_inform.evaluation.files import EvaluationFiles

    if _PREDICTIONS.value is not None and processes.is_main():
        storage.check_writable(pathlib.Path(_PREDICTIONS.value), "--predictions")  # before what is computed for it

    since = earlier.now()
    others_by_name = dict(zip(names[len(paths) :], others, strict=True))
    beside = {name: EvaluationFiles(path).read_results() for name, path in others_by_name.items()}
    evaluated: dict[str, Results] = {}
    problems = []
    for name, path in zip(names, paths, strict=False):
        try:
            evaluated[name] = _evaluate(path, name, suites)
        except run.NothingAvailableError as problem:  # no reason to leave the other runs undone
            problems.append(f"{name}: {problem}")
    if _REPORT.value and evaluated and processes.is_main():
        _report(dict(zip(names, paths, strict=False)) | others_by_name, evaluated, beside, since=since)
    if problems:
        raise checks.InputError("; ".join(problems))
    return command_line.BAD_INPUT if any(map(run.damaged_suites, evaluated.values())) else 0


def _report(
    paths: Mapping[str, CheckpointPath],
    evaluated: Mapping[str, "Results"],
    beside: Mapping[str, "Results"],
    *,
    since: str,
) -> None:
    """Prints the table and writes the page of the first run that was evaluated."""
    import rich.console

    from vmoe_inform.analysis import stored
    from vmoe_inform.evaluation.files import EvaluationFiles
    from vmoe_inform.report import page as report

    everything = {**evaluated, **beside}
    rich.console.Console().print(report.render_table(everything, since=since))
    page = EvaluationFiles(paths[next(iter(evaluated))]).report
    of_routers = {name: stored.for_report(paths[name].folder) for name in everything}
    report.write_report(
        page,
        everything,
        examples={name: EvaluationFiles(paths[name]).read_examples() for name in evaluated},
        analyses={name: analysis for name, analysis in of_routers.items() if analysis is not None},
        since=since,
    )
    print(text.printable(f"report: {page}"))


def _evaluate(path: CheckpointPath, name: str, suites: Sequence[str] | None) -> "Results":
    from vmoe_inform.evaluation import run
    from vmoe_inform.runs import run as runs
    from vmoe_inform.sharding import watchdog as watchdog_lib

    saved = runs.find(path.folder, path.step, name=name, here=_HERE())

    def say(line: str) -> None:
        if processes.is_main():
            print(text.printable(line))

    say(f"{name}: step {saved.step}")
    with watchdog_lib.of_run(saved.config.train) as watchdog:
        return run.evaluate(
            saved,
            saved.config.evaluation.suites if suites is None else suites,
            predictions=None if _PREDICTIONS.value is None else pathlib.Path(_PREDICTIONS.value) / text.file_name(name),
            watchdog=watchdog,
            say=say,
        )


if __name__ == "__main__":
    command_line.run(main)
