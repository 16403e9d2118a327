"""Settings of the images: where they come from and what is done to them."""

import dataclasses
from typing import Annotated, Literal

from vmoe_inform import checks
from vmoe_inform.checks import Bound, Name, Path, PositiveFloat, Share, ShareBelowOne
from vmoe_inform.config.identity import Effect
from vmoe_inform.config.settings.bounds import Number, Threads


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """Where images come from and what is done to them.

    Attributes:
      source: registered source: digits, idx, folder, tfds.
      directory: where the data lie (idx, folder, tfds).
      tfds_name: TFDS builder, e.g. ``imagenet2012`` (tfds).
      train_split: name of the training split, as the source calls it.
      test_split: name of the test split.
      validation_share: share of the training split that is held out of training, and evaluated in place of the test
        split; 0: none.
      suites_directory: folder of published evaluation suites, one folder or tar file each (ImageNet).
      class_names: names of the classes, in the order of the labels; empty: those of the training split, in its order.
        A run records them, and matches classes by name.
      pixel_mean: subtracted from pixels in [0, 1]; one number, or one for each of red, green and blue.
      pixel_std: divides the result; one number, or three.
      crop: of training images: ``"center"``, the largest square, or ``"inception"``, a random part of random area
        and shape (Szegedy 2015, arXiv 1409.4842, Sec. 6).
      crop_min_area: least share of the image's area that an inception crop takes.
      evaluation_crop: side of the centred square that evaluation reads, as a share of the image's shorter side.
      randaugment_layers: number of RandAugment operations (arXiv 1909.13719), on the host; 0 disables it.
      randaugment_magnitude: their magnitude, 0 to 10.
      random_erasing: probability that a rectangle of a training image is filled with noise (arXiv 1708.04896).
      random_rotation_degrees: largest rotation of a training image, on the device, as the next three.
      random_zoom: the zoom factor is at most 1 + this, either way.
      random_shift_px: largest shift in each direction.
      random_flip: whether an image is mirrored left-right with probability 1/2.
      num_workers: processes that read, decode and augment; 0: threads of this process do.
      num_threads: threads of each such process; 0 is best for data in memory.
      prefetch_batches: batches kept ready.
      max_skipped_share: share of records that may be unreadable before the run stops.
    """

    source: Name = "digits"
    directory: Annotated[Path, Effect.MACHINE] = ""
    tfds_name: Name = ""
    train_split: Name = "train"
    test_split: Annotated[Name, Effect.RESULTS] = "test"
    validation_share: ShareBelowOne = 0.0
    suites_directory: Annotated[Path, Effect.MACHINE] = ""
    class_names: Annotated[tuple[Annotated[str, checks.Text(1000)], ...], Effect.CLASSES] = ()
    pixel_mean: Number | tuple[Number, ...] = 0.5
    pixel_std: PositiveFloat | tuple[PositiveFloat, ...] = 0.5
    crop: Literal["center", "inception"] = "center"
    crop_min_area: Annotated[float, Bound(above=0.0, at_most=1.0)] = 0.05
    evaluation_crop: Annotated[float, Bound(above=0.0, at_most=1.0), Effect.RESULTS] = 1.0
    randaugment_layers: Annotated[int, Bound(at_least=0, at_most=1000)] = 0
    randaugment_magnitude: Annotated[float, Bound(at_least=0.0, at_most=10.0)] = 10.0
    random_erasing: Share = 0.0
    random_rotation_degrees: Annotated[float, Bound(at_least=0.0, at_most=360.0)] = 0.0
    random_zoom: Annotated[float, Bound(at_least=0.0, at_most=1000.0)] = 0.0
    random_shift_px: Annotated[int, Bound(at_least=0, at_most=2**14)] = 0
    random_flip: bool = False
    num_workers: Annotated[Threads, Effect.MACHINE] = 0
    num_threads: Annotated[Threads, Effect.MACHINE] = 4
    prefetch_batches: Annotated[int, Bound(at_least=1, at_most=1024), Effect.MACHINE] = 4
    max_skipped_share: Annotated[Share, Effect.MACHINE] = 0.01
