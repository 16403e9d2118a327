"""Which place a path is in. Nothing else in the package asks."""

import functools
import importlib.util
import os
import pathlib
from typing import Any

from vmoe_inform import checks
from vmoe_inform.storage import _disk_inputs, disk
from vmoe_inform.storage.place import Inputs, Path, Place

# For orbax, which opens buckets by etils.epath. That takes TensorFlow where it is installed: slow to import, and with
# credentials of its own. It decides on first use, of local paths too.
os.environ.setdefault("EPATH_USE_TF", "false")

_SCHEME = "gs://"
_PACKAGES = ("gcsfs", "google.cloud.storage")


def path(field: str, value: str | os.PathLike[str], hint: Any = checks.RunPath) -> Path:
    """A path that a user gives, on this machine or in a bucket.

    Args:
      field: that named it, for the error message.
      value: such as ``~/run`` or ``gs://BUCKET/run``.
      hint: type of the setting or flag.

    Raises:
      InputError: it is neither, or the packages for buckets are missing.
    """
    text: str = checks.conform(field, os.fspath(value), hint)
    if not text.startswith(_SCHEME):
        return pathlib.Path(text)
    missing = [name for name in _PACKAGES if not _is_installed(name)]
    if missing:
        raise checks.error(field, f"the package {missing[0]} for buckets (pip install 'vmoe-inform[gcs]')", text)
    from vmoe_inform.storage import bucket

    return bucket.address(text)


@functools.cache
def _is_installed(package: str) -> bool:
    try:
        return importlib.util.find_spec(package) is not None
    except ModuleNotFoundError:  # of what it is a part of
        return False


def place_of(path: Path) -> Place:
    """The place that a path is in."""
    if isinstance(path, pathlib.Path):
        return disk
    from vmoe_inform.storage import bucket

    return bucket


def inputs_of(path: Path) -> Inputs:
    """What reads the files that users name in the place of a path."""
    if isinstance(path, pathlib.Path):
        return _disk_inputs
    from vmoe_inform.storage import _bucket_inputs

    return _bucket_inputs
