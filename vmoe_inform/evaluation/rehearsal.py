"""Fashion-MNIST in ImageNet's clothes: a small data set in the published layouts of ImageNet and its suites.

    python -m vmoe_inform.evaluation.rehearsal --source_directory=DIR --directory=OUT

Every garment gets the WordNet id of one of ImageNet's classes. Every suite gets a counterpart, made by the procedure of
the published suite where possible:

    OUT/train, OUT/val                           class folders of JPEGs; val/*/ILSVRC2012_val_00000001.JPEG ...
    OUT/suites/imagenet-c/CORRUPTION/SEVERITY    the 15 corruptions in 5 severities of the validation images
    OUT/suites/imagenet-a                        further test images that their 5 nearest neighbours get wrong
    OUT/suites/imagenet-r                        further test images as posters: few shades, in random colours
    OUT/suites/imagenet-o                        letters, which are no garments
    OUT/suites/imagenetv2-...-val                further test images, drawn anew from the same distribution
    OUT/suites/sketch                            further test images as outlines
    OUT/suites/real.json                         classes of at least two of the five nearest neighbours

So a training, an evaluation and its report can be rehearsed from end to end before the real data are there.
"""

import json
import pathlib
from collections.abc import Iterable, Sequence
from typing import Annotated, TypeAlias

import numpy as np
from jaxtyping import Int, UInt8
from PIL import Image
from skimage.filters import sobel

from vmoe_inform import checks, command_line, text
from vmoe_inform.config import ImageDataConfig, settings
from vmoe_inform.data import classes, sources
from vmoe_inform.data.images import label_sets
from vmoe_inform.data.sources import ArrayRecords
from vmoe_inform.evaluation import cache, corruptions, glyphs

# Of Fashion-MNIST's labels 0 to 9: classes that look alike where ImageNet has them, else such as are in A, R and O.
WORDNET_IDS = (
    "n02730930",  # T-shirt: apron (A, O)
    "n03594734",  # trouser: jean
    "n04599235",  # pullover: wool (O)
    "n03617480",  # dress: kimono (A)
    "n03630383",  # coat: lab coat (R)
    "n04133789",  # sandal: sandal (A, R)
    "n02883205",  # shirt: bow tie (A, R)
    "n04120489",  # sneaker: running shoe
    "n02769748",  # bag: backpack (R)
    "n03124043",  # ankle boot: cowboy boot (A)
)
_NUM_NEIGHBOURS = 5
_JPEG_QUALITY = 95
_NUM_SHADES = 4

_Count: TypeAlias = Annotated[int, checks.Bound(at_least=1, at_most=60_000)]  # Fashion-MNIST has no more

_SOURCE = command_line.define_path(
    "source_directory", "Folder with Fashion-MNIST's four files.", default="/usr/share/datasets/fashion-mnist"
)
_DIRECTORY = command_line.define_path("directory", "Folder to be made.")
_TRAIN = command_line.define("train_images", _Count, 20_000, "Training images.")
_TEST = command_line.define(
    "test_images", _Count, 1_000, "Validation images, and as many further test images for the suites."
)
_CORRUPTIONS = command_line.define(
    "corruptions", tuple[checks.Name, ...], tuple(corruptions.CORRUPTIONS), "Corruptions; by default all 15."
)
_SIZE = command_line.define("image_size_px", settings.Pixels, 32, "Side of the images, at least 32.")

Images = UInt8[np.ndarray, "n P P 3"]
Labels = Int[np.ndarray, " n"]


def outlines(images: Images) -> Images:
    """Dark lines on white where the brightness changes (Sobel's filter), as a drawing shows a thing."""
    edges = np.stack([sobel(image.mean(axis=2) / 255.0) for image in images])
    strength = edges / np.maximum(edges.max(axis=(1, 2), keepdims=True), 1e-6)
    return np.repeat(np.round(255 * (1 - strength)).astype(np.uint8)[..., None], 3, axis=-1)


def posters(images: Images, seed: int) -> Images:
    """Each image in four shades between two colours drawn at random, as a screen print shows a thing."""
    generator = np.random.default_rng(seed)
    shade = np.minimum(images.mean(axis=3) // (256 / _NUM_SHADES), _NUM_SHADES - 1) / (_NUM_SHADES - 1)
    ends = generator.integers(0, 256, (2, len(images), 1, 1, 3))
    return np.round(ends[0] + shade[..., None] * (ends[1] - ends[0])).astype(np.uint8)


def neighbour_votes(train: Images, train_labels: Labels, images: Images) -> Int[np.ndarray, "n 10"]:
    """Classes of the five nearest training images in pixels: the number of each."""
    from sklearn.neighbors import NearestNeighbors

    flat = [of.mean(axis=3).reshape(len(of), -1).astype(np.float32) for of in (train, images)]
    nearest = NearestNeighbors(n_neighbors=_NUM_NEIGHBOURS, algorithm="brute").fit(flat[0])
    labels = train_labels[nearest.kneighbors(flat[1], return_distance=False)]
    return (labels[:, :, None] == np.arange(len(WORDNET_IDS))).sum(axis=1)


def _load(directory: str, split: str, size_px: int) -> tuple[Images, Labels]:
    records = sources.load(ImageDataConfig(source="idx", directory=directory), split).records
    assert isinstance(records, ArrayRecords)  # as files of MNIST's format are read
    resized = [
        Image.fromarray(image[..., 0]).resize((size_px, size_px), Image.Resampling.BICUBIC) for image in records.images
    ]
    return np.repeat(np.stack([np.asarray(image) for image in resized])[..., None], 3, axis=-1), records.labels


def _write(folder: pathlib.Path, images: Iterable[np.ndarray], names: Sequence[str]) -> None:
    """Writes JPEGs, ``names`` with their class folders."""
    for image, name in zip(images, names, strict=True):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(path, "JPEG", quality=_JPEG_QUALITY, subsampling=0)


def _names(labels: Labels, pattern: str, folders: Sequence[str] = WORDNET_IDS) -> list[str]:
    return [f"{folders[label]}/{pattern.format(number + 1)}" for number, label in enumerate(labels)]


def _only(subset: str, images: Images, labels: Labels, where: np.ndarray) -> tuple[Images, Labels]:
    """The images of the subset's classes ``where`` something holds."""
    known = set(label_sets.known_classes(subset, WORDNET_IDS))
    kept = where & np.array([WORDNET_IDS[label] in known for label in labels])
    return images[kept], labels[kept]


def make(
    source_directory: str,
    directory: pathlib.Path,
    *,
    train_images: int,
    test_images: int,
    size_px: int,
    corruption_names: Sequence[str] = corruptions.CORRUPTIONS,
    cache_directory: str = "",
) -> None:
    """Writes everything.

    Args:
      source_directory: with Fashion-MNIST's files.
      directory: to be made.
      train_images: number of training images.
      test_images: number of validation images, and of the further ones that suites are made of.
      size_px: side of the images.
      corruption_names: which of the 15 to draw.
      cache_directory: where drawn corruptions are kept too, see ``evaluation.cache_directory``.

    Raises:
      ValueError: more images than there are, or a directory that is there already.
      FileNotFoundError: no Fashion-MNIST.
    """
    if directory.exists():
        raise checks.error("--directory", "a folder that is not there yet", str(directory))
    images, labels = _load(source_directory, "train", size_px)
    tests, test_labels = _load(source_directory, "test", size_px)
    for flag, number, most in (("train", train_images, len(images)), ("test", 2 * test_images, len(tests))):
        if not 1 <= number <= most:
            received = number if flag == "train" else test_images
            raise checks.error(f"--{flag}_images", f"1 to {most if flag == 'train' else most // 2}", received)
    suites = directory / "suites"
    _write(directory / "train", images[:train_images], _names(labels[:train_images], "train_{}.JPEG"))
    validation, further = slice(0, test_images), slice(test_images, 2 * test_images)
    names = _names(test_labels[validation], "ILSVRC2012_val_{:08d}.JPEG")
    _write(directory / "val", tests[validation], names)

    votes = neighbour_votes(images, labels, tests[: 2 * test_images])
    order = np.argsort(np.array(WORDNET_IDS))  # ImageNet's numbers grow with the ids
    numbers = classes.positions(WORDNET_IDS, label_sets.wordnet_ids())
    real = [[int(numbers[label]) for label in order if row[label] >= 2] for row in votes[validation]]
    suites.mkdir(parents=True, exist_ok=True)
    (suites / "real.json").write_text(json.dumps(real))

    others, other_labels, missed = tests[further], test_labels[further], votes[further].argmax(axis=1)
    hard, hard_labels = _only("a", others, other_labels, missed != other_labels)
    _write(suites / "imagenet-a", hard, _names(hard_labels, "{}.jpg"))
    prints, print_labels = _only("r", others, other_labels, np.ones(len(others), bool))
    _write(suites / "imagenet-r", posters(prints, seed=0), _names(print_labels, "poster_{}.jpg"))
    folder = suites / "imagenetv2-matched-frequency-format-val"
    _write(folder, others, _names(other_labels, "{}.jpeg", [str(number) for number in numbers]))
    _write(suites / "sketch", outlines(others), _names(other_labels, "sketch_{}.JPEG"))

    letters, _ = glyphs.glyphs(glyphs.LETTERS, size_px)
    of_no_class = [WORDNET_IDS.index(name) for name in label_sets.known_classes("o", WORDNET_IDS)]
    spread = np.array([of_no_class[number % len(of_no_class)] for number in range(len(letters))])
    _write(suites / "imagenet-o", np.repeat(letters, 3, axis=-1), _names(spread, "letter_{}.JPEG"))

    kept = cache.cache_directory(cache_directory)
    corruptions.generate_all(tests[validation], seed=0, directory=kept, names=corruption_names)
    for corruption in corruption_names:
        for severity in corruptions.SEVERITIES:
            drawn = corruptions.load(tests[validation], corruption, severity, seed=0, directory=kept)
            _write(suites / "imagenet-c" / corruption / str(severity), drawn, names)


def main(_: list[str]) -> int:
    """Returns the exit code."""
    if _DIRECTORY.value is None:
        raise checks.error("--directory", "a folder to be made", None)
    if _SIZE.value < corruptions.MINIMUM_SIZE_PX:
        raise checks.error("--image_size_px", f"at least {corruptions.MINIMUM_SIZE_PX}", _SIZE.value)
    for name in _CORRUPTIONS.value:
        if name not in corruptions.CORRUPTIONS:
            raise checks.error("--corruptions", f"some of {', '.join(corruptions.CORRUPTIONS)}", name)
    directory = pathlib.Path(_DIRECTORY.value)
    make(
        _SOURCE.value,
        directory,
        train_images=_TRAIN.value,
        test_images=_TEST.value,
        size_px=_SIZE.value,
        corruption_names=_CORRUPTIONS.value,
    )
    print(text.printable(f"{directory}: train, val and suites are there"))
    return 0


if __name__ == "__main__":
    command_line.run(main, keeps_programs=True)
