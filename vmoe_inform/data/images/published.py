"""ImageNet's robustness suites as they are published: folders, tars read in place, or prepared by TFDS.

Sources:

- A and O: Hendrycks et al. 2021, arXiv 1907.07174
- R: Hendrycks et al. 2021, arXiv 2006.16241
- C: Hendrycks and Dietterich 2019, arXiv 1903.12261
- V2: Recht et al. 2019, arXiv 1902.10811
- Sketch: Wang et al. 2019, arXiv 1905.13549
- ReaL: Beyer et al. 2020, arXiv 2006.07159
"""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from vmoe_inform import checks, storage
from vmoe_inform.config import ImageDataConfig
from vmoe_inform.data.images import folder as image_folder
from vmoe_inform.data.images import ilsvrc, label_sets, real, spellings, tfds, trees
from vmoe_inform.data.records import Source
from vmoe_inform.storage import Path, inputs

SEVERITIES = (1, 2, 3, 4, 5)
_C_TARS = {
    "noise": ("gaussian_noise", "shot_noise", "impulse_noise"),
    "blur": ("defocus_blur", "glass_blur", "motion_blur", "zoom_blur"),
    "weather": ("snow", "frost", "fog", "brightness"),
    "digital": ("contrast", "elastic_transform", "pixelate", "jpeg_compression"),
}
CORRUPTIONS = tuple(name for names in _C_TARS.values() for name in names)


class MissingSuiteError(FileNotFoundError):
    """A suite's files are not there; the message says what to put where."""


@dataclasses.dataclass(frozen=True)
class PublishedSuite:
    """How a suite is published.

    Attributes:
      title: in tables and errors.
      folders: usual names of its unpacked folder, in any spelling; the first is recommended. Its archive has the same
        name with a suffix.
      tfds_name: of TFDS' data set; None where TFDS has none.
      count: images.
      subset: its 200 classes in :mod:`label_sets`; None for all of ImageNet's.
      numbered: its class folders are called by the positions of the classes, not by their WordNet ids.
      split: the only one of TFDS' data set.
    """

    title: str
    folders: tuple[str, ...]
    tfds_name: str | None
    count: int
    subset: str | None = None
    numbered: bool = False
    split: str = "test"


IMAGENET_C = PublishedSuite(
    "ImageNet-C", ("imagenet-c",), "imagenet2012_corrupted", ilsvrc.NUM_VALIDATION_IMAGES, split="validation"
)
REAL = PublishedSuite("ReaL", (), real.TFDS_NAME, ilsvrc.NUM_VALIDATION_IMAGES, split="validation")


def tfds_counts(name: str, suites: Iterable[PublishedSuite]) -> dict[str, int]:
    """Published number of images in each split of a TFDS data set, ``{}`` for one that is none of ImageNet's.

    Args:
      name: of the data set, with or without version.
      suites: it may be one of them.
    """
    base = _base(name)
    if base == "imagenet2012":
        return {"train": ilsvrc.NUM_TRAIN_IMAGES, "validation": ilsvrc.NUM_VALIDATION_IMAGES}
    return next(({suite.split: suite.count} for suite in suites if base == _base(suite.tfds_name or "")), {})


def _base(tfds_name: str) -> str:
    return tfds_name.partition(":")[0].partition("/")[0]


def load(suite: PublishedSuite, data: ImageDataConfig, class_names: Sequence[str]) -> Source:
    """A suite of one set of images.

    It is looked for in ``data.suites_directory`` as a folder, then as an uncompressed tar, and then among what TFDS
    has prepared in ``data.directory``. Case, hyphens and underscores of names do not matter.

    Args:
      suite: how it is published.
      data: where to look.
      class_names: WordNet ids that the model knows, in the order of its labels.

    Returns:
      its records, whose labels are positions in ``class_names``. Of O the label says which class an image was taken
      for, not what it shows.

    Raises:
      MissingSuiteError: it is not there, or has none of the model's classes.
      ValueError: class folders other than the suite's classes that the model knows, or classes that are not
        ImageNet's. Also an archive that is refused, or several folders or archives of the suite. When a record of
        TFDS is read: a label outside the suite.
    """
    labels = _labels(suite, class_names)
    place = _find(suite, data)
    if place is not None:
        return _from_tree(suite, trees.read(place), labels, class_names)
    found = None
    if suite.tfds_name is not None:
        found = _from_tfds(suite.title, suite.tfds_name, suite.split, data, labels, class_names)
    if found is None:
        raise _missing(suite.title, data, (suite.folders[0], f"{suite.folders[0]}.tar"), suite.tfds_name)
    return found


def load_corruption(corruption: str, severity: int, data: ImageDataConfig, class_names: Sequence[str]) -> Source:
    """One of ImageNet-C's 75 sets, from ``imagenet-c/corruption/severity/class/file``.

    The folder ``corruption`` may lie in a folder of its published archive's name (``imagenet-c/weather/fog/3``).
    Instead of it there may be this archive (``imagenet-c/noise.tar``, ``blur.tar``, ``weather.tar``, ``digital.tar``),
    else TFDS' ``imagenet2012_corrupted``.

    Raises:
      MissingSuiteError, ValueError: as :func:`load`, and for an unknown corruption or severity.
    """
    if corruption not in CORRUPTIONS or severity not in SEVERITIES:
        received = f"{corruption}, {severity}"
        raise checks.error("corruption and severity", f"one of {', '.join(CORRUPTIONS)}, and 1 to 5", received)
    suite = dataclasses.replace(IMAGENET_C, title=f"ImageNet-C {corruption} {severity}")
    labels = _known(class_names)
    place = _find_corruption(corruption, severity, data)
    if place is not None:
        inside = (corruption, str(severity))
        tree = trees.read_folder(place) if inputs.is_folder(place) else trees.read_tar(place, inside)
        return _from_tree(suite, tree, labels, class_names)
    tfds_name = _tfds_corruption(corruption, severity)
    found = _from_tfds(suite.title, tfds_name, "validation", data, labels, class_names)
    if found is None:
        places = (
            f"{IMAGENET_C.folders[0]}/{corruption}/{severity}",
            f"{IMAGENET_C.folders[0]}/{_group(corruption)}.tar",
        )
        raise _missing(suite.title, data, places, tfds_name)
    return found


def missing_corruptions(data: ImageDataConfig) -> list[str]:
    """The missing sets of ImageNet-C, such as ``fog/3``; no file is read."""
    return [
        f"{corruption}/{severity}"
        for corruption in CORRUPTIONS
        for severity in SEVERITIES
        if _find_corruption(corruption, severity, data) is None
        and _prepared("ImageNet-C", _tfds_corruption(corruption, severity), data) is None
    ]


def _tfds_corruption(corruption: str, severity: int) -> str:
    return f"imagenet2012_corrupted/{corruption}_{severity}"


def _group(corruption: str) -> str:
    """The published archive that has it."""
    return next(group for group, names in _C_TARS.items() if corruption in names)


def _find_corruption(corruption: str, severity: int, data: ImageDataConfig) -> Path | None:
    """The set's folder, else the published tar that has it, in ``data.suites_directory``."""
    suites = _suites_directory(data)
    if suites is None:
        return None
    root = spellings.find(suites, IMAGENET_C.folders, folder=True)
    if root is None:
        return None
    groups = [root, spellings.find(root, [_group(corruption)], folder=True)]
    places = [spellings.find(group, [corruption], folder=True) for group in groups if group is not None]
    folders = [place / str(severity) for place in places if place is not None]
    folder = spellings.one(folder for folder in folders if inputs.is_folder(folder))
    return folder or spellings.find(root, [_group(corruption)], [spellings.TAR], folder=False)


def real_labels(data: ImageDataConfig, class_names: Sequence[str]) -> Mapping[str, frozenset[int]]:
    """ReaL's labels of the validation images, from ``real.json`` or TFDS' ``imagenet2012_real``.

    Returns:
      ``"ILSVRC2012_val_00000001"`` -> positions in ``class_names`` of all that the image shows: of the labels that the
      model knows, maybe none.

    Raises:
      MissingSuiteError: there are no such labels.
      ValueError: a file that is not as published, or a label out of range; classes that are not ImageNet's.
    """
    thousand = label_sets.wordnet_ids()
    known = _known(class_names)
    position = [known.get(name) for name in thousand]
    suites = _suites_directory(data)
    path = None if suites is None else spellings.find(suites, [real.FILE], folder=False)
    if path is not None:
        by_key = real.read_file(path)
    else:
        builder = _prepared("ReaL", real.TFDS_NAME, data)
        if builder is None:
            raise _missing("ReaL", data, (real.FILE,), real.TFDS_NAME)
        by_key = real.read_tfds(builder, data.directory)
    if not all(0 <= label < len(thousand) for labels in by_key.values() for label in labels):
        wrong = sorted({label for labels in by_key.values() for label in labels if not 0 <= label < len(thousand)})
        raise checks.error("labels of ReaL", f"0 to {len(thousand) - 1}", wrong[:5])
    return {
        key: frozenset(found for label in labels if (found := position[label]) is not None)
        for key, labels in by_key.items()
    }


def _known(class_names: Sequence[str]) -> dict[str, int]:
    """WordNet id -> label."""
    if not label_sets.is_imagenet(class_names):
        others = sorted(set(class_names) - set(label_sets.wordnet_ids()))
        raise checks.error("classes of the data", "WordNet ids of ImageNet's 1,000 classes", others[:5])
    return {name: label for label, name in enumerate(class_names)}


def _labels(suite: PublishedSuite, class_names: Sequence[str]) -> dict[str, int]:
    """WordNet id -> label, of the suite's classes that the model knows."""
    known = _known(class_names)
    if suite.subset is None:
        return known
    own = label_sets.known_classes(suite.subset, class_names)
    if not own:
        raise MissingSuiteError(f"{suite.title}: the model knows none of its 200 classes")
    return {name: known[name] for name in own}


def _suites_directory(data: ImageDataConfig) -> Path | None:
    """Where published suites lie; None where the config says nothing."""
    return storage.path("data.suites_directory", data.suites_directory) if data.suites_directory else None


def _find(suite: PublishedSuite, data: ImageDataConfig) -> Path | None:
    """Its folder in ``data.suites_directory``, else any archive of its name: a packed one then gets its own error."""
    root = _suites_directory(data)
    if root is None:
        return None
    return (
        spellings.find(root, suite.folders, folder=True)
        or spellings.find(root, suite.folders, [spellings.TAR], folder=False)
        or spellings.find(root, suite.folders, spellings.PACKED, folder=False)
    )


def _from_tree(
    suite: PublishedSuite, tree: trees.Tree, labels: Mapping[str, int], class_names: Sequence[str]
) -> Source:
    """Raises ValueError unless the class folders are exactly those of ``labels``."""
    expected = labels
    if suite.numbered:
        thousand = label_sets.wordnet_ids()
        expected = {str(thousand.index(name)): label for name, label in labels.items()}
    if set(tree.classes) != set(expected):
        received = trees.difference(tree.classes, expected)
        known = f"the {len(expected)} class folders of {suite.title} that the model knows"
        raise checks.error(tree.place, known, received)
    records = tree.records([expected[folder] for folder in tree.classes])
    return Source(records, tuple(class_names), image_folder.origin(tree.root))


def _prepared(title: str, name: str, data: ImageDataConfig) -> Any | None:
    """TFDS' builder, or None where there is nothing of that name."""
    if not (data.directory or data.source == "tfds") or not tfds.has_folder(name, data.directory):
        return None
    try:
        return tfds.builder_of(name, data.directory)
    except FileNotFoundError as problem:  # begun, or of another format
        raise MissingSuiteError(f"{title}: {problem}") from None


def _from_tfds(
    title: str, name: str, split: str, data: ImageDataConfig, labels: Mapping[str, int], class_names: Sequence[str]
) -> Source | None:
    builder = _prepared(title, name, data)
    if builder is None:
        return None
    names = tfds.class_names(builder, name)
    difference = sorted(set(names) ^ set(label_sets.wordnet_ids()))
    if difference:
        raise checks.error(f"classes of {name}", "ImageNet's 1,000 WordNet ids", f"a difference in {difference[:5]}")
    own = np.array([labels.get(name, -1) for name in names])
    return Source(tfds.records(builder, name, split, own, data.directory), tuple(class_names), "TFDS")


def _missing(title: str, data: ImageDataConfig, places: Sequence[str], tfds_name: str | None) -> MissingSuiteError:
    """What to put where."""
    root = data.suites_directory
    where = f"in {root}" if root else "in a folder that data.suites_directory names"
    or_tfds = ""
    if tfds_name is not None:
        command = tfds.prepare_command(tfds_name, data.directory if data.source == "tfds" else "")
        or_tfds = f", or TFDS' {tfds_name} (`{command}`)"
    return MissingSuiteError(f"{title}: expected {' or '.join(places)} {where}{or_tfds}; received none")
