"""Evaluates a checkpoint on suites, one after the other; what is finished is kept and not computed again."""

import pathlib
import shlex
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from absl import logging

from vmoe_inform import checks, locks, storage
from vmoe_inform.axes import Tree
from vmoe_inform.config import Config, DataConfig, identity
from vmoe_inform.data.images import label_sets
from vmoe_inform.evaluation import earlier, stored
from vmoe_inform.evaluation import suites as suites_lib
from vmoe_inform.evaluation.predict import Predictor
from vmoe_inform.evaluation.restored import RestoredRun
from vmoe_inform.evaluation.suites.base import TEST_SET, Entry, NotAvailable, Scores, Suite, test_split
from vmoe_inform.evaluation.units import PredictionFiles, Unit, Units
from vmoe_inform.nn import models
from vmoe_inform.runs.place import Place
from vmoe_inform.sharding import processes

Results = dict[str, Any]

_DAMAGED = "damaged data: "


def evaluate(
    place: Place,
    config: Config,
    step: int,
    suites: Sequence[str],
    *,
    restore: Callable[[], tuple[Predictor, dict[str, Tree]]],
    here: Config | None = None,
    older_hash: str | None = None,
    predictions: pathlib.Path | None = None,
    report_progress: Callable[[str], None] = print,
) -> Results:
    """Evaluates what is not there yet.

    Writes the results after each suite, the examples, and the scores of each set as they are finished (see units.py),
    so that an evaluation that was stopped goes on where it was. Of several processes, all predict and the main one
    writes; what one of them does not find finished is done again by all.

    Args:
      place: what to write to.
      config: of the run; its hash is part of what results are known by.
      step: of the checkpoint.
      suites: registered names.
      restore: gives the checkpoint's predictor and variables; called only if there is something to predict.
      here: ``config`` as it holds on this machine, with other directories, processes or batches, none of which decides
        what is found; by default the config itself.
      older_hash: hash of the run's config as older versions made it, by which their results are known too.
      predictions: folder for the predictions themselves, see :class:`PredictionFiles`; None: they are not kept.
      report_progress: called with one line for each suite, and for each set of several that is predicted.

    Returns:
      what the file of results holds.

    Raises:
      ValueError: an unknown suite.
      FileNotFoundError: the data set is missing.
    """
    suites_lib.check_names(suites)
    config_hash = identity.config_hash(config)
    same_paths = here is None or _paths(here.data) == _paths(config.data)
    config = config if here is None else here
    storage.check_folders(place.folder / "units" / f"step_{step}", place.workdir)
    results = _read_finished(place, step, {config_hash, older_hash})
    if "config_hash" in results:
        results["config_hash"] = config_hash
    before = dict(results["suites"])
    left, missing, data = _look(suites, results, config, same_paths=same_paths, again=predictions is not None)
    if taken_up := [name for name in before if results["suites"][name] is not before[name]]:
        _write(place, results, taken_up)
    without_routing = processes.any_process(not _has_routing(place, results, config, same_paths=same_paths))
    if left or without_routing:
        run = RestoredRun(config, *restore())
        units = Units(place.folder / "units" / f"step_{step}", step, config_hash, within=place.workdir)
        files = None if predictions is None else PredictionFiles(predictions, step, config_hash)
        if without_routing:
            _keep_clean(run, left, units)
            results |= {"checkpoint_step": step, "config_hash": config_hash, **_facts(config, run)}
            examples = run.examples()
            if processes.is_main():
                storage.write_arrays(place.examples, examples, within=place.workdir, compressed=True)
            _write(place, results, ())
        for name, suite in left.items():
            try:
                entry = _measure(run, suite, units, files, report_progress)
            except (NotAvailable, checks.InputError) as problem:
                missing[name] = _reason(problem)
                continue
            earlier.replace(results, name, {**entry, "data": data[name], "evaluated": earlier.now()})
            report_progress(f"{name}: {entry['count']:,} images")
            _write(place, results, (name,))
    for name, reason in missing.items():
        if not earlier.has_figures(results, name):  # figures of before stay, where the images are gone now
            results["suites"][name] = {"not_available": reason}
        report_progress(f"{name}: not available: {reason}")
    for name in suites:
        if name not in left and earlier.has_figures(results, name):
            entry = results["suites"][name]
            report_progress(f"{name}: {entry['count']:,} images, from before: evaluated {earlier.words(entry)}")
    _write(place, results, [name for name in missing if not earlier.has_figures(results, name)])
    return results


def _paths(data: DataConfig) -> tuple[str, str]:
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
            missing[name] = _reason(problem)
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


def _has_routing(place: Place, results: Results, config: Config, *, same_paths: bool) -> bool:
    """Whether what is known of the routers, and the examples, are there and of the clean images here."""
    if "routing" not in results or not _has_examples(place):
        return False
    try:
        data = earlier.data_of_split(test_split(config.data), config.data)
    except FileNotFoundError:  # nor can they be looked at again
        return True
    return earlier.is_of(results, data, same_paths=same_paths)


def _reason(problem: Exception) -> str:
    """Why a suite is not available; damaged data are no reason to leave the other suites undone."""
    return f"{_DAMAGED}{problem}" if isinstance(problem, checks.InputError) else str(problem)


def damaged_suites(results: Results) -> list[str]:
    """Names of suites that are there, but not as they should be."""
    return [name for name, entry in results["suites"].items() if entry.get("not_available", "").startswith(_DAMAGED)]


def _measure(
    run: RestoredRun, suite: Suite, units: Units, files: PredictionFiles | None, report_progress: Callable[[str], None]
) -> Entry:
    """The suite's entry, from what is kept and from predictions for the rest."""
    try:
        return suite.entry(_scores(run, suite, units, files, report_progress))
    except checks.InputError:
        raise
    except (KeyError, IndexError, TypeError, ValueError) as problem:
        # Whole files, and yet not what was written.
        words = "%s: %s cannot be made of the scores kept there, which are computed again (%s)"
        logging.warning(words, units.folder, suite.name, problem)
        return suite.entry(_scores(run, suite, units, files, report_progress, anew=True))


def _scores(
    run: RestoredRun,
    suite: Suite,
    units: Units,
    files: PredictionFiles | None,
    report_progress: Callable[[str], None],
    *,
    anew: bool = False,
) -> dict[str, Scores]:
    """Scores of each set; ``anew`` takes none that is kept."""
    scores = {}
    for number, (name, image_set) in enumerate(suite.sets.items(), start=1):
        unit = Unit(suite.name, name, image_set, image_set.load())
        kept = None if anew else units.read(unit)
        is_left = kept is None or (files is not None and not files.has(unit))
        if processes.any_process(is_left) or kept is None:
            predictions = run.predict_set(name, image_set, unit.source)
            kept = suite.score(name, predictions)
            if processes.is_main():
                units.write(unit, kept)
                if files is not None:
                    files.write(unit, predictions)
            if len(suite.sets) > 1:
                where = f"set {number} of {len(suite.sets)}"
                report_progress(f"{suite.name}, {where}, {name}: {len(predictions.labels):,} images")
        scores[name] = kept
    return scores


def _keep_clean(run: RestoredRun, suites: Mapping[str, Suite], units: Units) -> None:
    """Keeps the scores of the clean images for every suite that wants them, since they are predicted now."""
    for suite in suites.values():
        if TEST_SET in suite.sets and processes.is_main():
            image_set = suite.sets[TEST_SET]
            unit = Unit(suite.name, TEST_SET, image_set, image_set.load())
            try:
                units.write(unit, suite.score(TEST_SET, run.clean[0]))
            except NotAvailable:  # which is said when it is the suite's turn
                continue


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
            missing[name] = _reason(problem)
    return loaded, missing


def _facts(config: Config, run: RestoredRun) -> Results:
    model = config.model
    return {
        "seed": config.seed,
        "model": {
            "parameters": models.num_parameters(run.variables["params"]),
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
            "classes_are_imagenet": label_sets.is_imagenet(test_split(config.data).class_names),
            **earlier.data_of_split(test_split(config.data), config.data),
        },
        "routing": run.clean[1],
    }


def read_examples(place: Place) -> list[dict[str, Any]]:
    """The examples of an evaluated run, one dictionary an image, as the report takes them; empty if there are none."""
    try:
        return stored.read_examples(place.examples, within=place.workdir)
    except FileNotFoundError:
        return []
    except storage.DamagedFileError as problem:
        logging.warning("no examples: %s", problem)
        return []


def read_results(place: Place) -> Results:
    """The results of an evaluated checkpoint.

    Raises:
      FileNotFoundError: it was not evaluated.
      DamagedFileError: they are not what was written.
    """
    command = f"python -m vmoe_inform.evaluate --workdir={shlex.quote(str(place))}"
    try:
        return stored.read_results(place.results, within=place.workdir)
    except FileNotFoundError:
        expected = f"the results of an evaluated run ({command})"
        raise FileNotFoundError(f"{place.results}: expected {expected}; received no file") from None
    except storage.DamagedFileError as problem:
        raise problem.with_remedy(f"evaluate it again: {command}") from None


def _read_finished(place: Place, step: int, config_hashes: Collection[str | None]) -> Results:
    """Results of an earlier call, if they are of the same checkpoint; else none. Damaged ones are put aside."""
    try:
        results = stored.read_results(place.results, within=place.workdir)
    except FileNotFoundError:
        return {"suites": {}}
    except storage.DamagedFileError as problem:
        if processes.is_main():
            logging.warning("%s; moved to %s and evaluated again", problem, storage.set_aside(place.results))
        return {"suites": {}}
    is_of_this = results["checkpoint_step"] == step and results["config_hash"] in config_hashes
    return results if is_of_this else {"suites": {}}


def _has_examples(place: Place) -> bool:
    """Whether there is nothing to mend: the examples are whole, or there are none."""
    try:
        stored.read_examples(place.examples, within=place.workdir)
    except FileNotFoundError:
        return True
    except storage.DamagedFileError as problem:
        logging.warning("%s; made again", problem)
        return False
    return True


def _write(place: Place, results: Results, changed: Sequence[str]) -> None:
    """Writes the results, of the suites only those that changed: another evaluation may be at work on others."""
    if not processes.is_main():
        return
    with locks.held(place.results, within=place.workdir):
        written = _read_finished(place, results.get("checkpoint_step", -1), {results.get("config_hash", "")})
        earlier.add(written, results, changed)
        results |= {key: written[key] for key in ("suites", earlier.OTHER_DATA) if key in written}
        storage.write_json(place.results, results, within=place.workdir)
