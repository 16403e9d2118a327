"""Text in figures: names of users are drawn as they are, in a font that has them, or as code where none has.

matplotlib reads ``$`` as mathematics, leaves names with a leading underscore out of legends, and draws boxes for
characters without a glyph. So every text from outside this library goes through :func:`shown`, and every legend with
such text through :func:`legend`. Every function that draws is ``@plain``.
"""

import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from vmoe_inform import text as text_lib

if TYPE_CHECKING:  # training draws nothing, but can write down what it finds in data as figures do
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.legend import Legend

Parameters = ParamSpec("Parameters")
Drawn = TypeVar("Drawn")

FONT = "DejaVu Sans"  # which matplotlib brings along
# Of what is common on Linux, macOS and Windows, for scripts that FONT does not have. The first that has a character
# draws it.
_MORE_FONTS = (
    "Noto Sans CJK SC",
    "Noto Sans CJK JP",
    "Noto Sans CJK KR",
    "Noto Sans SC",
    "Noto Sans JP",
    "Noto Sans KR",
    "Source Han Sans SC",
    "WenQuanYi Zen Hei",
    "WenQuanYi Micro Hei",
    "Droid Sans Fallback",
    "PingFang SC",
    "Hiragino Sans",
    "Apple SD Gothic Neo",
    "Microsoft YaHei",
    "Yu Gothic",
    "Malgun Gothic",
    "Noto Sans Devanagari",
    "Noto Sans Bengali",
    "Noto Sans Tamil",
    "Noto Sans Thai",
    "Noto Sans Ethiopic",
    "FreeSans",
    "Arial Unicode MS",
    "Noto Emoji",
    "Symbola",
    "Unifont",
)


def plain(draw: Callable[Parameters, Drawn]) -> Callable[Parameters, Drawn]:
    """Decorates a function that draws: the fonts are those of :func:`shown`, whatever the user's style is."""

    @functools.wraps(draw)
    def drawn(*arguments: Parameters.args, **options: Parameters.kwargs) -> Drawn:
        import matplotlib

        with matplotlib.rc_context({"font.family": list(fonts()), "text.usetex": False, "text.parse_math": True}):
            return draw(*arguments, **options)

    return drawn


def shown(text: str, *, most: int | None = None) -> str:
    """A text for a figure, where it stands as it is; characters that no font has stand there as code.

    To be called once, on each line of a text that is broken into lines.

    Args:
      text: any.
      most: characters that there is room for; the end of a longer text is left out.
    """
    found = legible(text, fonts())
    if most is not None and len(found) > most:
        found = f"{found[: most - 1]}…"
    return found.replace("$", r"\$")


def legible(text: str, families: Sequence[str] = (FONT,)) -> str:
    r"""A text with every character that has no glyph in any of the fonts as code, e.g. ``\u72d7``.

    Args:
      text: any.
      families: of fonts.
    """
    printable = text_lib.printable(text)
    if printable.isascii():
        return printable
    return "".join(c if any(ord(c) in _glyphs(f) for f in families) else text_lib.code(c) for c in printable)


def legend(owner: "Figure | Axes", handles: Sequence[Any], **options: Any) -> "Legend":
    """A legend with exactly these entries.

    Args:
      owner: figure or axes.
      handles: artists, or containers of artists; their labels are shown as they are.
      options: of ``owner.legend``.
    """
    # Told apart by numbers first: matplotlib leaves out a name with a leading underscore, however it is given.
    made = owner.legend(handles=list(handles), labels=[str(number) for number in range(len(handles))], **options)
    for written, handle in zip(made.get_texts(), handles, strict=True):
        written.set_text(shown(str(handle.get_label())))
    return made


@functools.cache
def fonts() -> tuple[str, ...]:
    """Families to draw with: matplotlib's own, and what this machine has for other scripts."""
    from matplotlib import font_manager

    there = {font.name for font in font_manager.fontManager.ttflist}
    return (FONT, *(family for family in _MORE_FONTS if family in there))


def font_file(family: str = FONT) -> Path:
    """The file of a font."""
    from matplotlib import font_manager

    return Path(font_manager.findfont(family, fallback_to_default=False))


@functools.cache
def _glyphs(family: str) -> frozenset[int]:
    """The code points that a font has."""
    from matplotlib.ft2font import FT2Font

    return frozenset(FT2Font(str(font_file(family))).get_charmap())
