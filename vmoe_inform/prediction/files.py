"""The image files that a user names, alone or by their folders."""

import collections
import functools
import os
import pathlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from absl import logging
from jaxtyping import Int

from vmoe_inform import checks
from vmoe_inform.data.images import decode, trees
from vmoe_inform.data.images.orientation import upright
from vmoe_inform.data.records import Record

_FIELD = "files"
_MOST_BYTES = 1 << 30  # of a file; the largest picture that is decoded has half of it as pixels


@dataclass(frozen=True, eq=False)
class ImageFiles:
    """Image files as records without labels, read when they are asked for, and turned upright.

    Attributes:
      paths: bytes [n], as they were named.
    """

    paths: np.ndarray

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Record:
        path = self.name(index)
        size = os.stat(path).st_size
        if size > _MOST_BYTES:
            raise decode.UnreadableImageError(f"expected at most {_MOST_BYTES:,} bytes; received {size:,}")
        return {"image": upright(pathlib.Path(path).read_bytes()), "label": 0}

    def name(self, index: int) -> str:
        return os.fsdecode(self.paths[index])

    @functools.cached_property
    def positions(self) -> dict[str, int]:
        """Number of each file by its name."""
        return {self.name(index): index for index in range(len(self))}

    def relabelled(self, labels: Int[np.ndarray, " classes"]) -> "ImageFiles":
        """Itself: there are no labels."""
        del labels
        return self

    def selected(self, numbers: Int[np.ndarray, " k"]) -> "ImageFiles":
        return ImageFiles(self.paths[numbers])


def find_files(given: Sequence[str]) -> ImageFiles:
    """The files, and those that lie anywhere in the folders, in the order of the names.

    A file that is named is taken, whatever it is called. In folders an image file is known by its suffix. Hidden files
    and folders are left out, and so are linked folders. How many other files were left out is a warning.

    Args:
      given: paths of files and folders.

    Raises:
      FileNotFoundError: nothing of that name, or a folder without image files.
      ValueError: neither file nor folder, an address such as ``gs://``, or the same file twice.
    """
    found: list[str] = []
    for path in (checks.conform(_FIELD, one, checks.GivenPath) for one in given):
        if os.path.isdir(path):
            found += _in_folder(path)
        elif not os.path.lexists(path):
            raise FileNotFoundError(f"{_FIELD}: expected image files, or folders of them; received {path!r}: not there")
        elif not os.path.isfile(path):  # a pipe would be waited for
            raise checks.error(_FIELD, "image files, or folders of them", path)
        else:
            found.append(path)
    if not found:
        raise checks.error(_FIELD, "at least one image file, or a folder of them", checks.NOTHING)
    twice = [path for path, count in collections.Counter(map(os.path.abspath, found)).items() if count > 1]
    if twice:
        raise checks.error(_FIELD, "each file once", f"{twice[0]!r} twice")
    return ImageFiles(trees.as_bytes(found))


def _in_folder(folder: str) -> list[str]:
    paths, others = [], 0
    for path, is_image in _walk(folder):
        if is_image:
            paths.append(path)
        else:
            others += 1
    if not paths:
        suffixes = ", ".join(suffix[1:] for suffix in trees.IMAGE_SUFFIXES)
        raise FileNotFoundError(f"{_FIELD}: expected image files ({suffixes}) in {folder!r}; received none")
    if others:
        logging.warning("%s: left out, as the names are no images': %d", folder, others)
    return paths


def _walk(folder: str) -> Iterator[tuple[str, bool]]:
    """Each file that is not hidden, in the order of the names, and whether it is an image by its name."""
    for directory, folders, names in os.walk(folder, onerror=_raise):
        folders[:] = sorted(filter(trees.is_class, folders))
        for name in sorted(names):
            path = os.path.join(directory, name)
            if not name.startswith("."):
                yield path, trees.is_image(name) and os.path.isfile(path)


def _raise(problem: OSError) -> None:
    raise problem
