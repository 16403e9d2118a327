"""Evaluates a checkpoint on suites, one after the other; what is finished is kept and not computed again.

:func:`evaluate` is three steps: :func:`~vmoe_inform.evaluation.work.look` finds what is left, :func:`complete`
predicts that, and :func:`conclude` says what was not measured now.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence

from vmoe_inform import checks, storage
from vmoe_inform.evaluation import earlier, facts
from vmoe_inform.evaluation.evaluator import Evaluator
from vmoe_inform.evaluation.measure import keep_clean, measure
from vmoe_inform.evaluation.results import Missing, Results, SuiteResult
from vmoe_inform.evaluation.suites.base import NotAvailable
from vmoe_inform.evaluation.units import PredictionFiles
from vmoe_inform.evaluation.work import Work, look, why
from vmoe_inform.nn import models
from vmoe_inform.runs.run import Run, SavedRun
from vmoe_inform.sharding import watchdog as watchdog_lib
from vmoe_inform.sharding.watchdog import Watchdog

Say = Callable[[str], None]


class NothingAvailableError(checks.InputError):
    """None of the suites that were asked for can be evaluated here, or was before."""

    def __init__(self, missing: Mapping[str, Missing]):
        reasons = "; ".join(f"{name}: {missing[name].reason}" for name in missing)
        super().__init__(f"suites: expected some that can be evaluated here; received none: {reasons}")


def evaluate(
    saved: SavedRun,
    suites: Sequence[str],
    *,
    predictions: storage.Path | None = None,
    watchdog: Watchdog = watchdog_lib.OFF,
    say: Say = print,
    load: Callable[[], Run] | None = None,
    with_scores: bool = False,
) -> Results:
    """Evaluates what is not there yet; the checkpoint is loaded only if there is something to predict.

    Writes the results after each suite, the examples, and the scores of each finished set (see units.py). So a stopped
    evaluation resumes. Of several processes, all predict and the main one writes. If one of them finds something
    unfinished, all do it again.

    Args:
      saved: the checkpoint. Where its config differs on this machine, by directories, processes or batches, the
        results are the same.
      suites: registered names.
      predictions: folder for the predictions themselves, see :class:`PredictionFiles`; None: they are not kept.
      watchdog: is told of every batch.
      say: called with one line for each suite, and for each set of several that is predicted.
      load: loads the checkpoint; None: ``saved.load``.
      with_scores: whether the scores of each record have to be kept, to compare them with another model's.

    Returns:
      what the file of results holds, and which suites are missing here.

    Raises:
      NothingAvailableError: none of the suites can be evaluated here.
      ValueError: an unknown suite, or a damaged checkpoint.
      FileNotFoundError: the data set is missing.
    """
    work = look(saved, suites, again=predictions is not None, with_scores=with_scores)
    if work.is_hopeless:
        raise NothingAvailableError(work.missing)
    if work.is_left:
        if saved.trained is None:  # the same run with other routers has the same classes
            saved.warn_of_unnamed_classes()
        complete(work, Evaluator.of((load or saved.load)(), watchdog), predictions=predictions, say=say)
    return conclude(work, say=say)


def complete(work: Work, evaluator: Evaluator, *, predictions: storage.Path | None = None, say: Say = print) -> None:
    """Predicts what is left, and writes each result as it is finished.

    Args:
      work: what is left.
      evaluator: of the checkpoint.
      predictions, say: as for :func:`evaluate`.
    """
    saved = work.saved
    units = work.units
    files = (
        None
        if predictions is None
        else PredictionFiles(predictions, saved.step, saved.config_hash, saved.config.model.allow_future)
    )
    with evaluator.task.keeps_workers():
        if work.needs_routing or work.results is None:
            for suite in work.left.values():
                keep_clean(evaluator, suite, units)  # they are predicted now in any case
            work.files.write_examples(evaluator.examples())
            work.results = work.files.write_results(_with_facts(saved, evaluator, work.results), ())
        for name, suite in work.left.items():
            try:
                result = measure(evaluator, suite, units, files, say)
            except (NotAvailable, checks.InputError) as problem:
                work.missing[name] = why(problem)
                continue
            result = dataclasses.replace(result, data=work.data[name], evaluated=earlier.now())
            say(f"{name}: {_counted(result)}")
            work.results = work.files.write_results(earlier.replace(work.results, name, result), (name,))


def conclude(work: Work, *, say: Say = print) -> Results:
    """Says which suites are missing and which results are from before; returns the results, with what is missing."""
    assert work.results is not None  # else the routing was left, which makes them
    for name, missing in work.missing.items():
        say(f"{name}: not available: {'damaged data: ' if missing.is_damaged else ''}{missing.reason}")
    for name in work.suites:
        if name not in work.left and name in work.results.suites:
            result = work.results.suites[name]
            say(f"{name}: {_counted(result)}, from before: evaluated {earlier.words(result)}")
    for name, metrics in work.renewed.items():
        say(f"{name}: {', '.join(metrics)} computed from the scores of before")
    for name, metrics in work.outdated.items():
        remedy = f"to evaluate the suite again, delete {work.files.folder}"
        say(f"{name}: older than the current {', '.join(metrics)}, for which its scores do not suffice; {remedy}")
    # Results of before stay, where the data are gone now.
    return dataclasses.replace(work.files.write_results(work.results, ()), missing=work.missing)


def _counted(result: SuiteResult) -> str:
    return f"{result.count:,} {result.counted or 'images'}"


def damaged_suites(results: Results) -> list[str]:
    """Names of suites whose data are there, but not as they should be."""
    return [name for name, missing in results.missing.items() if missing.is_damaged]


def _with_facts(saved: SavedRun, evaluator: Evaluator, results: Results | None) -> Results:
    """The results of suites so far, with what is known of the checkpoint, its model, the clean records and routers."""
    return Results(
        checkpoint_step=saved.step,
        config_hash=saved.config_hash,
        model=facts.of_model(saved.config, models.num_parameters(evaluator.run.variables["params"])),
        suites={} if results is None else results.suites,
        routing=evaluator.clean[1],
        seed=saved.config.seed,
        data=facts.of_data(saved.config, evaluator.clean_source),
        other_data={} if results is None else results.other_data,
    )
