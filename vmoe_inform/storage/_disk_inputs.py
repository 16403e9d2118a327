"""Files on this machine that users name, as :mod:`vmoe_inform.storage.inputs` gives them: links are followed."""

import os
import pathlib
import re
from collections.abc import Iterator, Sequence

from vmoe_inform.storage.place import Entry


def is_folder(path: pathlib.Path) -> bool:
    return path.is_dir()


def is_file(path: pathlib.Path) -> bool:
    return path.is_file()


def entries(folder: pathlib.Path) -> list[Entry]:
    with os.scandir(folder) as found:
        return [Entry(entry.name, entry.is_dir(), entry.is_file()) for entry in found]


def entries_of_each(folders: Sequence[pathlib.Path]) -> Iterator[list[Entry]]:
    return map(entries, folders)


def size(path: pathlib.Path) -> int:
    return path.stat().st_size


def read_bytes(path: pathlib.Path) -> bytes:
    return path.read_bytes()


def first_bytes(path: pathlib.Path, count: int) -> bytes:
    with path.open("rb") as file:
        return file.read(count)


def local_each(paths: Sequence[pathlib.Path]) -> list[pathlib.Path]:
    return list(paths)


def local_folder(folder: pathlib.Path, without: re.Pattern[str] | None) -> pathlib.Path:
    return folder


def place_of_copies(folder: pathlib.Path) -> pathlib.Path:
    return folder
