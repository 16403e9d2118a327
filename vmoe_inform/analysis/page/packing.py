"""What interactive pages hold in few bytes, and pages that stay below a size.

A view is written as bytes, one plane [sequences, tokens] after the other, compressed and in base64; packed.js reads it.
Shares are written in percent, as they are shown.
"""

import base64
import hashlib
import html
import importlib.resources
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import markupsafe
import numpy as np

from vmoe_inform import checks
from vmoe_inform.analysis.collect.views import LayerView
from vmoe_inform.report import templates

MOST_BYTES = 5_000_000
_FOLDER = "vmoe_inform.analysis.page"


def render(template: str, scripts: Sequence[str], **values: Any) -> str:
    """A page of its template, with its scripts and their hash, which no other script on the page has."""
    folder = importlib.resources.files(_FOLDER)
    script = "\n".join(folder.joinpath(name).read_text(encoding="utf-8") for name in scripts)
    script_hash = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode("ascii")
    return templates.render(_FOLDER, template, script=markupsafe.Markup(script), script_hash=script_hash, **values)


def frame(page: str, *, height_px: int = 820) -> str:
    """A page in a frame of its own, as HTML for a cell of a notebook."""
    content = html.escape(page, quote=True)
    style = f"width: 100%; height: {height_px}px; border: none"
    return f'<div><iframe srcdoc="{content}" style="{style}"></iframe></div>'


def small_enough(pages: Sequence[Callable[[Sequence[int]], str]], count: int, most_bytes: int, what: str) -> str:
    """The first page that is small enough: with the most details, or with the fewest and fewer records.

    Args:
      pages: from the most details to the fewest, each of the numbers of the records that are on it.
      count: of records.
      most_bytes: how large the page may be.
      what: a record in words.

    Raises:
      ValueError: the page of a single record is too large.
    """
    for page in pages:
        found = page(range(count))
        if len(found) <= most_bytes:
            return found
    shown = count
    while shown > 1:
        shown = min(shown - 1, max(int(shown * 0.97 * most_bytes / len(found)), 1))
        found = pages[-1](np.linspace(0, count - 1, shown).round().astype(int).tolist())
        if len(found) <= most_bytes:
            return found
    raise checks.error("most_bytes", f"at least {len(found):,}, the page of one {what}", most_bytes)


def packed(layer: LayerView, num_experts: int, neighbours: int) -> dict[str, Any]:
    """A layer's numbers, and how they are to be read again: the planes' names with the number of each."""
    num_tokens, selected = layer.experts.shape[1:]
    # Weights are shares of an expert's output; where they are made otherwise, the largest is the whole of the scale.
    scale = max(float(layer.weights.max()), 1.0)
    planes = {
        "experts": list(planes_of(layer.experts, num_experts)),
        "weights": [percent(layer.weights[..., choice] / scale) for choice in range(selected)],
    }
    if layer.own_experts is not None:
        planes["own"] = list(planes_of(layer.own_experts, num_experts))
    if layer.undecided is not None:
        planes["undecided"] = [percent(layer.undecided)]
    if layer.neighbours is not None:
        others = layer.neighbours.others[..., :neighbours]
        planes["itself"] = [percent(layer.neighbours.itself)]
        planes["others"] = list(planes_of(others, num_tokens - 1))
        planes["shares"] = [percent(layer.neighbours.weights[..., rank]) for rank in range(others.shape[-1])]
    return {"selected": selected, "numTokens": num_tokens, "scale": round(scale, 4), **compressed(planes)}


def compressed(planes: Mapping[str, Sequence[np.ndarray]]) -> dict[str, Any]:
    """Planes of bytes as packed.js reads them: their names with the number of each, and the bytes."""
    data = b"".join(plane.tobytes() for kind in planes.values() for plane in kind)
    return {
        "planes": [[name, len(kind)] for name, kind in planes.items()],
        "data": base64.b64encode(zlib.compress(data, 9)).decode("ascii"),
    }


def planes_of(indices: np.ndarray, largest: int) -> Iterator[np.ndarray]:
    """A plane for each rank of the last axis; where numbers may exceed 255 two: the low bytes, then the high."""
    for rank in range(indices.shape[-1]):
        yield (indices[..., rank] & 255).astype(np.uint8)
        if largest > 255:
            yield (indices[..., rank] >> 8).astype(np.uint8)


def percent(shares: np.ndarray) -> np.ndarray:
    """Shares in whole percent, in a byte each."""
    return np.clip(np.round(100 * shares), 0, 100).astype(np.uint8)
