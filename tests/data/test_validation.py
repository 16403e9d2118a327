"""Images that are held out of the training split, to choose settings by."""

import numpy as np
import pytest

from vmoe_inform import checks
from vmoe_inform.config import ImageDataConfig
from vmoe_inform.data import held_out as held_out_lib
from vmoe_inform.data import sources
from vmoe_inform.data.images.framing import Framing
from vmoe_inform.data.images.trees import FileRecords
from vmoe_inform.data.records import ArrayRecords, SelectedRecords
from vmoe_inform.evaluation.derived_records import CorruptedRecords
from vmoe_inform.evaluation.suites.base import test_split as clean_images


def _names(source):
    return [source.records.name(index) for index in range(len(source.records))]


def test_the_first_by_hand():
    # i / 1.618034 mod 1: 0, 0.618, 0.236, 0.854, 0.472, 0.090, 0.708, 0.326, 0.944, 0.562
    assert np.flatnonzero(held_out_lib.held_out(10, 0.25)).tolist() == [0, 2, 5]


@pytest.mark.parametrize("share", [0.01, 0.1, 0.2, 1 / 3, 0.5])
def test_the_share_of_all_and_of_any_stretch(share):
    held_out = held_out_lib.held_out(100_000, share)
    assert abs(held_out.sum() - share * len(held_out)) < 4
    for start, length in ((0, 100), (777, 1300), (98_000, 2000)):  # as classes of a sorted split are
        assert abs(held_out[start : start + length].sum() - share * length) < 4


@pytest.mark.parametrize("period", [2, 5, 10, 1000])
def test_no_period_of_the_records_coincides(period):
    held_out = held_out_lib.held_out(100 * period, 0.2).reshape(100, period)
    assert abs(held_out.sum(axis=0) - 20).max() <= 4


def test_digits_are_parted_and_keep_their_names_and_test_images():
    whole, data = ImageDataConfig(), ImageDataConfig(validation_share=0.2)
    training, held_out = sources.training(data), sources.test(data)
    assert sorted(_names(training) + _names(held_out), key=int) == _names(sources.training(whole))
    assert len(held_out.records) == 288  # of 1,433
    counts = np.bincount(held_out.records.labels, minlength=10)
    assert counts.min() >= 23  # of about 29 a class
    number = int(held_out.records.name(5))
    assert (held_out.records[5]["image"] == sources.training(whole).records[number]["image"]).all()
    assert clean_images(data).records.images.tobytes() == held_out.records.images.tobytes()
    assert len(sources.test(whole).records) == 364


def test_nothing_is_held_out_by_default():
    data = ImageDataConfig()
    assert sources.training(data).records.images.shape == sources.load(data, "train").records.images.shape


@pytest.mark.parametrize("share", [0.9999, 1e-9])
def test_both_sides_have_images(share, monkeypatch):
    few = sources.Source(ArrayRecords(np.zeros((3, 8, 8, 1), np.uint8), np.zeros(3, np.int32)), ("0",))
    monkeypatch.setattr(sources, "load", lambda data, split: few)
    data = ImageDataConfig(validation_share=share)
    if share > 0.5:
        with pytest.raises(checks.InputError, match=r"data.validation_share: expected .*'train' \(3\) on both sides"):
            sources.training(data)
    else:
        assert len(sources.test(data).records) == 1


ARRAYS = ArrayRecords(np.arange(4 * 8 * 8, dtype=np.uint8).reshape(4, 8, 8, 1), np.arange(4))


@pytest.mark.parametrize(
    "records",
    [
        ARRAYS,
        SelectedRecords(ARRAYS, (3, 2, 1, 0)),
        CorruptedRecords(ARRAYS, 32, Framing(), "brightness", 1, 0),
    ],
    ids=lambda records: type(records).__name__,
)
def test_selected_records_are_those_records(records):
    chosen = records.selected(np.array([2, 0])).selected(np.array([1]))
    assert len(chosen) == 1
    assert chosen.name(0) == records.name(0)
    assert chosen[0]["label"] == records[0]["label"]
    assert (chosen[0]["image"] == records[0]["image"]).all()
    assert (
        chosen.relabelled(np.array([9, 8, 7, 6]))[0]["label"] == records.relabelled(np.array([9, 8, 7, 6]))[0]["label"]
    )


def test_selected_files(tmp_path):
    for number in range(3):
        (tmp_path / f"{number}.png").write_bytes(bytes([number]))
    records = FileRecords(tmp_path, np.array([b"0.png", b"1.png", b"2.png"]), np.array([0, 1, 2]))
    chosen = records.selected(np.array([2, 1]))
    assert [chosen.name(0), chosen[0], len(chosen)] == ["2.png", {"image": b"\x02", "label": 2}, 2]
    in_tar = FileRecords(tmp_path / "0.png", records.names, records.labels, np.array([[0, 1], [1, 2], [3, 4]]))
    assert in_tar.selected(np.array([2])).spans.tolist() == [[3, 4]]
