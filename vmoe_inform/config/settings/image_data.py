"""Settings of the images: where they come from and what is done to them."""

import dataclasses
from typing import Annotated, Literal

from vmoe_inform.checks import Bound, Name, PositiveFloat, RunPath, Share
from vmoe_inform.config.identity import Effect
from vmoe_inform.config.settings.bounds import Number
from vmoe_inform.config.settings.data import DataConfig


@dataclasses.dataclass(frozen=True, kw_only=True)
class ImageDataConfig(DataConfig):
    """Where images come from and what is done to them.

    Attributes:
      source: registered source: digits, idx, folder, tfds.
      suites_directory: folder of published evaluation suites, one folder or tar file each (ImageNet).
      pixel_mean: subtracted from pixels in [0, 1]; one number, or one for each of red, green and blue.
      pixel_std: divides the result; one number, or three.
      crop: of training images: ``"center"``, the largest square, or ``"inception"``, a random part of random area
        and shape (Szegedy 2015, arXiv 1409.4842, Sec. 6).
      crop_min_area: least share of the image's area that an inception crop takes.
      evaluation_crop: side of the centred square that evaluation reads, as a share of the image's shorter side.
      evaluation_resize: ``"square"`` resizes that square, in one step. ``"shorter_side"`` resizes the shorter side to
        P / ``evaluation_crop`` px, rounded down. It then takes the P x P pixels in the middle, as torchvision and timm
        do. ``"shorter_side_floor"`` rounds their position down, as Hugging Face's transformers does.
        ``"shorter_side_rounded"`` rounds the longer side to the nearest pixel, as big_vision and V-MoE do.
        ``"stretch"`` resizes both sides to that, whatever their proportions.
      evaluation_interpolation: ``"bilinear"`` or ``"bicubic"``, both antialiased, as in Pillow; ``"area"`` or
        ``"bilinear_aliased"``, as in TensorFlow.
      randaugment_layers: number of RandAugment operations (arXiv 1909.13719), on the host; 0 disables it.
      randaugment_magnitude: their magnitude, 0 to 10.
      random_erasing: probability that a rectangle of a training image is filled with noise (arXiv 1708.04896).
      random_rotation_degrees: largest rotation of a training image, on the device, as the next three.
      random_zoom: the zoom factor is at most 1 + this, either way.
      random_shift_px: largest shift in each direction.
      random_flip: whether an image is mirrored left-right with probability 1/2.
    """

    source: Name = "digits"
    suites_directory: Annotated[RunPath, Effect.MACHINE] = ""
    pixel_mean: Number | tuple[Number, ...] = 0.5
    pixel_std: PositiveFloat | tuple[PositiveFloat, ...] = 0.5
    crop: Literal["center", "inception"] = "center"
    crop_min_area: Annotated[float, Bound(above=0.0, at_most=1.0)] = 0.05
    evaluation_crop: Annotated[float, Bound(above=0.0, at_most=1.0), Effect.RESULTS] = 1.0
    evaluation_resize: Annotated[
        Literal["square", "shorter_side", "shorter_side_floor", "shorter_side_rounded", "stretch"], Effect.RESULTS
    ] = "square"
    evaluation_interpolation: Annotated[Literal["bilinear", "bicubic", "bilinear_aliased", "area"], Effect.RESULTS] = (
        "bilinear"
    )
    randaugment_layers: Annotated[int, Bound(at_least=0, at_most=1000)] = 0
    randaugment_magnitude: Annotated[float, Bound(at_least=0.0, at_most=10.0)] = 10.0
    random_erasing: Share = 0.0
    random_rotation_degrees: Annotated[float, Bound(at_least=0.0, at_most=360.0)] = 0.0
    random_zoom: Annotated[float, Bound(at_least=0.0, at_most=1000.0)] = 0.0
    random_shift_px: Annotated[int, Bound(at_least=0, at_most=2**14)] = 0
    random_flip: bool = False

    @property
    def folders(self) -> tuple[str, ...]:
        """Where this machine looks for images."""
        return (self.directory, self.suites_directory)
