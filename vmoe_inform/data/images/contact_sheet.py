"""A contact sheet: a labelled row of images for each set, to inspect before a long run."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageDraw, ImageFont

from vmoe_inform import lettering

TILE_PX = 112
_GAP_PX = 8
_CAPTION_PX = 16
_LABEL_PX = 190
_INK, _FAINT, _PAPER = (20, 20, 20), (110, 110, 110), (255, 255, 255)


@dataclass(frozen=True)
class Row:
    """One set.

    Attributes:
      title: what it is.
      notes: lines beneath the title.
      images: uint8 [TILE_PX, TILE_PX, 3] each.
      captions: of the images.
    """

    title: str
    notes: Sequence[str]
    images: Sequence[UInt8[np.ndarray, "P P 3"]]
    captions: Sequence[str]


def draw(rows: Sequence[Row]) -> Image.Image:
    """The rows beneath each other; text that does not fit is cut off."""
    columns = max((len(row.images) for row in rows), default=0)
    step_px, height_px = TILE_PX + _GAP_PX, TILE_PX + _CAPTION_PX + _GAP_PX
    sheet = Image.new("RGB", (_LABEL_PX + columns * step_px + _GAP_PX, len(rows) * height_px + _GAP_PX), _PAPER)
    pen = ImageDraw.Draw(sheet)
    large, small = (ImageFont.truetype(str(lettering.font_file()), size) for size in (14, 10))
    for number, row in enumerate(rows):
        top = _GAP_PX + number * height_px
        pen.text((_GAP_PX, top), _cut(row.title, large, _LABEL_PX - 2 * _GAP_PX), _INK, large)
        for line, note in enumerate(row.notes):
            text = _cut(note, small, _LABEL_PX - 2 * _GAP_PX)
            pen.text((_GAP_PX, top + 22 + 15 * line), text, _FAINT, small)
        for column, (image, caption) in enumerate(zip(row.images, row.captions, strict=True)):
            left = _LABEL_PX + column * step_px
            sheet.paste(Image.fromarray(image), (left, top))
            pen.text((left, top + TILE_PX + 1), _cut(caption, small, TILE_PX), _FAINT, small)
    return sheet


def _cut(text: str, font: ImageFont.FreeTypeFont, width_px: int) -> str:
    text = lettering.legible(text)
    if font.getlength(text) <= width_px:
        return text
    while text and font.getlength(text + "...") > width_px:
        text = text[:-1]
    return text + "..."
