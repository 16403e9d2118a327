"""Evaluates trained models with other routers, without training, compared with their own on the same records."""

import dataclasses
import functools
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from absl import logging

from vmoe_inform import checks, storage, text
from vmoe_inform.config import files as config_files
from vmoe_inform.config import sweeps
from vmoe_inform.evaluation import comparison, earlier, run
from vmoe_inform.evaluation import suites as suites_lib
from vmoe_inform.evaluation.comparison import Comparison, SuiteComparison
from vmoe_inform.evaluation.files import EvaluationFiles
from vmoe_inform.evaluation.results import Results
from vmoe_inform.evaluation.suites.base import NotAvailable
from vmoe_inform.evaluation.units import Unit
from vmoe_inform.evaluation.work import units_of
from vmoe_inform.runs import router_settings
from vmoe_inform.runs.checkpoint_path import CheckpointPath
from vmoe_inform.runs.run import SavedRun
from vmoe_inform.sharding import processes
from vmoe_inform.sharding.watchdog import Watchdog

Say = Callable[[str], None]


@dataclasses.dataclass(frozen=True)
class Rerouted:
    """A trained model with other routers.

    Attributes:
      results: of its own evaluation.
      comparison: with the run as it was trained.
    """

    results: Results
    comparison: Comparison

    @property
    def settings(self) -> Mapping[str, Any]:
        """Of its routers, by field."""
        return self.comparison.settings


@dataclasses.dataclass(frozen=True)
class Evaluated:
    """A run that was evaluated as it was trained, and with other routers.

    Attributes:
      results: as it was trained.
      rerouted: with other routers.
      problems: why it could not be evaluated with some of them.
    """

    results: Results
    rerouted: tuple[Rerouted, ...]
    problems: tuple[str, ...] = ()

    @property
    def is_damaged(self) -> bool:
        """Whether the data of some suite are there, but not as they should be."""
        return any(map(run.damaged_suites, (self.results, *(each.results for each in self.rerouted))))


def routers_of(saved: SavedRun, swept: sweeps.Swept, *, say: Say = print) -> list[SavedRun]:
    """A run with each combination of settings of its routers; said are those that are no other routers.

    Args:
      saved: as it was trained.
      swept: values to try by field, as :func:`vmoe_inform.config.sweeps.parse` reads them; empty for no routers.
      say: called with one line for each.

    Raises:
      ValueError: as :meth:`vmoe_inform.runs.run.Run.rerouted`; an option of a step that no router has; or none that
        differs from the run's own.
    """
    found: dict[str, SavedRun] = {}
    same, all_routers = [], []
    for settings in sweeps.combinations(swept):
        router = saved.rerouted(settings)
        all_routers.append(router.config.model.router)
        if router.config_hash == saved.config_hash:
            same.append(f"{router_settings.label(settings)}: the run's own routers")
        elif router.config_hash in found:
            other = router_settings.label(found[router.config_hash].settings)
            same.append(f"{router_settings.label(settings)}: the same as {other}")
        else:
            found[router.config_hash] = router
    config_files.check_options_are_used(swept, all_routers)
    if swept and not found:
        raise checks.InputError(
            f"--config: expected settings that differ from those of {saved.name}; received {'; '.join(same)}"
        )
    for line in same:
        say(line)
    return list(found.values())


def evaluate(
    saved: SavedRun,
    routers: Sequence[SavedRun],
    suites: Sequence[str],
    *,
    watchdog: Watchdog,
    predictions: storage.Path | None = None,
    say: Say = print,
) -> Evaluated:
    """Evaluates a run as it was trained and with other routers, and compares the answers record by record.

    Each has results of its own (see :class:`EvaluationFiles`), and resumes where it was stopped.

    Args:
      saved: as it was trained.
      routers: from :func:`routers_of`.
      suites, watchdog, say: as for :func:`vmoe_inform.evaluation.run.evaluate`.
      predictions: folder for the predictions; those with other routers lie in folders of it.

    Raises:
      as :func:`vmoe_inform.evaluation.run.evaluate` for the run as it was trained.
    """
    load = functools.cache(saved.load)
    results = run.evaluate(
        saved, suites, predictions=predictions, watchdog=watchdog, say=say, load=load, with_scores=bool(routers)
    )
    evaluated, problems = [], []
    for router in routers:
        label = router_settings.label(router.settings)
        say(f"{saved.name} with {label}")
        try:
            own = run.evaluate(
                router,
                suites,
                predictions=predictions and predictions / text.file_name(label),
                watchdog=watchdog,
                say=say,
                load=functools.partial(lambda of: load().rerouted(of.settings), router),
                with_scores=True,
            )
        except run.NothingAvailableError as problem:
            problems.append(f"{label}: {problem}")
        else:
            evaluated.append((router, own))
    return Evaluated(results, tuple(_compare(saved, results, evaluated, suites, say)), tuple(problems))


def _compare(
    saved: SavedRun,
    results: Results,
    evaluated: Sequence[tuple[SavedRun, Results]],
    suites: Sequence[str],
    say: Say,
) -> list[Rerouted]:
    """Compares all routers on each suite, which is loaded once, and writes the comparisons."""
    found: list[dict[str, SuiteComparison]] = [{} for _ in evaluated]
    for name in suites:
        if not evaluated or name not in results.suites or name in results.missing or not processes.is_main():
            continue
        suite = suites_lib.load(name, saved.config)
        units = Unit.all_of(suite)
        before = units_of(saved).read_all(units)
        for (router, own), comparisons in zip(evaluated, found, strict=True):
            if name in own.missing or name not in own.suites:
                continue  # which was said
            data, after = own.suites[name].data, units_of(router).read_all(units)
            label = router_settings.label(router.settings)
            if before is None or after is None or data is None:
                say(f"{name}, {label}: not compared: the scores of each record are not there")
                continue
            try:
                comparisons[name] = SuiteComparison(data, comparison.differences(suite, units, before, after))
            except (NotAvailable, checks.InputError) as problem:
                say(f"{name}, {label}: not compared: {problem}")
    return [
        Rerouted(own, _written(router, comparisons))
        for (router, own), comparisons in zip(evaluated, found, strict=True)
    ]


def _written(router: SavedRun, suites: Mapping[str, SuiteComparison]) -> Comparison:
    """The comparison with these suites, and those of earlier ones; written."""
    assert router.trained is not None
    settings = json.loads(json.dumps(dict(router.settings)))
    found = Comparison(router.step, router.trained.config_hash, settings, suites)
    if processes.is_main():
        files = EvaluationFiles.of(router)
        before = _read(files)
        if before is not None and _is_of(before, router.step, router.trained.config_hash):
            found = dataclasses.replace(found, suites={**before.suites, **suites})
        comparison.write(files.comparison, found, within=router.folder)
    return found


def read_all(path: CheckpointPath, results: Results) -> list[Rerouted]:
    """The evaluations of a checkpoint with other routers, by their labels; damaged ones are left out with a warning.

    Args:
      path: of the checkpoint.
      results: of the run as it was trained; comparisons with others, or on other records, are left out.
    """
    found = []
    for files in EvaluationFiles(path).rerouted():
        compared = _read(files)
        if compared is None or not _is_of(compared, results.checkpoint_step, results.config_hash):
            continue
        try:
            own = files.read_results()
        except (FileNotFoundError, storage.DamagedFileError) as problem:
            logging.warning("left out: %s", problem)
            continue
        current = {
            name: suite
            for name, suite in compared.suites.items()
            if name in results.suites and earlier.is_of(results.suites[name].data, suite.data, same_paths=True)
        }
        found.append(Rerouted(own, dataclasses.replace(compared, suites=current)))
    return sorted(found, key=lambda each: [(field, _order(each.settings[field])) for field in each.settings])


def _order(value: Any) -> tuple[bool, float, str]:
    """Numbers by their size, then all else by its text."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return not is_number, value if is_number else 0.0, "" if is_number else str(value)


def _read(files: EvaluationFiles) -> Comparison | None:
    try:
        return comparison.read(files.comparison, within=files.path.folder)
    except FileNotFoundError:
        return None
    except storage.DamagedFileError as problem:
        logging.warning("left out: %s", problem)
        return None


def _is_of(compared: Comparison, step: int, config_hash: str) -> bool:
    return (compared.checkpoint_step, compared.config_hash) == (step, config_hash)
