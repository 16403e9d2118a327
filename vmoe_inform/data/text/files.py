"""Text files, read line by line and strictly as UTF-8."""

from collections.abc import Iterator
from pathlib import Path

from vmoe_inform import checks

_BYTE_ORDER_MARK = "\ufeff"


def lines(path: Path) -> Iterator[str]:
    """The lines of a text file without their breaks; it is read as they are taken.

    Only ``\\n`` and ``\\r\\n`` end a line: other characters that Python takes for line breaks occur in texts.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: it is empty, or has bytes that are not UTF-8, when these are reached.
    """
    if not path.is_file():
        raise FileNotFoundError(f"text: expected the file {str(path)!r}; received none")
    if path.stat().st_size == 0:
        raise checks.error(str(path), "lines of text", "an empty file")
    return _decoded(path)


def _decoded(path: Path) -> Iterator[str]:
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            try:
                text = line.decode("utf-8")
            except UnicodeDecodeError as problem:
                byte = f"byte 0x{line[problem.start]:02x}"
                raise checks.error(
                    f"{path}:{number}", "text in UTF-8", f"{byte} at character {problem.start + 1}"
                ) from None
            yield text.removesuffix("\n").removesuffix("\r").removeprefix(_BYTE_ORDER_MARK if number == 1 else "")
