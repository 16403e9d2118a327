"""Evaluates a checkpoint on suites, one after the other; what is finished is kept and not computed again."""

import functools
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
from vmoe_inform.evaluation.predict import Chosen, Predictor
from vmoe_inform.evaluation.suites import Predictions, Suite

Results = dict[str, Any]

RESULTS_FILE = "results.json"
REPORT_FILE = "report.html"
EXAMPLES_FILE = "examples.npz"
_NUM_EXAMPLES = 8


def evaluate(
    workdir: pathlib.Path,
    config: Config,
    step: int,
    suites: Sequence[str],
    *,
    restore: Callable[[], tuple[Predictor, dict[str, Tree]]],
    report_progress: Callable[[str], None] = print,
) -> Results:
    """Evaluates what is not there yet.

    Writes ``evaluation/results.json`` after each suite, and ``evaluation/examples.npz``: clean images with the experts
    of their patches, for the report.

    Args:
      workdir: of the run.
      config: of the run.
      step: of the checkpoint.
      suites: registered names.
      restore: gives the checkpoint's predictor and variables; called only if there is something to predict.
      report_progress: called with one line for each suite.

    Returns:
      what ``results.json`` holds.

    Raises:
      ValueError: an unknown suite.
      FileNotFoundError: the data set is missing.
    """
    check_names(suites)
    folder = workdir / "evaluation"
    results = _read_finished(folder / RESULTS_FILE, step, config)
    left, missing = load_suites([name for name in suites if "count" not in results["suites"].get(name, {})], config)
    for name, reason in missing.items():
        results["suites"][name] = {"not_available": reason}
        report_progress(f"{name}: not available: {reason}")
    if left or "routing" not in results:
        run = RestoredRun(config, *restore())
        if "routing" not in results:
            results |= _facts(config, step, run)
            np.savez_compressed(_made(folder) / EXAMPLES_FILE, **run.examples())
        for name, suite in left.items():
            results["suites"][name] = run.measure(suite)
            report_progress(f"{name}: {results['suites'][name]['count']:,} images")
            _write(folder / RESULTS_FILE, results)
    _write(folder / RESULTS_FILE, results)
    return results


def check_names(suites: Sequence[str]) -> None:
    """Raises ValueError for the name of a suite that is not registered, before anything is loaded."""
    for name in suites:
        suites_lib.SUITES[name]


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
        except suites_lib.NotAvailable as problem:
            missing[name] = str(problem)
    return loaded, missing


def _facts(config: Config, step: int, run: "RestoredRun") -> Results:
    model = config.model
    return {
        "checkpoint_step": step,
        "config_hash": config_lib.config_hash(config),
        "seed": config.seed,
        "model": {
            "parameters": models.num_parameters(run.variables["params"]),
            "router": {"score": model.router.score, "inform": list(model.router.inform_steps) or "none"},
            "experts": model.moe.num_experts,
            "experts_per_token": model.moe.num_selected_experts,
        },
        "routing": run.clean[1],
    }


class RestoredRun:
    """Predictions of one restored model; those of the clean images are made once, for all that need them."""

    def __init__(self, config: Config, predictor: Predictor, variables: dict[str, Tree]):
        """Args:
        config: of the run.
        predictor: of its model.
        variables: of one of its checkpoints.
        """
        self.variables = variables
        self._config = config
        self._predictor = predictor
        self._clean_source = sources.load(config.data, config.data.test_split)

    @functools.cached_property
    def clean(self) -> tuple[Predictions, dict[str, dict[str, Any]], Chosen]:
        """Predictions for the clean images, what the routers did, and the experts of every token."""
        return self._predictor.predict_with_routing(self.variables, self._clean_source)

    def measure(self, suite: Suite, *, before_each_set: Callable[[], None] = lambda: None) -> suites_lib.Entry:
        """The suite's entry of ``results.json``.

        Args:
          suite: loaded for the run's config.
          before_each_set: called before each set of images is predicted; what it raises ends the measurement.
        """
        predictions = {}
        for name, load in suite.sets.items():
            before_each_set()
            predictions[name] = self.predict(name, load)
        return suite.summarize(predictions)

    def predict(self, name: str, load: Callable[[], Source]) -> Predictions:
        """Predictions for the set ``name`` of a suite."""
        return self.clean[0] if name == "clean" else self._predictor.predict(self.variables, load())

    def examples(self) -> dict[str, Any]:
        """Clean images with their experts: up to half of them taken for something else, then others in order.

        Returns:
          ``image`` uint8 [n, P, P, 3], ``label`` and ``prediction`` (class names) [n], ``confidence`` [n], and
          ``experts/<block>`` [n, rows, columns], the first choice of each patch. Empty if records were skipped, since
          predictions and records are then no longer numbered alike.
        """
        predictions = self.clean[0]
        if predictions.skipped:
            return {}
        predicted = np.argmax(predictions.logits, axis=-1)
        wrong = np.flatnonzero(predicted != predictions.labels)
        right = np.flatnonzero(predicted == predictions.labels)
        number = min(_NUM_EXAMPLES, self._config.evaluation.batch_size)
        wrong = wrong[: number // 2]
        chosen = np.concatenate([wrong, right[: number - len(wrong)]])
        size = self._config.model.image_size_px
        images = np.stack([images_lib.to_square(self._clean_source.records[int(i)]["image"], size) for i in chosen])
        logits, experts = self._predictor.first_choices(self.variables, images)
        names = np.asarray(self._clean_source.class_names)
        return {
            "image": images,
            "label": names[predictions.labels[chosen]],
            "prediction": names[np.argmax(logits, axis=-1)],
            "confidence": np.max(jax.nn.softmax(logits, axis=-1), axis=-1),
            **{f"experts/{block}": maps for block, maps in experts.items()},
        }


def read_examples(workdir: pathlib.Path) -> list[dict[str, Any]]:
    """The examples of an evaluated run, one dictionary an image, as the report takes them; empty if there are none."""
    path = workdir / "evaluation" / EXAMPLES_FILE
    if not path.is_file():
        return []
    with np.load(path, allow_pickle=False) as file:
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


def _read_finished(path: pathlib.Path, step: int, config: Config) -> Results:
    """Results of an earlier call, if they are of the same checkpoint; else none."""
    if path.is_file():
        results = json.loads(path.read_text())
        if (results.get("checkpoint_step"), results.get("config_hash")) == (step, config_lib.config_hash(config)):
            return results
    return {"suites": {}}


def _write(path: pathlib.Path, results: Results) -> None:
    temporary = _made(path.parent) / f"{path.name}.tmp"
    temporary.write_text(json.dumps(results, indent=2) + "\n")
    temporary.rename(path)


def _made(folder: pathlib.Path) -> pathlib.Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def names_of(workdirs: Sequence[pathlib.Path]) -> list[str]:
    """Short names for runs: the folders' own names, or the whole paths where two are called the same.

    Raises:
      ValueError: the same folder twice.
    """
    if len({path.resolve() for path in workdirs}) != len(workdirs):
        raise checks.error("--compare", "folders of other runs", ", ".join(map(str, workdirs)))
    names = [path.resolve().name for path in workdirs]
    return names if len(set(names)) == len(names) else [str(path) for path in workdirs]
