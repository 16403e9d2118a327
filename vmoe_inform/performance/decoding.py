"""Speed of turning photographs into training images, over that of tf.data for the same work.

Each has one thread, measured in processor time, so that other programs on the machine do not count.
"""

import dataclasses
import io
import pathlib
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from PIL import Image

from vmoe_inform import checks
from vmoe_inform.config import ImageDataConfig
from vmoe_inform.data.images import decode, pipeline
from vmoe_inform.data.records import Record, SelectedRecords, Source
from vmoe_inform.performance import timing
from vmoe_inform.performance.timing import Clock, Spread

_BATCH_SIZE = 32
_SIZES = ((375, 500), (500, 375), (333, 500), (500, 500), (300, 400))  # height and width
_MOST_FILES = 1024
_IMAGENET_SIZE = 1_281_167
_JPEG_QUALITY = 95


@dataclasses.dataclass(frozen=True)
class DecodingRow:
    """Inception crops of JPEGs in memory, resized to a square: nothing is read from a disk, nothing else is done.

    Attributes:
      reference: ``"tf.data"``, which resizes as it does by default, without a filter against aliasing; or
        ``"tf.data, antialiased"``, with one, as this package.
      image_size_px: of the result.
      megapixels: mean size of a photograph.
      kilobytes: mean size of a file.
      over_reference: images a second of this package over those of the reference.
      images_per_cpu_second: of this package, in the time that all threads of the process together have of a core.
      reference_images_per_cpu_second: of the reference.
    """

    reference: str
    image_size_px: int
    megapixels: float
    kilobytes: float
    over_reference: Spread
    images_per_cpu_second: Spread
    reference_images_per_cpu_second: Spread


@dataclasses.dataclass(frozen=True)
class EncodedRecords:
    """Files in memory, all of one class, over and over until they are as many as ImageNet's: what shuffling costs
    depends on that."""

    contents: tuple[bytes, ...]

    def __len__(self) -> int:
        return _IMAGENET_SIZE

    def __getitem__(self, index: int) -> Record:
        return {"image": self.contents[index % len(self.contents)], "label": 0}

    def name(self, index: int) -> str:
        return str(index)

    def relabelled(self, labels: np.ndarray) -> "EncodedRecords":
        return self  # there is one class

    def selected(self, numbers: np.ndarray) -> SelectedRecords:
        return SelectedRecords(self, tuple(numbers.tolist()))


def measure(
    contents: Sequence[bytes], *, image_size_px: int, min_area: float, repeats: int, seconds: float = 5.0
) -> list[DecodingRow]:
    """Measures this package and tf.data in turns.

    Args:
      contents: JPEG files.
      image_size_px: side of the result.
      min_area: least share of a photograph that a crop takes.
      repeats: rounds that count.
      seconds: least time of a core that each gets in a round.

    Raises:
      ValueError: TensorFlow is not installed, or a file is no JPEG.
    """
    for content in contents:
        decode.size(content)
        if not content.startswith(b"\xff\xd8"):
            raise checks.error("photographs", "JPEG files", content[:4])
    measures: dict[str, Callable[[], float]] = {
        "vmoe_inform": lambda: drain(_package_batches(contents, image_size_px, min_area), seconds)
    }
    for name, antialias in (("tf.data", False), ("tf.data, antialiased", True)):
        batches = tf_data_batches(contents, image_size_px, min_area, antialias=antialias)
        measures[name] = lambda batches=batches: drain(batches(), seconds)  # type: ignore[misc]
    rates = timing.interleave(measures, repeats)
    sizes = [np.prod(decode.size(content)) for content in contents]
    return [
        DecodingRow(
            reference=name,
            image_size_px=image_size_px,
            megapixels=float(np.mean(sizes)) / 1e6,
            kilobytes=float(np.mean([len(content) for content in contents])) / 1e3,
            over_reference=timing.ratio(rates["vmoe_inform"], rates[name]),
            images_per_cpu_second=timing.spread(rates["vmoe_inform"]),
            reference_images_per_cpu_second=timing.spread(rates[name]),
        )
        for name in measures
        if name != "vmoe_inform"
    ]


def drain(batches: Iterator[Any], seconds: float, clock: Clock = time.process_time) -> float:
    """Images a second of ``batches`` taken as fast as they come, after the first; the iterator is ended."""
    try:
        next(batches)
        count, start, elapsed = 0, clock(), 0.0
        while elapsed < seconds:
            count += len(next(batches))
            elapsed = clock() - start
        return count / elapsed
    finally:
        getattr(batches, "close", lambda: None)()


def _package_batches(contents: Sequence[bytes], image_size_px: int, min_area: float) -> Iterator[np.ndarray]:
    """Images of this package's pipeline, made by one thread."""
    data = ImageDataConfig(crop="inception", crop_min_area=min_area, num_threads=0, prefetch_batches=1)
    batches = pipeline.train_iterator(
        Source(EncodedRecords(tuple(contents)), ("any",)),
        image_size_px=image_size_px,
        batch_size=_BATCH_SIZE,
        seed=0,
        data=data,
        skipped=pipeline.SkippedRecords(0.0),
    )
    try:
        for batch in batches:
            yield batch["image"]
    finally:
        batches.close()


def tf_data_batches(
    contents: Sequence[bytes], image_size_px: int, min_area: float, *, antialias: bool
) -> Callable[[], Iterator[np.ndarray]]:
    """The same by tf.data: uint8 [b, P, P, 3] without end. It decodes the part that the crop needs, with the same DCT,
    and resizes bilinearly.

    Args:
      contents, image_size_px, min_area: as :func:`measure`.
      antialias: whether resizing filters what is too fine for the result, as Pillow does.

    Raises:
      ValueError: TensorFlow is not installed.
    """
    try:
        import tensorflow as tf
    except ImportError as problem:
        raise checks.error("--against=tf.data", "TensorFlow, from the extra [prepare]", str(problem)) from None
    tf.config.set_visible_devices([], "GPU")

    def training_image(content: Any) -> Any:
        begin, size, _ = tf.image.sample_distorted_bounding_box(
            tf.io.extract_jpeg_shape(content),
            tf.zeros([0, 0, 4]),
            aspect_ratio_range=(3 / 4, 4 / 3),
            area_range=(min_area, 1.0),
            min_object_covered=0.0,
            max_attempts=10,
            use_image_if_no_bounding_boxes=True,
        )
        window = tf.concat([begin[:2], size[:2]], axis=0)
        part = tf.io.decode_and_crop_jpeg(content, window, channels=3, dct_method="INTEGER_ACCURATE")
        square = tf.image.resize(part, (image_size_px, image_size_px), antialias=antialias)
        return tf.cast(tf.round(square), tf.uint8)

    options = tf.data.Options()
    options.threading.private_threadpool_size = 1
    images = tf.data.Dataset.from_tensor_slices(list(contents)).repeat()
    images = images.map(training_image, num_parallel_calls=1, deterministic=True)
    return images.batch(_BATCH_SIZE).prefetch(1).with_options(options).as_numpy_iterator


def read_jpegs(folder: str) -> list[bytes]:
    """The ``*.JPEG``, ``*.jpeg`` and ``*.jpg`` files of a folder and those in it, at most 1,024 of them.

    Raises:
      FileNotFoundError: there are none.
    """
    found = sorted(path for path in pathlib.Path(folder).rglob("*") if path.suffix.lower() in (".jpeg", ".jpg"))
    if not found:
        raise FileNotFoundError(f"--photographs: expected a folder with JPEG files; received {folder!r}")
    return [path.read_bytes() for path in found[:_MOST_FILES]]


def photographs(count: int) -> list[bytes]:
    """JPEGs about as large as ImageNet's: parts of the photographs that come with scikit-image and scikit-learn."""
    import skimage.data
    from sklearn.datasets import load_sample_images

    originals = [skimage.data.astronaut(), skimage.data.coffee(), skimage.data.chelsea(), *load_sample_images().images]
    random = np.random.default_rng(0)
    files = []
    for number in range(count):
        original = Image.fromarray(originals[number % len(originals)])
        height, width = _SIZES[number % len(_SIZES)]
        scale = random.uniform(0.6, 1.0) * min(original.height / height, original.width / width)
        top = random.uniform(0, original.height - scale * height)
        left = random.uniform(0, original.width - scale * width)
        box = (left, top, left + scale * width, top + scale * height)
        buffer = io.BytesIO()
        part = original.resize((width, height), Image.Resampling.BICUBIC, box=box)
        part.save(buffer, "JPEG", quality=_JPEG_QUALITY)
        files.append(buffer.getvalue())
    return files
