"""A user's own text: a file or folder of files for each split."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from vmoe_inform.config import TextDataConfig
from vmoe_inform.data.text import columns, files
from vmoe_inform.data.text.lines import LINES, Lines, existing_directory

_SEPARATED, _WRITTEN = ".tokens", ".txt"


@LINES.register("text")
def lines(data: TextDataConfig, split: str) -> Lines:
    """The lines of ``data.directory/SPLIT.txt``, of all text files in the folder ``SPLIT``, or of a table's column.

    In place of ``.txt``, files may be ``.tokens``: white space separates words and punctuation marks, and words are
    taken as they are. The tables are Parquet, CSV, TSV or JSON lines; each text of ``data.text_field`` is split into
    its lines.

    Raises:
      FileNotFoundError: a missing folder or file.
      ValueError: an empty file, one that is not UTF-8, or several candidates for a split.
    """
    suffixes = (_WRITTEN, _SEPARATED, *columns.SUFFIXES)
    expected = f"{split}.txt (or {', '.join(suffixes[1:])}) or the folder {split} of such files"
    root = existing_directory(data, expected)
    paths = files.of_split([root], [split], suffixes)
    if not paths:
        raise FileNotFoundError(f"data.directory: expected {expected} in it; received {str(root)!r} without it")
    for path in paths:
        files.check_not_empty(path)
    separated = all(path.suffix == _SEPARATED for path in paths)
    return Lines(lambda: _read(paths, data.text_field), f"text {root.name}", separated)


def _read(paths: Sequence[Path], text_field: str) -> Iterator[str]:
    for path in paths:
        if path.suffix in columns.SUFFIXES:
            for text in columns.texts(path, text_field):
                yield from text.removesuffix("\n").split("\n")
        else:
            yield from files.lines(path)
