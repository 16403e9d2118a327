"""Reads, lists and writes the files of a run. No other module does.

A run's folder may come from elsewhere, or from a disk that was full. So only regular files are read: never through a
symbolic link, never from a pipe or a device, never beyond a size. Their content is checked before it is used. Writing
replaces a file whole or not at all, and never writes through a link.

What users name and others wrote, such as data, is read by :mod:`vmoe_inform.storage.inputs`.

Every function takes ``within``, the folder of the run: below it no folder on the way to the file may be a link. The
folder itself may be one, as in ``runs/latest -> runs/7``.
"""

from vmoe_inform.storage import inputs
from vmoe_inform.storage._cache import cache_folder
from vmoe_inform.storage._damage import DamagedFileError, OutOfReachError
from vmoe_inform.storage._files import (
    absolute,
    check_folders,
    check_is_file,
    check_replaceable,
    check_writable,
    exists,
    gone_on_error,
    is_folder,
    local_folder,
    log,
    look_seconds,
    make_folder,
    matching,
    numbered_folders,
    regular_files,
    remove,
    renames_folders,
    resolved,
    set_aside,
)
from vmoe_inform.storage._read import (
    MOST_LINES_BYTES,
    opened,
    read_arrays,
    read_bytes,
    read_json,
    read_json_lines,
    sha256,
)
from vmoe_inform.storage._which import path
from vmoe_inform.storage._write import (
    appending,
    copy_aside,
    replacing,
    write_arrays,
    write_bytes,
    write_json,
    write_text,
)
from vmoe_inform.storage.place import Lock, Log, Path

__all__ = [
    "MOST_LINES_BYTES",
    "DamagedFileError",
    "Lock",
    "Log",
    "OutOfReachError",
    "Path",
    "absolute",
    "appending",
    "cache_folder",
    "check_folders",
    "check_is_file",
    "check_replaceable",
    "check_writable",
    "copy_aside",
    "exists",
    "gone_on_error",
    "inputs",
    "is_folder",
    "local_folder",
    "log",
    "look_seconds",
    "make_folder",
    "matching",
    "numbered_folders",
    "opened",
    "path",
    "read_arrays",
    "read_bytes",
    "read_json",
    "read_json_lines",
    "regular_files",
    "remove",
    "renames_folders",
    "replacing",
    "resolved",
    "set_aside",
    "sha256",
    "write_arrays",
    "write_bytes",
    "write_json",
    "write_text",
]
