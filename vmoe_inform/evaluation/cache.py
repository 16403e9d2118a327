"""Arrays that are dear to make, kept as files: written whole or not at all, and made again when damaged."""

import hashlib
from collections.abc import Callable, Mapping

import numpy as np
from absl import logging

from vmoe_inform import storage
from vmoe_inform.storage import locks


def cache_directory(configured: str) -> storage.Path:
    """``config.evaluation.cache_directory``, or if it is empty :func:`vmoe_inform.storage.cache_folder`."""
    return storage.path("evaluation.cache_directory", configured) if configured else storage.cache_folder()


def digest(**parts: str | int | np.ndarray | Mapping[str, str]) -> str:
    """32 hexadecimal digits that change with any part; arrays count with type, shape and content."""
    hasher = hashlib.sha256()
    for name, part in sorted(parts.items()):
        if isinstance(part, np.ndarray):
            hasher.update(f"{name}: {part.dtype} {part.shape} ".encode())
            hasher.update(np.ascontiguousarray(part).data)
        else:
            text = repr(sorted(part.items()) if isinstance(part, Mapping) else part)
            hasher.update(f"{name}: {text} ".encode())
    return hasher.hexdigest()[:32]


def is_whole(path: storage.Path) -> bool:
    """Whether ``path`` holds arrays that can be read; a damaged file is logged."""
    return read(path) is not None


def array(path: storage.Path, make: Callable[[], np.ndarray]) -> np.ndarray:
    """The array kept in ``path``, or ``make()``, which is then kept there."""
    kept = _array_in(path)
    if kept is None:
        kept = make()
        write(path, {"array": kept})
    return kept


def array_made_once(path: storage.Path, make: Callable[[], np.ndarray]) -> np.ndarray:
    """As :func:`array`; of several processes that need it, as those of a study, one makes it and the others wait."""
    kept = _array_in(path)
    if kept is not None:
        return kept
    with locks.held(path):
        return array(path, make)


def _array_in(path: storage.Path) -> np.ndarray | None:
    return (read(path) or {}).get("array")


def read(path: storage.Path, *, within: storage.Path | None = None) -> dict[str, np.ndarray] | None:
    """The arrays that :func:`write` has kept in ``path``; None, and a line in the log, if the file is damaged.

    Args:
      path: of the file.
      within: folder of the run that it belongs to, below which no folder may be a link.

    Raises:
      InputError: a folder on the way is a link or a file.
    """
    try:
        return storage.read_arrays(path, within=within)
    except FileNotFoundError:
        return None
    except storage.DamagedFileError as problem:
        logging.warning("damaged cache file %s; made again", problem)
        return None


def write(path: storage.Path, arrays: Mapping[str, np.ndarray], *, within: storage.Path | None = None) -> None:
    """Keeps arrays in ``path``. Readers, in other processes too, see the old file or the whole new one."""
    storage.write_arrays(path, arrays, within=within)
