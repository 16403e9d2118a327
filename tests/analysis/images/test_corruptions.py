"""Certificates of clean tokens held against corrupted ones, of numbers worked by hand."""

import contextlib

import numpy as np
import pytest

from vmoe_inform.analysis.collect import certified_rows
from vmoe_inform.analysis.collect.choices import Choices
from vmoe_inform.analysis.collect.observing import Certifiable
from vmoe_inform.analysis.images import corruptions

CLEAN = np.array([[[0.6, 0.4], [0.9, 0.1]], [[0.5, 0.5], [0.2, 0.8]]], np.float32)


class Observer:
    """Two images of two tokens and two experts: the second token of the second image is filler."""

    keeps_workers = contextlib.nullcontext

    def certified(self, source):
        """``source`` is how much of expert 0 goes to expert 1, and which images could be read."""
        moved, images = source
        base = (CLEAN + np.array([-moved, moved], np.float32))[images]
        experts = np.argsort(-base, axis=-1, kind="stable")[..., :1]
        radii = np.abs(CLEAN[..., :1] - CLEAN[..., 1:]) / np.array([2.0, np.sqrt(2)])
        real = np.array([[True, True], [True, False]])[images]
        return (
            Choices(np.array(images), real, {"block_1": experts}, None, {}),
            {"block_1": Certifiable(base, radii[images])},
        )

    def score(self, found):
        return len(found.indices) / 2


def test_each_token_is_certified_for_its_own_change(monkeypatch):
    monkeypatch.setattr(corruptions, "CORRUPTIONS", ("fog", "snow"))
    monkeypatch.setattr(corruptions, "SEVERITIES", (1, 2))
    moves = {
        ("fog", 1): (0.0, [0, 1]),
        ("fog", 2): (0.05, [0, 1]),
        ("snow", 1): (0.12, [0, 1]),
        ("snow", 2): (0.12, [0]),
    }
    found = corruptions.of_all(Observer(), (0.0, [0, 1]), lambda *which: moves[which], lambda _: None)
    certified = found.certified["block_1"]
    # A move by m is sqrt(2) m long.
    root = np.sqrt(2)
    np.testing.assert_allclose(certified.length, [[0, 0.05 * root], [0.12 * root, 0.12 * root]], atol=1e-6)
    # Radii by the margin 0.1, 0.4 and 0 of the real tokens, by pairs 0.141, 0.566 and 0; lengths 0, 0.071, 0.170.
    np.testing.assert_allclose(certified.by_margin, [[2 / 3, 2 / 3], [1 / 3, 1 / 2]])
    np.testing.assert_allclose(certified.by_pairs, [[2 / 3, 2 / 3], [1 / 3, 1 / 2]])
    np.testing.assert_allclose(found.rerouted["block_1"], [[0, 1 / 3], [2 / 3, 1 / 2]])
    rows = certified_rows.of_corruptions(found)
    assert [row.name for row in rows] == ["fog", "snow", "mean of all"]
    assert [rows[1].length, rows[1].by_pairs, rows[1].kept] == pytest.approx([0.12 * root, 5 / 12, 5 / 12], abs=1e-6)
    assert rows[2].by_margin == pytest.approx((2 / 3 + 5 / 12) / 2)


def test_without_certificates_there_is_no_table():
    assert certified_rows.of_corruptions(None) == ()
