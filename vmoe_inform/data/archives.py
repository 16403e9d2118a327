"""Archives of published data sets: what is in a tar, and which members are refused."""

import contextlib
import functools
import lzma
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from vmoe_inform import checks

_MAGIC = {b"\x1f\x8b": "gzip", b"\xfd7zXZ\0": "xz", b"BZh": "bzip2", b"PK\x03\x04": "zip"}
_BLOCK_BYTES = 512  # of tar files


@dataclass(frozen=True)
class Member:
    """A file in an uncompressed tar: ``size`` bytes from ``offset`` on."""

    parts: tuple[str, ...]
    offset: int
    size: int


def compression(path: Path) -> str:
    """``"gzip"``, ``"xz"``, ``"bzip2"``, ``"zip"``, or ``""`` for none that is known, by the first bytes."""
    with path.open("rb") as file:
        start = file.read(max(map(len, _MAGIC)))
    return next((name for magic, name in _MAGIC.items() if start.startswith(magic)), "")


def unpack_command(archive: Path) -> str:
    """What to type to unpack an archive beside itself."""
    return f"python -m vmoe_inform.data.unpack {archive} --directory={archive.parent}"


def check_parts(archive: Path, name: str) -> tuple[str, ...]:
    """Folders and file name of a member, in which ``.`` is left out.

    Raises:
      ValueError: a name that is absolute or has ``..``, which could lead out of the folder that is unpacked into.
    """
    parts = tuple(part for part in name.split("/") if part not in ("", "."))
    if name.startswith("/") or ".." in parts or not parts:
        raise checks.error(str(archive), "members with relative names and without '..'", name)
    return parts


def check_member(archive: Path, member: tarfile.TarInfo) -> tuple[str, ...]:
    """Like :func:`check_parts`, for a member of a tar.

    Raises:
      ValueError: also for links, devices and anything else that is neither a folder nor a plain file.
    """
    if not (member.isdir() or (member.isreg() and not member.issparse())):
        raise checks.error(str(archive), "files and folders only, no links or devices", member.name)
    if member.isdir() and member.name in (".", "./"):  # as `tar -c .` writes it
        return ()
    return check_parts(archive, member.name)


@contextlib.contextmanager
def whole(archive: Path) -> Iterator[None]:
    """What the readers of archives raise on damaged ones becomes a ValueError that names the file."""
    try:
        yield
    except (tarfile.TarError, zipfile.BadZipFile, EOFError, zlib.error, lzma.LZMAError) as problem:
        raise checks.error(str(archive), "a whole archive", f"{type(problem).__name__}: {problem}") from None
    except OSError as problem:
        if problem.errno is not None:  # of the file system, not of the reader of a damaged file
            raise
        raise checks.error(str(archive), "a whole archive", str(problem)) from None


def tar_members(archive: Path) -> tuple[Member, ...]:
    """The files of an uncompressed tar in their order; a tar is read through once, unless it changes.

    Raises:
      ValueError: a compressed archive, a damaged or truncated one, or a member that is refused.
    """
    status = archive.stat()
    return _tar_members(archive, status.st_size, status.st_mtime_ns)


@functools.lru_cache(maxsize=4)
def _tar_members(archive: Path, size: int, mtime_ns: int) -> tuple[Member, ...]:
    packed = compression(archive)
    if packed:
        expected = f"an uncompressed tar, to be read in place (unpack it: {unpack_command(archive)})"
        raise checks.error(str(archive), expected, packed)
    members: list[Member] = []
    end = 0
    with whole(archive), tarfile.open(archive, "r:") as file:
        while (member := file.next()) is not None:
            parts = check_member(archive, member)
            if member.isreg():
                members.append(Member(parts, member.offset_data, member.size))
            end = member.offset_data + -(-member.size // _BLOCK_BYTES) * _BLOCK_BYTES
            file.members.clear()  # type: ignore[attr-defined]  # a million of them would fill the memory
    with archive.open("rb") as content:
        content.seek(end)
        # A tar that was cut between two members looks whole but for the empty block at the end.
        if content.read(_BLOCK_BYTES) != bytes(_BLOCK_BYTES):
            raise checks.error(str(archive), "a whole archive, which ends in an empty block", f"{size} bytes")
    return tuple(members)
