"""Which checkpoint is evaluated, and where its evaluation is kept."""

import dataclasses
import pathlib
from collections.abc import Sequence

from vmoe_inform import checks


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


def parse(text: str, *, flag: str = "--workdir") -> Place:
    """``FOLDER`` or ``FOLDER@STEP``; a folder that is really called so is itself. ``flag`` is named in the error.

    Raises:
      ValueError: a step that is no number.
    """
    folder, at, step = text.rpartition("@")
    if not at or pathlib.Path(text).is_dir():
        return Place(pathlib.Path(text))
    if not (folder and step.isdecimal()):
        raise checks.error(flag, "the folder of a run, or FOLDER@STEP with a number of steps", text)
    return Place(pathlib.Path(folder), int(step))


def names_of(places: Sequence[Place]) -> list[str]:
    """Short names: the folders' own, with the step where one is named, or whole paths where two are called the same.

    Raises:
      ValueError: the same checkpoint twice.
    """
    if len({(place.workdir.resolve(), place.step) for place in places}) != len(places):
        raise checks.error("--workdir, --compare", "each run or checkpoint once", ", ".join(map(str, places)))
    steps = ["" if place.step is None else f"@{place.step}" for place in places]
    names = [place.workdir.resolve().name + step for place, step in zip(places, steps, strict=True)]
    return names if len(set(names)) == len(names) else [str(place) for place in places]
