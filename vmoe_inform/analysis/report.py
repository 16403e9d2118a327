"""The report of evaluated runs, with the figures of those whose routers were analysed."""

import pathlib
from collections.abc import Mapping

import rich.console

from vmoe_inform.analysis import stored
from vmoe_inform.evaluation.files import EvaluationFiles
from vmoe_inform.evaluation.results import Results
from vmoe_inform.report import page as report
from vmoe_inform.runs.checkpoint_path import CheckpointPath


def write(
    paths: Mapping[str, CheckpointPath], evaluated: Mapping[str, Results], others: Mapping[str, Results], *, since: str
) -> pathlib.Path:
    """Prints the table of scores and writes the page of the first run that was evaluated.

    Args:
      paths: of all runs, by name.
      evaluated: results by name, at least one; examples of these are on the page.
      others: results of the runs that they are compared with.
      since: time; results of before are marked as such.

    Returns:
      the page.
    """
    results = {**evaluated, **others}
    rich.console.Console().print(report.render_table(results, since=since))
    page = EvaluationFiles(paths[next(iter(evaluated))]).report
    of_routers = {name: stored.for_report(paths[name].folder) for name in results}
    report.write_report(
        page,
        results,
        examples={name: EvaluationFiles(paths[name]).read_examples() for name in evaluated},
        analyses={name: analysis for name, analysis in of_routers.items() if analysis is not None},
        since=since,
    )
    return page
