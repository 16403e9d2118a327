"""scikit-learn's handwritten digits, the embedded data set."""

import gzip
import importlib.util
import pathlib

import numpy as np
from jaxtyping import Int

from vmoe_inform import checks
from vmoe_inform.config import ImageDataConfig
from vmoe_inform.data.records import SOURCES, ArrayRecords, Source

_DIGITS_TEST_EVERY = 5
_FILE = "datasets/data/digits.csv.gz"  # of scikit-learn


@SOURCES.register("digits")
def digits(data: ImageDataConfig, split: str) -> Source:
    """scikit-learn's 1,797 handwritten digits, gray 8 x 8; the splits are ``train`` and ``test``.

    The 1st, 6th, 11th, ... image of each digit is for the test. So the split is stratified (364 of 1,797) and depends
    on no random generator. Intensities 0 to 16 become 0 to 255.
    """
    if data.directory:
        raise checks.error("data.directory", "'' with data.source = 'digits', which reads no folder", data.directory)
    if split not in ("train", "test"):
        raise checks.error("split of digits", "one of 'train', 'test'", split)
    table = _table()
    labels = table[:, -1].astype(np.int32)
    rank_within_class = np.empty_like(labels)
    for digit in range(10):
        members = np.flatnonzero(labels == digit)
        rank_within_class[members] = np.arange(len(members))
    chosen = (rank_within_class % _DIGITS_TEST_EVERY == 0) == (split == "test")
    images = np.round(table[:, :-1].reshape(-1, 8, 8) * (255 / 16)).astype(np.uint8)[..., None]
    return Source(ArrayRecords(images[chosen], labels[chosen]), tuple(str(digit) for digit in range(10)))


def _table() -> Int[np.ndarray, "1797 65"]:
    """64 pixels and the label of each digit, from scikit-learn's file: to import its loader takes half a second."""
    package = importlib.util.find_spec("sklearn")
    if package is not None and package.origin is not None:
        file = pathlib.Path(package.origin).parent / _FILE
        if file.exists():
            with gzip.open(file, "rt") as lines:
                return np.loadtxt(lines, delimiter=",", dtype=np.int64)
    from sklearn.datasets import load_digits  # of a version that keeps the file elsewhere

    found = load_digits()
    return np.column_stack([found.data, found.target]).astype(np.int64)
