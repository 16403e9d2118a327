"""Image files in class folders, ImageNet's flat folder of validation images, and tars of either."""

from pathlib import Path

import numpy as np

from vmoe_inform import checks
from vmoe_inform.config import DataConfig
from vmoe_inform.data import archives, ilsvrc, label_sets, trees
from vmoe_inform.data.records import SOURCES, Source, existing_directory


@SOURCES.register("folder")
def folder(data: DataConfig, split: str) -> Source:
    """Image files ``data.directory/split/class name/file``; labels number the class names in sorted order.

    Instead of a folder, the split may be an uncompressed tar ``split.tar`` of class folders, read in place. A split of
    ImageNet's validation images may also be without class folders, as the published tar is
    (``val/ILSVRC2012_val_00000001.JPEG``, ...): their classes are known.

    Raises:
      FileNotFoundError: a missing folder, one without classes, or a class without images.
      ValueError: classes that are not those of the training split, whose labels would mean something else; an archive
        that is refused.
    """
    suffixes = ", ".join(suffix[1:] for suffix in trees.IMAGE_SUFFIXES)
    expected = f"{split}/CLASS/*.jpg (or {suffixes}), or {split}.tar of that"
    root = existing_directory(data, expected)
    place = _find(root, split)
    if place is None:
        raise FileNotFoundError(f"data.directory: expected {expected} in it; received {str(root)!r} without {split!r}")
    train = _find(root, data.train_split) if split != data.train_split else None
    train_classes = None if train is None else _classes(train)
    if _is_flat(place):
        return _validation_images(place, train_classes or label_sets.wordnet_ids())
    tree = trees.read(place)
    if train_classes is not None and tree.classes != train_classes:
        difference = sorted(set(tree.classes) ^ set(train_classes))
        raise checks.error(f"classes of {place}", f"the {len(train_classes)} classes of {train}", difference)
    return Source(tree.records(range(len(tree.classes))), tree.classes, origin(place))


def origin(place: Path) -> str:
    """Of a source read from ``place``."""
    return "published folder" if place.is_dir() else "published tar"


def _find(root: Path, split: str) -> Path | None:
    """The folder of a split, or its tar: any file of that name, so that a compressed one gets its own error."""
    if not split:
        return None
    if (root / split).is_dir():
        return root / split
    names = (f"{split}.tar", f"{split}.tar.gz", f"{split}.tgz", f"{split}.tar.xz", f"{split}.zip")
    return next((root / name for name in names if (root / name).is_file()), None)


def _classes(place: Path) -> tuple[str, ...]:
    return tuple(trees.class_folders(place)) if place.is_dir() else trees.read_tar(place).classes


def _is_flat(place: Path) -> bool:
    """Whether it holds ImageNet's validation images, and these are in no folders."""
    if place.is_dir():
        names = [path.name for path in place.iterdir() if path.is_file()]
        return not trees.class_folders(place) and any(ilsvrc.validation_number(name) for name in names)
    members = archives.tar_members(place)
    return all(len(member.parts) == 1 for member in members) and any(
        ilsvrc.validation_number(member.parts[0]) for member in members
    )


def _validation_images(place: Path, class_names: tuple[str, ...]) -> Source:
    """Raises ValueError for an image that has no number, or whose class is not among ``class_names``."""
    if place.is_dir():
        spans = None
        names = sorted(path.name for path in place.iterdir() if path.is_file() and trees.is_image(path.name))
    else:
        members = sorted(archives.tar_members(place), key=lambda member: member.parts)
        members = [member for member in members if trees.is_image(member.parts[0])]
        names = [member.parts[0] for member in members]
        spans = np.array([(member.offset, member.size) for member in members], np.int64)
    numbers = [ilsvrc.validation_number(name) for name in names]
    others = [name for name, number in zip(names, numbers, strict=True) if number is None]
    if others:
        raise checks.error(str(place), "class folders, or validation images ILSVRC2012_val_*.JPEG only", others[:5])
    classes = ilsvrc.validation_classes()
    of_images = [classes[number - 1] for number in numbers if number is not None]
    labels = label_sets.positions(of_images, class_names, f"classes of the validation images in {place}")
    records = trees.FileRecords(place, trees.as_bytes(names), labels.astype(np.int32), spans)
    return Source(records, class_names, origin(place))
