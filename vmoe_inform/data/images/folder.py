"""Image files in class folders, ImageNet's flat folders whose file names state the classes, and tars of either."""

from collections.abc import Sequence

from vmoe_inform import checks
from vmoe_inform.config import ImageDataConfig
from vmoe_inform.data.images import flat as flat_images
from vmoe_inform.data.images import label_sets, spellings, trees
from vmoe_inform.data.records import SOURCES, Source, existing_directory
from vmoe_inform.storage import Path, inputs

_LAYOUTS = (".", "ILSVRC/Data/CLS-LOC", "Data/CLS-LOC", "CLS-LOC")  # where the splits are; the others are Kaggle's


@SOURCES.register("folder")
def folder(data: ImageDataConfig, split: str) -> Source:
    """Image files ``data.directory/split/class name/file``; labels number the class names in sorted order.

    Instead of a folder, the split may be an uncompressed tar ``split.tar`` of class folders, read in place. The split
    may lie where Kaggle's copy of ImageNet has it (``ILSVRC/Data/CLS-LOC/split``), and the class folders in a folder of
    the split.

    A split of ImageNet's images needs no class folders if the file names state the classes. These are the validation
    images of the published tar (``val/ILSVRC2012_val_00000001.JPEG``, ...), and those of Hugging Face's copy
    (``train/n01440764_18_n01440764.JPEG``, ``val/ILSVRC2012_val_00000001_n01751748.JPEG``, ...).

    Raises:
      FileNotFoundError: a missing folder, one without classes, or classes without images.
      ValueError: classes other than those of the training split, or an archive that is refused.
    """
    suffixes = ", ".join(suffix[1:] for suffix in trees.IMAGE_SUFFIXES)
    expected = f"{split}/CLASS/*.jpg (or {suffixes}), or {split}.tar of that"
    root = existing_directory(data, expected)
    place = _find(root, split)
    if place is None:
        there = ", ".join(trees.class_folders(root)[:5]) or "none"
        raise FileNotFoundError(
            f"data.directory: expected {expected} in it; received {str(root)!r} without {split!r} (folders: {there})"
        )
    train = _find(root, data.train_split) if split != data.train_split else None
    train_classes = None if train is None else _classes(train)
    flat = flat_images.find(place)
    if flat is not None:
        known = train_classes or (flat.label_names() if split == data.train_split else label_sets.wordnet_ids())
        return Source(flat.records(known), known, origin(place))  # only ImageNet's images are stored so
    tree = trees.read(place)
    if train_classes is not None and tree.classes != train_classes:
        received = trees.difference(tree.classes, train_classes)
        raise checks.error(f"classes of {place}", f"the {len(train_classes)} classes of {train}", received)
    return Source(tree.records(range(len(tree.classes))), tree.classes, _origin(place, tree.classes))


def origin(place: Path) -> str:
    """Of published images, read from ``place``."""
    return "published folder" if inputs.is_folder(place) else "published tar"


def _origin(place: Path, classes: Sequence[str]) -> str:
    """Of images in class folders: published if the classes are ImageNet's, otherwise somebody's own."""
    where = origin(place)
    return where if set(label_sets.wordnet_ids()).issuperset(classes) else where.removeprefix("published ")


def _find(root: Path, split: str) -> Path | None:
    """The folder of a split, or its tar: any file of that name, so that a compressed one gets its own error."""
    if not split:
        return None
    places = [root / layout for layout in _LAYOUTS]
    found = [place / split for place in places if inputs.is_folder(place / split)]
    names = [f"{split}{suffix}" for suffix in (spellings.TAR, *spellings.PACKED)]
    found += [place / name for place in places for name in names if inputs.is_file(place / name)]
    return found[0] if found else None


def _classes(place: Path) -> tuple[str, ...]:
    """Of a split, without reading the names of files where that is not needed."""
    flat = flat_images.find(place)
    if flat is not None:
        return flat.label_names()
    return (
        tuple(trees.class_folders(trees.root_of(place))) if inputs.is_folder(place) else trees.read_tar(place).classes
    )
