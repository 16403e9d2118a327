"""What is left to evaluate of a checkpoint: found without loading it."""

import dataclasses
from collections.abc import Sequence

from vmoe_inform import checks, storage
from vmoe_inform.config import Config, DataConfig
from vmoe_inform.evaluation import earlier
from vmoe_inform.evaluation import suites as suites_lib
from vmoe_inform.evaluation.files import EvaluationFiles, Results
from vmoe_inform.evaluation.suites.base import NotAvailable, Suite, test_split
from vmoe_inform.runs.run import SavedRun
from vmoe_inform.sharding import processes

DAMAGED = "damaged data: "


@dataclasses.dataclass
class Work:
    """An evaluation under way.

    Attributes:
      saved: the checkpoint.
      suites: names of those that were asked for.
      results: what the file of results holds; grows.
      left: suites that have to be measured.
      missing: why other suites cannot be; grows.
      data: by suite, which images it shows.
      needs_routing: whether what is known of the routers, and the examples, have to be made.
    """

    saved: SavedRun
    suites: Sequence[str]
    results: Results
    left: dict[str, Suite]
    missing: dict[str, str]
    data: dict[str, dict[str, str]]
    needs_routing: bool

    @property
    def files(self) -> EvaluationFiles:
        """Where it is kept."""
        return EvaluationFiles(self.saved.path)

    @property
    def is_left(self) -> bool:
        """Whether there is anything to predict."""
        return bool(self.left) or self.needs_routing


def look(saved: SavedRun, suites: Sequence[str], *, again: bool = False) -> Work:
    """What is left of an evaluation.

    Args:
      saved: the checkpoint.
      suites: registered names.
      again: also suites that are finished, because their predictions are asked for.

    Raises:
      ValueError: an unknown suite, or a folder of the run that is none.
      FileNotFoundError: the data set is missing.
    """
    suites_lib.check_names(suites)
    files = EvaluationFiles(saved.path)
    storage.check_folders(files.units(saved.step), saved.folder)
    same_paths = _folders_of_data(saved.config.data) == _folders_of_data(saved.recorded.data)
    results = files.read_finished(saved.step, {saved.config_hash, saved.older_hash})
    if "config_hash" in results:
        results["config_hash"] = saved.config_hash
    before = dict(results["suites"])
    left, missing, data = _look(suites, results, saved.config, same_paths=same_paths, again=again)
    if taken_up := [name for name in before if results["suites"][name] is not before[name]]:
        files.write_results(results, taken_up)
    needs_routing = not _has_routing(results, saved.config, same_paths=same_paths) or files.examples_are_damaged()
    return Work(saved, suites, results, left, missing, data, processes.any_process(needs_routing))


def _folders_of_data(data: DataConfig) -> tuple[str, str]:
    return data.directory, data.suites_directory


def _look(
    suites: Sequence[str], results: Results, config: Config, *, same_paths: bool, again: bool
) -> tuple[dict[str, Suite], dict[str, str], dict[str, dict[str, str]]]:
    """What is left to evaluate, why other suites cannot be, and which images all of them show.

    A suite with figures of these images is not left, unless it is wanted ``again``; one whose images are gone keeps the
    figures that it has.
    """
    left: dict[str, Suite] = {}
    missing: dict[str, str] = {}
    data: dict[str, dict[str, str]] = {}
    for name in suites:
        try:
            suite = suites_lib.load(name, config)
            data[name] = earlier.data_of(suite, config.data)
        except (NotAvailable, checks.InputError) as problem:
            missing[name] = why(problem)
        except FileNotFoundError as problem:
            if again or not earlier.has_figures(results, name):
                raise
            missing[name] = str(problem)
        else:
            if not earlier.take_up(results, name, data[name], same_paths=same_paths) or again:
                left[name] = suite
    for name in suites:  # all processes predict a suite, or none
        if processes.any_process(name in missing) and name not in missing:
            left.pop(name, None)
            missing[name] = "not found by another of the processes"
        if processes.any_process(name in left) and name not in missing and name not in left:
            left[name] = suites_lib.load(name, config)
    return left, missing, data


def _has_routing(results: Results, config: Config, *, same_paths: bool) -> bool:
    """Whether what is known of the routers is there, and is of the clean images here."""
    if "routing" not in results:
        return False
    try:
        data = earlier.data_of_split(test_split(config.data), config.data)
    except FileNotFoundError:  # nor can they be looked at again
        return True
    return earlier.is_of(results, data, same_paths=same_paths)


def why(problem: Exception) -> str:
    """Why a suite is not available; damaged data are no reason to leave the other suites undone."""
    return f"{DAMAGED}{problem}" if isinstance(problem, checks.InputError) else str(problem)


def load_suites(names: Sequence[str], config: Config) -> tuple[dict[str, Suite], dict[str, str]]:
    """The suites that can be had, and why the others cannot.

    Raises:
      ValueError: an unknown suite.
      FileNotFoundError: the data set is missing.
    """
    loaded, missing = {}, {}
    for name in names:
        try:
            loaded[name] = suites_lib.load(name, config)
        except (NotAvailable, checks.InputError) as problem:
            missing[name] = why(problem)
    return loaded, missing
