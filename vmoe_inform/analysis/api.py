"""A whole analysis of runs."""

from collections.abc import Callable

from vmoe_inform.analysis.collect.analysis import of_checkpoints
from vmoe_inform.analysis.data import AnalysedData, ViewsT
from vmoe_inform.analysis.inputs import AnalysedRuns
from vmoe_inform.analysis.results import Analysis
from vmoe_inform.sharding import watchdog as watchdog_lib
from vmoe_inform.sharding.watchdog import Watchdog


def analyze(
    runs: AnalysedRuns,
    data: AnalysedData[ViewsT],
    *,
    watchdog: Watchdog = watchdog_lib.OFF,
    say: Callable[[str], None] = print,
) -> tuple[Analysis, ViewsT]:
    """The analysis of a run that ``python -m vmoe_inform.analyze`` writes, without writing it.

    Args:
      runs: checkpoints, from :func:`vmoe_inform.analysis.inputs.load_inputs`.
      data: from the same.
      watchdog: is told of every batch.
      say: called with a line for each piece of work that is done.

    Returns:
      the content of analysis.json, and what the interactive page shows.

    Raises:
      ValueError, FileNotFoundError: bad input; the message says field, expected and received.
    """
    found, choices = of_checkpoints(runs, data, watchdog=watchdog, say=say)
    return found, data.views([run for run in (runs.own, runs.other) if run is not None], choices, found)
