"""Archives of published data sets: what is in a tar, and which members are refused."""

import contextlib
import errno
import functools
import lzma
import os
import shlex
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Self

from vmoe_inform import checks, storage
from vmoe_inform.storage import inputs

_MAGIC = {b"\x1f\x8b": "gzip", b"\xfd7zXZ\0": "xz", b"BZh": "bzip2", b"PK\x03\x04": "zip"}
_MAGIC |= {b"\x28\xb5\x2f\xfd": "zstd", b"7z\xbc\xaf\x27\x1c": "7z", b"Rar!": "rar"}  # to be named, not read
_MAX_FOLDERS = 64  # one in another
_MAX_NAME_BYTES = 255  # as of most file systems
# Headers that tell more of the next member, and the bytes that they may take: they are read into memory.
_EXTENSIONS = (
    tarfile.XHDTYPE,
    tarfile.XGLTYPE,
    tarfile.SOLARIS_XHDTYPE,
    tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
)
_MAX_EXTENSION_BYTES = 1 << 20


@dataclass(frozen=True)
class Member:
    """A file in an uncompressed tar: ``size`` bytes from ``offset`` on."""

    parts: tuple[str, ...]
    offset: int
    size: int


class _Header(tarfile.TarInfo):
    """A member's header. By itself tarfile takes a damaged one for the end of the archive, as it does its real end."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
        """As of TarInfo.

        Raises:
          ReadError: a damaged header, an archive that ends without its empty block, or a header that is too large.
        """
        with _strict(buf):
            return _not_too_large(super().frombuf(buf, encoding, errors))

    @classmethod
    def _frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str, **options: bool) -> Self:
        """What newer versions of tarfile (since 2025, and Debian's 3.11.2) call in place of ``frombuf``."""
        with _strict(buf):
            return _not_too_large(super()._frombuf(buf, encoding, errors, **options))  # type: ignore[misc]


@contextlib.contextmanager
def _strict(buf: bytes | bytearray) -> Iterator[None]:
    try:
        yield
    except tarfile.HeaderError as problem:
        if bytes(buf) == bytes(tarfile.BLOCKSIZE):  # the empty block at the end
            raise
        raise tarfile.ReadError(f"{problem} where a member or the empty block at the end should be") from None


def _not_too_large(header: Any) -> Any:
    if header.size < 0 or (header.type in _EXTENSIONS and header.size > _MAX_EXTENSION_BYTES):
        raise tarfile.ReadError(f"a header of {header.size} bytes")
    return header


def read_tar(stream: IO[bytes]) -> Iterator[tuple[tarfile.TarFile, tarfile.TarInfo]]:
    """The members of an uncompressed tar, read as a stream: each is read before the next.

    Raises:
      TarError: a damaged or truncated tar.
    """
    with tarfile.open(fileobj=stream, mode="r|", tarinfo=_Header) as tar:
        while (member := tar.next()) is not None:
            yield tar, member
            tar.members.clear()  # type: ignore[attr-defined]  # a million of them would fill the memory


def compression(path: storage.Path) -> str:
    """``"gzip"``, ``"xz"``, ``"bzip2"``, ``"zip"``, ``"zstd"``, ``"7z"``, ``"rar"``, or ``""``, by the first bytes."""
    start = inputs.first_bytes(path, max(map(len, _MAGIC)))
    return next((name for magic, name in _MAGIC.items() if start.startswith(magic)), "")


def unpack_command(archive: storage.Path) -> str:
    """The command that unpacks an archive into its own folder."""
    return shlex.join(["python", "-m", "vmoe_inform.data.unpack", str(archive), f"--directory={archive.parent}"])


def check_parts(archive: Path, name: str) -> tuple[str, ...]:
    """Folders and file name of a member, without ``.``.

    Raises:
      ValueError: a name that is absolute or has ``..``, and so could leave the target folder. Also one that no file
        system takes, or in very many folders.
    """
    parts = tuple(part for part in name.split("/") if part not in ("", "."))
    if name.startswith("/") or ".." in parts or not parts:
        raise checks.error(str(archive), "members with relative names and without '..'", name)
    if len(parts) > _MAX_FOLDERS:
        received = f"{name[:60]}... in {len(parts)}"
        raise checks.error(str(archive), f"members in at most {_MAX_FOLDERS} folders", received)
    if "\0" in name or max(len(os.fsencode(part)) for part in parts) > _MAX_NAME_BYTES:
        raise checks.error(str(archive), f"names of at most {_MAX_NAME_BYTES} bytes, none of them zero", name[:300])
    return parts


def check_member(archive: Path, member: tarfile.TarInfo) -> tuple[str, ...]:
    """Like :func:`check_parts`, for a member of a tar.

    Raises:
      ValueError: also for links, devices and anything else that is neither a folder nor a plain file.
    """
    if member.size < 0:
        raise checks.error(str(archive), "members of at least 0 bytes", f"{member.name} of {member.size}")
    if not (member.isdir() or (member.isreg() and not member.issparse())):
        raise checks.error(str(archive), "files and folders only, no links or devices", member.name)
    if member.isdir() and member.name in (".", "./"):  # as `tar -c .` writes it
        return ()
    return check_parts(archive, member.name)


@contextlib.contextmanager
def whole(archive: Path) -> Iterator[None]:
    """Turns the errors of archive readers on damaged files into a ValueError that names the file."""
    try:
        yield
    except checks.InputError:
        raise
    except _DAMAGED as problem:
        raise checks.error(str(archive), "a whole archive", f"{type(problem).__name__}: {problem}") from None
    except OSError as problem:
        if problem.errno not in (None, errno.EINVAL):  # of the file system, not of a reader led astray
            raise
        raise checks.error(str(archive), "a whole archive", str(problem)) from None


_DAMAGED = (
    tarfile.TarError,
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    struct.error,
    EOFError,
    ValueError,
    IndexError,
    OverflowError,
    RuntimeError,  # such as a RecursionError of a header that tells of a header that tells of ...
)


def local_tar(archive: storage.Path) -> Path:
    """An uncompressed tar on this machine; one of a bucket is fetched.

    Raises:
      ValueError: a compressed archive.
    """
    packed = compression(archive)
    if packed:
        expected = f"an uncompressed tar, to be read in place (unpack it: {unpack_command(archive)})"
        raise checks.error(str(archive), expected, packed)
    return inputs.local(archive)


def tar_members(archive: Path) -> tuple[Member, ...]:
    """The files of an uncompressed tar in their order; a tar is scanned once, unless it changes.

    Raises:
      ValueError: a compressed archive, a damaged or truncated one, or a member that is refused.
    """
    return _read(archive)[0]


def tar_folders(archive: Path) -> tuple[tuple[str, ...], ...]:
    """The folders that an uncompressed tar lists for themselves, as the parts of their paths.

    Raises:
      ValueError: as :func:`tar_members`.
    """
    return _read(archive)[1]


_Contents = tuple[tuple[Member, ...], tuple[tuple[str, ...], ...]]


def _read(archive: Path) -> _Contents:
    status = archive.stat()
    return _read_once(archive, status.st_size, status.st_mtime_ns)


@functools.lru_cache(maxsize=4)
def _read_once(archive: Path, size: int, mtime_ns: int) -> _Contents:
    local_tar(archive)
    members: list[Member] = []
    folders: list[tuple[str, ...]] = []
    with whole(archive), tarfile.open(archive, "r:", tarinfo=_Header) as file:
        while (member := file.next()) is not None:
            parts = check_member(archive, member)
            if member.isreg():
                members.append(Member(parts, member.offset_data, member.size))
            elif parts:
                folders.append(parts)
            file.members.clear()  # type: ignore[attr-defined]  # a million of them would fill the memory
    return tuple(members), tuple(folders)
