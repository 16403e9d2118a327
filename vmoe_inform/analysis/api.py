"""Runs by their folders: a whole analysis of one, and a model at hand for looking at single images."""

import dataclasses
import pathlib
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import UInt8

from vmoe_inform import checks, text
from vmoe_inform import config as config_lib
from vmoe_inform.analysis.collect import analysis, images, shown_images, tracing
from vmoe_inform.analysis.collect.images import WHOLE, Images
from vmoe_inform.analysis.collect.observing import Subject
from vmoe_inform.analysis.collect.tables import Table
from vmoe_inform.analysis.collect.traces import Trace
from vmoe_inform.analysis.collect.views import CLEAN, KEPT, Condition, View, Views
from vmoe_inform.axes import Int, Tree
from vmoe_inform.config import Config, from_text
from vmoe_inform.data.images import augment
from vmoe_inform.nn.vit import VisionTransformer
from vmoe_inform.runs import heads, restore
from vmoe_inform.runs import place as place_lib
from vmoe_inform.runs.folder import read_config
from vmoe_inform.sharding import processes
from vmoe_inform.sharding.watchdog import Watchdog

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
    condition: Condition = CLEAN


@dataclasses.dataclass(frozen=True)
class Run:
    """A trained model and the run it is from.

    Attributes:
      name: for titles.
      config: of the run.
      step: optimizer steps that the model was trained for.
      model: the Flax module.
      variables: what ``model.apply`` takes.
      mesh: that the variables lie on.
    """

    name: str
    config: Config
    step: int
    model: VisionTransformer
    variables: dict[str, Tree]
    mesh: Mesh

    def sample(self, number: int = 24, suite: str = "clean") -> Sample:
        """Test images, evenly over the whole set.

        Args:
          number: at most so many.
          suite: ``"clean"``, or ``"c:NAME:SEVERITY"`` for the same images under a corruption.

        Raises:
          ValueError: no such suite, or images that cannot be had.
        """
        choice = images.parse(suite)
        if choice.all_corruptions:
            raise checks.error("suite", "clean, or c:NAME:SEVERITY: one set of images", suite)
        there = Images(self.config, number)
        source, crop, condition = there.clean(), None, CLEAN
        if choice.corruption is not None and choice.severity is not None:
            condition = (choice.corruption, choice.severity)
            source, crop = there.corrupted(*condition), WHOLE
        labels = [source.records[place]["label"] for place in range(len(source.records))]
        shown = images.pixels_of(source, self.config, crop=crop)
        return Sample(shown, np.asarray(labels, np.int32), there.class_names, condition)

    def trace(self, sample: Sample, *, keep: Collection[str] | None = None, graphs: bool = False) -> Trace:
        """What each MoE layer does to the images; see :func:`vmoe_inform.analysis.collect.tracing.trace`."""
        normalized = np.asarray(augment.normalize(jnp.asarray(sample.images), self.config.data))
        return tracing.trace(self.model, self.variables, normalized, keep=keep, graphs=graphs, mesh=self.mesh)

    def view(self, sample: Sample) -> View:
        """What maps and the interactive page show of these images."""
        return View.of(self.trace(sample, keep=KEPT, graphs=True), run=self.name, condition=sample.condition)


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
      FileNotFoundError, ValueError: as :func:`vmoe_inform.runs.restore.restore`; a model without MoE layers.
    """
    workdir = checks.local_path("workdir", workdir)
    config = config_lib.override(read_config(workdir), here)
    tracing.check_has_routers(config.model)
    restored = restore.restore(workdir, step)
    name = name or place_lib.name_of(workdir)
    return Run(name, config, restored.step, restored.model, restored.variables, restored.mesh)


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
) -> tuple[Table, Views]:
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
      the content of analysis.json (:mod:`vmoe_inform.analysis.document`), and what the interactive page shows.

    Raises:
      ValueError, FileNotFoundError: bad input; the message says field, expected and received.
    """
    workdir = checks.local_path("workdir", workdir)
    choice = images.parse(suite)
    config = config_lib.override(read_config(workdir), here)
    tracing.check_has_routers(config.model)
    steps = _steps(restore.kept_steps(workdir), workdir, checkpoints)
    place = None if against is None else place_lib.parse(str(against), flag="--against")
    if place is not None:
        other_config = config_lib.override(read_config(place.workdir), here)
        analysis.check_comparable(config, other_config)
        other_step = restore.find_step(place.workdir, place.step)
    there = Images(config, number)
    own = _subject(workdir, place_lib.name_of(workdir), config, steps)
    other = None
    if place is not None:
        name = place_lib.name_of(place.workdir)
        name = name if name != own.name else text.printable(str(place))
        other = in_order_of(own, _subject(place.workdir, name, other_config, [other_step]))
    states = restore.routing_states(workdir) if tracing.has_adjacency(config.model) else {}
    seconds = config.train.watchdog_seconds if watched else None
    with Watchdog(seconds, config.train.watchdog_start_seconds, processes.place()) as watch:
        found, readable = analysis.collect(
            own, there, choice, other=other, adjacency_states=states, watch=watch, say=say
        )
    subjects = [own] if other is None else [own, other]
    return found, shown_images.views_of(subjects, there, readable, shown_images.corruption_to_show(choice, found))


def _steps(kept: list[int], workdir: pathlib.Path, wanted: str | None) -> list[int]:
    """One or two of the steps that are kept, ascending."""
    if wanted is None:
        return kept[-2:]
    if wanted == _LAST_TWO:
        if len(kept) < 2:
            raise FileNotFoundError(f"--checkpoints=last2: expected two checkpoints in {workdir}; received step {kept}")
        return kept[-2:]
    texts = wanted.split(",")
    if len(texts) > 2 or not all(step.isdecimal() for step in texts) or len(set(texts)) != len(texts):
        raise checks.error("--checkpoints", "last2, STEP, or STEP,STEP of two different steps", wanted)
    steps = sorted(from_text.value("--checkpoints", text, checks.NonNegativeInt) for text in texts)
    for step in steps:
        if step not in kept:
            there = ", ".join(map(str, kept))
            raise FileNotFoundError(f"--checkpoints: expected steps among {there} in {workdir}; received {step}")
    return steps


def in_order_of(own: Subject, other: Subject) -> Subject:
    """Another run whose labels and logits are in the order of this run's classes, if it is known for both."""
    names, theirs = own.config.data.class_names, other.config.data.class_names
    if not names or not theirs:
        return other
    config = dataclasses.replace(other.config, data=dataclasses.replace(other.config.data, class_names=names))
    variables = {
        step: {**of_step, "params": heads.in_order(of_step["params"], theirs, names)}
        for step, of_step in other.variables.items()
    }
    return dataclasses.replace(other, config=config, variables=variables)


def _subject(workdir: pathlib.Path, name: str, config: Config, steps: list[int]) -> Subject:
    restored = {step: restore.restore(workdir, step) for step in steps}
    mesh = restored[steps[-1]].mesh
    config_lib.check_evaluation_batch(config, mesh.size)
    return Subject(name, config, mesh, {step: of_step.variables for step, of_step in restored.items()})
