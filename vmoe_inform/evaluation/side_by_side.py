"""Evaluates several runs one after the other; one that cannot be evaluated does not stop the others."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from vmoe_inform import storage, text
from vmoe_inform.config.sweeps import Swept
from vmoe_inform.evaluation import rerouting, run
from vmoe_inform.evaluation import suites as suites_lib
from vmoe_inform.evaluation.rerouting import Evaluated
from vmoe_inform.runs import run as runs_lib
from vmoe_inform.runs.checkpoint_path import CheckpointPath
from vmoe_inform.runs.run import SavedRun
from vmoe_inform.sharding import watchdog as watchdog_lib

Say = Callable[[str], None]


def find(
    paths: Mapping[str, CheckpointPath], here: Mapping[str, Any], swept: Swept, *, say: Say = print
) -> dict[str, list[SavedRun]]:
    """Each run as it was trained, and then with each of the other routers, before anything is computed for one of them.

    Args:
      paths: of the checkpoints, by name of the run.
      here: fields that differ on this machine, as :func:`vmoe_inform.runs.run.find` takes them.
      swept, say: as for :func:`vmoe_inform.evaluation.rerouting.routers_of`.

    Raises:
      FileNotFoundError, ValueError: as these two.
    """
    found = {name: runs_lib.find(path.folder, path.step, name=name, here=here) for name, path in paths.items()}
    return {name: [saved, *rerouting.routers_of(saved, swept, say=say)] for name, saved in found.items()}


def evaluate(
    runs: Mapping[str, Sequence[SavedRun]],
    suites: Sequence[str] | None,
    *,
    predictions: storage.Path | None = None,
    say: Say = print,
) -> tuple[dict[str, Evaluated], list[str]]:
    """Evaluates the runs.

    Args:
      runs: from :func:`find`.
      suites: as :func:`vmoe_inform.evaluation.suites.chosen` takes them.
      predictions: folder, for the predictions of each run in a folder of its own.
      say: called with one line for each run, suite and set.

    Returns:
      what was evaluated, by name of the run; and a line for each run, or router of a run, without any suite.

    Raises:
      ValueError, FileNotFoundError: as :func:`vmoe_inform.evaluation.run.evaluate`, but for a run without any suite.
    """
    evaluated: dict[str, Evaluated] = {}
    problems: list[str] = []
    for name, (saved, *routers) in runs.items():
        say(f"{name}: step {saved.step}")
        try:
            with watchdog_lib.of_run(saved.config.train) as watchdog:
                evaluated[name] = rerouting.evaluate(
                    saved,
                    routers,
                    suites_lib.chosen(suites, saved.config),
                    watchdog=watchdog,
                    predictions=predictions and predictions / text.file_name(name),
                    say=say,
                )
        except run.NothingAvailableError as problem:
            problems.append(f"{name}: {problem}")
        else:
            problems += [f"{name} with {words}" for words in evaluated[name].problems]
    return evaluated, problems
