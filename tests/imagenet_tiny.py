"""Tiny ImageNet data in the published layouts: true file names and WordNet ids, images made up.

An image's colour tells its class, so that a small model can learn them; noise tells images of a class apart.
"""

import fcntl
import hashlib
import io
import json
import os
import subprocess
import sys
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from vmoe_inform.data.images import ilsvrc, label_sets

CORRUPTIONS = tuple(label_sets.alexnet_errors()[0])
CMYK_FILE = "n01739381_1309.JPEG"  # one of 22 training images whose four channels are not red, green and blue
PNG_FILE = "n02105855_2933.JPEG"  # the training image that is a PNG file


def picture(class_name: str, index: int, size: tuple[int, int] = (48, 40)) -> Image.Image:
    """RGB, ``size`` is (width, height)."""
    digest = hashlib.sha256(class_name.encode()).digest()
    colour = np.frombuffer(digest[:3], np.uint8).astype(np.int32)
    noise = np.random.default_rng([index, digest[3]]).integers(-20, 21, (size[1], size[0], 3))
    return Image.fromarray(np.clip(colour + noise, 0, 255).astype(np.uint8))


def encoded(class_name: str, index: int, kind: str = "JPEG", mode: str = "RGB", **options: object) -> bytes:
    """An image file of ``kind`` JPEG, PNG, ... in Pillow's ``mode``."""
    buffer = io.BytesIO()
    picture(class_name, index).convert(mode).save(buffer, kind, **options)
    return buffer.getvalue()


def write_tar(path: Path, members: Mapping[str, bytes], compression: str = "") -> Path:
    """A tar file of files; ``compression`` is "", "gz" or "xz"."""
    with tarfile.open(path, f"w:{compression}") as archive:  # type: ignore[call-overload]
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


def tar_bytes(members: Mapping[str, bytes]) -> bytes:
    """The content of a tar file of files."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def validation_images(num_images: int) -> dict[str, bytes]:
    """The first validation images: file name -> content. Their classes are those of the real ones."""
    classes = ilsvrc.validation_classes()[:num_images]
    return {
        f"{ilsvrc.validation_key(number)}.JPEG": encoded(name, 1000 + number)
        for number, name in enumerate(classes, start=1)
    }


def write_ilsvrc_tars(
    directory: Path, *, num_validation: int = 8, images_per_class: int = 2, oddities: bool = False
) -> tuple[str, ...]:
    """``ILSVRC2012_img_train.tar`` and ``ILSVRC2012_img_val.tar`` as published, only small.

    Args:
      directory: where; it is made.
      num_validation: the validation images 1, 2, ...; the training set has their classes.
      images_per_class: training images of each class.
      oddities: the training set also has the PNG file and one of the CMYK files, with their classes.

    Returns:
      the classes of the training set, sorted.
    """
    directory.mkdir(parents=True, exist_ok=True)
    names = set(ilsvrc.validation_classes()[:num_validation])
    train = {name: {f"{name}_{i}.JPEG": encoded(name, i) for i in range(images_per_class)} for name in names}
    if oddities:
        for file, kind, mode in ((CMYK_FILE, "JPEG", "CMYK"), (PNG_FILE, "PNG", "RGB")):
            name = file.partition("_")[0]
            train.setdefault(name, {})[file] = encoded(name, 0, kind, mode)
    classes = tuple(sorted(train))
    write_tar(directory / ilsvrc.TRAIN_TAR, {f"{name}.tar": tar_bytes(train[name]) for name in classes})
    write_tar(directory / ilsvrc.VALIDATION_TAR, validation_images(num_validation))
    return classes


def class_tree(
    class_names: Sequence[str], images_per_class: int, *, folders: Sequence[str] | None = None, first: int = 0
) -> dict[str, bytes]:
    """``class/class_number.JPEG`` -> content; ``folders`` are other names of the classes' folders."""
    return {
        f"{folder}/{name}_{index}.JPEG": encoded(name, index)
        for name, folder in zip(class_names, folders or class_names, strict=True)
        for index in range(first, first + images_per_class)
    }


def validation_tree(class_names: Sequence[str], images_per_class: int, *, seed: int = 0) -> dict[str, bytes]:
    """``class/ILSVRC2012_val_NUMBER.JPEG`` -> content: the first validation images of each class, under true names."""
    numbers: dict[str, list[int]] = {name: [] for name in class_names}
    for number, name in enumerate(ilsvrc.validation_classes(), start=1):
        if name in numbers and len(numbers[name]) < images_per_class:
            numbers[name].append(number)
    return {
        f"{name}/{ilsvrc.validation_key(number)}.JPEG": encoded(name, 10 * number + seed)
        for name in class_names
        for number in numbers[name]
    }


def write_files(directory: Path, files: Mapping[str, bytes]) -> None:
    """Files by their path relative to ``directory``."""
    for name, content in files.items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def write_class_tree(
    directory: Path,
    class_names: Sequence[str],
    images_per_class: int,
    *,
    folders: Sequence[str] | None = None,
    first: int = 0,
) -> None:
    """Files ``directory/class/class_number.JPEG``, numbers from ``first`` on."""
    write_files(directory, class_tree(class_names, images_per_class, folders=folders, first=first))


def suite_trees(class_names: Sequence[str], images_per_class: int = 1) -> dict[str, dict[str, bytes]]:
    """Published folder name of A, R, O, V2 and Sketch -> its files, of the suite's classes among ``class_names``."""
    thousand = label_sets.wordnet_ids()
    numbers = [str(thousand.index(name)) for name in class_names]
    trees = {
        f"imagenet-{suite}": class_tree(label_sets.known_classes(suite, class_names), images_per_class, first=100 * i)
        for i, suite in enumerate(label_sets.SUBSETS, start=1)
    }
    return {
        **trees,
        "imagenetv2-matched-frequency-format-val": class_tree(
            class_names, images_per_class, folders=numbers, first=400
        ),
        "sketch": class_tree(class_names, images_per_class, first=500),
    }


def write_suites(
    directory: Path,
    class_names: Sequence[str],
    images_per_class: int = 1,
    *,
    corruptions: Sequence[str] = CORRUPTIONS,
    severities: Sequence[int] = (1, 2, 3, 4, 5),
) -> None:
    """A, R, O, V2, Sketch, C and ``real.json`` in the published layout, for a model of ``class_names``.

    ``real.json`` has for the validation image number i its own class, except that image 2 has no label and image 3
    has that of image 1 besides its own.
    """
    for folder, files in suite_trees(class_names, images_per_class).items():
        write_files(directory / folder, files)
    for i, corruption in enumerate(corruptions):
        for severity in severities:
            files = validation_tree(class_names, images_per_class, seed=1000 + 10 * i + severity)
            write_files(directory / "imagenet-c" / corruption / str(severity), files)
    write_real_labels(directory / "real.json")


def write_real_labels(path: Path) -> None:
    """``real.json`` as :func:`write_suites` says."""
    position = {name: label for label, name in enumerate(label_sets.wordnet_ids())}
    labels = [[position[name]] for name in ilsvrc.validation_classes()]
    labels[1] = []
    labels[2] = [*labels[2], *labels[0]]
    path.write_text(json.dumps(labels))


def prepare(name: str, *arguments: str) -> "subprocess.CompletedProcess[str]":
    """``python -m vmoe_inform.data.prepare`` in a process of its own: TensorFlow does not come into the tests'."""
    command = [sys.executable, "-m", "vmoe_inform.data.prepare", name, *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parent.parent)


def prepared(directory: Path) -> Path:
    """TFDS' data directory in ``directory`` with ``imagenet2012``, prepared by the real builder on the first call.

    It has the validation images 1 to 16, two training images of each of their classes, and the odd training images.
    Processes that call this at once wait for one another: the builder takes ten seconds.
    """
    with (directory / "imagenet.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (directory / "tfds").is_dir():
            write_ilsvrc_tars(directory / "tars", num_validation=16, oddities=True)
            places = (f"--manual_dir={directory / 'tars'}", f"--data_dir={directory / 'preparing'}")
            done = prepare("imagenet2012", *places, "--expected_counts=any")
            if done.returncode:
                raise RuntimeError(done.stderr)
            os.rename(directory / "preparing", directory / "tfds")
    return directory / "tfds"
