"""Whether a checkpoint is what was written: checksums of its files, a part of it, compared before anything is read."""

from collections.abc import Sequence
from concurrent import futures
from typing import TypedDict

from absl import logging

from vmoe_inform import checks, storage

REASON_LENGTH = 300  # of what the storage says of a damaged file, which may be pages
CHECKSUM_FILE = "checksums.json"
# Orbax writes these two into the checkpoint when all else is there; nothing of the state is in them.
_WRITTEN_LAST = ("_CHECKPOINT_METADATA", "commit_success.txt")
_THREADS = 8  # hashing leaves the interpreter to others


class _Checksums(TypedDict):
    sha256: dict[str, str]


class DamagedCheckpointError(checks.InputError):
    """A checkpoint is not what was written."""


def damaged(checkpoint: storage.Path, problem: Exception | str) -> DamagedCheckpointError:
    """The error, in one line.

    Args:
      checkpoint: its folder, whose name is its step.
      problem: what is wrong with it.
    """
    expected = "whole files (an older checkpoint may have them: FOLDER@STEP)"
    reason = " ".join(str(problem).split())[:REASON_LENGTH]
    field = f"checkpoint {checkpoint.name} in {checkpoint.parent}"
    return DamagedCheckpointError(str(checks.error(field, expected, reason)))


def write_checksums(folder: storage.Path) -> None:
    """Writes the SHA-256 of every file of a checkpoint that is about to be complete into it, whole or not at all."""
    storage.write_json(folder / CHECKSUM_FILE, {"sha256": _sha256(folder, _files(folder))}, indent=1, sort_keys=True)


def problem_of(checkpoint: storage.Path) -> DamagedCheckpointError | None:
    """The damage of a checkpoint, by its checksums; one without checksums passes with a warning.

    Damage is a file that has changed, is missing or is not of the checkpoint. So is a pipe, a device or a symbolic
    link. Through a link, a checkpoint from elsewhere could make this process read any file of this machine.
    """
    try:
        _verify(checkpoint)
    except DamagedCheckpointError as problem:
        return problem
    except OSError as problem:
        return damaged(checkpoint, f"{problem.filename}: {problem.strerror}")
    return None


def _verify(checkpoint: storage.Path) -> None:
    files = _files(checkpoint)
    try:
        expected = storage.read_json(checkpoint / CHECKSUM_FILE, _Checksums)["sha256"]
    except FileNotFoundError:
        why = f"it has no {CHECKSUM_FILE}, as those of older versions"
        logging.warning("checkpoint %s in %s cannot be verified: %s", checkpoint.name, checkpoint.parent, why)
        return
    except storage.DamagedFileError as problem:
        raise damaged(checkpoint, f"{CHECKSUM_FILE}: not what was written ({problem.received})") from None
    missing, unknown = sorted(set(expected) - set(files)), sorted(set(files) - set(expected))
    if missing or unknown:
        what = f"{missing[0]}: missing" if missing else f"{unknown[0]}: not a file of the checkpoint"
        raise damaged(checkpoint, what)
    received = _sha256(checkpoint, files)
    for name in sorted(expected):
        if received[name] != expected[name]:
            raise damaged(checkpoint, f"{name}: SHA-256 expected {expected[name]}; received {received[name]}")


def check_kinds(checkpoint: storage.Path) -> None:
    """Raises DamagedCheckpointError if a checkpoint has anything but files and folders, such as a pipe, which whoever
    reads it would wait for; reads nothing."""
    try:
        _files(checkpoint)
    except OSError as problem:
        raise damaged(checkpoint, f"{problem.filename}: {problem.strerror}") from None


def check_can_be_listed(folder: storage.Path) -> None:
    """Raises DamagedCheckpointError if a checkpoint must be moved away before the folder of all can be opened.

    Orbax reads some files of every checkpoint before one is chosen. These have to be files.
    """
    for step in storage.numbered_folders(folder):
        for name in _WRITTEN_LAST:
            try:
                storage.check_is_file(folder / str(step) / name)
            except storage.DamagedFileError as problem:
                what = f"{name}: {problem.received} in place of a file (move this folder away to use the others)"
                raise damaged(folder / str(step), what) from None


def _files(checkpoint: storage.Path) -> list[str]:
    """Names, relative to the checkpoint, of the files that have a checksum."""
    try:
        names = list(storage.regular_files(checkpoint))
    except storage.DamagedFileError as problem:
        is_all = problem.path == checkpoint
        name = checkpoint.name if is_all else problem.path.relative_to(checkpoint).as_posix()
        raise damaged(checkpoint, f"{name}: {problem.received} in place of {problem.expected}") from None
    return [name for name in names if name not in (CHECKSUM_FILE, *_WRITTEN_LAST)]


def _sha256(checkpoint: storage.Path, names: Sequence[str]) -> dict[str, str]:
    with futures.ThreadPoolExecutor(_THREADS) as threads:
        return dict(zip(names, threads.map(storage.sha256, [checkpoint / name for name in names]), strict=True))
