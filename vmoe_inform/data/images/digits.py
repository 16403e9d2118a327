"""scikit-learn's handwritten digits, the embedded data set."""

import numpy as np

from vmoe_inform import checks
from vmoe_inform.config import ImageDataConfig
from vmoe_inform.data.records import SOURCES, ArrayRecords, Source

_DIGITS_TEST_EVERY = 5


@SOURCES.register("digits")
def digits(data: ImageDataConfig, split: str) -> Source:
    """scikit-learn's 1,797 handwritten digits, gray 8 x 8; the splits are ``train`` and ``test``.

    The 1st, 6th, 11th, ... image of each digit is for the test. So the split is stratified (364 of 1,797) and depends
    on no random generator. Intensities 0 to 16 become 0 to 255.
    """
    if data.directory:
        raise checks.error("data.directory", "'' with data.source = 'digits', which reads no folder", data.directory)
    from sklearn.datasets import load_digits

    if split not in ("train", "test"):
        raise checks.error("split of digits", "one of 'train', 'test'", split)
    bunch = load_digits()
    labels = bunch.target.astype(np.int32)
    rank_within_class = np.empty_like(labels)
    for digit in range(10):
        members = np.flatnonzero(labels == digit)
        rank_within_class[members] = np.arange(len(members))
    chosen = (rank_within_class % _DIGITS_TEST_EVERY == 0) == (split == "test")
    images = np.round(bunch.images * (255 / 16)).astype(np.uint8)[..., None]
    return Source(ArrayRecords(images[chosen], labels[chosen]), tuple(str(digit) for digit in range(10)))
