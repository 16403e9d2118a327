"""Reads what an evaluation has written, and finds out whether it is whole; report.py says what the keys mean.

Further keys are allowed everywhere: a suite may have figures of its own, and a newer version of the library more.
"""

import datetime
import pathlib
from collections.abc import Mapping
from typing import Annotated, Any, NotRequired, TypeAlias, TypedDict

import numpy as np

from vmoe_inform import checks, storage
from vmoe_inform.evaluation.headlines import headline

Figure: TypeAlias = Annotated[float, checks.Bound(at_least=-1e9, at_most=1e9)]  # whose square and sums are finite
Amount: TypeAlias = Annotated[float, checks.Bound(at_least=0.0, at_most=1e9)]


class Reliability(TypedDict):
    """Bins of the confidence."""

    confidence: list[Amount]
    accuracy: list[Amount]
    count: list[checks.NonNegativeInt]


class RiskCoverage(TypedDict):
    """Wrong answers over the share of images that get one."""

    coverage: list[checks.Share]
    risk: list[checks.Share]


# ``class`` is a word of Python's.
WorstClass = TypedDict(
    "WorstClass", {"class": str, "title": NotRequired[str], "top1": checks.Share, "count": checks.NonNegativeInt}
)


class Data(TypedDict):
    """Which images a score is of."""

    place: str
    fingerprint: str


class Entry(TypedDict, total=False):
    """A suite's figures."""

    not_available: str
    origin: str
    data: Data
    evaluated: str
    generated: bool
    count: checks.PositiveInt
    count_in_distribution: checks.NonNegativeInt
    skipped: checks.NonNegativeInt
    excluded: checks.NonNegativeInt
    classes: checks.PositiveInt
    top1: checks.Share
    top1_unmasked: checks.Share
    top5: checks.Share
    mean_top1: checks.Share
    aupr: checks.Share
    clean_top1: checks.Share
    top1_standard_error: checks.NonNegativeFloat
    top1_unmasked_standard_error: checks.NonNegativeFloat
    mean_top1_standard_error: checks.NonNegativeFloat
    aupr_standard_error: checks.NonNegativeFloat
    top1_by_shots: dict[str, checks.Share]
    nll: Figure
    ece: checks.Share
    aurc: checks.Share
    mce: Figure | None
    relative_mce: Figure | None
    epsilon: Figure
    num_steps: checks.PositiveInt
    seed: int
    per_corruption: dict[str, list[checks.Share]]
    reliability: Reliability
    risk_coverage: RiskCoverage
    worst_classes: list[WorstClass]


class Routing(TypedDict):
    """What a layer's router did."""

    entropy: Figure
    load: list[Amount]
    effective_neighbours: Figure | None
    dropped: Figure


class Router(TypedDict):
    """How a model's routers choose."""

    score: str
    inform: str | list[str]


class Model(TypedDict):
    """What was evaluated."""

    parameters: int
    router: Router
    experts: NotRequired[int]
    experts_per_token: NotRequired[int]
    num_classes: NotRequired[int]
    image_size_px: NotRequired[int]
    patch_size_px: NotRequired[int]
    num_layers: NotRequired[int]
    hidden_size: NotRequired[int]
    moe_layers: NotRequired[list[int]]


class Results(TypedDict):
    """A whole results.json."""

    checkpoint_step: checks.NonNegativeInt
    config_hash: str
    seed: NotRequired[int]
    model: Model
    data: NotRequired[dict[str, Any]]
    suites: dict[str, Entry]
    other_data: NotRequired[dict[str, list[Entry]]]
    routing: dict[str, Routing]


def read_results(path: pathlib.Path, *, within: pathlib.Path) -> dict[str, Any]:
    """The content of a results.json.

    Args:
      path: of the file.
      within: folder of the run.

    Raises:
      FileNotFoundError: there is none.
      DamagedFileError: it is not as an evaluation writes it.
      InputError, OSError: as :func:`vmoe_inform.storage.read_json`.
    """
    results = storage.read_json(path, Results, within=within)
    problem = problem_of(results)
    if problem is not None:
        raise storage.DamagedFileError(path, "the results of an evaluation", problem)
    return results


def problem_of(results: Mapping[str, Any]) -> str | None:
    """What is wrong with figures whose types are right, in words; None if nothing is.

    Args:
      results: with ``suites`` and ``routing``.
    """
    if not all(sum(routing["load"]) > 0 for routing in results["routing"].values()):
        return "no load of any expert"
    others = [(suite, entry) for suite, entries in results.get("other_data", {}).items() for entry in entries]
    for suite, entry in [*results["suites"].items(), *others]:
        curves = [
            [entry[key][axis] for axis in kind.__annotations__]
            for key, kind in (("reliability", Reliability), ("risk_coverage", RiskCoverage))
            if key in entry
        ]
        lists = [set(map(len, curve)) for curve in curves]
        lists += [{len(tops)} for tops in entry.get("per_corruption", {}).values()]
        if any(len(lengths) != 1 or 0 in lengths for lengths in lists):
            return f"curves of {suite} without points, or with more of one kind than of the other"
        if not all(shots.isdecimal() for shots in entry.get("top1_by_shots", {})):
            return f"shots of {suite} that are no numbers"
        if "evaluated" in entry and not _is_date(entry["evaluated"]):
            return f"a date of {suite} that is none"
        try:
            headline(suite, entry)
        except checks.InputError as problem:
            return str(problem)
    return None


def _is_date(text: str) -> bool:
    try:
        return datetime.datetime.fromisoformat(text).utcoffset() is not None
    except ValueError:
        return False


def read_examples(path: pathlib.Path, *, within: pathlib.Path) -> list[dict[str, Any]]:
    """The examples of an evaluated run, one dictionary an image, as the report takes them.

    Raises:
      FileNotFoundError, DamagedFileError, InputError, OSError: as :func:`read_results`.
    """
    arrays = storage.read_arrays(path, within=within)
    kinds = {"image": ("u", (3, 4)), "label": ("U", (1,)), "prediction": ("U", (1,)), "confidence": ("f", (1,))}
    blocks = [name for name in arrays if name.startswith("experts/")]
    for name, (kind, dimensions) in {**kinds, **dict.fromkeys(blocks, ("iu", (3,)))}.items():
        array = arrays.get(name, np.asarray(None))
        if array.dtype.kind not in kind or array.ndim not in dimensions or len(array) != len(arrays["image"]):
            received = f"{name} of {array.dtype} and shape {list(array.shape)}" if name in arrays else f"no {name}"
            raise storage.DamagedFileError(path, "the examples of an evaluation", received)
    return [
        {
            "image": arrays["image"][n],
            "label": str(arrays["label"][n]),
            "prediction": str(arrays["prediction"][n]),
            "confidence": float(arrays["confidence"][n]),
            "experts": {name.removeprefix("experts/"): arrays[name][n] for name in blocks},
        }
        for n in range(len(arrays["image"]))
    ]
