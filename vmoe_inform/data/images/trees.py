"""Trees ``root/class/file`` of images, in a folder or in an uncompressed tar that is read in place."""

import collections
import dataclasses
import functools
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from absl import logging
from jaxtyping import Int

from vmoe_inform import checks, storage
from vmoe_inform.data import archives, classes
from vmoe_inform.data.records import Record
from vmoe_inform.storage import inputs

IMAGE_SUFFIXES = (".avif", ".bmp", ".gif", ".jfif", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp")
# Folders that file systems, storage devices and archivers make for themselves, besides hidden ones.
NOT_CLASSES = ("@eadir", "#recycle", "$recycle.bin", "__macosx", "lost+found", "system volume information")
_MAX_LEVELS = 4  # of folders around the class folders


@dataclass(frozen=True, eq=False)
class FileRecords:
    """Records whose images are files of a folder or a tar, read when they are asked for.

    Names are kept as bytes in one array, since a million strings would take long to pickle for each worker process.

    Attributes:
      place: the folder, or the tar on this machine.
      names: bytes [n], path relative to the tree's root.
      labels: [n].
      spans: offset and size of each file in the tar; None in a folder.
    """

    place: storage.Path
    names: np.ndarray
    labels: Int[np.ndarray, " n"]
    spans: Int[np.ndarray, "n 2"] | None = None

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> Record:
        label = int(self.labels[index])
        if self.spans is None:
            return {"image": inputs.read_bytes(self.place / self.name(index)), "label": label}
        offset, size = (int(value) for value in self.spans[index])
        content = os.pread(_descriptor(str(self.place)), size, offset)
        if len(content) < size:
            raise OSError(f"{self.place} ends before {self.name(index)} does: was it replaced since it was opened?")
        return {"image": content, "label": label}

    def name(self, index: int) -> str:
        return os.fsdecode(self.names[index])

    def relabelled(self, labels: Int[np.ndarray, " classes"]) -> "FileRecords":
        return dataclasses.replace(self, labels=labels[self.labels].astype(np.int32))

    def selected(self, numbers: Int[np.ndarray, " k"]) -> "FileRecords":
        spans = None if self.spans is None else self.spans[numbers]
        return dataclasses.replace(self, names=self.names[numbers], labels=self.labels[numbers], spans=spans)


@functools.cache
def _descriptor(path: str) -> int:
    """The tar's file descriptor, opened when a process first reads of it.

    It stays open. ``pread`` does not use the descriptor's position, so that threads and forked processes may share it.
    """
    return os.open(path, os.O_RDONLY | os.O_CLOEXEC)


@dataclass(frozen=True, eq=False)
class Tree:
    """What a folder or a tar holds.

    Attributes:
      place: the folder or tar, with the part of it that was asked for, in words for errors.
      root: the folder itself, or the tar.
      classes: names of the class folders, sorted; there is at least one, and an image in each.
      names: bytes [n], ``class/file``, sorted.
      folders: position in ``classes`` of each file's folder.
      spans: as of :class:`FileRecords`.
    """

    place: str
    root: storage.Path
    classes: tuple[str, ...]
    names: np.ndarray
    folders: Int[np.ndarray, " n"]
    spans: Int[np.ndarray, "n 2"] | None

    def records(self, labels: Sequence[int]) -> FileRecords:
        """Its images; ``labels`` has the label of each of ``classes``."""
        return FileRecords(self.root, self.names, np.asarray(labels, np.int32)[self.folders], self.spans)


def is_image(name: str) -> bool:
    """Whether a file counts as an image: by its suffix, and not among a file system's own notes."""
    return os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES and not name.startswith(".")


def is_class(name: str) -> bool:
    """Whether a folder may be a class: neither hidden, nor made by an operating system."""
    return not name.startswith(".") and name.casefold() not in NOT_CLASSES


def class_folders(root: storage.Path) -> list[str]:
    """Names of the class folders in ``root``, sorted."""
    return _classes(inputs.entries(root))


def _classes(entries: Iterable[storage.inputs.Entry]) -> list[str]:
    return sorted(entry.name for entry in entries if entry.is_folder and is_class(entry.name))


def root_of(folder: storage.Path) -> storage.Path:
    """The folder that has the class folders.

    That is ``folder``, unless its only folder has folders again: an archive that was unpacked into a folder of its own
    name, for instance.
    """
    entries = inputs.entries(folder)
    for _ in range(_MAX_LEVELS):
        names = _classes(entries)
        if len(names) != 1 or _has_images(entries):
            break
        entries = inputs.entries(folder / names[0])
        if not _classes(entries) or _has_images(entries):
            break
        folder = folder / names[0]
    return folder


def _has_images(entries: Iterable[storage.inputs.Entry]) -> bool:
    return any(is_image(entry.name) for entry in entries)


def read_folder(folder: storage.Path) -> Tree:
    """The tree in a folder, or in a folder of it (:func:`root_of`).

    Raises:
      FileNotFoundError: there are no class folders, or some have no image.
    """
    root = root_of(folder)
    entries = inputs.entries(root)
    classes = _classes(entries)
    if not classes:
        raise FileNotFoundError(f"{root}: expected folders of classes with images; received no class folder")
    files: list[tuple[str, str]] = []
    empty: list[str] = []
    left_out = collections.Counter({".": sum(not one.is_folder and is_image(one.name) for one in entries)})
    for name, found in zip(classes, inputs.entries_of_each([root / name for name in classes]), strict=True):
        images = sorted(one.name for one in found if one.is_file and is_image(one.name))
        if not images:
            empty.append(name)
        files += [(name, file) for file in images]
        left_out[name] += sum(one.is_file or is_class(one.name) for one in found) - len(images)
    _refuse_empty(str(root), empty)
    _warn(str(root), left_out, [one.name for one in entries if one.is_folder and not is_class(one.name)])
    return _tree(str(root), root, classes, files, None)


def _refuse_empty(place: str, empty: Sequence[str]) -> None:
    """Refuses empty classes: leaving one out would shift the labels of all later ones."""
    if empty:
        raise FileNotFoundError(
            f"{place}: expected folders of classes with images; received no image in {classes.some(empty)}"
        )


def read_tar(tar: storage.Path, inside: tuple[str, ...] = ()) -> Tree:
    """The tree in an uncompressed tar, whose root may lie in folders of the tar.

    Args:
      tar: it; one of a bucket is fetched.
      inside: last folders of the root's path in the tar, e.g. ``("fog", "3")``; without, all images have to be of one
        tree.

    Raises:
      FileNotFoundError: no such images in the tar, or a class folder without any.
      ValueError: an archive that is refused (:func:`archives.tar_members`), images outside class folders, or in the
        class folders of several trees.
    """
    archive = archives.local_tar(tar)
    place = "/".join([str(archive), *inside])
    members = [
        member
        for member in archives.tar_members(archive)
        if (not inside or member.parts[-2 - len(inside) : -2] == inside) and all(map(is_class, member.parts[:-1]))
    ]
    nested = next((member for member in members if member.parts[-1].endswith(".tar")), None)
    if nested is not None:
        command = archives.unpack_command(archive)
        raise checks.error(place, f"images, not further tars (unpack it: {command})", "/".join(nested.parts))
    images = sorted((member for member in members if is_image(member.parts[-1])), key=lambda member: member.parts)
    if not images:
        raise FileNotFoundError(f"{place}: expected folders of classes with images; received no image")
    roots = {member.parts[:-2] if len(member.parts) > 1 else None for member in images}
    if len(roots) > 1 or None in roots:
        received = sorted({"/".join(member.parts[:-1]) or member.parts[-1] for member in images})[:5]
        raise checks.error(place, "class folders in one place, and all images in them", received)
    (root,) = roots
    folders = {folder[-1] for folder in archives.tar_folders(archive) if folder[:-1] == root and is_class(folder[-1])}
    _refuse_empty(place, sorted(folders - {member.parts[-2] for member in images}))
    others = [m for m in members if m.parts[:-2] in roots and len(m.parts) > 1 and not is_image(m.parts[-1])]
    _warn(place, collections.Counter(member.parts[-2] for member in others), _not_classes(archive, root))
    files = [(member.parts[-2], member.parts[-1]) for member in images]
    if len(set(files)) < len(files):
        raise checks.error(place, "each file once", f"{len(files) - len(set(files))} twice")
    spans = np.array([(member.offset, member.size) for member in images], np.int64)
    return _tree(place, archive, sorted({folder for folder, _ in files}), files, spans)


def _not_classes(archive: Path, root: tuple[str, ...] | None) -> list[str]:
    """Folders of a tar next to the class folders that are no classes."""
    start = root or ()
    paths = [*archives.tar_folders(archive), *(member.parts[:-1] for member in archives.tar_members(archive))]
    names = {path[len(start)] for path in paths if path[: len(start)] == start and len(path) > len(start)}
    return sorted(name for name in names if not is_class(name))


def read(path: storage.Path) -> Tree:
    """The tree in a folder or a tar."""
    return read_folder(path) if inputs.is_folder(path) else read_tar(path)


def _tree(
    place: str,
    root: storage.Path,
    classes: Sequence[str],
    files: Sequence[tuple[str, str]],
    spans: Int[np.ndarray, "n 2"] | None,
) -> Tree:
    number = {name: position for position, name in enumerate(classes)}
    return Tree(
        place,
        root,
        tuple(classes),
        as_bytes(f"{folder}/{file}" for folder, file in files),
        np.array([number[folder] for folder, _ in files], np.int32),
        spans,
    )


def difference(received: Iterable[str], expected: Iterable[str]) -> str:
    """Class folders that are there compared with those that should be, in words."""
    there = sorted(set(received))
    return f"{len(there)} folders; {classes.difference(there, sorted(set(expected)))}"


def as_bytes(names: Iterable[str]) -> np.ndarray:
    """File names as one array of bytes [n]."""
    return np.array([os.fsencode(name) for name in names])


def _warn(place: str, left_out: collections.Counter[str], folders: Sequence[str]) -> None:
    """Logs, in one line each, files that are no images and folders that are no classes."""
    total = left_out.total()
    if total:
        examples = ", ".join(name or "." for name, count in left_out.most_common(3) if count)
        logging.warning(
            "%s: files that are left out, since they are no images of a class: %d (in %s)", place, total, examples
        )
    if folders:
        logging.warning("%s: folders that are taken for no classes: %s", place, ", ".join(sorted(folders)))
