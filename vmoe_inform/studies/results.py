"""The result of one run of a study, as it is written to result.json."""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Annotated, Any, TypeAlias

from vmoe_inform import checks, documents, storage
from vmoe_inform.evaluation import results_version_1
from vmoe_inform.evaluation.results import Amount, LayerRouting, Missing, SuiteResult

VERSION = 3  # of the schema

Flops: TypeAlias = Annotated[float, checks.Bound(above=0.0, at_most=1e40)]


@dataclasses.dataclass(frozen=True)
class CheckpointResult:
    """Measurements of one checkpoint.

    Attributes:
      step: training steps by then.
      suites: by name.
      routing: by MoE layer.
      missing: by name, suites that could not be evaluated.
    """

    step: checks.NonNegativeInt
    suites: Mapping[str, SuiteResult]
    routing: Mapping[str, LayerRouting]
    missing: Mapping[str, Missing] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class RunResult:
    """The result of a run of a study.

    Attributes:
      router, seed: which run.
      config_hash: of the settings that decide the result.
      parameters: of the model.
      flops: of ``training_step`` and ``evaluation_batch``, on each device.
      seconds: of ``training`` and ``evaluation``.
      before, last: measured some steps before the end, by default an epoch, and at the end. The suites are evaluated
        at the end; older versions did so before it, too.
      fluctuation: by MoE layer, share of the tokens whose set of experts changed between ``before`` and ``last``.
      data: fingerprints of the images of ``train`` and ``test``; None in files of older versions.
      version: of the schema.
    """

    router: str
    seed: int
    config_hash: str
    parameters: checks.PositiveInt
    flops: Mapping[str, Flops]
    seconds: Mapping[str, Amount]
    before: CheckpointResult
    last: CheckpointResult
    fluctuation: Mapping[str, checks.Share]
    data: Mapping[str, str] | None = None
    version: int = VERSION


def _read_version_1(value: Any) -> RunResult:
    found = dict(results_version_1.object_of(value, "result"))
    for name in ("one_epoch_before", "last"):
        epoch = results_version_1.object_of(found.get(name), name)
        found[name] = {**epoch, "suites": results_version_1.suites_of(epoch.get("suites"))}
    return _read_version_2(found)


def _read_version_2(value: Any) -> RunResult:
    found = dict(results_version_1.object_of(value, "result"))
    if "one_epoch_before" in found:
        found["before"] = found.pop("one_epoch_before")
    return documents.from_json(found, RunResult)


_VERSIONS: Mapping[int, Callable[[Any], RunResult]] = {
    1: _read_version_1,
    2: _read_version_2,
    VERSION: functools.partial(documents.from_json, kind=RunResult),
}


def of_json(value: Any) -> RunResult:
    """The result in a JSON value, also one that an older version wrote. Raises ValueError: it is none."""
    version = results_version_1.object_of(value, "result").get(documents.VERSION_KEY, 1)
    if version not in _VERSIONS:
        raise checks.error("version", f"one of {', '.join(map(str, _VERSIONS))}", version)
    return _VERSIONS[version](value)


def read(path: storage.Path, *, within: storage.Path) -> RunResult:
    """The result in a file, also one that an older version wrote.

    Raises:
      FileNotFoundError: the run is not finished.
      DamagedFileError: the result is not what was written.
    """
    return documents.read(path, _VERSIONS, within=within)


def write(path: storage.Path, result: RunResult, *, within: storage.Path) -> None:
    """Writes the result, whole or not at all."""
    storage.write_json(path, documents.to_json(result, leave_out_empty=True), within=within)
