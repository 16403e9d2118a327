"""Evaluates a checkpoint on suites, one after the other; what is finished is kept and not computed again."""

import fcntl
import json
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from vmoe_inform import checks, models
from vmoe_inform import config as config_lib
from vmoe_inform.axes import Tree
from vmoe_inform.config import Config
from vmoe_inform.data import label_sets
from vmoe_inform.evaluation import families
from vmoe_inform.evaluation.place import Place
from vmoe_inform.evaluation.predict import Predictor
from vmoe_inform.evaluation.restored import RestoredRun
from vmoe_inform.evaluation.suites import CLEAN, Entry, NotAvailable, Suite, test_split
from vmoe_inform.evaluation.units import PredictionFiles, Unit, Units
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
      predictions: folder for the predictions themselves, see :class:`PredictionFiles`; None: they are not kept.
      report_progress: called with one line for each suite, and for each set of several that is predicted.

    Returns:
      what the file of results holds.

    Raises:
      ValueError: an unknown suite.
      FileNotFoundError: the data set is missing.
    """
    families.check_names(suites)
    config_hash = config_lib.config_hash(config)
    config = config if here is None else here
    results = _read_finished(place.results, step, config_hash)
    done = [predictions is None and "count" in results["suites"].get(name, {}) for name in suites]
    wanted = [name for name, is_done in zip(suites, done, strict=True) if processes.any_process(not is_done)]
    left, missing = load_suites(wanted, config)
    for name in wanted:  # all processes predict a suite, or none
        if processes.any_process(name in missing) and name not in missing:
            del left[name]
            missing[name] = "not found by another of the processes"
    without_routing = processes.any_process("routing" not in results)
    if left or without_routing:
        run = RestoredRun(config, *restore())
        units = Units(place.folder / "units" / f"step_{step}", step, config_hash)
        files = None if predictions is None else PredictionFiles(predictions, step, config_hash)
        if without_routing:
            _keep_clean(run, left, units)
            results |= {"checkpoint_step": step, "config_hash": config_hash, **_facts(config, run)}
            examples = run.examples()
            if processes.is_main():
                place.folder.mkdir(parents=True, exist_ok=True)
                np.savez_compressed(place.examples, **examples)
            _write(place.results, results, ())
        for name, suite in left.items():
            try:
                results["suites"][name] = _measure(run, suite, units, files, report_progress)
            except (NotAvailable, checks.InputError) as problem:
                missing[name] = _reason(problem)
                continue
            report_progress(f"{name}: {results['suites'][name]['count']:,} images")
            _write(place.results, results, (name,))
    for name, reason in missing.items():
        if "count" not in results["suites"].get(name, {}):  # figures of before stay, where the images are gone now
            results["suites"][name] = {"not_available": reason}
        report_progress(f"{name}: not available: {reason}")
    _write(place.results, results, tuple(missing))
    return results


def _reason(problem: Exception) -> str:
    """Why a suite is not available; damaged data are no reason to leave the other suites undone."""
    return f"{_DAMAGED}{problem}" if isinstance(problem, checks.InputError) else str(problem)


def damaged_suites(results: Results) -> list[str]:
    """Names of suites that are there, but not as they should be."""
    return [name for name, entry in results["suites"].items() if entry.get("not_available", "").startswith(_DAMAGED)]


def _measure(
    run: RestoredRun, suite: Suite, units: Units, files: PredictionFiles | None, report_progress: Callable[[str], None]
) -> Entry:
    scores = {}
    for number, (name, image_set) in enumerate(suite.sets.items(), start=1):
        unit = Unit(suite.name, name, image_set, image_set.load())
        kept = units.read(unit)
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
    return suite.entry(scores)


def _keep_clean(run: RestoredRun, suites: Mapping[str, Suite], units: Units) -> None:
    """Keeps the scores of the clean images for every suite that wants them, since they are predicted now."""
    for suite in suites.values():
        if CLEAN in suite.sets and processes.is_main():
            image_set = suite.sets[CLEAN]
            unit = Unit(suite.name, CLEAN, image_set, image_set.load())
            try:
                units.write(unit, suite.score(CLEAN, run.clean[0]))
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
            loaded[name] = families.load(name, config)
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
        },
        "routing": run.clean[1],
    }


def read_examples(place: Place) -> list[dict[str, Any]]:
    """The examples of an evaluated run, one dictionary an image, as the report takes them; empty if there are none."""
    if not place.examples.is_file():
        return []
    with np.load(place.examples, allow_pickle=False) as file:
        arrays = {name: file[name] for name in file.files}
    blocks = [name for name in arrays if name.startswith("experts/")]
    return [
        {
            "image": arrays["image"][n],
            "label": str(arrays["label"][n]),
            "prediction": str(arrays["prediction"][n]),
            "confidence": float(arrays["confidence"][n]),
            "experts": {name.removeprefix("experts/"): arrays[name][n] for name in blocks},
        }
        for n in range(len(arrays.get("image", ())))
    ]


def read_results(place: Place) -> Results:
    """The results of an evaluated checkpoint.

    Raises:
      FileNotFoundError: it was not evaluated.
    """
    if not place.results.is_file():
        raise FileNotFoundError(
            f"{place.results}: expected the results of an evaluated run (python -m vmoe_inform.evaluate "
            f"--workdir={place}); received no file"
        )
    return json.loads(place.results.read_text())


def _read_finished(path: pathlib.Path, step: int, config_hash: str) -> Results:
    """Results of an earlier call, if they are of the same checkpoint; else none."""
    if path.is_file():
        results = json.loads(path.read_text())
        if (results.get("checkpoint_step"), results.get("config_hash")) == (step, config_hash):
            return results
    return {"suites": {}}


def _write(path: pathlib.Path, results: Results, changed: Sequence[str]) -> None:
    """Writes the results, of the suites only those that changed: another evaluation may be at work on others."""
    if not processes.is_main():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.with_name(f".{path.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        written = _read_finished(path, results.get("checkpoint_step", -1), results.get("config_hash", ""))["suites"]
        ours = {name: entry for name, entry in results["suites"].items() if name in changed or name not in written}
        results["suites"] = written | ours
        temporary = path.with_name(f"{path.name}.tmp")
        temporary.write_text(json.dumps(results, indent=2) + "\n")
        temporary.rename(path)
