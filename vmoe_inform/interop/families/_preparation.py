"""How the images of a checkpoint are prepared, from what its program's configs say, as fields of ``config.data``."""

import math
import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeAlias, TypedDict

from vmoe_inform import checks
from vmoe_inform.interop.families.base import Question

Channels: TypeAlias = float | tuple[float, float, float] | tuple[float]  # one number, or of red, green and blue

_PLACEHOLDER = re.compile(r"LABEL_\d+")
_RESAMPLING = {2: "bilinear", 3: "bicubic"}  # Pillow's numbers
_TO_SHARES = 1 / 255

_SMALL_PX = 256


def of_big_vision(image_size_px: int) -> dict[str, Any]:
    """As the configs of big_vision and of V-MoE have it, with values from -1 to 1.

    Small images come of ``resize_small(256)|central_crop(224)``, the first of which averages over areas. Larger ones
    come of ``resize(P)``.
    """
    if image_size_px <= _SMALL_PX:
        framing = {
            "evaluation_crop": 0.875,
            "evaluation_resize": "shorter_side_rounded",
            "evaluation_interpolation": "area",
        }
    else:
        framing = {
            "evaluation_crop": 1.0,
            "evaluation_resize": "stretch",
            "evaluation_interpolation": "bilinear_aliased",
        }
    return {"pixel_mean": 0.5, "pixel_std": 0.5, **framing}


class PretrainedConfig(TypedDict, total=False):
    """What ``pretrained_cfg`` of timm's config.json says of images."""

    mean: Channels
    std: Channels
    crop_pct: Annotated[float, checks.Bound(above=0.0, at_most=1.0)]
    crop_mode: Literal["center", "squash"]
    interpolation: Literal["bilinear", "bicubic"]


def of_timm(said: PretrainedConfig) -> dict[str, Any]:
    """From ``pretrained_cfg`` of timm's config.json; the defaults of resize and crop are those of timm's ViTs."""
    scale = {"pixel_mean": said.get("mean"), "pixel_std": said.get("std")}
    return {
        **{field: _of_channels(value) for field, value in scale.items() if value is not None},
        "evaluation_crop": said.get("crop_pct", 0.9),
        "evaluation_resize": {"center": "shorter_side", "squash": "stretch"}[said.get("crop_mode", "center")],
        "evaluation_interpolation": said.get("interpolation", "bicubic"),
    }


def asked_of_timm(said: PretrainedConfig) -> dict[str, Question]:
    """What has to be asked for: timm's ViTs differ in the scale of pixels, which only config.json tells."""
    asked = {
        "mean": ("pixel_mean", Question("0.5 for most ViTs of timm, 0.485,0.456,0.406 for DeiT and DINOv2", "0.5")),
        "std": ("pixel_std", Question("0.5, or 0.229,0.224,0.225; config.json would say both", "0.5")),
    }
    return dict(question for name, question in asked.items() if name not in said)


def class_names(said: Any) -> tuple[str, ...]:
    """Names of the classes in the order of the logits; empty if there are none, or only placeholders.

    Args:
      said: a list of names, or names by number, as in Hugging Face's ``id2label``.

    Raises:
      ValueError: anything else.
    """
    if isinstance(said, Mapping):
        said = [said.get(str(number)) for number in range(len(said))]
    if not isinstance(said, list | tuple) or not all(isinstance(name, str) and name for name in said):
        raise checks.error("config.json: names of the classes", "a list of names, or names by number", said)
    return () if all(map(_PLACEHOLDER.fullmatch, said)) else tuple(said)


class Preprocessor(TypedDict, total=False):
    """What Hugging Face's preprocessor_config.json says; sizes are one number, or an object of several."""

    size: Any
    crop_size: Any
    do_resize: bool
    do_center_crop: bool
    do_rescale: bool
    do_normalize: bool
    rescale_factor: float
    resample: Literal[2, 3, "bilinear", "bicubic"]
    image_mean: Channels
    image_std: Channels


def of_hugging_face(said: Preprocessor, image_size_px: int) -> dict[str, Any]:
    """From preprocessor_config.json; the defaults are those of Hugging Face's ViT.

    Args:
      said: by the file.
      image_size_px: P of the model.

    Raises:
      ValueError: a preparation that this library does not have.
    """
    size, crop = said.get("size", image_size_px), said.get("crop_size", image_size_px)
    shorter = size.get("shortest_edge") if isinstance(size, Mapping) else None
    side = _side(size) if shorter is None else shorter
    is_cropped = said.get("do_center_crop", False)
    result = _side(crop) if is_cropped else side
    if type(side) is not int or result != image_size_px or side < image_size_px:
        expected = f"images of {image_size_px} px, the model's, from a size of at least that"
        raise checks.error("preprocessor_config.json: size, crop_size", expected, (size, crop))
    if shorter is not None and not is_cropped:
        raise checks.error("preprocessor_config.json: do_center_crop", "true with size.shortest_edge", is_cropped)
    if shorter is None and (side - image_size_px) % 4 == 3:  # transformers rounds down here, and "stretch" up
        raise checks.error("preprocessor_config.json: size", f"{image_size_px} plus an even number", side)
    _check_rescaled(said)
    normalised = said.get("do_normalize", True)
    number = said.get("resample", 2)
    return {
        "pixel_mean": _of_channels(said.get("image_mean", 0.5)) if normalised else 0.0,
        "pixel_std": _of_channels(said.get("image_std", 0.5)) if normalised else 1.0,
        "evaluation_crop": image_size_px / side,
        "evaluation_resize": "stretch" if shorter is None else "shorter_side_floor",
        "evaluation_interpolation": number if isinstance(number, str) else _RESAMPLING[number],
    }


def _side(size: Any) -> Any:
    """The one side of a square, given as such, or as its height and width; None of anything else."""
    if not isinstance(size, Mapping):
        return size
    height, width = size.get("height"), size.get("width")
    return height if height == width else None


def _check_rescaled(said: Preprocessor) -> None:
    """Raises ValueError unless pixels are brought into [0, 1] before they are normalised."""
    factor = said.get("rescale_factor", _TO_SHARES)
    for field in ("do_resize", "do_rescale"):
        if not said.get(field, True):
            raise checks.error(f"preprocessor_config.json: {field}", "true", False)
    if not math.isclose(factor, _TO_SHARES, rel_tol=1e-6):
        raise checks.error("preprocessor_config.json: rescale_factor", "1/255, pixels in [0, 1]", factor)


def _of_channels(value: Channels) -> float | tuple[float, ...]:
    """One number, or three if they differ."""
    numbers = value if isinstance(value, tuple) else (value,)
    return numbers[0] if len(set(numbers)) == 1 else numbers
