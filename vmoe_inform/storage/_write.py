"""Writes files of a run: whole or not at all, or by adding to their end; never through a link."""

import contextlib
import io
import json
import os
import pathlib
import secrets
import zipfile
from collections.abc import Iterator, Mapping
from typing import IO, Any, TextIO

import numpy as np

from vmoe_inform.storage import strict
from vmoe_inform.storage._paths import make_folder, open_descriptor, set_aside


@contextlib.contextmanager
def replacing(path: pathlib.Path, *, within: pathlib.Path | None = None) -> Iterator[IO[bytes]]:
    """A file to write to, which replaces ``path`` once all is written and on the disk.

    Readers, in other processes too, see the old file or the whole new one. A link is replaced, not followed; a folder
    in the way is put aside (:func:`set_aside`). Folders on the way are made.
    """
    make_folder(path.parent, within=within)
    temporary = path.with_name(f".{secrets.token_hex(8)}.tmp")
    try:
        with temporary.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        if path.is_dir() and not path.is_symlink():
            set_aside(path)
        temporary.replace(path)
    except OSError as problem:
        temporary.unlink(missing_ok=True)
        if problem.filename is not None or problem.errno is None:
            raise
        raise OSError(problem.errno, problem.strerror, str(path)) from None  # such as a full disk, which names no file
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write_bytes(path: pathlib.Path, content: bytes, *, within: pathlib.Path | None = None) -> None:
    """Writes a file, see :func:`replacing`."""
    with replacing(path, within=within) as file:
        file.write(content)


def write_text(path: pathlib.Path, text: str, *, within: pathlib.Path | None = None) -> None:
    """Writes a text as UTF-8, see :func:`replacing`."""
    write_bytes(path, text.encode("utf-8"), within=within)


def write_json(
    path: pathlib.Path,
    value: Any,
    *,
    within: pathlib.Path | None = None,
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
    path: pathlib.Path,
    arrays: Mapping[str, np.ndarray],
    *,
    within: pathlib.Path | None = None,
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


def appending(path: pathlib.Path, *, within: pathlib.Path | None = None) -> TextIO:
    """A text file to which lines are added; made if there is none. Raises as :func:`opened`."""
    make_folder(path.parent, within=within)
    return io.TextIOWrapper(
        os.fdopen(open_descriptor(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT), "ab"), encoding="utf-8"
    )


class GrowingFile:
    """A file that grows: bytes that cannot be written are kept, and written before the next ones.

    It is opened each time: what is added never goes to a file that has been removed, or through a link. An addition
    that fails is taken back, so that the file always ends with a whole one.
    """

    def __init__(self, path: pathlib.Path, *, header: bytes = b"", within: pathlib.Path | None = None):
        """Args:
        path: of the file, which is made if there is none.
        header: what it begins with.
        within: folder of the run.
        """
        self.path, self._header, self._within = path, header, within
        self._waiting = b""

    @property
    def waiting(self) -> int:
        """Bytes that could not be written yet."""
        return len(self._waiting)

    def add(self, content: bytes) -> None:
        """Adds bytes. Raises OSError, or as :func:`opened`, if they cannot be written now."""
        self._waiting += content
        make_folder(self.path.parent, within=self._within)
        descriptor = open_descriptor(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        size = os.fstat(descriptor).st_size
        left = memoryview((b"" if size else self._header) + self._waiting)
        try:
            try:
                while left:
                    left = left[os.write(descriptor, left) :]
            finally:
                os.close(descriptor)  # network file systems may say only now that there is no room
        except OSError as problem:
            with contextlib.suppress(OSError):
                os.truncate(self.path, size)
            raise OSError(problem.errno, problem.strerror, str(self.path)) from None
        self._waiting = b""
