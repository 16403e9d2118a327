"""Evaluates a checkpoint on suites, one after the other; what is finished is kept and not computed again."""

import json
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from vmoe_inform import checks, models
from vmoe_inform import config as config_lib
from vmoe_inform.axes import Tree
from vmoe_inform.config import Config
from vmoe_inform.data import images as images_lib
from vmoe_inform.data import sources
from vmoe_inform.data.sources import Source
from vmoe_inform.evaluation import suites as suites_lib
from vmoe_inform.evaluation.predict import Predictor
from vmoe_inform.evaluation.suites import Predictions

Results = dict[str, Any]

RESULTS_FILE = "results.json"
REPORT_FILE = "report.html"
_NUM_EXAMPLES = 8


def evaluate(
    workdir: pathlib.Path,
    config: Config,
    step: int,
    suites: Sequence[str],
    *,
    restore: Callable[[], tuple[Predictor, dict[str, Tree]]],
    report_progress: Callable[[str], None] = print,
) -> tuple[Results, list[dict[str, Any]] | None]:
    """Evaluates what is not there yet, and writes ``evaluation/results.json`` after each suite.

    Args:
      workdir: of the run.
      config: of the run.
      step: of the checkpoint.
      suites: registered names.
      restore: gives the checkpoint's predictor and variables; called only if there is something to evaluate.
      report_progress: called with one line for each suite.

    Returns:
      the results, and examples for the report (None if there was nothing left to do).

    Raises:
      ValueError: an unknown suite.
      FileNotFoundError: the data set is missing.
    """
    for name in suites:
        suites_lib.SUITES[name]  # an unknown name is an error before anything is loaded
    path = workdir / "evaluation" / RESULTS_FILE
    results = _read_finished(path, step, config)
    left = [name for name in suites if "count" not in results["suites"].get(name, {})]
    if not left:
        return results, None

    predictor, variables = restore()
    run = _Run(config, predictor, variables)
    results |= {
        "checkpoint_step": step,
        "config_hash": config_lib.config_hash(config),
        "seed": config.seed,
        "model": {
            "parameters": models.num_parameters(variables["params"]),
            "router": {"score": config.model.router.score, "inform": list(config.model.router.inform_steps) or "none"},
            "experts": config.model.moe.num_experts,
            "experts_per_token": config.model.moe.num_selected_experts,
        },
        "routing": run.routing,
    }
    for name in left:
        try:
            suite = suites_lib.load(name, config)
            results["suites"][name] = suite.summarize({key: run.predict(key, get) for key, get in suite.sets.items()})
            report_progress(f"{name}: {results['suites'][name]['count']:,} images")
        except suites_lib.NotAvailable as problem:
            results["suites"][name] = {"not_available": str(problem)}
            report_progress(f"{name}: not available: {problem}")
        _write(path, results)
    return results, run.examples()


class _Run:
    """Predictions of one restored model; those of the clean images are made once, for all that need them."""

    def __init__(self, config: Config, predictor: Predictor, variables: dict[str, Tree]):
        self._size = config.model.image_size_px
        self._predictor = predictor
        self._variables = variables
        self._clean = sources.load(config.data, config.data.test_split)
        predictions, self.routing = predictor.predict_with_routing(variables, self._clean)
        self._done = {"clean": predictions}

    def predict(self, name: str, load: Callable[[], Source]) -> Predictions:
        """Predictions for the set ``name`` of a suite."""
        if name == "clean":
            return self._done["clean"]
        return self._predictor.predict(self._variables, load())

    def examples(self) -> list[dict[str, Any]]:
        """Clean images with their experts, for the report: those taken for something else first, then the others."""
        predictions = self._done["clean"]
        if predictions.skipped:  # rows of predictions are no longer numbers of records
            return []
        wrong = np.argmax(predictions.logits, axis=-1) != predictions.labels
        order = np.argsort(~wrong, kind="stable")
        chosen = [*order[: min(_NUM_EXAMPLES // 2, int(wrong.sum()))]]
        chosen += [*order[int(wrong.sum()) :]][: _NUM_EXAMPLES - len(chosen)]
        shown = np.stack([images_lib.to_square(self._clean.records[int(i)]["image"], self._size) for i in chosen])
        logits, experts = self._predictor.first_choices(self._variables, shown)
        probabilities = np.asarray(jax.nn.softmax(logits, axis=-1))
        names = self._clean.class_names
        return [
            {
                "image": shown[n],
                "label": names[int(predictions.labels[index])],
                "prediction": names[int(np.argmax(logits[n]))],
                "confidence": float(np.max(probabilities[n])),
                "experts": {block: chosen_experts[n] for block, chosen_experts in experts.items()},
            }
            for n, index in enumerate(chosen)
        ]


def read_results(workdir: pathlib.Path) -> Results:
    """The results of an evaluated run.

    Raises:
      FileNotFoundError: the run was not evaluated.
    """
    path = workdir / "evaluation" / RESULTS_FILE
    if not path.is_file():
        raise FileNotFoundError(
            f"{path}: expected the results of an evaluated run (python -m vmoe_inform.evaluate --workdir={workdir}); "
            "received no file"
        )
    return json.loads(path.read_text())


def _read_finished(path: pathlib.Path, step: int | None, config: Config) -> Results:
    """Results of an earlier call, if they are of the same checkpoint; else none."""
    if path.is_file():
        results = json.loads(path.read_text())
        if (results["checkpoint_step"], results["config_hash"]) == (step, config_lib.config_hash(config)):
            return results
    return {"suites": {}}


def _write(path: pathlib.Path, results: Results) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(results, indent=2) + "\n")
    temporary.rename(path)


def names_of(workdirs: Sequence[pathlib.Path]) -> list[str]:
    """Short names for runs: the folders' own names, or the whole paths where two are called the same.

    Raises:
      ValueError: the same folder twice.
    """
    if len({path.resolve() for path in workdirs}) != len(workdirs):
        raise checks.error("--compare", "folders of other runs", ", ".join(map(str, workdirs)))
    names = [path.resolve().name for path in workdirs]
    return names if len(set(names)) == len(names) else [str(path) for path in workdirs]
