"""Movie review snippets with the mean of human ratings, in the form of SST: 10,605 texts, read from vaderSentiment 0.5.

Hutto and Gilbert 2014, "VADER: A Parsimonious Rule-based Model for Sentiment Analysis of Social Media Text". The source
package of the Python package ``vaderSentiment==0.5`` (MIT) holds them; nothing is shipped here.
"""

import functools
import io
import tarfile
import zipfile
import zlib
from pathlib import Path
from typing import IO

import numpy as np
from jaxtyping import Float, Int

from vmoe_inform import checks
from vmoe_inform.config import TextDataConfig
from vmoe_inform.data.text.lines import LABELLED, LabelledTexts, existing_directory, known_split
from vmoe_inform.storage import inputs

SPLITS = ("train", "validation", "test")
CLASSES = ("very negative", "negative", "neutral", "positive", "very positive")  # as SST-5 calls them
_BOUNDS = (-2.4, -0.8, 0.8, 2.4)  # of five equal parts of the ratings -4 to 4, as SST-5 parts 0 to 1
_FILE = "movieReviewSnippets_GroundTruth.txt"
_INNER, _OUTER = "hutto_ICWSM_2014.tar.gz", "vaderSentiment-0.5.zip"
_IN_INNER = f"hutto_ICWSM_2014/{_FILE}"
_IN_OUTER = f"vaderSentiment-0.5/additional_resources/{_INNER}"
_MOST_BYTES = 1 << 24  # of each file; the largest has 2.3 MB
_PERIOD = 10


@LABELLED.register("movie_snippets")
def five_classes(data: TextDataConfig, split: str) -> LabelledTexts:
    """Five classes of equal width of the rating, as in SST-5; the splits are ``train``, ``validation`` and ``test``.

    ``data.directory`` has ``movieReviewSnippets_GroundTruth.txt``, or the archive that holds it:
    ``hutto_ICWSM_2014.tar.gz``, or ``vaderSentiment-0.5.zip`` around that, as
    ``pip download --no-deps --no-binary :all: vaderSentiment==0.5`` loads it. Of ten successive snippets the ninth is
    for validation and the tenth for testing.

    Raises:
      FileNotFoundError: none of these files is there.
      ValueError: another split, or a damaged file.
    """
    texts, ratings = _read(data)
    return _part(texts, np.digitize(ratings, _BOUNDS).astype(np.int32), CLASSES, split)


@LABELLED.register("movie_snippets_2")
def two_classes(data: TextDataConfig, split: str) -> LabelledTexts:
    """Negative and positive without the neutral ones, as in SST-2; else as :func:`five_classes`."""
    texts, ratings = _read(data)
    labels = np.where(np.abs(ratings) < _BOUNDS[2], -1, ratings > 0).astype(np.int32)
    return _part(texts, labels, (CLASSES[1], CLASSES[3]), split)


def _part(texts: list[str], labels: Int[np.ndarray, " n"], names: tuple[str, ...], split: str) -> LabelledTexts:
    """The texts of a split whose label is not -1."""
    known_split(split, SPLITS, "the movie snippets")
    of_ten = np.arange(len(texts)) % _PERIOD
    splits = np.where(of_ten < _PERIOD - 2, 0, of_ten - (_PERIOD - 3))
    chosen = np.flatnonzero((splits == SPLITS.index(split)) & (labels >= 0))
    return LabelledTexts([texts[number] for number in chosen], labels[chosen], names, "vaderSentiment 0.5")


def _read(data: TextDataConfig) -> tuple[list[str], Float[np.ndarray, " n"]]:
    expected = f"{_FILE}, {_INNER} or {_OUTER}"
    root = existing_directory(data, expected)
    path = next((root / name for name in (_FILE, _INNER, _OUTER) if inputs.is_file(root / name)), None)
    if path is None:
        raise FileNotFoundError(f"data.directory: expected {expected} in it; received {str(root)!r} without them")
    return _parsed(inputs.local(path))


@functools.lru_cache(maxsize=1)
def _parsed(path: Path) -> tuple[list[str], Float[np.ndarray, " n"]]:
    texts, ratings = [], []
    for number, line in enumerate(_content(path).decode("utf-8", "strict").splitlines(), start=1):
        fields = line.split("\t")
        try:
            _, rating, text = fields
            ratings.append(float(rating))
        except ValueError:
            raise checks.error(f"{path}:{number}", "a number, a rating and a text between tabs", line) from None
        texts.append(text)
    return texts, np.asarray(ratings)


def _content(path: Path) -> bytes:
    """The bytes of the file of ratings, which may lie in archives."""
    try:
        content = _limited(path.open("rb"), path)
        if path.name == _OUTER:
            with zipfile.ZipFile(io.BytesIO(content)) as archive:
                content = _limited(archive.open(_IN_OUTER), path)
        if path.name != _FILE:
            with tarfile.open(fileobj=io.BytesIO(content)) as inner:
                content = _limited(inner.extractfile(_IN_INNER), path)
        content.decode()
    except (OSError, KeyError, EOFError, ValueError, zlib.error, zipfile.BadZipFile, tarfile.TarError) as problem:
        received = " ".join(f"{type(problem).__name__}: {problem}".split())
        raise checks.error(str(path), "the file as vaderSentiment 0.5 has it", received) from None
    return content


def _limited(file: IO[bytes] | None, path: Path) -> bytes:
    """The content of a file, which may not be huge."""
    if file is None:
        raise KeyError(f"no file in {path.name}")
    with file:
        content = file.read(_MOST_BYTES + 1)
    if len(content) > _MOST_BYTES:
        raise OSError(f"more than {_MOST_BYTES:,} bytes")
    return content
