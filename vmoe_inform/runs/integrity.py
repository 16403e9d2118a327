"""Damaged checkpoints: finding, reporting and putting them aside."""

import pathlib
from collections.abc import Sequence

from absl import logging

from vmoe_inform import checks, storage
from vmoe_inform.runs import checksums

REASON_LENGTH = 300  # of what the storage says of a damaged file, which may be pages


class DamagedCheckpointError(checks.InputError):
    """A checkpoint is not what was written."""


def damaged(folder: pathlib.Path, step: int, problem: Exception | str) -> DamagedCheckpointError:
    """The error, in one line.

    Args:
      folder: of all checkpoints.
      step: of this one.
      problem: what is wrong with it.
    """
    expected = "whole files (an older checkpoint may have them: FOLDER@STEP)"
    reason = " ".join(str(problem).split())[:REASON_LENGTH]
    return DamagedCheckpointError(str(checks.error(f"checkpoint {step} in {folder}", expected, reason)))


def problem_of(folder: pathlib.Path, step: int) -> DamagedCheckpointError | None:
    """The damage of a checkpoint, by its checksums; one without checksums passes with a warning."""
    try:
        if not checksums.verify(folder / str(step)):
            why = f"it has no {checksums.CHECKSUM_FILE}, as those of older versions"
            logging.warning("checkpoint %d in %s cannot be verified: %s", step, folder, why)
    except checksums.DamagedError as problem:
        return damaged(folder, step, problem)
    return None


def check_kinds(folder: pathlib.Path, step: int) -> None:
    """Raises DamagedCheckpointError if a checkpoint has anything but files and folders, such as a pipe, which whoever
    reads it would wait for."""
    try:
        checksums.check_kinds(folder / str(step))
    except checksums.DamagedError as problem:
        raise damaged(folder, step, problem) from None


def check_can_be_listed(folder: pathlib.Path) -> None:
    """Raises DamagedCheckpointError if a checkpoint must be moved away before the folder of all can be opened."""
    for step in storage.numbered_folders(folder):
        try:
            checksums.check_can_be_listed(folder / str(step))
        except checksums.DamagedError as problem:
            raise damaged(folder, step, f"{problem} (move this folder away to use the others)") from None


def set_aside(folder: pathlib.Path, steps: Sequence[int]) -> None:
    """Renames checkpoints to ``damaged_STEP``, or ``damaged_STEP_2`` if there is one; nothing is deleted."""
    for step in steps:
        logging.warning("checkpoint %d was moved to %s", step, storage.set_aside(folder / str(step)))
