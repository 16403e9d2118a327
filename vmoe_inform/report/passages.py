"""Passages of text for the page: every word in the colour of its expert, and how surprised the model was by it."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.colors import to_hex

from vmoe_inform import checks
from vmoe_inform.report.styles import GREY, expert_colors

_MOST_NATS = 10.0  # the darkest shade
_MOST_LAYERS = 2  # of a passage, the first and the last


@dataclasses.dataclass(frozen=True)
class Word:
    """One word.

    Attributes:
      text: as the tokenizer shows it.
      color: behind it, as HTML takes it, with its opacity.
      words: what the colour says.
    """

    text: str
    color: str
    words: str


@dataclasses.dataclass(frozen=True)
class Passage:
    """A text.

    Attributes:
      title: what the model says of it; empty for a language model.
      is_wrong: whether that is wrong.
      rows: the text several times, by what the colours say.
    """

    title: str
    is_wrong: bool
    rows: Mapping[str, Sequence[Word]]


def passage(example: Mapping[str, Any], *, num_experts: int) -> Passage:
    """An example of text.

    Args:
      example: ``token`` [T], empty for filler, and ``experts`` [T] by MoE layer (E: none). A language model has
        ``nats`` [T] too, a classifier ``label``, ``prediction`` and ``confidence``.
      num_experts: E, which fixes the colours.

    Raises:
      ValueError: experts of another shape, or outside 0 ... E.
    """
    tokens = np.asarray(example["token"])
    real = np.flatnonzero(tokens != "")
    rows: dict[str, list[Word]] = {}
    if "nats" in example:
        rows["surprise"] = [_surprise(str(tokens[n]), float(example["nats"][n])) for n in real]
    layers = list(example["experts"])
    for name in dict.fromkeys((*layers[: _MOST_LAYERS - 1], *layers[-1:])):
        experts = np.asarray(example["experts"][name])
        if experts.shape != tokens.shape:
            raise checks.error(f"experts[{name!r}]", f"shape {tokens.shape}", experts.shape)
        if len(experts) and not 0 <= experts.min() <= experts.max() <= num_experts:
            raise checks.error(f"experts[{name!r}]", f"0 to {num_experts}", (int(experts.min()), int(experts.max())))
        colors = [*map(to_hex, expert_colors(num_experts)), GREY]
        rows[name] = [
            Word(str(tokens[n]), f"{colors[e]}66", f"expert {e}" if e < num_experts else "no expert")
            for n, e in zip(real, experts[real].tolist(), strict=True)
        ]
    if "label" not in example:
        return Passage("", is_wrong=False, rows=rows)
    label, prediction, sure = example["label"], example["prediction"], f"({100 * example['confidence']:.0f} % sure)"
    if label == prediction:
        return Passage(f"right: {label} {sure}", is_wrong=False, rows=rows)
    return Passage(f"wrong: says {prediction}, is {label} {sure}", is_wrong=True, rows=rows)


def _surprise(token: str, nats: float) -> Word:
    opacity = round(0x99 * min(max(nats, 0.0), _MOST_NATS) / _MOST_NATS)
    return Word(token, f"#d55e00{opacity:02x}", f"{nats:.1f} nats")
