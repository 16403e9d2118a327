import threading
from pathlib import Path

import numpy as np
import pytest
from absl import logging

from vmoe_inform.evaluation import cache

VALUES = np.arange(1000, dtype=np.uint8).reshape(10, 100)


def refuse():
    raise AssertionError("made although it is kept")


@pytest.fixture
def kept(tmp_path):
    path = tmp_path / "folder" / "values.npz"
    np.testing.assert_array_equal(cache.array(path, lambda: VALUES), VALUES)
    return path


def test_array_is_made_once(kept):
    np.testing.assert_array_equal(cache.array(kept, refuse), VALUES)
    assert [path.name for path in kept.parent.iterdir()] == ["values.npz"]


def test_the_cache_may_be_in_a_bucket(bucket_folder):
    path = cache.cache_directory(str(bucket_folder)) / "values.npz"
    np.testing.assert_array_equal(cache.array_made_once(path, lambda: VALUES), VALUES)
    np.testing.assert_array_equal(cache.array_made_once(path, refuse), VALUES)


def test_of_several_that_need_an_array_one_makes_it(tmp_path):
    """Two threads stand for two processes: a lock belongs to the open file."""
    path, made, waiting = tmp_path / "values.npz", [], threading.Event()

    def make():
        other.start()
        waiting.wait(0.2)  # the other one finds no file, and waits
        made.append(VALUES)
        return VALUES

    other = threading.Thread(target=cache.array_made_once, args=(path, lambda: made.append(VALUES) or VALUES))
    np.testing.assert_array_equal(cache.array_made_once(path, make), VALUES)
    other.join()
    assert len(made) == 1


def cut(content):
    return content[:-200]


def flip_a_bit(content):
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]


@pytest.mark.parametrize("damage", [cut, flip_a_bit, lambda content: b"", lambda content: b"not an archive"])
def test_damaged_file_is_reported_and_made_again(kept, damage, caplog):
    logging.use_python_logging(quiet=True)
    kept.write_bytes(damage(kept.read_bytes()))
    with caplog.at_level("WARNING"):
        assert not cache.is_whole(kept)
        np.testing.assert_array_equal(cache.array(kept, lambda: VALUES), VALUES)
    assert f"damaged cache file {kept}" in caplog.text
    np.testing.assert_array_equal(cache.array(kept, refuse), VALUES)


def test_failed_making_leaves_nothing(tmp_path):
    with pytest.raises(AssertionError, match="made although"):
        cache.array(tmp_path / "values.npz", refuse)
    assert list(tmp_path.iterdir()) == []


def test_failed_writing_leaves_nothing(tmp_path):
    class Unwritable:
        def __array__(self, dtype=None, copy=None):
            raise OSError("no space left")

    with pytest.raises(OSError, match="no space left"):
        cache.array(tmp_path / "values.npz", Unwritable)
    assert list(tmp_path.iterdir()) == []


def test_digest_changes_with_every_part():
    images = np.zeros((2, 3), np.uint8)
    parts = [
        {"images": images, "seed": 0},
        {"images": images, "seed": 1},
        {"images": images, "seed": "0"},
        {"images": images + 1, "seed": 0},
        {"images": images.reshape(3, 2), "seed": 0},
        {"images": images.astype(np.int8), "seed": 0},
        {"images": images, "seed": 0, "versions": {"numpy": "1"}},
        {"images": images, "seed": 0, "versions": {"numpy": "2"}},
    ]
    assert len({cache.digest(**part) for part in parts}) == len(parts)
    assert cache.digest(images=images, seed=0) == cache.digest(seed=0, images=images.copy(order="F"))


def test_directory(monkeypatch):
    assert cache.cache_directory("some/where") == Path("some/where")
    monkeypatch.setenv("XDG_CACHE_HOME", "/cache")
    assert cache.cache_directory("") == Path("/cache/vmoe_inform")
    monkeypatch.setenv("XDG_CACHE_HOME", "")
    monkeypatch.setenv("HOME", "/home/someone")
    assert cache.cache_directory("") == Path("/home/someone/.cache/vmoe_inform")
