"""Finds the files and folders of published data under the spellings that people give them."""

from collections.abc import Iterable, Sequence

from vmoe_inform import checks, storage
from vmoe_inform.storage import Path, inputs

TAR = ".tar"
PACKED = (".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".zip")  # which have to be unpacked


def key(name: str) -> str:
    """The common form of spellings: ``ImageNet-A``, ``imagenet_a`` and ``imagenet a`` become ``imageneta``."""
    return name.casefold().translate({ord(character): None for character in "-_ "})


def find(root: Path, names: Sequence[str], suffixes: Sequence[str] = ("",), *, folder: bool) -> Path | None:
    """The one file or folder in ``root`` that is called by one of ``names``, in any spelling.

    Args:
      root: where to look; it need not be there.
      names: without their suffixes.
      suffixes: that may follow.
      folder: whether to find a folder, or a file.

    Raises:
      ValueError: there are several.
    """
    if not inputs.is_folder(root):
        return None
    wanted = {key(name + suffix) for name in names for suffix in suffixes}
    found = sorted(entry for entry in inputs.entries(root) if key(entry.name) in wanted)
    return one(root / entry.name for entry in found if (entry.is_folder if folder else entry.is_file))


def one(found: Iterable[Path]) -> Path | None:
    """The first of ``found``, of which all have to be the same, such as a folder and a link to it.

    Raises:
      ValueError: they are not.
    """
    paths = list(found)
    if len({storage.resolved(path) for path in paths}) > 1:
        raise checks.error(str(paths[0].parent), "one of these, not several", [str(path) for path in paths])
    return paths[0] if paths else None
