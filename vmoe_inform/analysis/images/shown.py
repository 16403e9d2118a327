"""The routing of some images at hand by a run."""

from collections.abc import Collection

import jax.numpy as jnp
import numpy as np
from jaxtyping import UInt8

from vmoe_inform.analysis.collect.views import KEPT
from vmoe_inform.analysis.images.tracing import ImageTrace, trace
from vmoe_inform.analysis.images.views import UNCORRUPTED, Condition, View
from vmoe_inform.config import as_images
from vmoe_inform.data.images import augment
from vmoe_inform.runs.run import Run


def trace_of_run(
    run: Run, images: UInt8[np.ndarray, "n P P 3"], *, keep: Collection[str] | None = None, graphs: bool = False
) -> ImageTrace:
    """A record of each MoE layer of a run; see :func:`vmoe_inform.analysis.images.tracing.trace`.

    Args:
      run: on images.
      images: as the model sees them, before they are normalised.
      keep, graphs: as there.
    """
    normalized = np.asarray(augment.normalize(jnp.asarray(images), as_images(run.config).data))
    label = f"{run.name}, step {run.step:,}"
    return trace(run.model, run.variables, normalized, keep=keep, graphs=graphs, mesh=run.mesh, label=label)


def view_of_run(run: Run, images: UInt8[np.ndarray, "n P P 3"], condition: Condition = UNCORRUPTED) -> View:
    """A view for maps and the interactive page; of the token graphs only the largest entries are kept."""
    return View.of(trace_of_run(run, images, keep=KEPT, graphs=True), run=run.name, condition=condition)
