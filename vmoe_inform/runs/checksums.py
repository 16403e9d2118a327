"""Checksums of a checkpoint's files: written as a part of it, compared before anything of it is read."""

import pathlib
from concurrent import futures
from typing import TypedDict

from vmoe_inform import storage

CHECKSUM_FILE = "checksums.json"
# Orbax writes these two into the checkpoint when all else is there; nothing of the state is in them.
_WRITTEN_LAST = ("_CHECKPOINT_METADATA", "commit_success.txt")
_THREADS = 8  # hashing leaves the interpreter to others


class _Checksums(TypedDict):
    sha256: dict[str, str]


class DamagedError(Exception):
    """A checkpoint is not what was written; the message names the file."""


def write(folder: pathlib.Path) -> None:
    """Writes the SHA-256 of every file of a checkpoint that is about to be complete into it, whole or not at all."""
    storage.write_json(folder / CHECKSUM_FILE, {"sha256": _checksums(folder)}, indent=1, sort_keys=True)


def verify(folder: pathlib.Path) -> bool:
    """Compares a checkpoint with its checksums.

    Returns:
      False if it has none: one of an older version of the library, which cannot be verified.

    Raises:
      DamagedError: a file has changed, is missing or is not of the checkpoint. Also a pipe, a device, or a symbolic
        link, through which a checkpoint from elsewhere could make this process read any file of this machine.
    """
    try:
        files = _files(folder)
        try:
            expected = storage.read_json(folder / CHECKSUM_FILE, _Checksums)["sha256"]
        except FileNotFoundError:
            return False
        except storage.DamagedFileError as problem:
            raise DamagedError(f"{CHECKSUM_FILE}: not what was written ({problem.received})") from None
        names = set(expected)
        missing, unknown = sorted(names - set(files)), sorted(set(files) - names)
        if missing or unknown:
            raise DamagedError(f"{missing[0]}: missing" if missing else f"{unknown[0]}: not a file of the checkpoint")
        received = _checksums(folder)
    except OSError as problem:
        raise DamagedError(f"{problem.filename}: {problem.strerror}") from None
    changed = sorted(name for name in names if received[name] != expected[name])
    if changed:
        raise DamagedError(f"{changed[0]}: SHA-256 expected {expected[changed[0]]}; received {received[changed[0]]}")
    return True


def check_kinds(folder: pathlib.Path) -> None:
    """Raises DamagedError if a checkpoint has anything but files and folders; reads nothing."""
    _files(folder)


def check_can_be_listed(folder: pathlib.Path) -> None:
    """Raises DamagedError if a file that orbax reads before a checkpoint is chosen is no file.

    Args:
      folder: of a checkpoint.
    """
    for name in _WRITTEN_LAST:
        try:
            storage.check_is_file(folder / name)
        except storage.DamagedFileError as problem:
            raise DamagedError(f"{name}: {problem.received} in place of a file") from None


def _files(folder: pathlib.Path) -> list[str]:
    """Names, relative to the checkpoint, of the files that have a checksum."""
    try:
        names = list(storage.regular_files(folder))
    except storage.DamagedFileError as problem:
        name = folder.name if problem.path == folder else problem.path.relative_to(folder).as_posix()
        raise DamagedError(f"{name}: {problem.received} in place of {problem.expected}") from None
    except OSError as problem:
        raise DamagedError(f"{problem.filename}: {problem.strerror}") from None
    return [name for name in names if name not in (CHECKSUM_FILE, *_WRITTEN_LAST)]


def _checksums(folder: pathlib.Path) -> dict[str, str]:
    names = _files(folder)
    with futures.ThreadPoolExecutor(_THREADS) as threads:
        return dict(zip(names, threads.map(storage.sha256, [folder / name for name in names]), strict=True))
