"""Unpacks archives whole or not at all, and never outside the target folder."""

import bz2
import contextlib
import gzip
import lzma
import pathlib
import stat
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Mapping
from typing import IO, Any

from vmoe_inform import checks, text
from vmoe_inform.data import archives
from vmoe_inform.data.images import ilsvrc

_FOLDERS = {ilsvrc.TRAIN_TAR: "train", ilsvrc.VALIDATION_TAR: "val"}  # whose members are in no folder
_TEMPORARY = ".unpacking_"
_PROGRESS_FILES = 50_000
_PIECE_BYTES = 1 << 20
_OPENERS: Mapping[str, Callable[..., Any]] = {"gzip": gzip.open, "xz": lzma.open, "bzip2": bz2.open, "": open}

# Images hardly become smaller in an archive, and texts ten times; what becomes much larger is meant to fill the disk.
_MAX_RATIO = 50
_ALWAYS_ALLOWED_BYTES = 10**9
_LEAST_BYTES = 4096  # that a file or folder takes on the disk

# (folders and name, content) of each file, and of each folder without content.
Members = Iterator[tuple[tuple[str, ...], IO[bytes] | None]]


def default_limit(archive_bytes: int) -> int:
    """Default limit of the bytes that an archive of this size may unpack to."""
    return max(_ALWAYS_ALLOWED_BYTES, _MAX_RATIO * archive_bytes)


def unpack(
    archive: pathlib.Path, directory: pathlib.Path, max_bytes: int | None = None
) -> tuple[list[pathlib.Path], int]:
    """Unpacks one archive.

    All of it is read to the end, checksums included, before anything appears in ``directory``.

    Args:
      archive: the file.
      directory: where to; it is made.
      max_bytes: that may be unpacked; None for :func:`default_limit`.

    Returns:
      what is new in ``directory``, and the number of files.

    Raises:
      FileNotFoundError: no such archive.
      ValueError: no archive or a damaged one, or more than ``max_bytes``. Also a member that is refused or comes twice,
        or a file or folder that exists already.
      OSError: the disk is full, for instance. After any of these ``directory`` is as it was.
    """
    if not archive.is_file():
        raise FileNotFoundError(f"archive: expected a file; received {str(archive)!r}")
    budget = _Budget(archive, default_limit(archive.stat().st_size) if max_bytes is None else max_bytes)
    directory.mkdir(parents=True, exist_ok=True)
    for left in sorted(directory.glob(f"{_TEMPORARY}*")):
        print(text.printable(f"left by an unpacking that was interrupted, or runs now: {left}"))
    # On the file system of the target, so that the files can be renamed.
    with tempfile.TemporaryDirectory(prefix=_TEMPORARY, dir=directory) as temporary, archives.whole(archive):
        members = _of_zip if archives.compression(archive) == "zip" else _of_tar
        count = 0
        for parts, content in members(archive, budget):
            _refuse_existing(archive, directory / parts[0])
            budget.spend(_LEAST_BYTES)
            _write(archive, pathlib.Path(temporary, *parts), parts, content, budget)
            count += content is not None
            if content is not None and count % _PROGRESS_FILES == 0:
                print(text.printable(f"{archive.name}: {count:,} files"), flush=True)
        if count == 0:
            raise checks.error(str(archive), "an archive with files", checks.NOTHING)
        return _put_in_place(archive, pathlib.Path(temporary), directory), count


class _Budget:
    """Bytes that may still be unpacked."""

    def __init__(self, archive: pathlib.Path, limit: int):
        self._archive, self._limit, self._left = archive, limit, limit

    def spend(self, number: int) -> None:
        """Raises ValueError when too many were spent."""
        self._left -= number
        if self._left < 0:
            expected = f"at most {self._limit / 1e9:g} GB in it (--max_unpacked_gb)"
            raise checks.error(str(self._archive), expected, "more")


def _write(
    archive: pathlib.Path, path: pathlib.Path, parts: tuple[str, ...], content: IO[bytes] | None, budget: _Budget
) -> None:
    """A folder, or a file with its folders."""
    try:
        (path if content is None else path.parent).mkdir(parents=True, exist_ok=True)
        if content is not None:
            with path.open("xb") as file:
                while piece := content.read(_PIECE_BYTES):
                    budget.spend(len(piece))
                    file.write(piece)
    except (FileExistsError, NotADirectoryError, IsADirectoryError):
        received = "/".join(parts)
        raise checks.error(str(archive), "each member once, as a file or as a folder", received) from None
    except OSError as problem:
        if problem.errno is None or problem.filename is not None:
            raise
        raise OSError(problem.errno, problem.strerror, str(path)) from None  # such as of a full disk


def _put_in_place(archive: pathlib.Path, temporary: pathlib.Path, directory: pathlib.Path) -> list[pathlib.Path]:
    new = [directory / path.name for path in sorted(temporary.iterdir())]
    for path in new:
        _refuse_existing(archive, path)
    with contextlib.ExitStack() as undo:
        for path in new:
            (temporary / path.name).rename(path)
            undo.callback(path.rename, temporary / path.name)
        undo.pop_all()
    return new


def _refuse_existing(archive: pathlib.Path, path: pathlib.Path) -> None:
    if path.exists() or path.is_symlink():
        raise checks.error(str(archive), f"no {path.name} in {path.parent} yet", "one that is there")


def _of_tar(archive: pathlib.Path, budget: _Budget) -> Members:
    packed = archives.compression(archive)
    if not packed:
        archives.tar_members(archive)  # an archive that is cut or refused is known before anything is written
    if packed not in _OPENERS:
        raise checks.error(str(archive), "a tar, tar.gz, tar.bz2, tar.xz or zip", packed)
    top = (_FOLDERS[archive.name],) if archive.name in _FOLDERS else ()
    with _OPENERS[packed](archive, "rb") as stream:
        for parts, content in _of_stream(archive, stream):
            if content is None or not parts[-1].endswith(".tar"):
                yield top + parts, content
                continue
            name = "/".join((*top, *parts)).removesuffix(".tar")  # the images of one class; it may be ".." by now
            class_folder = archives.check_parts(archive, name)
            if len(class_folder) != len(top + parts):
                raise checks.error(str(archive), "a tar CLASS.tar for each class", "/".join(parts))
            for inner_parts, inner_content in _of_stream(archive, content):
                yield class_folder + inner_parts, inner_content
        # To the end of the file, where the checksum is.
        while piece := stream.read(_PIECE_BYTES):
            budget.spend(len(piece))


def _of_stream(archive: pathlib.Path, stream: IO[bytes]) -> Members:
    """The members of a tar, each to be read before the next."""
    for tar, member in archives.read_tar(stream):
        parts = archives.check_member(archive, member)
        if parts:
            yield parts, tar.extractfile(member) if member.isreg() else None


def _of_zip(archive: pathlib.Path, _: _Budget) -> Members:
    with zipfile.ZipFile(archive) as file:
        for member in file.infolist():
            parts = archives.check_parts(archive, member.filename)
            mode = member.external_attr >> 16  # as Unix programs write it, else 0
            if stat.S_IFMT(mode) not in (0, stat.S_IFREG, stat.S_IFDIR):
                raise checks.error(str(archive), "files and folders only, no links or devices", member.filename)
            if member.flag_bits & 0x1:
                raise checks.error(str(archive), "members without a password", member.filename)
            if member.is_dir():
                yield parts, None
            else:
                with file.open(member) as content:
                    yield parts, content
