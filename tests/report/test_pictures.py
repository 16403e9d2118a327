"""Pictures as bytes and addresses, and the marks of their axes."""

import base64
import itertools

import pytest
from matplotlib.figure import Figure

from vmoe_inform.report import pictures, styles


def _figure():
    figure, axes = styles.single_axes(3.0, 2.0)
    axes.plot([1, 2], [3, 4])
    return figure


@pytest.mark.parametrize("kind", ["png", "svg"])
def test_the_same_numbers_give_the_same_bytes(kind):
    first, second = (pictures.encode(_figure(), kind) for _ in range(2))
    assert first == second
    assert b"2026" not in first  # no date


def test_an_address_holds_the_picture():
    assert pictures.data_uri(b"<svg/>", "svg") == "data:image/svg+xml;base64," + base64.b64encode(b"<svg/>").decode()
    assert pictures.data_uri(b"x", "png").startswith("data:image/png;base64,")


@pytest.mark.parametrize(
    ("limits", "labels"),
    [
        ((2, 70), ["2", "5", "10", "20", "50"]),
        ((20, 60), ["20", "50"]),
        ((0.001, 0.5), ["0.001", "0.01", "0.1"]),
        ((1, 20_000), ["1", "100", "10,000"]),
    ],
)
def test_labels_of_a_logarithmic_axis_do_not_collide(limits, labels):
    figure = Figure(figsize=(3, 1.2))
    axes = figure.add_subplot()
    axes.set_yscale("log")
    axes.set_ylim(*limits)
    styles.label_log_scale(axes.yaxis)
    figure.draw_without_rendering()
    low, high = limits
    shown = [
        label
        for label, at in zip(axes.get_yticklabels(), axes.get_yticks(), strict=True)
        if label.get_text() and low <= at <= high
    ]
    assert [label.get_text() for label in shown] == labels
    assert all(not label.get_text() for label in axes.get_yticklabels(minor=True))
    boxes = [label.get_window_extent() for label in shown]
    assert not any(box.overlaps(other) for box, other in itertools.pairwise(boxes))
