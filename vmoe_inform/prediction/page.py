"""The interactive page of routing for image files: where the patches of one's own images go."""

from collections.abc import Sequence

import numpy as np

from vmoe_inform import config as config_lib
from vmoe_inform.analysis.collect.comparable import check_has_routers
from vmoe_inform.analysis.images.shown import view_of_run
from vmoe_inform.analysis.images.views import UNCORRUPTED, Views
from vmoe_inform.analysis.page.render import routing_page
from vmoe_inform.data.images.framing import Framing
from vmoe_inform.data.images.pixels import to_square
from vmoe_inform.prediction.files import ImageFiles
from vmoe_inform.prediction.predict import class_names_of
from vmoe_inform.runs.run import Run

MOST_IMAGES = 24  # on a page


def check_routed(config: config_lib.Config) -> None:
    """Raises ValueError for a run whose model has no routers to look at."""
    check_has_routers(config.model)


def page_of_files(run: Run, files: ImageFiles, readable: Sequence[int]) -> str:
    """The page as HTML, with at most 24 of the files, evenly over all.

    Where the images of a group share the experts' slots, those on the page form groups of their own.

    Args:
      run: with MoE layers.
      files: named by the user.
      readable: numbers of the files that can be read; at least one.
    """
    config = config_lib.as_images(run.config)
    chosen = evenly(readable, MOST_IMAGES)
    size, framing = config.model.image_size_px, Framing.of(config.data)
    pixels = np.stack([to_square(files[position]["image"], size, framing) for position in chosen])
    views = Views(
        images={UNCORRUPTED: pixels},
        labels=[],
        class_names=class_names_of(run.config),
        views=[view_of_run(run, pixels)],
        names=[files.name(position) for position in chosen],
    )
    return routing_page(views)


def evenly(numbers: Sequence[int], most: int) -> list[int]:
    """At most this many of some numbers, evenly over all."""
    count = min(most, len(numbers))
    return [numbers[place * len(numbers) // count] for place in range(count)]
