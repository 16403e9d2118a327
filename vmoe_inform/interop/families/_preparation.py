"""How the images of a checkpoint are prepared, from what its program's configs say, as fields of ``config.data``."""

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from vmoe_inform import checks

_PLACEHOLDER = re.compile(r"LABEL_\d+")
_RESAMPLING = {2: "bilinear", 3: "bicubic"}  # Pillow's numbers
_TO_SHARES = 1 / 255
_RESIZE = {"center": "shorter_side", "squash": "stretch"}  # timm's crop modes

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


def of_timm(settings: Mapping[str, Any]) -> dict[str, Any]:
    """From ``pretrained_cfg`` of timm's config.json; the defaults of resize and crop are those of timm's ViTs.

    Raises:
      ValueError: a preparation that this library does not have.
    """
    scale = {"pixel_mean": "mean", "pixel_std": "std"}
    return {
        **{field: _of_channels(name, settings[name]) for field, name in scale.items() if name in settings},
        "evaluation_crop": _share("crop_pct", settings.get("crop_pct", 0.9)),
        "evaluation_resize": word("config.json: crop_mode", settings.get("crop_mode", "center"), _RESIZE),
        "evaluation_interpolation": _interpolation("interpolation", settings.get("interpolation", "bicubic")),
    }


def asked_of_timm(settings: Mapping[str, Any]) -> dict[str, str]:
    """What has to be asked for: timm's ViTs differ in the scale of pixels, which only config.json tells."""
    asked = {
        "mean": ("pixel_mean", "0.5 for most ViTs of timm, 0.485,0.456,0.406 for DeiT and DINOv2"),
        "std": ("pixel_std", "0.5, or 0.229,0.224,0.225; config.json would say both"),
    }
    return dict(question for name, question in asked.items() if name not in settings)


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


def word(field: str, said: Any, meanings: Mapping[str, str]) -> str:
    """What one of a program's words means here.

    Args:
      field: that says it, for messages.
      said: any value of JSON.
      meanings: by word.

    Raises:
      ValueError: another word, or no text.
    """
    if not isinstance(said, str) or said not in meanings:
        raise checks.error(field, f"one of {', '.join(meanings)}", said)
    return meanings[said]


def of_hugging_face(settings: Mapping[str, Any], image_size_px: int) -> dict[str, Any]:
    """From preprocessor_config.json; the defaults are those of Hugging Face's ViT.

    Args:
      settings: of the file.
      image_size_px: P of the model.

    Raises:
      ValueError: a preparation that this library does not have.
    """
    size, crop = settings.get("size", image_size_px), settings.get("crop_size", image_size_px)
    shorter = size.get("shortest_edge") if isinstance(size, Mapping) else None
    side = _side(size) if shorter is None else shorter
    result = _side(crop) if settings.get("do_center_crop", False) else side
    if type(side) is not int or result != image_size_px or side < image_size_px:
        expected = f"images of {image_size_px} px, the model's, from a size of at least that"
        raise checks.error("preprocessor_config.json: size, crop_size", expected, (size, crop))
    _check_rescaled(settings)
    normalised = settings.get("do_normalize", True)
    number = settings.get("resample", 2)
    return {
        "pixel_mean": _of_channels("image_mean", settings.get("image_mean", 0.5)) if normalised else 0.0,
        "pixel_std": _of_channels("image_std", settings.get("image_std", 0.5)) if normalised else 1.0,
        "evaluation_crop": image_size_px / side,
        "evaluation_resize": "stretch" if shorter is None else "shorter_side",
        "evaluation_interpolation": _interpolation(
            "resample", _RESAMPLING.get(number, number) if isinstance(number, int) else number
        ),
    }


def _side(size: Any) -> Any:
    """The one side of a square, given as such, or as its height and width; None of anything else."""
    if not isinstance(size, Mapping):
        return size
    height, width = size.get("height"), size.get("width")
    return height if height == width else None


def _check_rescaled(settings: Mapping[str, Any]) -> None:
    """Raises ValueError unless pixels are brought into [0, 1] before they are normalised."""
    factor = settings.get("rescale_factor", _TO_SHARES)
    if not settings.get("do_rescale", True):
        raise checks.error("preprocessor_config.json: do_rescale", "true, pixels in [0, 1]", settings["do_rescale"])
    if type(factor) not in (int, float) or not math.isclose(factor, _TO_SHARES, rel_tol=1e-6):
        raise checks.error("preprocessor_config.json: rescale_factor", "1/255, pixels in [0, 1]", factor)


def _of_channels(name: str, value: Any) -> float | tuple[float, ...]:
    """One number, or three if they differ."""
    values = tuple(value) if isinstance(value, Sequence) and not isinstance(value, str) else (value,)
    if len(values) not in (1, 3) or not all(type(each) in (int, float) for each in values):
        raise checks.error(name, "one number, or three for red, green and blue", value)
    numbers = tuple(float(each) for each in values)
    return numbers[0] if len(set(numbers)) == 1 else numbers


def _share(name: str, value: Any) -> float:
    if type(value) not in (int, float) or not 0 < value <= 1:
        raise checks.error(name, "a number above 0, at most 1", value)
    return float(value)


def _interpolation(name: str, value: Any) -> str:
    if value not in _RESAMPLING.values():
        raise checks.error(name, f"one of {', '.join(_RESAMPLING.values())}", value)
    return str(value)
