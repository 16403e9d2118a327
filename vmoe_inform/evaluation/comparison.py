"""Two routers of one trained model, compared record by record: the type of comparison.json, and how it is made."""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from vmoe_inform import checks, documents, storage
from vmoe_inform.evaluation import paired
from vmoe_inform.evaluation.paired import Difference
from vmoe_inform.evaluation.results import SHARE, Data
from vmoe_inform.evaluation.suites.base import Scores, Suite
from vmoe_inform.evaluation.units import Unit

VERSION = 1  # of the schema


@dataclasses.dataclass(frozen=True)
class SuiteComparison:
    """What changes in a suite.

    Attributes:
      data: the records.
      metrics: by name, the headline first.
    """

    data: Data
    metrics: Mapping[str, Difference]


@dataclasses.dataclass(frozen=True)
class Comparison:
    """Other routers compared with those that a run was trained with.

    Attributes:
      checkpoint_step: training steps of the model.
      config_hash: of the run as it was trained.
      settings: of the other routers, by field, as JSON values.
      suites: by name.
      version: of the schema.
    """

    checkpoint_step: checks.NonNegativeInt
    config_hash: str
    settings: Mapping[str, Any]
    suites: Mapping[str, SuiteComparison]
    version: int = VERSION


_VERSIONS: Mapping[int, Callable[[Any], Comparison]] = {
    VERSION: functools.partial(documents.from_json, kind=Comparison),
}


def read(path: storage.Path, *, within: storage.Path) -> Comparison:
    """The content of a comparison.json.

    Raises:
      FileNotFoundError, DamagedFileError, InputError, OSError: as :func:`vmoe_inform.documents.read`.
    """
    return documents.read(path, _VERSIONS, within=within)


def write(path: storage.Path, comparison: Comparison, *, within: storage.Path) -> None:
    """Writes a comparison.json, whole or not at all."""
    storage.write_json(path, documents.to_json(comparison, leave_out_empty=True), within=within)


def differences(
    suite: Suite, units: Sequence[Unit], before: Mapping[str, Scores], after: Mapping[str, Scores]
) -> dict[str, Difference]:
    """How the metrics of a suite differ between two models: the headline, and those to which each record adds.

    Args:
      suite: loaded for the run's config.
      units: all its sets.
      before: scores of all sets, of the first model.
      after: the same of the second model.

    Raises:
      NotAvailable, InputError: a metric cannot be made of the records, or there are too few.
    """
    contributions = [suite.contributions_of(scores) for scores in (before, after)]
    found = {
        name: paired.difference(own, contributions[1][name])
        for name, own in contributions[0].items()
        if name in contributions[1]
    }
    if suite.headline in found:
        return {suite.headline: found.pop(suite.headline), **found}

    def headline(scores: Mapping[str, Scores]) -> float:
        return suite.result(scores).metrics[suite.headline]

    groups: dict[str, list[str]] = {}  # sets of the same records
    for unit in units:
        groups.setdefault(unit.fingerprint, []).append(unit.name)
    scale = suite.scale or SHARE
    return {
        suite.headline: paired.bootstrap(before, after, headline, groups=list(groups.values()), scale=scale),
        **found,
    }
