"""Locks, of which a process that ends for any reason leaves none that another has to remove."""

import contextlib
from collections.abc import Iterator

from absl import logging

from vmoe_inform.storage._files import make_folder
from vmoe_inform.storage._which import place_of
from vmoe_inform.storage.place import Lock, Path


def lock_at(path: Path) -> Lock:
    """The lock of a file that nothing else is in; made if there is none, and not taken yet.

    Raises as :func:`vmoe_inform.storage.opened`.
    """
    return place_of(path).lock(path)


@contextlib.contextmanager
def held(path: Path, *, within: Path | None = None) -> Iterator[None]:
    """Holds the lock of a file that several processes change, and waits for it.

    Where the file system has no locks, one line says so; two that write at the same moment then lose what one wrote.
    """
    make_folder(path.parent, within=within)
    with contextlib.closing(lock_at(path.with_name(f".{path.name}.lock"))) as lock:
        if not lock.take(wait=True):
            logging.warning("%s: this file system has no locks; write it from one command at a time", path)
        yield
