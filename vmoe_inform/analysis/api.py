"""A whole analysis of runs, and samples for looking at single images."""

import dataclasses
from collections.abc import Callable, Collection, Sequence

import jax.numpy as jnp
import numpy as np
from jaxtyping import UInt8

from vmoe_inform import checks
from vmoe_inform.analysis.collect import shown_images, tracing
from vmoe_inform.analysis.collect.analysis import of_checkpoints
from vmoe_inform.analysis.collect.images import Images, parse
from vmoe_inform.analysis.collect.traces import Trace
from vmoe_inform.analysis.collect.views import KEPT, UNCORRUPTED, Condition, View, Views
from vmoe_inform.analysis.inputs import AnalysedRuns
from vmoe_inform.analysis.results import Analysis
from vmoe_inform.axes import Int
from vmoe_inform.config import as_images
from vmoe_inform.data.images import augment
from vmoe_inform.runs.run import Run
from vmoe_inform.sharding import watchdog as watchdog_lib
from vmoe_inform.sharding.watchdog import Watchdog


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

    Traced, they form groups of their own. Where tokens find no free slot or experts choose, their routing may differ
    from that in the whole set.

    Args:
      run: whose test set is shown.
      number: at most this many.
      suite: ``"clean"``, or ``"c:NAME:SEVERITY"`` for the same images under a corruption.

    Raises:
      ValueError: no such suite, or images that cannot be had.
    """
    choice = parse(suite)
    if choice.all_corruptions:
        raise checks.error("suite", "clean, or c:NAME:SEVERITY: one set of images", suite)
    there = Images(run.config, number, choice)
    source = there.chosen()
    condition = (choice.corruption, choice.severity) if choice.corruption and choice.severity else UNCORRUPTED
    labels = [source.records[index]["label"] for index in range(len(source.records))]
    return Sample(there.pixels(source), np.asarray(labels, np.int32), there.class_names, condition)


def trace(run: Run, shown: Sample, *, keep: Collection[str] | None = None, graphs: bool = False) -> Trace:
    """A record of each MoE layer of a run for a sample; see :func:`vmoe_inform.analysis.collect.tracing.trace`, which
    takes any model and any images."""
    normalized = np.asarray(augment.normalize(jnp.asarray(shown.images), as_images(run.config).data))
    label = f"{run.name}, step {run.step:,}"
    return tracing.trace(run.model, run.variables, normalized, keep=keep, graphs=graphs, mesh=run.mesh, label=label)


def view(run: Run, shown: Sample) -> View:
    """Views of a sample for maps and the interactive page."""
    return View.of(trace(run, shown, keep=KEPT, graphs=True), run=run.name, condition=shown.condition)


def analyze(
    runs: AnalysedRuns,
    images: Images,
    *,
    watchdog: Watchdog = watchdog_lib.OFF,
    say: Callable[[str], None] = print,
) -> tuple[Analysis, Views]:
    """The analysis of a run that ``python -m vmoe_inform.analyze`` writes, without writing it.

    Args:
      runs: checkpoints, from :func:`vmoe_inform.analysis.inputs.load_inputs`.
      images: from the same.
      watchdog: is told of every batch.
      say: called with a line for each piece of work that is done.

    Returns:
      the content of analysis.json, and what the interactive page shows.

    Raises:
      ValueError, FileNotFoundError: bad input; the message says field, expected and received.
    """
    found, readable = of_checkpoints(runs, images, watchdog=watchdog, say=say)
    shown = [run for run in (runs.own, runs.other) if run is not None]
    corruption = shown_images.corruption_to_show(images.choice, found)
    return found, shown_images.views_of(shown, images, readable, corruption)
