"""Formats that are known and not read, with the reason and what to do instead."""

import zipfile

from vmoe_inform import checks, storage
from vmoe_inform.interop.formats.base import first_bytes
from vmoe_inform.storage import inputs

_PICKLE = (
    "a pickle, which runs code when it is read: save the arrays with safetensors.torch.save_file where you trust it"
)
_BEGINNINGS = {
    b"\x80\x02": _PICKLE,
    b"\x80\x03": _PICKLE,
    b"\x80\x04": _PICKLE,
    b"\x80\x05": _PICKLE,
    b"\x89HDF\r\n\x1a\n": "an HDF5 file: save the arrays with numpy.savez",
    b"\x93NUMPY": "one array (.npy): save all arrays of the model with numpy.savez",
    b"version https://git-lfs": "a pointer of Git LFS: fetch the file itself with git lfs pull",
}
_SUFFIXES = {
    ".pth": _PICKLE,
    ".pt": _PICKLE,
    ".bin": _PICKLE,
    ".ckpt": _PICKLE,
    ".pkl": _PICKLE,
    ".msgpack": "a file of Flax: save the flat parameters with numpy.savez",
}
_EXPECTED = "a format that is read (docs/interop.md)"


def check(path: storage.Path) -> None:
    """Raises ValueError for a file of a format that is known and not read, and for a run's folder."""
    if inputs.is_folder(path):
        if inputs.is_folder(path / "checkpoints") and inputs.is_file(path / "config.json"):
            received = f"{path}, a run's folder, which needs no import: pass it as --workdir"
            raise checks.InputError(f"--from: expected a checkpoint of another program; received {received}")
        return
    beginning = first_bytes(path, 32)
    if beginning[8:9] == b"{":  # safetensors, whose length before it may look like the beginning of a pickle
        return
    reasons = [reason for start, reason in _BEGINNINGS.items() if beginning.startswith(start)]
    if beginning.startswith(b"PK") and _holds_pickle(path):
        reasons.append(_PICKLE)
    if beginning and not beginning.startswith(b"PK") and path.suffix in _SUFFIXES:
        reasons.append(_SUFFIXES[path.suffix])
    if reasons:
        raise checks.InputError(f"--from: expected {_EXPECTED}; received {path}, {reasons[0]}")


def check_folder(folder: storage.Path) -> None:
    """Raises ValueError for a folder that has files of a format that is known and not read."""
    for entry in sorted(inputs.entries(folder)):
        if entry.is_file:
            check(folder / entry.name)


def _holds_pickle(path: storage.Path) -> bool:
    """Whether a zip archive is one of PyTorch."""
    try:
        with zipfile.ZipFile(inputs.local(path)) as archive:
            return any(name.endswith(".pkl") for name in archive.namelist())
    except (zipfile.BadZipFile, OSError, ValueError):
        return False  # said by the reader of npz
