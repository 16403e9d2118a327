"""Writes files of a run: whole or not at all, or by adding to their end; never through a link."""

import contextlib
import json
import shutil
import sys
import zipfile
from collections.abc import Iterator, Mapping
from typing import IO, Any, TextIO

import numpy as np

from vmoe_inform.storage import strict
from vmoe_inform.storage._damage import names_aside
from vmoe_inform.storage._files import exists, make_folder
from vmoe_inform.storage._read import opened
from vmoe_inform.storage._which import place_of
from vmoe_inform.storage.place import Path


@contextlib.contextmanager
def replacing(path: Path, *, within: Path | None = None) -> Iterator[IO[bytes]]:
    """A file to write to, which replaces ``path`` once all is written and will stay.

    Readers, in other processes too, see the old file or the whole new one. A link is replaced, not followed; a folder
    in the way is put aside (:func:`set_aside`). Folders on the way are made.
    """
    make_folder(path.parent, within=within)
    with place_of(path).replacing(path) as file:
        yield file


def copy_aside(path: Path, *, within: Path | None = None) -> Path:
    """Copies a file as :func:`~vmoe_inform.storage.set_aside` renames one: for a file whose place must not be empty.

    Raises as :func:`~vmoe_inform.storage.opened`.
    """
    target = next(name for name in names_aside(path) if not exists(name))
    with opened(path, most_bytes=sys.maxsize, within=within) as (file, _), replacing(target, within=within) as copied:
        shutil.copyfileobj(file, copied)
    return target


def write_bytes(path: Path, content: bytes, *, within: Path | None = None) -> None:
    """Writes a file, see :func:`replacing`."""
    with replacing(path, within=within) as file:
        file.write(content)


def write_text(path: Path, text: str, *, within: Path | None = None) -> None:
    """Writes a text as UTF-8, see :func:`replacing`."""
    write_bytes(path, text.encode("utf-8"), within=within)


def write_json(
    path: Path,
    value: Any,
    *,
    within: Path | None = None,
    indent: int | None = 2,
    sort_keys: bool = False,
) -> None:
    """Writes JSON that :func:`read_json` reads, see :func:`replacing`.

    Raises:
      ValueError: a number that is not finite.
    """
    text = json.dumps(value, indent=indent, sort_keys=sort_keys, allow_nan=False)
    write_text(path, text + "\n", within=within)


def write_arrays(
    path: Path,
    arrays: Mapping[str, np.ndarray],
    *,
    within: Path | None = None,
    compressed: bool = False,
) -> None:
    """Writes arrays that :func:`read_arrays` reads, as an npz file; see :func:`replacing`.

    Raises:
      TypeError: an array of objects.
    """
    kind = zipfile.ZIP_DEFLATED if compressed else zipfile.ZIP_STORED
    with replacing(path, within=within) as file, zipfile.ZipFile(file, "w", kind) as archive:
        for name, array in arrays.items():
            values = np.asarray(array)
            if values.dtype.kind not in strict.ARRAY_KINDS:
                raise TypeError(f"{path}: {name!r} is an array of {values.dtype}")
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array(member, values, allow_pickle=False)


def appending(path: Path, *, within: Path | None = None) -> contextlib.AbstractContextManager[TextIO]:
    """A text file with a descriptor of this machine, to which lines are added; made if there is none.

    In a bucket, what is written arrives every few seconds, and at the end. Raises as :func:`opened`.
    """
    make_folder(path.parent, within=within)
    return place_of(path).appending(path)
