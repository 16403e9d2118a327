"""Text files: where a split lies, and its lines, read strictly as UTF-8."""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from vmoe_inform import checks, storage
from vmoe_inform.storage import inputs

_BYTE_ORDER_MARK = "\ufeff"
_SHARD = re.compile(r"-(\d{5})-of-(\d{5})")  # as in train-00000-of-00002.parquet


def lines(path: Path) -> Iterator[str]:
    """The lines of a text file without their breaks; it is read as they are taken.

    Only ``\\n`` and ``\\r\\n`` end a line: other characters that Python takes for line breaks occur in texts.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: it is empty, or has bytes that are not UTF-8, when these are reached.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: expected a text file; received none")
    check_not_empty(path)
    return _decoded(path)


def check_not_empty(path: Path) -> None:
    """Raises ValueError for a file without a byte."""
    if path.stat().st_size == 0:
        raise checks.error(str(path), "text", "an empty file")


def _decoded(path: Path) -> Iterator[str]:
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            try:
                text = line.decode("utf-8")
            except UnicodeDecodeError as problem:
                received = f"byte 0x{line[problem.start]:02x} (byte {problem.start + 1} of the line)"
                raise checks.error(f"{path}:{number}", "text in UTF-8", received) from None
            yield text.removesuffix("\n").removesuffix("\r").removeprefix(_BYTE_ORDER_MARK if number == 1 else "")


def of_split(folders: Sequence[storage.Path], names: Sequence[str], suffixes: Sequence[str]) -> tuple[Path, ...]:
    """The files of a split: ``NAME.SUFFIX``, all shards ``NAME-00000-of-00002.SUFFIX``, or files in a folder ``NAME``.

    Args:
      folders: to look in.
      names: of the split.
      suffixes: of the files, each with its dot.

    Returns:
      the files in order, on this machine; none where nothing was found.

    Raises:
      ValueError: there are several such files or sets of shards, or a shard is missing.
    """
    candidates: list[tuple[storage.Path, ...]] = []
    for folder in dict.fromkeys(folder for folder in folders if inputs.is_folder(folder)):
        entries = sorted(inputs.entries(folder))
        inside = [folder / entry.name for entry in entries]
        for name in names:
            for suffix in suffixes:
                candidates += [(folder / one.name,) for one in entries if one.is_file and one.name == f"{name}{suffix}"]
                candidates.append(_shards(inside, name, suffix))
            if inputs.is_folder(folder / name):
                below = sorted(folder / name / entry.name for entry in inputs.entries(folder / name))
                candidates.append(tuple(path for path in below if path.suffix in suffixes))
    found = [paths for paths in candidates if paths]
    if len(found) > 1:
        received = ", ".join(str(paths[0]) for paths in found)
        raise checks.error(f"split {names[0]!r}", "one file, or one set of shards", received)
    return tuple(inputs.local_each(found[0])) if found else ()


def _shards(inside: Sequence[storage.Path], name: str, suffix: str) -> tuple[storage.Path, ...]:
    """The shards of a split among files, sorted by name."""
    form = re.compile(re.escape(name) + _SHARD.pattern + re.escape(suffix))
    matches = [(path, match) for path in inside if (match := form.fullmatch(path.name))]
    counts = {int(match[2]) for _, match in matches}
    if len(counts) > 1 or (counts and [int(match[1]) for _, match in matches] != list(range(*counts))):
        received = ", ".join(path.name for path, _ in matches)
        raise checks.error(f"shards of {name}", "all of one set", received)
    return tuple(path for path, _ in matches)
