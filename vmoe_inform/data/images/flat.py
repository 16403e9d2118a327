"""ImageNet images without class folders, in one folder or tar: their file names state their classes."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int

from vmoe_inform import checks, storage
from vmoe_inform.data import archives, classes
from vmoe_inform.data.images import ilsvrc, label_sets, trees
from vmoe_inform.storage import inputs


@dataclass(frozen=True, eq=False)
class FlatImages:
    """Such images.

    Attributes:
      place: the folder, or the tar on this machine.
      names: of the files, sorted.
      spans: as of :class:`trees.FileRecords`.
    """

    place: storage.Path
    names: Sequence[str]
    spans: Int[np.ndarray, "n 2"] | None

    def classes(self) -> list[str]:
        """WordNet id of each image.

        Raises:
          ValueError: an image whose name does not tell its class, or another one than ImageNet's list.
        """
        found = [ilsvrc.class_of(name) for name in self.names]
        others = [name for name, wordnet_id in zip(self.names, found, strict=True) if wordnet_id is None]
        if others:
            expected = "class folders, or images ILSVRC2012_val_*.JPEG or *_n01440764.JPEG only"
            raise checks.error(str(self.place), expected, others[:5])
        return [wordnet_id for wordnet_id in found if wordnet_id is not None]

    def label_names(self) -> tuple[str, ...]:
        """Classes that the labels number, where no other split states them.

        These are the classes of the images, or all of ImageNet's 1,000 for validation images, which have numbers.
        """
        if all(map(ilsvrc.validation_number, self.names)):
            return label_sets.wordnet_ids()
        return tuple(sorted(set(self.classes())))

    def records(self, class_names: Sequence[str]) -> trees.FileRecords:
        """The images; a label is the position of the image's class in ``class_names``.

        Raises:
          ValueError: as :meth:`classes`, and for an image of another class.
        """
        labels = classes.positions(self.classes(), class_names, f"classes of the images in {self.place}")
        return trees.FileRecords(self.place, trees.as_bytes(self.names), labels.astype(np.int32), self.spans)


def find(place: storage.Path) -> FlatImages | None:
    """The images in a folder or tar without class folders, perhaps in one folder around all; None if no name states a
    class.

    Raises:
      ValueError: a tar that is refused.
    """
    if inputs.is_folder(place):
        folder, classes = place, trees.class_folders(place)
        if len(classes) == 1 and not label_sets.is_imagenet(classes):  # as archives unpack into a folder of their name
            folder = place / classes[0]
            classes = trees.class_folders(folder)
        if classes:
            return None
        names = sorted(one.name for one in inputs.entries(folder) if trees.is_image(one.name) and one.is_file)
        return FlatImages(folder, names, None) if any(map(_tells_class, names)) else None
    place = archives.local_tar(place)
    members = [
        member
        for member in archives.tar_members(place)
        if trees.is_image(member.parts[-1]) and all(map(trees.is_class, member.parts[:-1]))
    ]
    members.sort(key=lambda member: member.parts)
    folders = {member.parts[:-1] for member in members}
    if len(folders) != 1 or any(folder and label_sets.is_imagenet(folder[-1:]) for folder in folders):
        return None
    names = [member.parts[-1] for member in members]
    if not any(map(_tells_class, names)):
        return None
    return FlatImages(place, names, np.array([(member.offset, member.size) for member in members], np.int64))


def _tells_class(name: str) -> bool:
    return ilsvrc.validation_number(name) is not None or ilsvrc.class_in_name(name) is not None
