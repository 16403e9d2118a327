"""Unpacks published archives safely.

    python -m vmoe_inform.data.unpack ARCHIVE... --directory=DIR

Takes tar, tar.gz, tar.bz2, tar.xz and zip. ``ILSVRC2012_img_train.tar``, a tar of a tar for each class, becomes
``DIR/train/class/*.JPEG``, and ``ILSVRC2012_img_val.tar`` ``DIR/val/*.JPEG``; others keep their own folders. Members
are refused if they are absolute, have ``..`` in their names, or are links or devices. So are archives that unpack to
more than --max_unpacked_gb. Existing files are never overwritten. Files appear in DIR once an archive is unpacked whole
and its checksums are right.
"""

import pathlib
from typing import Annotated

from vmoe_inform import checks, command_line, text
from vmoe_inform.data import unpacking

_DIRECTORY = command_line.define_path("directory", "Folder to unpack into; it is made.")
_MAX_UNPACKED_GB = command_line.define(
    "max_unpacked_gb",
    Annotated[float, checks.Bound(at_least=0.0, at_most=1e9)],
    None,
    "Gigabytes that an archive may unpack to; 50 times its own size, and at least 1, where nothing is said.",
)


def main(words: list[str]) -> int:
    """Returns the exit code."""
    directory = pathlib.Path(command_line.required(_DIRECTORY, "the folder to unpack into"))
    gigabytes = _MAX_UNPACKED_GB.value
    for word in words[1:]:
        max_bytes = None if gigabytes is None else round(gigabytes * 1e9)
        archive = pathlib.Path(checks.conform("archive", word, checks.GivenPath))
        new, count = unpacking.unpack(archive, directory, max_bytes)
        shown = f"{', '.join(map(str, new[:5]))}{' and others' if len(new) > 5 else ''}"
        print(text.printable(f"{word}: {count:,} files -> {shown}"))
    return 0


if __name__ == "__main__":
    command_line.run(main, operands="archives to unpack")
