"""Columns of tables: Parquet, CSV, TSV and JSON lines."""

import csv
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from vmoe_inform import checks
from vmoe_inform.data.text import files

PARQUET = ".parquet"
_ROWS_AT_ONCE = 8192
Row = tuple[Any, ...]


def rows(path: Path, fields: Mapping[str, str]) -> Iterator[Row]:
    """The values of some columns, row by row; they are read as they are taken.

    Args:
      path: of the table; its suffix tells its form.
      fields: names of the columns, each with the setting that chose it, for errors.

    Yields:
      a value a column: text, or of Parquet and JSON what it holds; None where there is none.

    Raises:
      ValueError: a missing column, an empty or damaged file, or text that is not UTF-8.
      FileNotFoundError: there is no such file.
    """
    if not path.is_file():
        raise FileNotFoundError(f"table: expected the file {str(path)!r}; received none")
    files.check_not_empty(path)
    yield from _READERS[path.suffix](path, fields)


def _check_fields(path: Path, fields: Mapping[str, str], known: Sequence[str]) -> None:
    for name, setting in fields.items():
        if name not in known:
            shown = ", ".join(map(repr, known)) or "none"
            raise checks.unknown(setting, f"one of the columns of {path}: {shown}", name, known)


def _parquet(path: Path, fields: Mapping[str, str]) -> Iterator[Row]:
    import pyarrow
    import pyarrow.parquet

    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            _check_fields(path, fields, file.schema_arrow.names)
            for batch in file.iter_batches(_ROWS_AT_ONCE, columns=list(fields)):
                yield from zip(*(batch.column(name).to_pylist() for name in fields), strict=True)
    except (pyarrow.ArrowException, OSError) as problem:
        raise checks.error(str(path), "a Parquet file", " ".join(str(problem).split())) from None


def parquet_class_names(path: Path, field: str) -> tuple[str, ...] | None:
    """Names of the classes that a column's numbers stand for, as Hugging Face's files hold them; None without."""
    import pyarrow.parquet

    try:
        content = pyarrow.parquet.read_schema(path).metadata[b"huggingface"]
        names = json.loads(content)["info"]["features"][field]["names"]
    except (pyarrow.ArrowException, ValueError, KeyError, TypeError):
        return None
    return tuple(names) if checks.misfit(names, list[str]) is None else None


def _separated(delimiter: str) -> Callable[[Path, Mapping[str, str]], Iterator[Row]]:
    def read(path: Path, fields: Mapping[str, str]) -> Iterator[Row]:
        lines = (f"{line}\n" for line in files.lines(path))  # a cell in quotes may hold line breaks
        if delimiter == "\t":
            table = csv.reader(lines, delimiter=delimiter, quoting=csv.QUOTE_NONE)
        else:
            table = csv.reader(lines, delimiter=delimiter)
        try:
            header = next(table)
            _check_fields(path, fields, header)
            columns = [header.index(name) for name in fields]
            for row in table:
                if row:
                    yield tuple(row[column] if column < len(row) else None for column in columns)
        except csv.Error as problem:
            raise checks.error(f"{path}:{table.line_num}", "a row of the table", str(problem)) from None

    return read


def _json_lines(path: Path, fields: Mapping[str, str]) -> Iterator[Row]:
    for number, line in enumerate(files.lines(path), start=1):
        if not line.strip():
            continue
        try:
            value = json.loads(line)
        except (ValueError, RecursionError) as problem:
            raise checks.error(f"{path}:{number}", "a JSON object", str(problem)) from None
        if not isinstance(value, dict):
            raise checks.error(f"{path}:{number}", "a JSON object", value)
        _check_fields(path, fields, list(value))
        yield tuple(value[name] for name in fields)


_READERS: Mapping[str, Callable[[Path, Mapping[str, str]], Iterator[Row]]] = {
    PARQUET: _parquet,
    ".csv": _separated(","),
    ".tsv": _separated("\t"),  # as GLUE has them, where a quotation mark is text
    ".jsonl": _json_lines,
}
SUFFIXES = tuple(_READERS)


def texts(path: Path, field: str) -> Iterator[str]:
    """A column of texts, ``data.text_field``.

    Raises:
      ValueError: a row without text, or as :func:`rows`.
    """
    for number, (value,) in enumerate(rows(path, {field: "data.text_field"}), start=1):
        yield text(value, f"{path}: row {number}")


def text(value: Any, place: str) -> str:
    """A cell that has to be text; ValueError names its ``place``."""
    if not isinstance(value, str):
        raise checks.error(place, "a text (data.text_field)", value)
    return value
