"""Figures and images as files and as addresses inside a page: the same numbers give the same bytes."""

import base64
import io
from typing import Any, Literal, TypeAlias

import matplotlib
from matplotlib.figure import Figure

FigureKind: TypeAlias = Literal["png", "svg"]
Kind: TypeAlias = Literal["png", "svg", "jpeg"]

_MEDIA_TYPES = {"svg": "image/svg+xml", "png": "image/png", "jpeg": "image/jpeg"}
_DOTS_PER_INCH = 160


def encode(figure: Figure, kind: FigureKind) -> bytes:
    """A figure as SVG (for lines) or PNG (for photographs), without a date and without random ids."""
    buffer = io.BytesIO()
    metadata: dict[str, Any] = {"Date": None} if kind == "svg" else {}
    with matplotlib.rc_context({"svg.hashsalt": "vmoe_inform"}):
        figure.savefig(buffer, format=kind, dpi=_DOTS_PER_INCH, metadata=metadata)
    return buffer.getvalue()


def data_uri(content: bytes, kind: Kind) -> str:
    """A picture as an address for ``<img src>`` that holds the picture itself."""
    return f"data:{_MEDIA_TYPES[kind]};base64,{base64.b64encode(content).decode('ascii')}"
