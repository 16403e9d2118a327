"""Samples of a run's test images, and tables of what was traced, for notebooks."""

import dataclasses
from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
from jaxtyping import UInt8

from vmoe_inform import checks
from vmoe_inform.analysis.api import run_facts
from vmoe_inform.analysis.collect import layers
from vmoe_inform.analysis.images.choice import parse
from vmoe_inform.analysis.images.data import Images
from vmoe_inform.analysis.images.shown import trace_of_run, view_of_run
from vmoe_inform.analysis.images.tracing import ImageTrace
from vmoe_inform.analysis.images.views import UNCORRUPTED, Condition, View
from vmoe_inform.analysis.results import Analysis
from vmoe_inform.axes import Int
from vmoe_inform.nn.models import Model
from vmoe_inform.runs.run import Run


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
    source = there.source()
    condition = (choice.corruption, choice.severity) if choice.corruption and choice.severity else UNCORRUPTED
    labels = [source.records[index]["label"] for index in range(len(source.records))]
    return Sample(there.pixels(source), np.asarray(labels, np.int32), there.class_names, condition)


def trace(run: Run, shown: Sample, *, keep: Collection[str] | None = None, graphs: bool = False) -> ImageTrace:
    """A record of each MoE layer of a run for a sample; :func:`vmoe_inform.analysis.images.tracing.trace` takes any
    images."""
    return trace_of_run(run, shown.images, keep=keep, graphs=graphs)


def view(run: Run, shown: Sample) -> View:
    """Views of a sample for maps and the interactive page."""
    return view_of_run(run, shown.images, shown.condition)


def of_trace(
    model: Model,
    trace: ImageTrace,
    labels: Int[Any, " n"],
    class_names: Sequence[str],
    *,
    name: str,
    step: int = 0,
    suite: str = "clean",
) -> Analysis:
    """The analysis of a trace, for the figures of notebooks.

    Args:
      model: that was traced.
      trace: with all fields; with graphs, if these are to be shown.
      labels: of the images.
      class_names: of the labels.
      name: of the run, for titles.
      step: of the checkpoint.
      suite: what the images are.

    Raises:
      ValueError: as :func:`vmoe_inform.analysis.collect.layers.of_trace`.
    """
    of_layers = layers.of_trace(trace, labels, num_classes=len(class_names))
    hits = trace.logits.argmax(-1) == labels
    run = run_facts(
        model.config,
        name=name,
        step=step,
        suite=suite,
        unit=Images.unit,
        count=len(hits),
        metric="top1",
        score=float(hits.mean()),
    )
    return Analysis(run, of_layers, tuple(class_names))
