"""Evaluates checkpoints of runs, and shows them side by side.

    python -m vmoe_inform.evaluate --workdir=DIR[@STEP],... --suites=clean,c,r,a,o [--compare=OTHER_DIR[@STEP],...]
    python -m vmoe_inform.evaluate --workdir=DIR --config.model.router.inform=similarity
        --sweep=model.router.options.similarity.temperature=0.1,1,sqrt_dim

DIR is evaluated at its newest checkpoint, DIR@STEP at that of the step. ``--workdir`` and ``--compare`` may be
repeated. A value that is an existing folder (with @STEP or not) is that folder; any other is a comma list. Writes
DIR/evaluation/results.json after each suite, report.html at the end; for DIR@STEP, results_step_STEP.json and
report_step_STEP.html. With ``--config`` or ``--sweep`` it also evaluates other routers, without training, and compares
them with the run's own record by record. Nothing is computed twice (docs/evaluation.md). Exit codes: 0 done, 2 bad
input, damaged data, or a run without an available suite, 69 a process is missing, 124 the watchdog's.
"""

from absl import flags

from vmoe_inform import checks, command_line, plugins, storage
from vmoe_inform.config import sweeps
from vmoe_inform.evaluation import suites as suites_lib
from vmoe_inform.runs import checkpoint_path
from vmoe_inform.runs.folder import read_config
from vmoe_inform.sharding import processes

_JOIN_PROCESSES = command_line.define_processes()
_FIELDS = command_line.define_fields()
_SWEEP = flags.DEFINE_multi_string("sweep", [], "FIELD=VALUE,VALUE,... of model.router or model.moe; all combinations.")
_PLUGINS = command_line.define(
    "plugins", tuple[checks.GivenRunPath, ...], (), "Modules or files of your own to import, with routers or suites."
)
_WORKDIR = flags.DEFINE_multi_string("workdir", [], "Folders of runs; with @STEP, at that checkpoint, not the newest.")
_ALL = ", ".join(suites_lib.names())
_SUITES = command_line.define("suites", tuple[checks.Name, ...], None, f"Of {_ALL}; or all; by default the config's.")
_REPORT = flags.DEFINE_bool("report", True, "Print the table and write report.html.")
_COMPARE = flags.DEFINE_multi_string("compare", [], "Other evaluated runs, or RUN@STEP, that the report has too.")
_PREDICTIONS = command_line.define_run_path("predictions", "Folder for the logits, labels and names of all images.")
_HERE = command_line.define_machine()


def main(_: list[str]) -> int:
    """Returns the exit code."""
    paths = checkpoint_path.parse_list(_WORKDIR.value, flag="--workdir")
    if not paths:
        raise checks.error("--workdir", "the folder of a run", checks.NOTHING)
    others = checkpoint_path.parse_list(_COMPARE.value, flag="--compare")
    names = checkpoint_path.names_of([*paths, *others])
    given = [str(storage.inputs.local(storage.path("--plugins", name))) for name in _PLUGINS.value]
    for name, why in plugins.load(given, files=True).items():
        raise checks.error("--plugins", f"modules that can be imported ({why})", name)
    for path in paths:
        read_config(path.folder)  # imports the plug-ins of the run, whose suites and fields may be asked for
    suites_lib.check_choice(_SUITES.value, "--suites")
    swept, here = sweeps.parse(_FIELDS.fields, _SWEEP.value), _HERE()
    _JOIN_PROCESSES()
    from vmoe_inform.analysis import report
    from vmoe_inform.evaluation import earlier, side_by_side
    from vmoe_inform.evaluation.files import EvaluationFiles

    predictions = _PREDICTIONS.value and storage.path("--predictions", _PREDICTIONS.value)
    if predictions and processes.is_main():
        storage.check_writable(predictions, "--predictions")  # before what is computed for it
    since = earlier.now()
    places = dict(zip(names, [*paths, *others], strict=True))
    compared = {name: EvaluationFiles(places[name]).read_results() for name in names[len(paths) :]}
    runs = side_by_side.find({name: places[name] for name in names[: len(paths)]}, here, swept, say=command_line.say)
    evaluated, problems = side_by_side.evaluate(runs, _SUITES.value, predictions=predictions, say=command_line.say)
    if _REPORT.value and evaluated and processes.is_main():
        command_line.say(f"report: {report.write(places, evaluated, compared, since=since)}")
    if problems:
        raise checks.InputError("; ".join(problems))
    return command_line.BAD_INPUT if any(run.is_damaged for run in evaluated.values()) else 0


if __name__ == "__main__":
    command_line.run(main, keeps_programs=True)
