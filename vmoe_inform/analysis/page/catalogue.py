"""The interactive page of each kind of views."""

from collections.abc import Callable, Mapping
from typing import Any

from vmoe_inform.analysis.images.views import Views
from vmoe_inform.analysis.page.packing import frame
from vmoe_inform.analysis.page.render import routing_page
from vmoe_inform.analysis.page.words import word_page
from vmoe_inform.analysis.text.views import TextViews

_PAGES: Mapping[type, Callable[[Any], str]] = {Views: routing_page, TextViews: word_page}


def page_of(views: Views | TextViews) -> str:
    """The page as HTML: of images patch by patch, of texts word by word."""
    return _PAGES[type(views)](views)


def routing_frame(views: Views | TextViews, *, height_px: int = 820) -> str:
    """The page in a frame of its own, as HTML for a cell of a notebook.

    Args:
      views: from :func:`vmoe_inform.analysis.api.analyze`.
      height_px: of the frame.
    """
    return frame(page_of(views), height_px=height_px)
