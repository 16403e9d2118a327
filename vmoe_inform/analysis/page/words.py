"""The interactive page of texts, word by word: one self-contained HTML file, small enough to mail."""

import functools
import math
from collections.abc import Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.colors import to_hex

from vmoe_inform import text
from vmoe_inform.analysis.page.packing import MOST_BYTES, compressed, packed, percent, planes_of, render, small_enough
from vmoe_inform.analysis.results import layer_name
from vmoe_inform.analysis.text.views import Expected, TextView, TextViews
from vmoe_inform.data.images import label_sets
from vmoe_inform.data.text.tokenizers import END_OF_LINE
from vmoe_inform.report.styles import GREY, SHADES, expert_colors

_NEIGHBOURS = (6, 4, 3, 2)  # of a token, from the most to the least that are kept
_NUM_SHADES = 33
_NATS_SCALE = 10  # a byte holds up to 25.5 nats


def word_page(views: TextViews, *, most_bytes: int = MOST_BYTES) -> str:
    """The page as HTML.

    To stay below ``most_bytes`` it shows fewer neighbours of a token, and at last fewer texts, evenly spread; the page
    says how many.

    Args:
      views: what to show.
      most_bytes: how large the page may be.

    Raises:
      ValueError: the page of a single text is too large.
    """
    pages = [functools.partial(_render, views, neighbours) for neighbours in _NEIGHBOURS]
    return small_enough(pages, len(views.tokens), most_bytes, "text")


def _render(views: TextViews, neighbours: int, indices: Sequence[int]) -> str:
    return render(
        "words.html.jinja",
        ("packed.js", "panels.js", "words.js"),
        runs=[text.printable(view.run) for view in views.views],
        run_labels=[view.label or view.run for view in views.views],
        num_shown=len(indices),
        num_texts=len(views.tokens),
        selection=views.selection,
        has_targets=bool(views.targets),
        certified=views.certified,
        data=_data(views.take(indices), neighbours),
    )


def _data(views: TextViews, neighbours: int) -> dict[str, Any]:
    """The data that words.js reads."""
    num_experts = views.views[0].num_experts
    titles = [text.printable(label_sets.short_title(name)) for name in views.class_names]
    ids = sorted(views.likely)
    largest = max((float(view.expected.nats.max()) for view in views.views if view.expected), default=1.0)
    return {
        "runs": [text.printable(view.run) for view in views.views],
        "layers": [{"block": block, "name": layer_name(block)} for block in views.layers],
        "tokens": [list(map(text.printable, words)) for words in views.tokens],
        "targets": [list(map(text.printable, words)) for words in views.targets],
        "labels": [titles[label] for label in views.labels],
        "likely": [text.printable(views.likely[token]) for token in ids],
        "endOfLine": END_OF_LINE,
        "natsScale": _NATS_SCALE,
        "mostNats": max(math.ceil(10 * largest) / 10, 0.1),
        "numExperts": num_experts,
        "colors": [to_hex(color) for color in expert_colors(num_experts)],
        "noExpert": GREY,
        "shades": [to_hex(color) for color in matplotlib.colormaps[SHADES](np.linspace(0, 1, _NUM_SHADES))],
        "views": [_view(view, views.layers, titles, ids, neighbours) for view in views.views],
    }


def _view(view: TextView, layers: Sequence[str], titles: Sequence[str], ids: list[int], neighbours: int) -> Any:
    predictions = view.predictions
    return {
        "run": text.printable(view.run),
        "layers": [packed(view.layers[block], view.num_experts, neighbours) for block in layers],
        "expected": None if view.expected is None else _expected(view.expected, ids),
        "predictions": None if predictions is None else [titles[label] for label in predictions],
    }


def _expected(expected: Expected, ids: list[int]) -> dict[str, Any]:
    """As of a layer; the likely tokens are numbers in ``ids``, the last of which stands for tokens without a word."""
    numbers = np.minimum(np.searchsorted(ids, expected.likely), max(len(ids) - 1, 0))
    planes = {
        "nats": [np.clip(np.round(_NATS_SCALE * expected.nats), 0, 255).astype(np.uint8)],
        "likely": list(planes_of(numbers, len(ids))),
        "chances": [percent(expected.shares[..., rank]) for rank in range(expected.shares.shape[-1])],
    }
    return {"numTokens": expected.nats.shape[1], **compressed(planes)}
