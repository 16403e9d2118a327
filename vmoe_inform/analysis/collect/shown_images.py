"""Images for the interactive page, clean and under corruptions, with the routing of each run."""

from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np
from jaxtyping import UInt8

from vmoe_inform.analysis.collect.images import Choice, Images, selected
from vmoe_inform.analysis.collect.tracing import trace
from vmoe_inform.analysis.collect.views import KEPT, UNCORRUPTED, Condition, View, Views
from vmoe_inform.analysis.results import Analysis
from vmoe_inform.axes import Bool
from vmoe_inform.config import as_images
from vmoe_inform.data.images import augment
from vmoe_inform.data.images.published import SEVERITIES
from vmoe_inform.runs.run import Run

NUM_IMAGES = 24


def views_of(runs: Sequence[Run], images: Images, readable: Bool[np.ndarray, " n"], corruption: str | None) -> Views:
    """Traces up to 24 readable images, evenly over all; of the token graphs only the largest entries are kept.

    Args:
      runs: the first is the one that the page is about.
      images: that were looked at.
      readable: which of them could be read.
      corruption: shown with the clean images, in all severities; None: only the clean ones.
    """
    there = np.flatnonzero(readable)
    number = min(NUM_IMAGES, len(there))
    chosen = there[np.arange(number) * len(there) // number].tolist()
    clean = selected(images.clean(), chosen)
    shown: dict[Condition, np.ndarray] = {UNCORRUPTED: images.pixels(clean)}
    if corruption is not None:
        for severity in SEVERITIES:
            source = selected(images.corrupted(corruption, severity), chosen)
            shown[corruption, severity] = images.pixels(source)
    views = [_view(run, condition, pixels) for run in runs for condition, pixels in shown.items()]
    labels = [int(clean.records[index]["label"]) for index in range(number)]
    return Views(shown, labels, images.class_names, views)


def corruption_to_show(choice: Choice, found: Analysis) -> str | None:
    """The one that was chosen; of all, the one that costs most accuracy; else none."""
    if found.corruptions is None:
        return choice.corruption
    mean = np.mean(found.corruptions.top1, axis=1)
    return found.corruptions.names[int(np.argmin(mean))]


def _view(run: Run, condition: Condition, pixels: UInt8[np.ndarray, "n P P 3"]) -> View:
    found = trace(
        run.model,
        run.variables,
        np.asarray(augment.normalize(jnp.asarray(pixels), as_images(run.config).data)),
        keep=KEPT,
        graphs=True,
        mesh=run.mesh,
        label=f"{run.name}, step {run.step:,}",
    )
    return View.of(found, run=run.name, condition=condition)
