"""Checks the metadata of a prepared TFDS data set before TFDS reads it.

A prepared folder names the Python class of each feature, and TFDS imports the module of an unknown class. So a folder
from elsewhere could import any module that Python finds. Only TFDS' own classes are accepted.
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from vmoe_inform import checks

_MAX_BYTES = 64 << 20  # of a file; ImageNet's are some kilobytes
_MAX_DEPTH = 100  # of lists and objects in each other
_FEATURES, _INFO, _CONFIGS = "features.json", "dataset_info.json", ".config/metadata.json"
_FOLDERS = ("", "*/", "*/*/")  # the data set's own, of a version, of a config and version
_CLASS_KEYS = ("pythonClassName", "python_class_name", "type")  # the last one as older TFDS wrote it
_JSON_KEYS = ("json", "content")  # whose text may be JSON again
_OWN_CLASS = re.compile(r"tensorflow_datasets(\.[A-Za-z_]\w*)+")
_NAME = re.compile(r"\w[\w.\-]*")


def check(folder: Path) -> None:
    """Checks all metadata that TFDS may read of one data set.

    Args:
      folder: of the data set, with its configs and versions; it may be missing.

    Raises:
      ValueError: a feature of a foreign class, a default config that leads out of the folder, or a file that cannot be
        read.
    """
    for pattern in _FOLDERS:
        for path in sorted(folder.glob(pattern + _FEATURES)):
            for name in _class_names(path, _read(path)):
                if not isinstance(name, str) or not _OWN_CLASS.fullmatch(name):
                    raise checks.error(str(path), "features of the classes of tensorflow_datasets only", name)
        for path in sorted(folder.glob(pattern + _INFO)):
            _read(path)
    path = folder / _CONFIGS
    if path.exists():
        for name in _read(path).values():
            if isinstance(name, str) and name and not _NAME.fullmatch(name):
                raise checks.error(str(path), "the name of a config", name)


def _read(path: Path) -> dict[str, Any]:
    """The JSON object in a file."""
    if not path.is_file():
        raise checks.error(str(path), "a file", "something else")
    if path.stat().st_size > _MAX_BYTES:
        raise checks.error(str(path), f"at most {_MAX_BYTES} bytes", path.stat().st_size)
    try:
        content = json.loads(path.read_bytes().decode())
    except (ValueError, RecursionError) as problem:
        raise checks.error(str(path), "JSON as TFDS writes it", f"{type(problem).__name__}: {problem}") from None
    if not isinstance(content, dict):
        raise checks.error(str(path), "a JSON object as TFDS writes it", type(content).__name__)
    return content


def _class_names(path: Path, content: Any, depth: int = 0) -> Iterator[Any]:
    """Values anywhere in features that TFDS may take for the name of a class."""
    if depth > _MAX_DEPTH:
        raise checks.error(str(path), f"at most {_MAX_DEPTH} features in each other", "more")
    if isinstance(content, list):
        for item in content:
            yield from _class_names(path, item, depth + 1)
    elif isinstance(content, dict):
        for key, value in content.items():
            if key in _CLASS_KEYS and not isinstance(value, dict | list):  # a feature may be called so
                yield value
            if key in _JSON_KEYS and isinstance(value, str):
                try:
                    value = json.loads(value)
                except (ValueError, RecursionError):
                    continue
            yield from _class_names(path, value, depth + 1)
