"""Which images ``--suite`` selects."""

import dataclasses
from collections.abc import Sequence

from vmoe_inform import checks
from vmoe_inform.data.images.published import CORRUPTIONS, SEVERITIES
from vmoe_inform.data.records import SelectedRecords
from vmoe_inform.data.sources import Source

_CLEAN = "clean"  # the test images as they are


@dataclasses.dataclass(frozen=True)
class Choice:
    """The images that ``--suite`` selects.

    Attributes:
      corruption, severity: of the images, or None for clean ones.
      all_corruptions: whether clean images are compared with all of their corruptions.
    """

    corruption: str | None = None
    severity: int | None = None
    all_corruptions: bool = False

    def __str__(self) -> str:
        return _CLEAN if self.corruption is None else f"c:{self.corruption}:{self.severity}"


CLEAN_IMAGES = Choice()


def parse(text: str) -> Choice:
    """``clean``, ``c`` or ``c:NAME:SEVERITY``.

    Raises:
      ValueError: anything else.
    """
    suite, *rest = text.split(":")
    if (suite, rest) == (_CLEAN, []):
        return Choice()
    if (suite, rest) == ("c", []):
        return Choice(all_corruptions=True)
    if suite == "c" and len(rest) == 2 and rest[0] in CORRUPTIONS and rest[1] in map(str, SEVERITIES):
        return Choice(rest[0], int(rest[1]))
    raise checks.error(
        "--suite", f"clean, c or c:NAME:SEVERITY with NAME one of {', '.join(CORRUPTIONS)} and SEVERITY 1 to 5", text
    )


def selected(source: Source, indices: Sequence[int]) -> Source:
    """The records of a source with these numbers."""
    return dataclasses.replace(source, records=SelectedRecords(source.records, tuple(indices)))
