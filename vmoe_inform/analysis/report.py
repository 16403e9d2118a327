"""The report of evaluated runs, with the figures of those whose routers were analysed."""

from collections.abc import Mapping

import rich.console

from vmoe_inform import storage
from vmoe_inform.analysis import stored
from vmoe_inform.evaluation import rerouting
from vmoe_inform.evaluation.files import EvaluationFiles
from vmoe_inform.evaluation.rerouting import Evaluated
from vmoe_inform.evaluation.results import Results
from vmoe_inform.report import other_routers_table
from vmoe_inform.report import page as report
from vmoe_inform.runs.checkpoint_path import CheckpointPath


def write(
    paths: Mapping[str, CheckpointPath],
    evaluated: Mapping[str, Evaluated],
    others: Mapping[str, Results],
    *,
    since: str,
) -> storage.Path:
    """Prints the tables of scores and writes the page of the first run that was evaluated.

    Args:
      paths: of all runs, by name.
      evaluated: by name, at least one; examples of these are on the page.
      others: results of the runs that they are compared with.
      since: time; results of before are marked as such.

    Returns:
      the page.
    """
    results = {**{name: run.results for name, run in evaluated.items()}, **others}
    console = rich.console.Console()
    console.print(report.render_table(results, since=since))
    for name, run in evaluated.items():
        if run.rerouted:
            console.print(other_routers_table.render_tables(name, run.results, run.rerouted))
    page = EvaluationFiles(paths[next(iter(evaluated))]).report
    of_routers = {name: stored.for_report(paths[name].folder) for name in results}
    report.write_report(
        page,
        results,
        examples={name: EvaluationFiles(paths[name]).read_examples() for name in evaluated},
        analyses={name: analysis for name, analysis in of_routers.items() if analysis is not None},
        rerouted={name: rerouting.read_all(paths[name], results[name]) for name in results},
        since=since,
    )
    return page
