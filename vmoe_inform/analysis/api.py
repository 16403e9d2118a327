"""Runs by their folders: a whole analysis of one, and a model at hand for looking at single images."""

import dataclasses
import pathlib
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import UInt8

from vmoe_inform import checks, text
from vmoe_inform import config as config_lib
from vmoe_inform.analysis.collect import images, shown_images, tracing
from vmoe_inform.analysis.collect.analysis import of_checkpoints
from vmoe_inform.analysis.collect.comparable import check_comparable
from vmoe_inform.analysis.collect.images import WHOLE, Images
from vmoe_inform.analysis.collect.traces import Trace
from vmoe_inform.analysis.collect.views import KEPT, UNCORRUPTED, Condition, View, Views
from vmoe_inform.analysis.results import Analysis
from vmoe_inform.axes import Int
from vmoe_inform.config import from_text
from vmoe_inform.data.images import augment
from vmoe_inform.runs import checkpoint_path
from vmoe_inform.runs import run as runs
from vmoe_inform.runs.run import Run, SavedRun
from vmoe_inform.sharding import watchdog as watchdog_lib

_LAST_TWO = "last2"
_NOTHING: Mapping[str, Any] = {}


@dataclasses.dataclass(frozen=True)
class Sample:
    """Some images of a run's test set, as its model sees them.

    Attributes:
      images: before normalisation.
      labels: the class of each.
      class_names: by class.
      condition: corruption and severity.
    """

    images: UInt8[np.ndarray, "n P P 3"]
    labels: Int[np.ndarray, " n"]
    class_names: Sequence[str]
    condition: Condition = UNCORRUPTED


def sample(run: Run, number: int = 24, suite: str = "clean") -> Sample:
    """Test images of a run, evenly over the whole set.

    Args:
      run: whose test set is shown.
      number: at most this many.
      suite: ``"clean"``, or ``"c:NAME:SEVERITY"`` for the same images under a corruption.

    Raises:
      ValueError: no such suite, or images that cannot be had.
    """
    choice = images.parse(suite)
    if choice.all_corruptions:
        raise checks.error("suite", "clean, or c:NAME:SEVERITY: one set of images", suite)
    there = Images(run.config, number)
    source, crop, condition = there.clean(), None, UNCORRUPTED
    if choice.corruption is not None and choice.severity is not None:
        condition = (choice.corruption, choice.severity)
        source, crop = there.corrupted(*condition), WHOLE
    labels = [source.records[index]["label"] for index in range(len(source.records))]
    shown = images.pixels_of(source, run.config, crop=crop)
    return Sample(shown, np.asarray(labels, np.int32), there.class_names, condition)


def trace(run: Run, shown: Sample, *, keep: Collection[str] | None = None, graphs: bool = False) -> Trace:
    """What each MoE layer of a run does to a sample; see :func:`vmoe_inform.analysis.collect.tracing.trace`, which
    takes any model and any images."""
    normalized = np.asarray(augment.normalize(jnp.asarray(shown.images), run.config.data))
    label = f"{run.name}, step {run.step:,}"
    return tracing.trace(run.model, run.variables, normalized, keep=keep, graphs=graphs, mesh=run.mesh, label=label)


def view(run: Run, shown: Sample) -> View:
    """What maps and the interactive page show of a sample."""
    return View.of(trace(run, shown, keep=KEPT, graphs=True), run=run.name, condition=shown.condition)


def load(
    workdir: str | pathlib.Path,
    step: int | None = None,
    *,
    name: str | None = None,
    here: Mapping[str, Any] = _NOTHING,
) -> Run:
    """A run's checkpoint, on all devices of this machine.

    Args:
      workdir: of the run.
      step: of the checkpoint; None: the newest.
      name: for titles; None: that of the folder.
      here: fields of the run's config that are others on this machine, as for :func:`analyze`.

    Raises:
      FileNotFoundError, ValueError: as :func:`vmoe_inform.runs.run.load`; a model without MoE layers.
    """
    saved = runs.find(workdir, step, name=name, here=here)
    tracing.check_has_routers(saved.config.model)
    return saved.load_intact()


def analyze(
    workdir: str | pathlib.Path,
    *,
    checkpoints: str | None = None,
    suite: str = "clean",
    number: int | None = None,
    against: str | pathlib.Path | None = None,
    here: Mapping[str, Any] = _NOTHING,
    watched: bool = False,
    say: Callable[[str], None] = print,
) -> tuple[Analysis, Views]:
    """What ``python -m vmoe_inform.analyze`` shows of a run, without writing it.

    Args:
      workdir: of the run.
      checkpoints: ``"last2"``, ``"STEP,STEP"`` or ``"STEP"``; None: the newest two, or the only one.
      suite: ``"clean"``, ``"c:NAME:SEVERITY"`` or ``"c"``, see :func:`vmoe_inform.analysis.collect.images.parse`.
      number: look at so many images, evenly over the test set; None: all.
      against: another run, ``FOLDER`` or ``FOLDER@STEP``.
      here: fields of the runs' configs that are others on this machine, e.g. ``{"data.directory": "/data"}``.
      watched: ends the process when no batch is finished for ``train.watchdog_seconds``; for command lines.
      say: called with a line for each piece of work that is done.

    Returns:
      the content of analysis.json, and what the interactive page shows.

    Raises:
      ValueError, FileNotFoundError: bad input; the message says field, expected and received.
    """
    choice = images.parse(suite)
    saved = runs.find(workdir, here=here)
    config = saved.config
    tracing.check_has_routers(config.model)
    *earlier, newest = _steps(saved, checkpoints)
    saved_other = None
    if against is not None:
        path = checkpoint_path.parse(str(against), flag="--against")
        saved_other = runs.find(path.folder, path.step, here=here)
        check_comparable(config, saved_other.config)
        if saved_other.name == saved.name:
            saved_other = dataclasses.replace(saved_other, name=text.printable(str(path)))
    there = Images(config, number)
    own = saved.at(newest).load()
    config_lib.check_evaluation_batch(config, own.mesh.size)
    before = saved.at(earlier[0]).load() if earlier else None
    other = other_before = None
    if saved_other is not None:
        other = saved_other.load().with_classes_in_order_of(own.class_names)
        step = _earlier_step(saved_other, like=earlier)
        other_before = None if step is None else saved_other.at(step).load()
    states = saved.routing_states() if tracing.has_adjacency(config.model) else {}
    with watchdog_lib.of_run(config.train) if watched else watchdog_lib.OFF as watchdog:
        found, readable = of_checkpoints(
            own,
            there,
            choice,
            before=before,
            other=other,
            other_before=other_before,
            adjacency_states=states,
            watchdog=watchdog,
            say=say,
        )
    shown = [own] if other is None else [own, other]
    return found, shown_images.views_of(shown, there, readable, shown_images.corruption_to_show(choice, found))


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
    """Since when the fluctuation of the run compared with is: where it is kept, since the same step as of the run."""
    kept = [step for step in saved.kept_steps if step < saved.step]
    if not like or not kept:
        return None
    return like[0] if like[0] in kept else kept[-1]
