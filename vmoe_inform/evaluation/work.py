"""The work left to evaluate of a checkpoint, found without loading it."""

import dataclasses
from collections.abc import Sequence

from vmoe_inform import checks, storage
from vmoe_inform.config import Config, DataConfig
from vmoe_inform.evaluation import earlier
from vmoe_inform.evaluation import suites as suites_lib
from vmoe_inform.evaluation.files import EvaluationFiles
from vmoe_inform.evaluation.measure import from_kept
from vmoe_inform.evaluation.results import Data, Missing, Results
from vmoe_inform.evaluation.suites.base import NotAvailable, Suite, task_of
from vmoe_inform.evaluation.units import Unit, Units
from vmoe_inform.runs.run import SavedRun
from vmoe_inform.sharding import processes


@dataclasses.dataclass
class Work:
    """An evaluation under way.

    Attributes:
      saved: the checkpoint.
      suites: names of those that were asked for.
      results: what the file of results holds; grows. None as long as there is none.
      left: suites that have to be measured.
      missing: why other suites cannot be; grows.
      data: by suite, which records it shows.
      needs_routing: whether what is known of the routers, and the examples, have to be made.
      renewed: by suite, new and changed metrics that were made of kept scores.
      outdated: by suite, new and changed metrics for which too little is kept.
    """

    saved: SavedRun
    suites: Sequence[str]
    results: Results | None
    left: dict[str, Suite]
    missing: dict[str, Missing]
    data: dict[str, Data]
    needs_routing: bool
    renewed: dict[str, list[str]] = dataclasses.field(default_factory=dict)
    outdated: dict[str, list[str]] = dataclasses.field(default_factory=dict)

    @property
    def files(self) -> EvaluationFiles:
        """Where it is kept."""
        return EvaluationFiles.of(self.saved)

    @property
    def units(self) -> Units:
        """Scores that are kept, set by set."""
        return units_of(self.saved)

    @property
    def is_hopeless(self) -> bool:
        """Whether suites were asked for, and none of them can be evaluated or was before."""
        available = (name in self.left or earlier.has_result(self.results, name) for name in self.suites)
        return bool(self.suites) and not any(available)

    @property
    def is_left(self) -> bool:
        """Whether there is anything to predict."""
        return bool(self.left) or self.needs_routing


def units_of(saved: SavedRun) -> Units:
    """Scores of a checkpoint that are kept, set by set."""
    return Units(EvaluationFiles.of(saved).units(saved.step), saved.step, saved.config_hash, within=saved.folder)


def look(saved: SavedRun, suites: Sequence[str], *, again: bool = False, with_scores: bool = False) -> Work:
    """The work left of an evaluation.

    Args:
      saved: the checkpoint.
      suites: registered names.
      again: also suites that are finished, because their predictions are asked for.
      with_scores: also finished suites whose scores of each record are not kept.

    Raises:
      ValueError: an unknown suite, or a folder of the run that is none.
      FileNotFoundError: the data set is missing.
    """
    suites_lib.check_names(suites)
    files = EvaluationFiles.of(saved)
    storage.check_folders(files.units(saved.step), saved.folder)
    same_paths = _folders_of_data(saved.config.data) == _folders_of_data(saved.recorded.data)
    results = files.read_finished(saved.step, {saved.config_hash, saved.older_hash})
    if results is not None:
        results = dataclasses.replace(results, config_hash=saved.config_hash)
    work = Work(saved, suites, results, {}, {}, {}, needs_routing=False)
    _look(work, saved.config, same_paths=same_paths, again=again, with_scores=with_scores)
    needs_routing = not _has_routing(results, saved.config, same_paths=same_paths) or files.examples_are_damaged()
    work.needs_routing = processes.any_process(needs_routing)
    return work


def _folders_of_data(data: DataConfig) -> tuple[str, ...]:
    return data.folders


def _look(work: Work, config: Config, *, same_paths: bool, again: bool, with_scores: bool) -> None:
    """Finds what is left to evaluate, why other suites cannot be, and which records all of them show.

    A suite with a result on these records is not left, unless it is wanted ``again`` or ``with_scores``. One whose data
    are gone keeps its result.
    """
    for name in work.suites:
        try:
            suite = suites_lib.load(name, config)
            work.data[name] = earlier.data_of(suite, config.data)
        except (NotAvailable, checks.InputError) as problem:
            work.missing[name] = why(problem)
        except FileNotFoundError as problem:
            if again or not earlier.has_result(work.results, name):
                raise
            work.missing[name] = why(problem)
        else:
            taken_up = earlier.take_up(work.results, name, work.data[name], same_paths=same_paths)
            if taken_up is not None and taken_up is not work.results:
                work.results = work.files.write_results(taken_up, (name,))
            if taken_up is None or again or (with_scores and work.units.read_all(Unit.all_of(suite)) is None):
                work.left[name] = suite
            elif names := earlier.outdated(taken_up.suites[name], suite):
                _renew(work, suite, names)
    for name in work.suites:  # all processes predict a suite, or none
        if processes.any_process(name in work.missing) and name not in work.missing:
            work.left.pop(name, None)
            work.missing[name] = Missing("not found by another of the processes")
        if processes.any_process(name in work.left) and name not in work.missing and name not in work.left:
            work.left[name] = suites_lib.load(name, config)


def _renew(work: Work, suite: Suite, names: list[str]) -> None:
    """Makes new and changed metrics of a finished suite from the scores that are kept, or notes that they are not."""
    assert work.results is not None
    before = work.results.suites[suite.name]
    renewed, impossible = from_kept(suite, work.units)
    if renewed is None:
        impossible = set(names)
    if left := [name for name in names if name in impossible]:
        work.outdated[suite.name] = left
    made = [name for name in names if name not in impossible]
    if renewed is None or not made:
        return
    renewed = earlier.keep_metrics(renewed, before, impossible)
    renewed = dataclasses.replace(renewed, data=before.data or work.data[suite.name], evaluated=before.evaluated)
    work.results = work.files.write_results(earlier.replace(work.results, suite.name, renewed), (suite.name,))
    work.renewed[suite.name] = made


def _has_routing(results: Results | None, config: Config, *, same_paths: bool) -> bool:
    """Whether what is known of the routers is there, and is of the clean records here."""
    if results is None:
        return False
    try:
        data = earlier.data_of_split(task_of(config).test_source, config.data)
    except FileNotFoundError:  # nor can they be looked at again
        return True
    return earlier.is_of(results.data, data, same_paths=same_paths)


def why(problem: Exception) -> Missing:
    """Why a suite is not available; damaged data are no reason to leave the other suites undone."""
    return Missing(str(problem), is_damaged=isinstance(problem, checks.InputError))


def load_suites(names: Sequence[str], config: Config) -> tuple[dict[str, Suite], dict[str, Missing]]:
    """The suites that can be had, and why the others cannot.

    Raises:
      ValueError: an unknown suite.
      FileNotFoundError: the data set is missing.
    """
    loaded: dict[str, Suite] = {}
    missing: dict[str, Missing] = {}
    for name in names:
        try:
            loaded[name] = suites_lib.load(name, config)
        except (NotAvailable, checks.InputError) as problem:
            missing[name] = why(problem)
    return loaded, missing
