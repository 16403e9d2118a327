"""An image with its patches in the colours of their experts.

Below the colours the image is grey and nowhere dark. Mixed with its own colours or with black, the experts' colours
could not be told apart.
"""

import numpy as np
from jaxtyping import UInt8
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb

from vmoe_inform.axes import Int
from vmoe_inform.report.styles import GREY, MOST_NUMBERED_ROWS, expert_colors

_GREYS = (90.0, 0.6)  # the darkest shade of a grey image, and its contrast


def show_image(axes: Axes, image: UInt8[np.ndarray, "P P *channels"], *, grey: bool = False) -> None:
    """Draws the image without ticks, a pixel a unit."""
    height, width = image.shape[:2]
    darkest, contrast = _GREYS
    intensity = image if image.ndim == 2 else image.mean(-1)
    shown = darkest + contrast * intensity if grey else image
    axes.imshow(shown, cmap="gray", vmin=0, vmax=255, extent=(0, width, height, 0))
    axes.set(xticks=[], yticks=[])


def paint_experts(
    axes: Axes,
    image: UInt8[np.ndarray, "P P *channels"],
    experts: Int[np.ndarray, "rows columns"],
    num_experts: int,
    *,
    numbered: bool = True,
) -> None:
    """Draws the image in grey, and over it each patch in the colour of its expert.

    Args:
      axes: to draw on.
      image: as it is to be shown.
      experts: of the patches; E for one that no expert takes.
      num_experts: E, which fixes the colours.
      numbered: writes the experts' numbers on the patches, where they are large enough.
    """
    show_image(axes, image, grey=True)
    colors = np.asarray([*expert_colors(num_experts), to_rgb(GREY)])
    axes.imshow(colors[experts], alpha=0.6, extent=axes.images[0].get_extent(), interpolation="nearest")
    if not numbered or len(experts) > MOST_NUMBERED_ROWS:
        return
    for patch, expert in np.ndenumerate(experts):
        axes.text(
            *middle_of(patch, experts.shape, image.shape),
            str(expert) if expert < num_experts else "–",
            ha="center",
            va="center",
            fontsize=7.5,
            bbox={"boxstyle": "round,pad=0.1", "facecolor": "white", "edgecolor": "none", "alpha": 0.7},
        )


def middle_of(patch: tuple[int, ...], grid: tuple[int, ...], shape: tuple[int, ...]) -> tuple[float, float]:
    """x and y in pixels of the middle of a patch.

    Args:
      patch: its row and column.
      grid: rows and columns of patches.
      shape: of the image, height and width first.
    """
    (row, column), (rows, columns), (height, width) = patch, grid, shape[:2]
    return (column + 0.5) * width / columns, (row + 0.5) * height / rows
