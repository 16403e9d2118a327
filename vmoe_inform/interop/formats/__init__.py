"""Formats of checkpoints: each reads names, shapes, types and values of arrays, and nothing of a file is executed.

A format is one file and one line below. What the arrays mean is in :mod:`vmoe_inform.interop.families`.
"""

import os

from vmoe_inform import checks, storage
from vmoe_inform.interop.formats import npz, refused, safetensors, vmoe_shards
from vmoe_inform.interop.formats.base import Format, damaged
from vmoe_inform.interop.stored import StoredCheckpoint
from vmoe_inform.registry import Registry

__all__ = ["FORMATS", "Format", "open_checkpoint"]

_MOST_AXES = 32
_MOST_SIZE = 1 << 48  # of an axis; an array without values may claim any, which NumPy does not take
FORMATS: Registry[Format] = Registry("format of checkpoints")
FORMATS.add("npz", npz.Npz())
FORMATS.add("safetensors", safetensors.Safetensors())
FORMATS.add("vmoe", vmoe_shards.VMoeShards())


def open_checkpoint(path: str | os.PathLike[str]) -> StoredCheckpoint:
    """Names, shapes and types of the arrays of a checkpoint of another program.

    Args:
      path: a file, a folder with one checkpoint, or what the names of its files begin with.

    Raises:
      FileNotFoundError: there is no such file, or a part of the checkpoint is missing.
      ValueError: a format that is not read, or a damaged file.
    """
    given = storage.path("--from", path)
    refused.check(given)
    found = {name: file for name in FORMATS if (file := FORMATS[name].find(given)) is not None}
    titles = ", ".join(FORMATS[name].title for name in FORMATS)
    if not found and not storage.exists(given):
        raise FileNotFoundError(f"--from: expected a checkpoint ({titles}); received {str(path)!r}, which is not there")
    if not found and storage.inputs.is_folder(given):
        refused.check_folder(given)
    if len(found) != 1:
        received = f"{given}, a folder with {', '.join(found)}" if found else str(given)
        raise checks.error("--from", f"one checkpoint, as {titles}", received)
    name, file = next(iter(found.items()))
    stored = FORMATS[name].open(file)
    for array, shape in stored.shapes.items():
        if len(shape) > _MOST_AXES or max(shape, default=0) > _MOST_SIZE:
            raise damaged(file, f"at most {_MOST_AXES} axes of at most {_MOST_SIZE:,}", f"{array} {list(shape)}")
    return stored
