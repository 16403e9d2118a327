"""Which images are looked at: some of the clean ones, and the same ones under corruptions."""

import numpy as np
import pytest

from tests import tiny
from vmoe_inform import config as config_lib
from vmoe_inform.analysis.collect.groups import whole_groups
from vmoe_inform.analysis.images import choice
from vmoe_inform.analysis.images import data as images_lib
from vmoe_inform.data.sources import ArrayRecords, Source
from vmoe_inform.evaluation.suites.base import TEST_SET, NotAvailable, RecordSet, Suite

CONFIG = config_lib.parse(tiny.config_dict())


@pytest.mark.parametrize("text", ["", "r", "clean:1", "c:fog", "c:fog:6", "c:haze:3", "c:fog:3:1", "c:fog:three"])
def test_a_suite_is_clean_or_a_corruption(text):
    with pytest.raises(ValueError, match=r"--suite: expected clean, c or c:NAME:SEVERITY"):
        choice.parse(text)


def test_what_a_suite_is_called():
    assert str(choice.parse("c:fog:3")) == "c:fog:3"
    assert str(choice.parse("c")) == str(choice.parse("clean")) == TEST_SET


def _records(names, labels=None):
    class Named(ArrayRecords):
        def name(self, index):
            return names[index]

    count = len(names)
    shades = np.arange(count, dtype=np.uint8)[:, None, None, None]
    return Named(
        np.broadcast_to(shades, (count, 32, 32, 3)), np.arange(count, dtype=np.int32) if labels is None else labels
    )


def _suite_of(monkeypatch, source):
    suite = Suite("c", {"fog/3": RecordSet(lambda: source)}, lambda *_: {}, lambda _: {})
    monkeypatch.setattr(images_lib.suites, "load", lambda name, config: suite)


def _shades(source):
    return [int(source.records[place]["image"][0, 0, 0]) for place in range(len(source.records))]


@pytest.fixture
def images(monkeypatch):
    clean = Source(_records(["val/a/1.png", "val/a/2.png", "val/b/3.png", "val/b/4.png"]), ("a", "b"))
    monkeypatch.setattr(images_lib, "test_split", lambda data: clean)
    return lambda limit=None: images_lib.Images(CONFIG, limit)


def test_groups_stay_whole():
    """Ten images in groups of four: 0 to 3, 4 to 7, and 8 to 9."""
    assert whole_groups(10, 4, None) == whole_groups(10, 4, 12) == list(range(10))
    assert whole_groups(10, 4, 9) == list(range(8))
    assert whole_groups(24, 4, 11) == [0, 1, 2, 3, 12, 13, 14, 15]
    assert whole_groups(364, 1, 3) == [0, 121, 242]


def test_fewer_images_than_a_group_are_refused():
    message = r"--limit: expected a number >= 8, the images that share experts' slots .*group_size.*; received 7"
    with pytest.raises(ValueError, match=message):
        images_lib.Images(CONFIG, 7, group_size=8)


def test_some_of_the_images_are_evenly_over_the_set(images):
    assert _shades(images().clean()) == [0, 1, 2, 3]
    assert _shades(images(2).clean()) == [0, 2]
    assert _shades(images(9).clean()) == [0, 1, 2, 3]
    with pytest.raises(ValueError, match=r"--limit: expected a number >= 1; received 0"):
        images(0)


def test_published_corruptions_are_found_by_file_name(images, monkeypatch):
    _suite_of(monkeypatch, Source(_records(["b/4.png", "b/3.png", "a/1.png", "a/2.png"]), ("a", "b"), "published tar"))
    assert _shades(images(2).corrupted("fog", 3)) == [2, 1]
    _suite_of(monkeypatch, Source(_records(["b/4.png", "a/1.png"]), ("a", "b"), "published tar"))
    with pytest.raises(
        ValueError, match=r"fog/3: expected files called as the clean images are, 2.png among them; .* and 1 more"
    ):
        images().corrupted("fog", 3)


def test_generated_corruptions_are_in_the_order_of_the_images(images, monkeypatch):
    _suite_of(monkeypatch, Source(_records(["0", "1", "2", "3"]), ("a", "b"), "generated"))
    assert _shades(images(2).corrupted("fog", 3)) == [0, 2]
    _suite_of(monkeypatch, Source(_records(["0", "1", "2"]), ("a", "b"), "generated"))
    with pytest.raises(ValueError, match=r"expected one for each of the 4 clean images, .*; received 3"):
        images().corrupted("fog", 3)


def test_corruptions_are_of_all_images_though_their_suite_shows_some(monkeypatch):
    """``evaluation.corrupted_images`` is of the suite; an analysis chooses its images itself."""
    loaded = []
    monkeypatch.setattr(images_lib.suites, "load", lambda name, config: loaded.append(config) or _stop())
    config = config_lib.parse(tiny.config_dict(evaluation__corrupted_images=2))
    with pytest.raises(ValueError, match="seen"):
        images_lib.Images(config).corrupted("fog", 3)
    assert loaded[0].evaluation.corrupted_images is None


def _stop():
    raise NotAvailable("seen")


def test_corruptions_that_cannot_be_had_say_why(images, monkeypatch):
    def load(name, config):
        raise NotAvailable("no ImageNet-C here")

    monkeypatch.setattr(images_lib.suites, "load", load)
    with pytest.raises(ValueError, match="--suite=c is not available: no ImageNet-C here"):
        images().corrupted("fog", 3)
