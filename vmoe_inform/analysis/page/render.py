"""The interactive page of images: one self-contained HTML file, small enough to mail."""

import functools
import io
from collections.abc import Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.colors import to_hex
from PIL import Image

from vmoe_inform import text
from vmoe_inform.analysis.images.views import View, Views
from vmoe_inform.analysis.page.packing import MOST_BYTES, packed, render, small_enough
from vmoe_inform.analysis.results import layer_name
from vmoe_inform.data.images import label_sets
from vmoe_inform.report.pictures import data_uri
from vmoe_inform.report.styles import GREY, MOST_NUMBERED_ROWS, SHADES, expert_colors

# From the most to the least that is kept: neighbours of a token, and quality of JPEG pictures.
_DETAILS = ((6, 82), (4, 70), (3, 55), (2, 40))
_LARGEST_PX = 224  # larger images are made smaller
_SMALL_PX = 64  # images up to this size are kept exactly, and drawn with their pixels to be seen
_NUM_SHADES = 33
_SCRIPTS = ("packed.js", "panels.js", "page_data.js", "page.js")


def routing_page(views: Views, *, most_bytes: int = MOST_BYTES) -> str:
    """The page as HTML.

    To stay below ``most_bytes`` it shows fewer neighbours of a token, coarser pictures, and at last fewer images,
    evenly spread; the page says how many.

    Args:
      views: what to show.
      most_bytes: how large the page may be.

    Raises:
      ValueError: the page of a single image is too large.
    """
    pages = [functools.partial(_render, views, neighbours, quality) for neighbours, quality in _DETAILS]
    return small_enough(pages, views.count, most_bytes, "image")


def _render(views: Views, neighbours: int, quality: int, indices: Sequence[int]) -> str:
    shown = views.take(indices)
    return render(
        "page.html.jinja",
        _SCRIPTS,
        runs=views.runs,
        run_labels=views.run_labels,
        num_shown=len(indices),
        num_images=views.count,
        certified=views.certified,
        data=_data(shown, neighbours, quality),
    )


def _data(views: Views, neighbours: int, quality: int) -> dict[str, Any]:
    """The data that page.js reads."""
    conditions = list(views.images)
    first = views.views[0]
    titles = [_title(name) for name in views.class_names]
    return {
        "runs": list(map(text.printable, views.runs)),
        "conditions": [
            {"corruption": text.printable(corruption), "severity": severity} for corruption, severity in conditions
        ],
        "layers": [{"block": block, "name": layer_name(block)} for block in views.layers],
        "labelled": bool(views.labels),
        "names": [titles[label] for label in views.labels] or list(map(text.printable, views.names)),
        "rows": first.grid[0],
        "columns": first.grid[1],
        "numExperts": first.num_experts,
        "colors": [to_hex(color) for color in expert_colors(first.num_experts)],
        "noExpert": GREY,
        "mostNumberedColumns": MOST_NUMBERED_ROWS,
        "shades": [to_hex(color) for color in matplotlib.colormaps[SHADES](np.linspace(0, 1, _NUM_SHADES))],
        "pixelated": next(iter(views.images.values())).shape[1] <= _SMALL_PX,
        "images": [[_address(image, quality) for image in views.images[condition]] for condition in conditions],
        "views": [_view(view, views, neighbours, titles, conditions.index(view.condition)) for view in views.views],
    }


def _title(class_name: str) -> str:
    return text.printable(label_sets.short_title(class_name))


def _view(view: View, views: Views, neighbours: int, titles: Sequence[str], condition: int) -> dict[str, Any]:
    return {
        "run": text.printable(view.run),
        "condition": condition,
        "classToken": int(view.class_token),
        "predictions": [titles[prediction] for prediction in view.predictions],
        # By label, since two of ImageNet's classes are called crane; none where nobody knows the class.
        "right": (view.predictions == np.asarray(views.labels)).tolist() if views.labels else [],
        "confidence": [round(100 * float(share)) for share in view.confidence],
        "layers": [packed(view.layers[block], view.num_experts, neighbours) for block in views.layers],
    }


def _address(image: np.ndarray, quality: int) -> str:
    """The picture as an address for ``<image href>``: PNG if it is small, else JPEG."""
    picture, buffer = Image.fromarray(image), io.BytesIO()
    if max(picture.size) <= _SMALL_PX:
        picture.save(buffer, "PNG", optimize=True)
        return data_uri(buffer.getvalue(), "png")
    picture.thumbnail((_LARGEST_PX, _LARGEST_PX))
    picture.save(buffer, "JPEG", quality=quality, optimize=True)
    return data_uri(buffer.getvalue(), "jpeg")
