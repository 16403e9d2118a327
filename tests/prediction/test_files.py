"""The image files that a user names."""

import os

import numpy as np
import pytest
from PIL import Image

from vmoe_inform.data.images import decode
from vmoe_inform.prediction import files as files_lib
from vmoe_inform.prediction import find_files


def picture(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.zeros((4, 4, 3), np.uint8)).save(path, "PNG")
    return path


@pytest.fixture
def photos(tmp_path):
    for name in ("b.png", "a.JPG", "trip/c.webp", ".hidden.png", ".hidden/d.png", "@eaDir/e.png"):
        picture(tmp_path / "photos" / name)
    (tmp_path / "photos" / "notes.txt").touch()
    os.mkfifo(tmp_path / "photos" / "pipe.png")
    return tmp_path / "photos"


def names(found):
    return [found.name(position) for position in range(len(found))]


def test_folders_are_searched_to_the_bottom_in_the_order_of_the_names(photos, warnings, monkeypatch):
    monkeypatch.chdir(photos.parent)
    assert names(find_files(["photos"])) == ["photos/a.JPG", "photos/b.png", "photos/trip/c.webp"]
    assert warnings == ["photos: left out, as the names are no images': 2"]
    assert names(find_files(["photos/trip", "photos/b.png"])) == ["photos/trip/c.webp", "photos/b.png"]


def test_a_file_that_is_named_is_taken_whatever_it_is_called(photos):
    assert names(find_files([str(photos / ".hidden.png"), str(photos / "notes.txt")])) == [
        str(photos / ".hidden.png"),
        str(photos / "notes.txt"),
    ]


def test_some_of_the_files(photos):
    found = find_files([str(photos)])
    assert names(found.selected(np.array([2, 0]))) == [names(found)[2], names(found)[0]]
    assert found.positions == {name: position for position, name in enumerate(names(found))}


def test_names_that_are_no_unicode(tmp_path):
    path = os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.png")
    with open(path, "wb") as file:
        Image.fromarray(np.full((4, 4, 3), 7, np.uint8)).save(file, "PNG")
    found = find_files([str(tmp_path)])
    assert names(found) == [path]
    assert decode.decode(found[0]["image"])[0, 0].tolist() == [7, 7, 7]


def test_a_file_that_would_fill_the_memory_is_not_read(tmp_path, monkeypatch):
    monkeypatch.setattr(files_lib, "_MOST_BYTES", 10)
    found = find_files([str(picture(tmp_path / "large.png"))])
    with pytest.raises(decode.UnreadableImageError, match="expected at most 10 bytes; received "):
        found[0]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([], "files: expected at least one image file, or a folder of them; received nothing"),
        (["{}/nope.png"], "files: expected image files, or folders of them; received '{}/nope.png': not there"),
        (["{}/pipe.png"], "files: expected image files, or folders of them; received '{}/pipe.png'"),
        (["{}/none"], "files: expected image files (avif, bmp, gif, "),
        (["{}/b.png", "{}/trip/../b.png"], "files: expected each file once; received "),
        (["{}", "{}/b.png"], "files: expected each file once; received "),
        (["gs://bucket/photos"], "files: expected path on this machine, not empty (an address such as gs:// is not"),
        ([""], "files: expected path on this machine, not empty"),
    ],
)
def test_bad_input_is_one_line(photos, given, message):
    (photos / "none").mkdir()
    with pytest.raises((ValueError, FileNotFoundError)) as caught:
        find_files([one.format(photos) for one in given])
    assert message.format(photos) in str(caught.value)
    assert "\n" not in str(caught.value)
