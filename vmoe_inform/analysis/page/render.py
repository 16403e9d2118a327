"""The interactive page of routing: one self-contained HTML file, small enough to mail.

What a view holds is written as bytes, one plane [images, tokens] after the other, compressed and in base64; page.js
reads it. Shares are written in percent, as they are shown.
"""

import base64
import hashlib
import html
import importlib.resources
import io
import zlib
from collections.abc import Iterator, Sequence
from typing import Any

import markupsafe
import matplotlib
import numpy as np
from matplotlib.colors import to_hex
from PIL import Image

from vmoe_inform import checks, text
from vmoe_inform.analysis.collect.views import LayerView
from vmoe_inform.analysis.draw._panels import layer_name
from vmoe_inform.analysis.images.views import View, Views
from vmoe_inform.data.images import label_sets
from vmoe_inform.report import templates
from vmoe_inform.report.pictures import data_uri
from vmoe_inform.report.styles import GREY, MOST_NUMBERED_ROWS, SHADES, expert_colors

MOST_BYTES = 5_000_000
# From the most to the least that is kept: neighbours of a token, and quality of JPEG pictures.
_DETAILS = ((6, 82), (4, 70), (3, 55), (2, 40))
_LARGEST_PX = 224  # larger images are made smaller
_SMALL_PX = 64  # images up to this size are kept exactly, and drawn with their pixels to be seen
_NUM_SHADES = 33
_SCRIPTS = ("page_data.js", "page.js")


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
    for neighbours, quality in _DETAILS:
        found = _render(views, neighbours, quality, num_images=len(views.labels))
        if len(found) <= most_bytes:
            return found
    shown = len(views.labels)
    while shown > 1:
        shown = min(shown - 1, max(int(shown * 0.97 * most_bytes / len(found)), 1))
        indices = np.linspace(0, len(views.labels) - 1, shown).round().astype(int).tolist()
        found = _render(views.take(indices), *_DETAILS[-1], num_images=len(views.labels))
        if len(found) <= most_bytes:
            return found
    raise checks.error("most_bytes", f"at least {len(found):,}, the page of one image", most_bytes)


def routing_frame(views: Views, *, height_px: int = 820) -> str:
    """The page in a frame of its own, as HTML for a cell of a notebook.

    Args:
      views: as for :func:`routing_page`.
      height_px: of the frame.
    """
    content = html.escape(routing_page(views), quote=True)
    style = f"width: 100%; height: {height_px}px; border: none"
    return f'<div><iframe srcdoc="{content}" style="{style}"></iframe></div>'


def _render(views: Views, neighbours: int, quality: int, *, num_images: int) -> str:
    folder = importlib.resources.files("vmoe_inform.analysis.page")
    script = "\n".join(folder.joinpath(name).read_text(encoding="utf-8") for name in _SCRIPTS)
    return templates.render(
        "vmoe_inform.analysis.page",
        "page.html.jinja",
        runs=views.runs,
        run_labels=views.run_labels,
        num_shown=len(views.labels),
        num_images=num_images,
        script=markupsafe.Markup(script),
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode("ascii"),
        data=_data(views, neighbours, quality),
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
        "labels": [titles[label] for label in views.labels],
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
        "right": (view.predictions == np.asarray(views.labels)).tolist(),  # two of ImageNet's classes are called crane
        "confidence": [round(100 * float(share)) for share in view.confidence],
        "layers": [_packed(view.layers[block], view.num_experts, neighbours) for block in views.layers],
    }


def _packed(layer: LayerView, num_experts: int, neighbours: int) -> dict[str, Any]:
    """A layer's numbers, and how they are to be read again: the planes' names with the number of each."""
    num_tokens, selected = layer.experts.shape[1:]
    # Weights are shares of an expert's output; where they are made otherwise, the largest is the whole of the scale.
    scale = max(float(layer.weights.max()), 1.0)
    planes = {
        "experts": list(_indices(layer.experts, num_experts)),
        "weights": [_percent(layer.weights[..., choice] / scale) for choice in range(selected)],
    }
    if layer.own_experts is not None:
        planes["own"] = list(_indices(layer.own_experts, num_experts))
    if layer.undecided is not None:
        planes["undecided"] = [_percent(layer.undecided)]
    if layer.neighbours is not None:
        others = layer.neighbours.others[..., :neighbours]
        planes["itself"] = [_percent(layer.neighbours.itself)]
        planes["others"] = list(_indices(others, num_tokens - 1))
        planes["shares"] = [_percent(layer.neighbours.weights[..., rank]) for rank in range(others.shape[-1])]
    data = b"".join(plane.tobytes() for kind in planes.values() for plane in kind)
    return {
        "planes": [[name, len(kind)] for name, kind in planes.items()],
        "selected": selected,
        "numTokens": num_tokens,
        "scale": round(scale, 4),
        "data": base64.b64encode(zlib.compress(data, 9)).decode("ascii"),
    }


def _indices(indices: np.ndarray, largest: int) -> Iterator[np.ndarray]:
    """A plane for each rank of the last axis; where numbers may exceed 255 two: the low bytes, then the high."""
    for rank in range(indices.shape[-1]):
        yield (indices[..., rank] & 255).astype(np.uint8)
        if largest > 255:
            yield (indices[..., rank] >> 8).astype(np.uint8)


def _percent(shares: np.ndarray) -> np.ndarray:
    return np.clip(np.round(100 * shares), 0, 100).astype(np.uint8)


def _address(image: np.ndarray, quality: int) -> str:
    """The picture as an address for ``<image href>``: PNG if it is small, else JPEG."""
    picture, buffer = Image.fromarray(image), io.BytesIO()
    if max(picture.size) <= _SMALL_PX:
        picture.save(buffer, "PNG", optimize=True)
        return data_uri(buffer.getvalue(), "png")
    picture.thumbnail((_LARGEST_PX, _LARGEST_PX))
    picture.save(buffer, "JPEG", quality=quality, optimize=True)
    return data_uri(buffer.getvalue(), "jpeg")
