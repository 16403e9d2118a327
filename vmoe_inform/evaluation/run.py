"""Evaluates a checkpoint on suites, one after the other; what is finished is kept and not computed again.

:func:`evaluate` is three steps: :func:`~vmoe_inform.evaluation.work.look` finds what is left, :func:`complete`
predicts that, and :func:`conclude` says what was not measured now.
"""

import pathlib
from collections.abc import Callable, Sequence

from vmoe_inform import checks
from vmoe_inform.data.images import label_sets
from vmoe_inform.evaluation import earlier
from vmoe_inform.evaluation.evaluator import Evaluator
from vmoe_inform.evaluation.files import Results
from vmoe_inform.evaluation.measure import keep_clean, measure
from vmoe_inform.evaluation.suites.base import NotAvailable, test_split
from vmoe_inform.evaluation.units import PredictionFiles, Units
from vmoe_inform.evaluation.work import DAMAGED, Work, look, why
from vmoe_inform.nn import models
from vmoe_inform.runs.run import SavedRun
from vmoe_inform.sharding import watchdog as watchdog_lib
from vmoe_inform.sharding.watchdog import Watchdog

Say = Callable[[str], None]


def evaluate(
    saved: SavedRun,
    suites: Sequence[str],
    *,
    predictions: pathlib.Path | None = None,
    watchdog: Watchdog = watchdog_lib.OFF,
    say: Say = print,
) -> Results:
    """Evaluates what is not there yet; the checkpoint is loaded only if there is something to predict.

    Writes the results after each suite, the examples, and the scores of each set as they are finished (see units.py),
    so that an evaluation that was stopped resumes. Of several processes, all predict and the main one writes; what one
    of them does not find finished is done again by all.

    Args:
      saved: the checkpoint. Where its config differs on this machine, by directories, processes or batches, the
        results are the same.
      suites: registered names.
      predictions: folder for the predictions themselves, see :class:`PredictionFiles`; None: they are not kept.
      watchdog: is told of every batch.
      say: called with one line for each suite, and for each set of several that is predicted.

    Returns:
      what the file of results holds.

    Raises:
      ValueError: an unknown suite, or a damaged checkpoint.
      FileNotFoundError: the data set is missing.
    """
    work = look(saved, suites, again=predictions is not None)
    if work.is_left:
        complete(work, Evaluator.of(saved.load(), watchdog), predictions=predictions, say=say)
    return conclude(work, say=say)


def complete(work: Work, evaluator: Evaluator, *, predictions: pathlib.Path | None = None, say: Say = print) -> None:
    """Predicts what is left, and writes each result as it is finished.

    Args:
      work: what is left.
      evaluator: of the checkpoint.
      predictions, say: as for :func:`evaluate`.
    """
    saved, results = work.saved, work.results
    units = Units(work.files.units(saved.step), saved.step, saved.config_hash, within=saved.folder)
    files = None if predictions is None else PredictionFiles(predictions, saved.step, saved.config_hash)
    if work.needs_routing:
        for suite in work.left.values():
            keep_clean(evaluator, suite, units)  # they are predicted now in any case
        results |= _facts(saved, evaluator)
        work.files.write_examples(evaluator.examples())
        work.files.write_results(results, ())
    for name, suite in work.left.items():
        try:
            entry = measure(evaluator, suite, units, files, say)
        except (NotAvailable, checks.InputError) as problem:
            work.missing[name] = why(problem)
            continue
        earlier.replace(results, name, {**entry, "data": work.data[name], "evaluated": earlier.now()})
        say(f"{name}: {entry['count']:,} images")
        work.files.write_results(results, (name,))


def conclude(work: Work, *, say: Say = print) -> Results:
    """Writes which suites are missing, and says so, as it says which figures are from before; returns the results."""
    results = work.results
    missing_anew = [name for name in work.missing if not earlier.has_figures(results, name)]
    for name in missing_anew:  # figures of before stay, where the images are gone now
        results["suites"][name] = {"not_available": work.missing[name]}
    for name, reason in work.missing.items():
        say(f"{name}: not available: {reason}")
    for name in work.suites:
        if name not in work.left and earlier.has_figures(results, name):
            entry = results["suites"][name]
            say(f"{name}: {entry['count']:,} images, from before: evaluated {earlier.words(entry)}")
    work.files.write_results(results, missing_anew)
    return results


def damaged_suites(results: Results) -> list[str]:
    """Names of suites that are there, but not as they should be."""
    return [name for name, entry in results["suites"].items() if entry.get("not_available", "").startswith(DAMAGED)]


def _facts(saved: SavedRun, evaluator: Evaluator) -> Results:
    """What results.json says besides suites: of the checkpoint, its model, the clean images and the routers."""
    config, source = saved.config, test_split(saved.config.data)
    model = config.model
    return {
        "checkpoint_step": saved.step,
        "config_hash": saved.config_hash,
        "seed": config.seed,
        "model": {
            "parameters": models.num_parameters(evaluator.run.variables["params"]),
            "router": {"score": model.router.score, "inform": list(model.router.inform_steps) or "none"},
            "experts": model.moe.num_experts,
            "experts_per_token": model.moe.num_selected_experts,
            "num_classes": model.num_classes,
            "image_size_px": model.image_size_px,
            "patch_size_px": model.patch_size_px,
            "num_layers": model.num_layers,
            "hidden_size": model.hidden_size,
            "moe_layers": list(model.moe_layers),
        },
        "data": {
            "source": config.data.source,
            "classes_are_imagenet": label_sets.is_imagenet(source.class_names),
            **earlier.data_of_split(source, config.data),
        },
        "routing": evaluator.clean[1],
    }
