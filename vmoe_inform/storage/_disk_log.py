"""A file of the disk that grows."""

import contextlib
import os
import pathlib
from collections.abc import Callable

from vmoe_inform.storage._descriptor import open_descriptor


class GrowingFile:
    """A file that grows: bytes that cannot be written are kept, and written before the next ones.

    It is opened each time: what is added never goes to a file that has been removed, or through a link. An addition
    that fails is taken back, so that the file always ends with a whole one.
    """

    def __init__(self, path: pathlib.Path, header: bytes, make_folder: Callable[[], None]):
        """Args:
        path: of the file, which is made if there is none.
        header: what it begins with.
        make_folder: makes its folder if there is none, or raises what keeps it from being one.
        """
        self.path, self._header, self._make_folder = path, header, make_folder
        self._waiting = b""

    @property
    def waiting(self) -> int:
        """Bytes that could not be written yet."""
        return len(self._waiting)

    def add(self, content: bytes) -> None:
        """Adds bytes. Raises OSError, or as :func:`opened`, if they cannot be written now."""
        self._waiting += content
        self._make_folder()
        descriptor = open_descriptor(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        size = os.fstat(descriptor).st_size
        left = memoryview((b"" if size else self._header) + self._waiting)
        try:
            try:
                while left:
                    left = left[os.write(descriptor, left) :]
            finally:
                os.close(descriptor)  # network file systems may say only now that there is no room
        except OSError as problem:
            with contextlib.suppress(OSError):
                os.truncate(self.path, size)
            raise OSError(problem.errno, problem.strerror, str(self.path)) from None
        self._waiting = b""

    def flush(self) -> None:
        """Writes what could not be written before. Raises as :meth:`add`."""
        if self._waiting:
            self.add(b"")
