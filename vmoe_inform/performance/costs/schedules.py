"""How long the compiler of a TPU makes a program, by its final schedules instead of its estimates.

The schedule of a fusion or kernel is a list of very long instructions, one for each cycle. The core runs it for every
part of the arrays. That says more than an estimate, and less than a clock: a schedule does not count waiting. The core
waits for memory, and for its matrix units. They take as long as operations at the chip's peak. Copies that are begun
ahead take the bandwidth that instructions leave meanwhile.
"""

import os
import pathlib
import re

import jax

from vmoe_inform import checks
from vmoe_inform.performance.costs import _bundles as bundles
from vmoe_inform.performance.costs import _counting
from vmoe_inform.performance.costs._scheduled import Length, Schedule
from vmoe_inform.sharding.chips import Tpu, chip_of

__all__ = ("Schedule", "of", "of_compiled", "write_to")

_LABEL = "schedule-analysis_final_bundles"


def write_to(folder: pathlib.Path) -> None:
    """Makes the compiler write its schedules to a folder, for all programs of this process.

    It must be called before anything is compiled for a TPU.
    """
    options = f"--xla_jf_dump_to={folder} --xla_jf_dump_llo_text=true --xla_jf_dump_llo_pass_label_regex=.*final.*"
    os.environ["LIBTPU_INIT_ARGS"] = f"{os.environ.get('LIBTPU_INIT_ARGS', '')} {options}".strip()


def of(text: str, folder: pathlib.Path, chip: Tpu) -> Schedule:
    """Adds up the schedules of a program, those of loops as often as they run.

    Args:
      text: HLO, as the compiler prints it.
      folder: of :func:`write_to`, with the schedules of this program alone.
      chip: that it is compiled for.

    Raises:
      ValueError: the folder has no schedules.
    """
    lengths = dict(_length(path) for path in folder.glob(f"*{_LABEL}*"))
    if not lengths:
        raise checks.error("libtpu", f"schedules in {folder}, from options before it was loaded", "none")
    return _counting.count(text, chip, lengths).schedule


def of_compiled(compiled: jax.stages.Compiled, device_kind: str, folder: pathlib.Path | None) -> Schedule | None:
    """As :func:`of`, of a program for a kind of device; None without a folder, and for what is no TPU."""
    chip = chip_of(device_kind)
    return of(compiled.as_text() or "", folder, chip) if folder is not None and isinstance(chip, Tpu) else None


def _length(path: pathlib.Path) -> tuple[str, Length]:
    """Name of the instruction, and the length of its code.

    NUMBER-NAME-02-schedule-analysis_final_bundles.txt is about NUMBER-NAME-03-final_bundles.txt.
    """
    named = re.fullmatch(rf"(\d+-(.*))-(\d+)-{_LABEL}.*", path.name)
    stated = re.search(r"total scheduled bundles:\s+(\d+)", path.read_text())
    once = 0 if stated is None else int(stated[1])
    if named is None:
        return "", Length(once, once)
    code = path.with_name(f"{named[1]}-{int(named[3]) + 1:02}-final_bundles.txt")
    return named[2], Length(once, max(once, bundles.instructions_of(code.read_text())) if code.exists() else once)
