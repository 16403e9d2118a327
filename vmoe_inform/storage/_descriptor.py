"""Opens regular files of the disk, and nothing else: no link, no pipe, no device."""

import errno
import os
import pathlib
import stat

from vmoe_inform.storage._damage import DamagedFileError


def kind(mode: int) -> str:
    """What a mode of ``stat`` is of, in words."""
    names = {
        stat.S_IFLNK: "a symbolic link, which is not followed inside a run",
        stat.S_IFDIR: "a folder",
        stat.S_IFREG: "a file",
        stat.S_IFIFO: "a named pipe",
    }
    return names.get(stat.S_IFMT(mode), "a device or socket")


def open_descriptor(path: pathlib.Path, flags: int) -> int:
    """Descriptor of a regular file; a pipe without a writer must not be waited for. Raises as :func:`opened`."""
    try:
        descriptor = os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o666)
    except OSError as problem:
        if problem.errno in (errno.ELOOP, errno.ENXIO, errno.EISDIR):  # a link, a pipe or socket, a folder
            raise DamagedFileError(path, "a file", kind(path.lstat().st_mode)) from None
        raise
    mode = os.fstat(descriptor).st_mode
    if not stat.S_ISREG(mode):
        os.close(descriptor)
        raise DamagedFileError(path, "a file", kind(mode))
    return descriptor
