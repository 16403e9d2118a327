"""Names that users chose, as plain text for terminals, Markdown and file names. Nothing in them acts as a command.

Figures have :mod:`vmoe_inform.lettering`; pages are made by Jinja, which escapes HTML.
"""

import hashlib
import re
import unicodedata
from typing import Any

# Format characters that words of many languages are written with: joiners.
_JOINERS = "\u200c\u200d"
_HIDDEN = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}
_MOST_FILE_NAME_BYTES = 120  # file systems allow 255, of which a suffix and a temporary name need some


def printable(text: str, *, keep: str = "") -> str:
    r"""The text with every invisible character as its code, e.g. ``\x1b``, ``\n``, ``\u202e``.

    These are control characters (which a terminal obeys), line breaks, and marks that change the direction of writing.
    Halves of surrogate pairs (from a file name that is no UTF-8) and code points without a character count, too.

    Args:
      text: any.
      keep: characters to leave as they are, such as ``"\n"``.
    """
    if text.isascii() and text.isprintable():
        return text
    kept = _JOINERS + keep
    return "".join(c if c in kept or unicodedata.category(c) not in _HIDDEN else code(c) for c in text)


def code(character: str) -> str:
    r"""A character as Python and JSON write it in ASCII, e.g. ``\u72d7``."""
    return character.encode("unicode_escape").decode("ascii")


def finalize(value: Any) -> Any:
    """For the environments of Jinja: what a template shows is printable. Jinja escapes HTML after this."""
    return printable(value) if type(value) is str else value


def markdown(text: str) -> str:
    """The text for Markdown, where it stands as it is: punctuation is escaped. For table cells too."""
    return re.sub(r"([!-/:-@\[-`{-~])", r"\\\1", printable(text))


def markdown_code(text: str, *, in_table: bool = False) -> str:
    """The text as a code span of Markdown.

    Args:
      text: any.
      in_table: whether it stands in a cell of a table, where a bar ends the cell even in code.
    """
    shown = printable(text) or " "
    fence = "`" * (1 + max(map(len, re.findall("`+", shown)), default=0))
    space = " " if shown.startswith("`") or shown.endswith("`") else ""
    span = f"{fence}{space}{shown}{space}{fence}"
    return span.replace("|", r"\|") if in_table else span


def file_name(text: str) -> str:
    """The text as the name of a file or folder: different texts have different names.

    Letters, digits, spaces and ``_.-@=+`` stay. All else, such as a slash, becomes %XX. A leading dot is escaped, since
    such names are hidden or lead elsewhere (``..``). A long name ends in a hash of the whole.
    """
    signs = [sign if sign.isalnum() or sign in "_.-@=+ " else _percent(sign) for sign in text]
    if not signs or signs[0] == ".":
        signs[:1] = [_percent(".")]
    name = "".join(signs)
    if len(name.encode()) <= _MOST_FILE_NAME_BYTES:
        return name
    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]
    while len("".join(signs).encode()) > _MOST_FILE_NAME_BYTES - 17:
        signs.pop()
    return f"{''.join(signs)}-{digest}"


def _percent(sign: str) -> str:
    return "".join(f"%{byte:02X}" for byte in sign.encode("utf-8", "surrogatepass"))
