"""Reads ReaL's labels of the validation images (Beyer et al. 2020, arXiv 2006.07159), as positions in the 1,000."""

from typing import Any

from vmoe_inform import checks, storage
from vmoe_inform.data.images import ilsvrc, label_sets, tfds
from vmoe_inform.storage import inputs, strict

FILE = "real.json"
TFDS_NAME = "imagenet2012_real"


def read_file(path: storage.Path) -> dict[str, list[int]]:
    """A list with a list of labels for each validation image, in the order of their numbers.

    Raises:
      ValueError: anything else.
    """
    expected = f"a list of at most {ilsvrc.NUM_VALIDATION_IMAGES} lists of whole numbers, one for each validation image"
    try:
        content = strict.parse_json(inputs.read_bytes(path))
    except (ValueError, RecursionError) as problem:
        raise checks.error(str(path), expected, str(problem)) from None
    if not isinstance(content, list) or not 1 <= len(content) <= ilsvrc.NUM_VALIDATION_IMAGES:
        raise checks.error(str(path), expected, f"{type(content).__name__} of {len(content) if content else 0}")
    for number, labels in enumerate(content, start=1):
        if not isinstance(labels, list) or not all(type(label) is int for label in labels):
            raise checks.error(str(path), expected, f"{labels!r} for image {number}")
    return {ilsvrc.validation_key(number): labels for number, labels in enumerate(content, start=1)}


def read_tfds(builder: Any, directory: str) -> dict[str, list[int]]:
    """Reads the images' bytes along, as records are read whole, but decodes none.

    Args:
      builder: from :func:`tfds.builder_of`.
      directory: TFDS' data directory.

    Raises:
      ValueError: a data set of other features or classes.
    """
    names = tfds.class_names(builder, TFDS_NAME, "original_label")
    if names != label_sets.wordnet_ids():
        raise checks.error(f"classes of {TFDS_NAME}", "ImageNet's 1,000 WordNet ids in their order", names[:5])
    examples = tfds.fetch_split(builder, TFDS_NAME, "validation", directory)
    return {
        tfds.text(example["file_name"]).partition(".")[0]: [int(label) for label in example["real_label"]]
        for example in (tfds.read(examples, index) for index in range(len(examples)))
    }
