"""Docstrings of installed scientific packages: a corpus of 3 million words that needs no download.

Their files are parsed and never run. The text is that of the installed versions, which ``requirements.txt`` pins.
"""

import ast
import functools
import importlib.metadata
from collections.abc import Iterator
from pathlib import Path

from vmoe_inform import checks
from vmoe_inform.config import TextDataConfig
from vmoe_inform.data.text.lines import LINES, Lines, known_split

PACKAGES = ("matplotlib", "numpy", "scikit-image", "scikit-learn", "scipy")  # of the same versions on all Pythons
SPLITS = ("train", "validation", "test")
_PERIOD, _TEST, _VALIDATION = 20, 2, 3
_LEFT_OUT = ("tests", "_vendored_packages", "externals")  # folders; the latter two have files of other projects


@LINES.register("docstrings")
def lines(data: TextDataConfig, split: str) -> Lines:
    """Lines of docstrings that are not empty, file by file; the splits are ``train``, ``validation`` and ``test``.

    A docstring that occurs twice is taken once. Of every 20 files, one is for testing and the next for validation.

    Raises:
      ValueError: another split, or ``data.directory`` is set.
    """
    known_split(split, SPLITS, "docstrings")
    if data.directory:
        expected = "'' with data.source = 'docstrings', which reads installed packages"
        raise checks.error("data.directory", expected, data.directory)
    chosen = tuple(text for number, text in enumerate(_files()) if _split(number) == split)
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in PACKAGES)
    return Lines(
        lambda: (line for text in chosen for line in text.splitlines() if line.strip()), f"docstrings of {versions}"
    )


def _split(number: int) -> str:
    place = number % _PERIOD
    return "test" if place == _TEST else ("validation" if place == _VALIDATION else "train")


@functools.cache
def _files() -> tuple[str, ...]:
    """The docstrings of each file that has some not seen before."""
    seen: set[str] = set()
    result = []
    for name in PACKAGES:
        distribution = importlib.metadata.distribution(name)
        for file in sorted(distribution.files or (), key=str):
            if file.suffix == ".py" and not set(file.parts) & set(_LEFT_OUT):
                new = [text for text in _docstrings(Path(str(distribution.locate_file(file)))) if text not in seen]
                seen.update(new)
                if new:
                    result.append("\n".join(dict.fromkeys(new)))
    return tuple(result)


def _docstrings(path: Path) -> Iterator[str]:
    """Those of a file of Python; of one that does not parse, none."""
    try:
        tree = ast.parse(path.read_text("utf-8"))
    except (OSError, ValueError, SyntaxError):
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            text = ast.get_docstring(node)
            if text:
                yield text
