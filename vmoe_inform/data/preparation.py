"""Prepares data sets with TFDS: looks at archives before, prints progress, and verifies what was written."""

import contextlib
import importlib.util
import os
import pathlib
import re
import shlex
import shutil
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from vmoe_inform import checks, text
from vmoe_inform.data import archives
from vmoe_inform.data.images import ilsvrc, label_sets, published, tfds

_PROGRESS_SECONDS = 30.0
_CLASS_TAR = re.compile(r"(n\d{8})\.tar")


def check_train_tar(path: pathlib.Path, *, whole: bool) -> None:
    """Raises ValueError unless the tar has a tar for each class, of all 1,000 if ``whole``."""
    names = ["/".join(member.parts) for member in archives.tar_members(path)]
    classes = [match[1] for name in names if (match := _CLASS_TAR.fullmatch(name))]
    others = [name for name in names if not _CLASS_TAR.fullmatch(name)]
    others += sorted(set(classes) - set(label_sets.wordnet_ids()))
    if others or not classes:
        raise checks.error(str(path), "a tar n01440764.tar, ... for each class and nothing else", others[:5])
    if whole and len(classes) != len(label_sets.wordnet_ids()):
        raise checks.error(str(path), f"{len(label_sets.wordnet_ids())} classes (--expected_counts=any)", len(classes))


def check_validation_tar(path: pathlib.Path, *, whole: bool) -> None:
    """Raises ValueError unless the tar has the validation images 1, 2, ..., all 50,000 if ``whole``.

    TFDS numbers the images by the order of their names: with a gap all later ones would get others' labels.
    """
    names = sorted("/".join(member.parts) for member in archives.tar_members(path))
    wanted = [f"{ilsvrc.validation_key(number)}.JPEG" for number in range(1, len(names) + 1)]
    wrong = [f"{name} instead of {want}" for name, want in zip(names, wanted, strict=True) if name != want]
    if wrong or not names:
        raise checks.error(str(path), "the validation images 1, 2, ... without gaps or folders", wrong[:1])
    if whole and len(names) != ilsvrc.NUM_VALIDATION_IMAGES:
        expected = f"{ilsvrc.NUM_VALIDATION_IMAGES} images (--expected_counts=any)"
        raise checks.error(str(path), expected, len(names))


def check_archives(name: str, manual_dir: pathlib.Path, *, whole: bool) -> int:
    """Looks at the archives that TFDS will read.

    Returns:
      their bytes.

    Raises:
      FileNotFoundError: one is missing.
      ValueError: one is damaged, or has not what it should have.
    """
    paths = [manual_dir / file for file in tfds.MANUAL_ARCHIVES.get(name.partition("/")[0], ())]
    for path in paths:
        if not path.is_file():
            wanted = " and ".join(other.name for other in paths)
            raise FileNotFoundError(f"--manual_dir: expected {wanted} in {manual_dir}; received no {path.name}")
        print(text.printable(f"looking at {path}"), flush=True)
        (check_train_tar if path.name == ilsvrc.TRAIN_TAR else check_validation_tar)(path, whole=whole)
    return sum(path.stat().st_size for path in paths)


def verify(builder: Any, name: str, *, whole: bool, suites: Iterable[published.PublishedSuite]) -> None:
    """Checks prepared files: their number of examples, and that the last one of every file can be read.

    Args:
      builder: of the data set.
      name: of the data set.
      whole: whether the numbers have to be the published ones.
      suites: whose published numbers are known.

    Raises:
      ValueError: another number than published if ``whole``, or a damaged file.
    """
    counts = {split: int(info.num_examples) for split, info in builder.info.splits.items()}
    expected = published.tfds_counts(name, suites)
    for split, count in counts.items() if not whole else {**counts, **expected}.items():
        if whole and counts.get(split, 0) != count:
            wanted = f"{count:,} examples as published (--expected_counts=any for a subset)"
            raise checks.error(f"{name}:{split}", wanted, counts.get(split, 0))
        print(f"{name}:{split}: {count:,} examples{', as published' if whole and split in expected else ''}")
    if builder.info.file_format.value != "array_record":
        return
    for split, info in builder.info.splits.items():
        examples = tfds.open_split(builder, name, split)
        for last, path in zip(np.cumsum(info.shard_lengths) - 1, info.filepaths, strict=True):
            try:
                examples[int(last)]
            except (OSError, ValueError, RuntimeError, IndexError) as problem:
                raise checks.error(
                    str(path), "a whole file of records (delete it and prepare again)", str(problem)
                ) from None


def _size_bytes(folder: pathlib.Path) -> int:
    total = 0
    for path in folder.rglob("*"):
        with contextlib.suppress(FileNotFoundError):  # TFDS removes its temporary files meanwhile
            total += path.stat().st_size if path.is_file() else 0
    return total


@contextlib.contextmanager
def _progress(folder: pathlib.Path, archives_bytes: int) -> Iterator[None]:
    """Prints every half minute how much was written."""
    done = threading.Event()
    start, before = time.monotonic(), _size_bytes(folder)
    of_archives = f", archives of {archives_bytes / 1e9:.1f} GB" if archives_bytes else ""

    def watch() -> None:
        while not done.wait(_PROGRESS_SECONDS):
            written = _size_bytes(folder) - before
            print(f"{time.monotonic() - start:.0f} s: {written / 1e9:.2f} GB written{of_archives}", flush=True)

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        done.set()
        watcher.join()


def _need_tensorflow() -> None:
    if importlib.util.find_spec("tensorflow") is None:
        raise checks.error("tensorflow", "to be installed: pip install -e '.[prepare]'", None)
    for setting, value in (("TF_CPP_MIN_LOG_LEVEL", "2"), ("TF_ENABLE_ONEDNN_OPTS", "0")):
        os.environ[setting] = os.environ.get(setting) or value  # it would print notes about the processor


def prepare(
    name: str,
    *,
    data_dir: str,
    manual_dir: str,
    file_format: str,
    whole: bool,
    suites: Iterable[published.PublishedSuite],
) -> None:
    """Prepares the data set ``name``, or verifies what is there already.

    Args:
      name: as TFDS calls it, with its config after a slash.
      data_dir: TFDS' data directory; empty for its default.
      manual_dir: of the archives; empty for TFDS' default in ``data_dir``.
      file_format: of the files.
      whole: whether the numbers of images have to be the published ones.
      suites: whose published numbers are known.

    Raises:
      FileNotFoundError: archives that are missing.
      ValueError: an unknown data set, archives or prepared files that are not as they should be, a full disk;
        TensorFlow is not installed.
    """
    _need_tensorflow()
    import tensorflow_datasets

    try:
        builder = tfds.load_builder(name, data_dir, file_format=file_format)
    except FileNotFoundError:
        raise checks.error("data set", "one that TFDS knows, with its config after a slash", name) from None
    target = pathlib.Path(builder.data_dir)
    if target.is_dir():
        print(text.printable(f"{name} is prepared in {target}: verifying it"))
        verify(builder, name, whole=whole, suites=suites)
        return
    for left in sorted(target.parent.glob(f"{tensorflow_datasets.core.constants.INCOMPLETE_PREFIX}*_{target.name}")):
        of_before = f"{left} ({_size_bytes(left) / 1e9:.1f} GB)"
        print(text.printable(f"left by a preparation that was interrupted, or runs now: {of_before}"))
    base = pathlib.Path(data_dir or tensorflow_datasets.core.constants.DATA_DIR).expanduser()
    folder = pathlib.Path(manual_dir) if manual_dir else base / "downloads" / "manual"
    size = check_archives(name, folder, whole=whole)
    root = next(path for path in (target, *target.parents) if path.is_dir())
    free = shutil.disk_usage(root).free
    if free < size:
        raise checks.error("--data_dir", f"at least {size / 1e9:.0f} GB free in {root}", f"{free / 1e9:.0f} GB")
    if not sys.stderr.isatty():
        tensorflow_datasets.disable_progress_bar()
    print(text.printable(f"preparing {name} in {target}"), flush=True)
    settings = tensorflow_datasets.download.DownloadConfig(manual_dir=folder if folder.is_dir() else None)
    with _progress(target.parent, size):
        builder.download_and_prepare(download_config=settings)
    verify(builder, name, whole=whole, suites=suites)
    words = ["--config.data.source=tfds", f"--config.data.tfds_name={name}", f"--config.data.directory={data_dir}"]
    print(text.printable(f"prepared: {shlex.join(words)}"))
