"""Evaluates the newest checkpoint of a run.

    python -m vmoe_inform.evaluate --workdir=DIR --suites=clean,c,r,a,o [--compare=OTHER_DIR,...]

Writes DIR/evaluation/results.json after each suite and DIR/evaluation/report.html at the end. Figures that are there
already for the same checkpoint are not computed again. A suite whose data are missing is reported as not available.
"""

import pathlib

from absl import flags

from vmoe_inform import checks, command_line
from vmoe_inform.axes import Tree

_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the run.")
_SUITES = flags.DEFINE_list("suites", None, "Suites; by default those of the run's config (evaluation.suites).")
_REPORT = flags.DEFINE_bool("report", True, "Print the table and write report.html.")
_COMPARE = flags.DEFINE_list("compare", [], "Folders of other evaluated runs to stand beside this one.")


def main(_: list[str]) -> int:
    """Returns the exit code."""
    if _WORKDIR.value is None:
        raise checks.error("--workdir", "the folder of a run", None)
    import rich.console

    from vmoe_inform.evaluation import report, run
    from vmoe_inform.evaluation.predict import Predictor
    from vmoe_inform.training import restore as restore_lib
    from vmoe_inform.training.checkpoints import read_config

    workdir = pathlib.Path(_WORKDIR.value)
    others = [pathlib.Path(path) for path in _COMPARE.value]
    names = run.names_of([workdir, *others])
    beside = [run.read_results(path) for path in others]
    config = read_config(workdir)
    suites = _SUITES.value if _SUITES.value is not None else list(config.evaluation.suites)

    def restore() -> tuple[Predictor, dict[str, Tree]]:
        restored = restore_lib.restore(workdir)
        return Predictor(restored.model, restored.config, restored.mesh), restored.variables

    step = restore_lib.newest_step(workdir)
    results = run.evaluate(workdir, config, step, suites, restore=restore)
    if _REPORT.value:
        everything = dict(zip(names, [results, *beside], strict=True))
        rich.console.Console().print(report.render_table(everything))
        page = workdir / "evaluation" / run.REPORT_FILE
        report.write_report(page, everything, examples={names[0]: run.read_examples(workdir)})
        print(f"report: {page}")
    return 0


if __name__ == "__main__":
    command_line.run(main)
