"""Measures one suite, set by set: from the scores that are kept, and from predictions for the rest."""

from collections.abc import Callable

from absl import logging

from vmoe_inform import checks
from vmoe_inform.evaluation.evaluator import Evaluator
from vmoe_inform.evaluation.metric_registry import METRICS
from vmoe_inform.evaluation.results import SuiteResult
from vmoe_inform.evaluation.suites.base import TEST_SET, NotAvailable, Scores, Suite
from vmoe_inform.evaluation.units import PredictionFiles, Unit, Units
from vmoe_inform.sharding import processes

Say = Callable[[str], None]


def measure(evaluator: Evaluator, suite: Suite, units: Units, files: PredictionFiles | None, say: Say) -> SuiteResult:
    """The suite's result.

    Args:
      evaluator: predicts the sets that are not kept.
      suite: loaded for the run's config.
      units: scores of sets that are kept; grow.
      files: for the predictions themselves; None: they are not kept.
      say: called with one line for each set of several that is predicted.

    Raises:
      NotAvailable, InputError: the suite cannot be measured.
    """
    try:
        return suite.result(_scores(evaluator, suite, units, files, say))
    except checks.InputError:
        raise
    except (KeyError, IndexError, TypeError, ValueError) as problem:
        # Whole files, and yet not what was written.
        words = "%s: %s cannot be made of the scores kept there, which are computed again (%s)"
        logging.warning(words, units.folder, suite.name, problem)
        return suite.result(_scores(evaluator, suite, units, files, say, anew=True))


def _scores(
    evaluator: Evaluator,
    suite: Suite,
    units: Units,
    files: PredictionFiles | None,
    say: Say,
    *,
    anew: bool = False,
) -> dict[str, Scores]:
    """Scores of each set; ``anew`` takes none that is kept."""
    scores = {}
    for number, (name, record_set) in enumerate(suite.sets.items(), start=1):
        unit = Unit.of(suite, name)
        kept = None if anew else units.read(unit)
        is_left = kept is None or (files is not None and not files.has(unit))
        if processes.any_process(is_left) or kept is None:
            answers = evaluator.predict_set(name, record_set, unit.source)
            kept = suite.score(name, answers)
            if processes.is_main():
                units.write(unit, kept)
                if files is not None:
                    files.write(unit, answers)
            if len(suite.sets) > 1:
                where = f"set {number} of {len(suite.sets)}"
                say(f"{suite.name}, {where}, {name}: {len(answers.indices):,} {evaluator.task.records}")
        scores[name] = kept
    return scores


def from_kept(suite: Suite, units: Units) -> tuple[SuiteResult | None, set[str]]:
    """The suite's result of the scores that are kept, and the names of its metrics that cannot be made of them.

    None if scores of some set are not kept, or too few.
    """
    scores: dict[str, Scores] = {}
    changed: set[str] = set()
    for name in suite.sets:
        kept, of_set = units.read_current(Unit.of(suite, name))
        if kept is None:
            return None, set()
        scores[name] = kept
        changed |= of_set
    try:
        result = suite.result(scores)
    except (KeyError, IndexError, TypeError, ValueError):  # whole files, and yet not what was written
        return None, set()
    return result, {name for name in METRICS if changed & set(METRICS[name].needs)}


def keep_clean(evaluator: Evaluator, suite: Suite, units: Units) -> None:
    """Keeps the scores of the clean records for a suite that wants them, once they are predicted."""
    if TEST_SET not in suite.sets or not processes.is_main():
        return
    try:
        scores = suite.score(TEST_SET, evaluator.clean[0])
    except NotAvailable:  # which is said when it is the suite's turn
        return
    units.write(Unit.of(suite, TEST_SET), scores)
