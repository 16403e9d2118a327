"""Kept scores of each unit of work, one set of a suite, so that a stopped evaluation resumes."""

import dataclasses
import functools
import json
from collections.abc import Iterable, Mapping
from pathlib import PurePosixPath
from typing import Any

import numpy as np

from vmoe_inform import storage
from vmoe_inform.evaluation import cache, fingerprints
from vmoe_inform.evaluation.metric_registry import FIRST_SCORES
from vmoe_inform.evaluation.suites.base import TEST_SET, Answers, Records, RecordSet, Scores, Suite

_FORMAT = 2  # to be counted up when what is no registered score comes to mean something else
_KEY = "key"
_VERSIONS = "score_versions"


@dataclasses.dataclass(frozen=True)
class Unit:
    """One set of a suite.

    Attributes:
      suite, name: of the suite and of the set.
      record_set: the set.
      source: its records.
      score_versions: of the registered scores among those that the suite makes.
    """

    suite: str
    name: str
    record_set: RecordSet
    source: Records
    score_versions: Mapping[str, int] = dataclasses.field(default_factory=dict)

    @classmethod
    def of(cls, suite: Suite, name: str) -> "Unit":
        """The set ``name`` of a suite. Raises NotAvailable, ValueError or FileNotFoundError if it cannot be found."""
        record_set = suite.sets[name]
        return cls(suite.name, name, record_set, record_set.load(), suite.score_versions)

    @classmethod
    def all_of(cls, suite: Suite) -> list["Unit"]:
        """All sets of a suite; errors as :meth:`of`."""
        return [cls.of(suite, name) for name in suite.sets]

    @functools.cached_property
    def fingerprint(self) -> str:
        """Of its records."""
        return fingerprints.fingerprint(self.source)

    @property
    def path(self) -> storage.Path:
        """Where it is kept in a folder of units."""
        return PurePosixPath(self.suite) / f"{self.name}.npz"


@dataclasses.dataclass(frozen=True)
class Units:
    """Scores that are kept in ``folder``, of one checkpoint of one run.

    A file that is damaged, or of another checkpoint, other records or other settings, counts as none. So does one of a
    set with unreadable records, which may be mended by now.

    Attributes:
      folder: of the units.
      checkpoint_step, config_hash: what the scores are of.
      within: folder of the run, below which nothing is read or written through a link.
    """

    folder: storage.Path
    checkpoint_step: int
    config_hash: str
    within: storage.Path | None = None

    def read(self, unit: Unit) -> Scores | None:
        """The scores of a unit, or None if there are none that can be used."""
        scores, changed = self.read_current(unit)
        return None if changed else scores

    def read_current(self, unit: Unit) -> tuple[Scores | None, set[str]]:
        """The kept scores that would be the same now, and the names of the registered ones that are not among them.

        None where no score can be used.
        """
        scores, changed = self._read(unit)
        skipped = np.asarray("") if scores is None else scores.get("skipped", np.asarray(""))
        is_whole = skipped.dtype.kind in "iu" and skipped.shape == () and skipped == 0
        return (scores, changed) if is_whole else (None, set())

    def read_all(self, units: Iterable[Unit]) -> dict[str, Scores] | None:
        """The scores of units by name, also where records were unreadable; None unless all are kept as they are now."""
        found = {}
        for unit in units:
            scores, changed = self._read(unit)
            if scores is None or changed:
                return None
            found[unit.name] = scores
        return found

    def _read(self, unit: Unit) -> tuple[Scores | None, set[str]]:
        arrays = cache.read(self.folder / unit.path, within=self.within)
        if arrays is None or str(arrays.pop(_KEY, "")) != self._key(unit):
            return None, set()
        kept = _versions(str(arrays.pop(_VERSIONS, "")))
        changed = {name for name, version in unit.score_versions.items() if kept.get(name) != version}
        return {name: values for name, values in arrays.items() if name not in changed}, changed

    def write(self, unit: Unit, scores: Scores) -> None:
        """Keeps the scores of a unit, whole or not at all."""
        facts = {_KEY: np.asarray(self._key(unit)), _VERSIONS: np.asarray(json.dumps(dict(unit.score_versions)))}
        cache.write(
            self.folder / unit.path,
            scores | facts,
            within=self.within,
        )

    def _key(self, unit: Unit) -> str:
        """Everything that decides the scores, as JSON."""
        decisive: Mapping[str, Any] = {
            "format": _FORMAT,
            "checkpoint_step": self.checkpoint_step,
            "config_hash": self.config_hash,
            "suite": unit.suite,
            "set": unit.name,
            "origin": unit.source.origin,
            "count": fingerprints.count_of(unit.source),
            "data": unit.fingerprint,
            "settings": dict(unit.record_set.settings),
        }
        return json.dumps(decisive, sort_keys=True)


def _versions(written: str) -> Mapping[str, Any]:
    """Versions of the scores in a file; files of older versions have the first ones."""
    try:
        kept = json.loads(written) if written else FIRST_SCORES
    except ValueError:
        return {}
    return kept if isinstance(kept, Mapping) else {}


@dataclasses.dataclass(frozen=True)
class PredictionFiles:
    """Predictions for others' tools, one npz file a set, in ``folder``: nothing in it needs pickle.

    Of classifiers ``logits`` float32 [n, classes] and ``labels`` [n]; of language models ``nats`` float32, ``targets``
    and ``mask``, [n, N] each. What the records are: of images ``names`` [n] and ``class_names`` of the labels. Of all
    ``checkpoint_step``, ``config_hash`` and ``data_fingerprint``. ``allow_future`` is there, and True, where routers
    may look at later tokens. The clean records are in clean/clean.npz, whatever suite asks for them.
    """

    folder: storage.Path
    checkpoint_step: int
    config_hash: str
    allow_future: bool = False

    def has(self, unit: Unit) -> bool:
        """Whether the set's file is there, whole, of this checkpoint and of these records."""
        arrays = cache.read(self._path(unit), within=self.folder)
        return arrays is not None and all(
            np.array_equal(arrays.get(name, ""), value) for name, value in self._facts(unit).items()
        )

    def write(self, unit: Unit, answers: Answers) -> None:
        """Writes the set's file, whole or not at all."""
        arrays = {
            **answers.arrays,
            **fingerprints.named(unit.source, answers.indices),
            **self._facts(unit),
        }
        cache.write(self._path(unit), arrays, within=self.folder)

    def _path(self, unit: Unit) -> storage.Path:
        return self.folder / (TEST_SET if unit.name == TEST_SET else unit.suite) / f"{unit.name}.npz"

    def _facts(self, unit: Unit) -> dict[str, np.ndarray]:
        facts = {
            "checkpoint_step": self.checkpoint_step,
            "config_hash": self.config_hash,
            "data_fingerprint": unit.fingerprint,
            **({"allow_future": True} if self.allow_future else {}),
        }
        return {name: np.asarray(value) for name, value in facts.items()}
