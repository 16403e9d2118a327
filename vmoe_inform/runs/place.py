"""Which checkpoint is evaluated, and where its evaluation is kept."""

import dataclasses
import pathlib
from collections.abc import Sequence

from vmoe_inform import checks, text
from vmoe_inform.config import from_text


@dataclasses.dataclass(frozen=True)
class Place:
    """A checkpoint of a run.

    Attributes:
      workdir: of the run.
      step: of a checkpoint that was asked for by name; None: the newest one's, whichever that is.
    """

    workdir: pathlib.Path
    step: int | None = None

    @property
    def folder(self) -> pathlib.Path:
        """Of all evaluations of the run."""
        return self.workdir / "evaluation"

    @property
    def results(self) -> pathlib.Path:
        """File of all figures."""
        return self.folder / f"results{self._suffix}.json"

    @property
    def examples(self) -> pathlib.Path:
        """File of clean images with the experts of their patches."""
        return self.folder / f"examples{self._suffix}.npz"

    @property
    def report(self) -> pathlib.Path:
        """File of the page about this checkpoint."""
        return self.folder / f"report{self._suffix}.html"

    @property
    def _suffix(self) -> str:
        return "" if self.step is None else f"_step_{self.step}"

    def __str__(self) -> str:
        return str(self.workdir) if self.step is None else f"{self.workdir}@{self.step}"


def parse(given: str, *, flag: str = "--workdir") -> Place:
    """``FOLDER`` or ``FOLDER@STEP``; a folder that is really called so is itself. ``flag`` is named in the error.

    Raises:
      ValueError: a step that is no number, or an address instead of a folder.
    """
    given = checks.conform(flag, given, checks.Path)
    folder, at, step = given.rpartition("@")
    if not at or pathlib.Path(given).is_dir():
        return Place(pathlib.Path(given))
    if not (folder and step.isdecimal()):
        raise checks.error(flag, "the folder of a run, or FOLDER@STEP with a number of steps", given)
    return Place(pathlib.Path(folder), from_text.value(f"{flag}, STEP", step, checks.NonNegativeInt))


def parse_list(given: Sequence[str], *, flag: str) -> list[Place]:
    """The values of a flag that may be repeated, each of which is one place or a comma list of places.

    A value that is an existing folder, with or without ``@STEP``, is that one: so folders with a comma in their names
    are named.

    Raises:
      ValueError: as :func:`parse`, or an empty item.
    """
    found: list[Place] = []
    for value in given:
        items = [value] if _is_folder(value) or _is_folder(value.rpartition("@")[0]) else value.split(",")
        if not all(items):
            raise checks.error(flag, "a comma list of folders without empty items", value)
        found += [parse(item, flag=flag) for item in items]
    return found


def _is_folder(path: str) -> bool:
    try:
        return bool(path) and pathlib.Path(checks.conform("", path, checks.Path)).is_dir()
    except checks.InputError:
        return False


def names_of(places: Sequence[Place]) -> list[str]:
    """Short names to show: the folders' own, with the step where one is named, or whole paths where two are the same.

    They are printable, see :func:`vmoe_inform.text.printable`.

    Raises:
      ValueError: the same checkpoint twice.
    """
    if len({(place.workdir.resolve(), place.step) for place in places}) != len(places):
        raise checks.error("--workdir, --compare", "each run or checkpoint once", ", ".join(map(str, places)))
    steps = ["" if place.step is None else f"@{place.step}" for place in places]
    names = [name_of(place.workdir) + step for place, step in zip(places, steps, strict=True)]
    if len(set(names)) < len(names):
        names = [text.printable(str(place)) for place in places]
    if len(set(names)) < len(names):  # paths that differ in what is not printable
        names = [f"{name} ({number})" for number, name in enumerate(names, start=1)]
    return names


def name_of(workdir: pathlib.Path) -> str:
    """A run's name to show: that of its folder."""
    return text.printable(workdir.resolve().name)
