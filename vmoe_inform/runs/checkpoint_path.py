"""``FOLDER`` and ``FOLDER@STEP``: how a checkpoint of a run is named, in flags and in titles."""

import dataclasses
from collections.abc import Sequence

from vmoe_inform import checks, storage, text
from vmoe_inform.config import from_text


@dataclasses.dataclass(frozen=True)
class CheckpointPath:
    """Which checkpoint of a run is meant.

    Attributes:
      folder: of the run.
      step: of a checkpoint that was asked for by name; None: the newest one's, whichever that is.
    """

    folder: storage.Path
    step: int | None = None

    def __str__(self) -> str:
        return str(self.folder) if self.step is None else f"{self.folder}@{self.step}"


def parse(given: str, *, flag: str = "--workdir") -> CheckpointPath:
    """``FOLDER`` or ``FOLDER@STEP``; a folder that is really called so is itself. ``flag`` is named in the error.

    Raises:
      ValueError: a step that is no number, or an address instead of a folder.
    """
    whole = storage.path(flag, given)
    folder, at, step = checks.conform(flag, given, checks.RunPath).rpartition("@")
    if not at or storage.is_folder(whole):
        return CheckpointPath(whole)
    if not (folder and step.isdecimal()):
        raise checks.error(flag, "the folder of a run, or FOLDER@STEP with a number of steps", given)
    return CheckpointPath(storage.path(flag, folder), from_text.value(f"{flag}, STEP", step, checks.NonNegativeInt))


def parse_list(given: Sequence[str], *, flag: str) -> list[CheckpointPath]:
    """The values of a flag that may be repeated, each of which is one path or a comma list of paths.

    A value that is an existing folder, with or without ``@STEP``, is that one: so folders with a comma in their names
    are named.

    Raises:
      ValueError: as :func:`parse`, or an empty item.
    """
    found: list[CheckpointPath] = []
    for value in given:
        items = [value] if _is_folder(value) or _is_folder(value.rpartition("@")[0]) else value.split(",")
        if not all(items):
            raise checks.error(flag, "a comma list of folders without empty items", value)
        found += [parse(item, flag=flag) for item in items]
    return found


def _is_folder(path: str) -> bool:
    try:
        return bool(path) and storage.is_folder(storage.path("", path))
    except checks.InputError:
        return False


def names_of(paths: Sequence[CheckpointPath]) -> list[str]:
    """Short names to show: the folders' own, with the step where one is named, or whole paths where two are the same.

    They are printable, see :func:`vmoe_inform.text.printable`.

    Raises:
      ValueError: the same checkpoint twice.
    """
    if len({(storage.resolved(path.folder), path.step) for path in paths}) != len(paths):
        raise checks.error("--workdir, --compare", "each run or checkpoint once", ", ".join(map(str, paths)))
    steps = ["" if path.step is None else f"@{path.step}" for path in paths]
    names = [name_of(path.folder) + step for path, step in zip(paths, steps, strict=True)]
    if len(set(names)) < len(names):
        names = [text.printable(str(path)) for path in paths]
    if len(set(names)) < len(names):  # paths that differ in what is not printable
        names = [f"{name} ({number})" for number, name in enumerate(names, start=1)]
    return names


def name_of(folder: storage.Path) -> str:
    """A run's name to show: that of its folder."""
    return text.printable(storage.resolved(folder).name)
