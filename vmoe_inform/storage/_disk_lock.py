"""File locks of the operating system, which frees them when the process ends, for any reason."""

import errno
import fcntl
import os
import pathlib
import struct
import sys

from vmoe_inform.storage._damage import DamagedFileError
from vmoe_inform.storage._descriptor import open_descriptor

_IN_USE = (errno.EAGAIN, errno.EACCES)  # what `fcntl` and `flock` say of a lock that is held
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL)


class LockFile:
    """A file that can be locked until it is closed."""

    lease_seconds = 0.0

    def __init__(self, path: pathlib.Path):
        """Args:
        path: of the file, which is made if there is none. Raises as :func:`vmoe_inform.storage.opened`.
        """
        self._path, self._descriptor = path, open_descriptor(path, os.O_RDWR | os.O_CREAT)

    def take(self, *, wait: bool) -> bool:
        """Locks the file until it is closed; the system closes it when the process ends, for any reason.

        The lock is one of `fcntl`, which network file systems pass on to their server; not all pass on `flock`. It
        belongs to the open file. A lock of the process would be lost when any descriptor of the file is closed in it.

        Args:
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
                fcntl.fcntl(self._descriptor, fcntl.F_OFD_SETLKW if wait else fcntl.F_OFD_SETLK, whole_file)
            else:
                fcntl.flock(self._descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except OSError as problem:
            if problem.errno in _NO_LOCKS:
                return False
            if problem.errno in _IN_USE:
                raise BlockingIOError(problem.errno, problem.strerror) from None
            raise
        return True

    def read(self, most_bytes: int) -> bytes:
        """What the file begins with."""
        return os.pread(self._descriptor, most_bytes, 0)

    def current(self, most_bytes: int) -> bytes:
        """What the file of this name has now: it may be another one. Raises as :func:`vmoe_inform.storage.opened`."""
        with os.fdopen(open_descriptor(self._path, os.O_RDONLY), "rb") as file:
            content = file.read(most_bytes + 1)
        if len(content) > most_bytes:
            raise DamagedFileError(self._path, f"at most {most_bytes:,} bytes", "more")
        return content

    def write(self, content: bytes) -> None:
        """Replaces the content in place: another file of this name would have another lock."""
        os.ftruncate(self._descriptor, 0)
        os.pwrite(self._descriptor, content, 0)

    def close(self) -> None:
        """Closes the file, which frees the lock."""
        os.close(self._descriptor)
