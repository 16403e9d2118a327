"""Inputs of an analysis: checkpoints and records, found and checked first, then loaded."""

import dataclasses
import os
from collections.abc import Mapping, Sequence
from typing import Any

from vmoe_inform import checks, storage, text
from vmoe_inform import config as config_lib
from vmoe_inform.analysis.collect import adjacencies as adjacencies_lib
from vmoe_inform.analysis.collect.comparable import check_comparable, check_has_routers
from vmoe_inform.analysis.data import AnalysedData, kind_of
from vmoe_inform.analysis.images import data as _images  # noqa: F401  (it registers its records)
from vmoe_inform.analysis.layer_results import Adjacency
from vmoe_inform.analysis.text import data as _text  # noqa: F401  (it registers its records)
from vmoe_inform.config import from_text
from vmoe_inform.runs import checkpoint_path, run
from vmoe_inform.runs.run import Run, SavedRun

_LAST_TWO = "last2"
_AS_RECORDED: Mapping[str, Any] = {}
_NONE: Mapping[str, Adjacency] = {}


@dataclasses.dataclass(frozen=True)
class AnalysedRuns:
    """The checkpoints that an analysis looks at.

    Attributes:
      own: the run.
      before: an earlier checkpoint of the run, since which its routing has changed; or None.
      other: a run to compare it with; or None.
      other_before: an earlier checkpoint of that; or None.
      adjacencies: of the run's layers, by block; empty where no step multiplies with a matrix of experts.
    """

    own: Run
    before: Run | None = None
    other: Run | None = None
    other_before: Run | None = None
    adjacencies: Mapping[str, Adjacency] = dataclasses.field(default_factory=lambda: _NONE)


def load_inputs(
    workdir: str | os.PathLike[str],
    *,
    checkpoints: str | None = None,
    against: str | os.PathLike[str] | None = None,
    suite: str = "clean",
    number: int | None = None,
    here: Mapping[str, Any] = _AS_RECORDED,
) -> tuple[AnalysedRuns, AnalysedData[Any]]:
    """What ``python -m vmoe_inform.analyze`` looks at.

    Args:
      workdir: of the run.
      checkpoints: ``"last2"``, ``"STEP,STEP"`` or ``"STEP"``; None: the newest two, or the only one.
      against: another run, ``FOLDER`` or ``FOLDER@STEP``.
      suite: ``"clean"``; of images also ``"c:NAME:SEVERITY"`` or ``"c"``, see
        :func:`vmoe_inform.analysis.images.choice.parse`.
      number: of images or labelled texts at most, in whole groups evenly over the test set; None: all. Of a language
        model's test text it is the number of tokens, the first ones.
      here: fields of the runs' configs that differ on this machine, e.g. ``{"data.directory": "/data"}``.

    Raises:
      ValueError, FileNotFoundError: bad input, missing data included; the message says field, expected and received.
    """
    saved = run.find(workdir, here=here)
    check_has_routers(saved.config.model)
    *earlier, newest = _steps(saved, checkpoints)
    kind = kind_of(saved.config.task)
    saved_other = None if against is None else _find_other(saved.at(newest), os.fspath(against), kind, here)
    data = kind.of_run(saved.config, suite, number)
    saved.warn_of_unnamed_classes()

    own = saved.at(newest).load()
    config_lib.check_evaluation_batch(own.config, own.mesh.size)
    before = saved.at(earlier[0]).load() if earlier else None
    adjacencies = adjacencies_lib.of_run(saved.at(newest))
    if saved_other is None:
        return AnalysedRuns(own, before, adjacencies=adjacencies), data
    other = saved_other.load().with_classes_in_order_of(own.class_names)
    step = _earlier_step(saved_other, like=earlier)
    other_before = None if step is None else saved_other.at(step).load()
    return AnalysedRuns(own, before, other, other_before, adjacencies), data


def _find_other(saved: SavedRun, against: str, kind: type[AnalysedData[Any]], here: Mapping[str, Any]) -> SavedRun:
    """The run to compare with, called by its path if both are called the same."""
    path = checkpoint_path.parse(against, flag="--against")
    other = run.find(path.folder, path.step, here=here, field="--against")
    if other.step == saved.step and storage.resolved(other.folder) == storage.resolved(saved.folder):
        raise checks.error(
            "--against", f"another run or checkpoint than step {saved.step:,} of {saved.folder}", against
        )
    check_comparable(saved.config, other.config, kind.compared_fields)
    return dataclasses.replace(other, name=text.printable(str(path))) if other.name == saved.name else other


def _steps(saved: SavedRun, wanted: str | None) -> tuple[int, ...]:
    """One or two of the steps that are kept, ascending."""
    kept = saved.kept_steps
    if wanted is None:
        return kept[-2:]
    if wanted == _LAST_TWO:
        if len(kept) < 2:
            raise FileNotFoundError(
                f"--checkpoints=last2: expected two checkpoints in {saved.folder}; received step {[*kept]}"
            )
        return kept[-2:]
    texts = wanted.split(",")
    if len(texts) > 2 or not all(step.isdecimal() for step in texts) or len(set(texts)) != len(texts):
        raise checks.error("--checkpoints", "last2, STEP, or STEP,STEP of two different steps", wanted)
    steps = sorted(from_text.value("--checkpoints", text, checks.NonNegativeInt) for text in texts)
    for step in steps:
        if step not in kept:
            there = ", ".join(map(str, kept))
            raise FileNotFoundError(f"--checkpoints: expected steps among {there} in {saved.folder}; received {step}")
    return tuple(steps)


def _earlier_step(saved: SavedRun, *, like: Sequence[int]) -> int | None:
    """The earlier step for the fluctuation of the run compared with: the run's own earlier step, if it is kept."""
    kept = [step for step in saved.kept_steps if step < saved.step]
    if not like or not kept:
        return None
    return like[0] if like[0] in kept else kept[-1]
