"""ILSVRC 2012 as it is published: names of its files, and the classes of its 50,000 validation images."""

import functools
import importlib.util
import re
from pathlib import Path

from vmoe_inform import checks

TRAIN_TAR = "ILSVRC2012_img_train.tar"  # of 1,000 tars n01440764.tar, ... with the images
VALIDATION_TAR = "ILSVRC2012_img_val.tar"  # of images, without folders
NUM_TRAIN_IMAGES = 1_281_167
NUM_VALIDATION_IMAGES = 50_000

_VALIDATION_NAME = re.compile(r"(ILSVRC2012_val_(\d{8}))(?:_n\d{8})?(?:\.\w+)?")
_NAME_WITH_CLASS = re.compile(r".+_(n\d{8})\.\w+")  # as the archives of Hugging Face have them
_LABELS_IN_TFDS = "datasets/imagenet2012/validation_labels.txt"


def validation_key(number: int) -> str:
    """``ILSVRC2012_val_00000001`` for the validation image number 1."""
    return f"ILSVRC2012_val_{number:08d}"


def validation_number(file_name: str) -> int | None:
    """The number, from 1, in a validation image's file name, which may have a folder in front; None for another name.

    The suffix does not matter: published copies have ``.JPEG``, some converted ones ``.png``. Those of Hugging Face's
    copy are followed by the class, ``ILSVRC2012_val_00000001_n01751748.JPEG``.
    """
    match = _VALIDATION_NAME.fullmatch(file_name.rpartition("/")[2])
    number = int(match[2]) if match else 0
    return number if 1 <= number <= NUM_VALIDATION_IMAGES else None


def class_in_name(file_name: str) -> str | None:
    """WordNet id at the end of a file name without its suffix, as in ``n01440764_18_n01440764.JPEG``; else None."""
    match = _NAME_WITH_CLASS.fullmatch(file_name.rpartition("/")[2])
    return match[1] if match else None


def class_of(file_name: str) -> str | None:
    """WordNet id of an image without a class folder, by its file name; None if the name does not state it.

    Raises:
      ValueError: a validation image whose name says another class than ImageNet's own list.
    """
    said, number = class_in_name(file_name), validation_number(file_name)
    if number is None:
        return said
    published = validation_classes()[number - 1]
    if said not in (None, published):
        raise checks.error(f"class of {file_name}", f"{published}, by ImageNet's list", said)
    return published


@functools.cache
def validation_classes() -> tuple[str, ...]:
    """WordNet ids of the 50,000 validation images in the order of their numbers.

    The list is the one that TFDS brings, read without importing TFDS.

    Raises:
      ValueError: the list of the installed TFDS is not as it is known.
    """
    spec = importlib.util.find_spec("tensorflow_datasets")
    if spec is None or spec.origin is None:
        raise FileNotFoundError("tensorflow-datasets: expected to be installed, for its list of validation labels")
    path = Path(spec.origin).parent / _LABELS_IN_TFDS
    classes = tuple(path.read_text().split())
    if len(classes) != NUM_VALIDATION_IMAGES:
        raise checks.error(str(path), f"{NUM_VALIDATION_IMAGES} WordNet ids", len(classes))
    return classes
