"""Locks of files by the operating system, which drops them when the process ends, however it ends."""

import contextlib
import errno
import fcntl
import os
import pathlib
import struct
import sys
from collections.abc import Iterator

from absl import logging

from vmoe_inform import storage

_IN_USE = (errno.EAGAIN, errno.EACCES)  # what `fcntl` and `flock` say of a lock that is held
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL)


def open_file(path: pathlib.Path) -> int:
    """Descriptor of a file that can be read, written and locked; made if there is none. Raises as
    :func:`vmoe_inform.storage.opened`."""
    return storage.open_descriptor(path, os.O_RDWR | os.O_CREAT)


def take(descriptor: int, *, wait: bool) -> bool:
    """Locks an open file until it is closed; the system does that too when the process ends, however it ends.

    The lock is one of `fcntl`, which network file systems pass on to their server, and of the open file: one of a
    process would be lost when any descriptor of the file is closed in it. One of `flock` is not passed on by all.

    Args:
      descriptor: of a file that can be written to.
      wait: for another that holds the lock.

    Returns:
      False if the file system has no locks.

    Raises:
      BlockingIOError: another holds it, and ``wait`` is False.
      OSError: any other reason.
    """
    try:
        if sys.platform == "linux":
            whole_file = struct.pack("@hhqqi4x", fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)  # struct flock; 0: to the end
            fcntl.fcntl(descriptor, fcntl.F_OFD_SETLKW if wait else fcntl.F_OFD_SETLK, whole_file)
        else:
            fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except OSError as problem:
        if problem.errno in _NO_LOCKS:
            return False
        if problem.errno in _IN_USE:
            raise BlockingIOError(problem.errno, problem.strerror) from None
        raise
    return True


@contextlib.contextmanager
def held(path: pathlib.Path, *, within: pathlib.Path | None = None) -> Iterator[None]:
    """Holds the lock of a file that several processes change, waiting for the others.

    Where the file system has no locks, one line says so; two that write at the same moment then lose what one wrote.
    """
    storage.make_folder(path.parent, within=within)
    descriptor = open_file(path.with_name(f".{path.name}.lock"))
    try:
        if not take(descriptor, wait=True):
            logging.warning("%s: this file system has no locks; write it from one command at a time", path)
        yield
    finally:
        os.close(descriptor)
