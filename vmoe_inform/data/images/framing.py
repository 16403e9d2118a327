"""What evaluation shows the model of an image: the part in the middle, and how it is resized."""

import dataclasses
import math
from typing import Literal, TypeAlias

from vmoe_inform.config import ImageDataConfig

Box: TypeAlias = tuple[float, float, float, float]  # top, left, height, width in pixels
Resize: TypeAlias = Literal["square", "shorter_side", "shorter_side_floor", "shorter_side_rounded", "stretch"]
Interpolation: TypeAlias = Literal["bilinear", "bicubic", "bilinear_aliased", "area"]

_ROUNDING = 1e-6  # so that P / (P / R) is R


@dataclasses.dataclass(frozen=True)
class Framing:
    """How an image becomes a square of P x P pixels; the fields are those of :class:`ImageDataConfig`.

    Attributes:
      crop: side of the centred square that is read, as a share of the image's shorter side.
      resize: which part, and to which size before the crop.
      interpolation: how pixels are made of others.
    """

    crop: float = 1.0
    resize: Resize = "square"
    interpolation: Interpolation = "bilinear"

    @classmethod
    def of(cls, data: ImageDataConfig) -> "Framing":
        """That of a run's evaluation."""
        return cls(data.evaluation_crop, data.evaluation_resize, data.evaluation_interpolation)

    def resized(self, height: int, width: int, image_size_px: int) -> tuple[int, int]:
        """Height and width before the P x P pixels in the middle are taken; not with ``"square"``.

        Rounded down to whole pixels as torchvision does, or to the nearest as big_vision does.

        Args:
          height, width: of the image in pixels.
          image_size_px: P.
        """
        side = math.floor(image_size_px / self.crop + _ROUNDING)
        if self.resize == "stretch":
            return side, side
        shorter = min(height, width)
        if self.resize in ("shorter_side", "shorter_side_floor"):
            return side * height // shorter, side * width // shorter
        return round(side * height / shorter), round(side * width / shorter)

    def corner(self, height: int, width: int, image_size_px: int) -> tuple[int, int]:
        """Top and left of the P x P whole pixels in the middle of a resized image; not with ``"square"``.

        Half a pixel is rounded to even as torchvision does, or down as transformers and big_vision do.

        Args:
          height, width: from :meth:`resized`.
          image_size_px: P.
        """
        left_over = height - image_size_px, width - image_size_px
        if self.resize in ("shorter_side_floor", "shorter_side_rounded"):
            return left_over[0] // 2, left_over[1] // 2
        return round(left_over[0] / 2), round(left_over[1] / 2)


WHOLE = Framing()  # the largest square


def central_square(height: int, width: int, crop: float = 1.0) -> Box:
    """The square in the centre whose side is the share ``crop`` of the shorter one; its edges may lie inside pixels."""
    side = min(height, width) * crop
    return (height - side) / 2, (width - side) / 2, side, side
