"""What the accelerator check finds: typed rows, and the report that is written as JSON."""

import dataclasses
import pathlib
from collections.abc import Mapping
from typing import Literal, TypeAlias

from vmoe_inform import documents, storage
from vmoe_inform.performance.timing import Spread

VERSION = 1
State: TypeAlias = Literal["done", "cut short", "left out", "failed"]


@dataclasses.dataclass(frozen=True)
class PathRow:
    """A fast path against its reference, on the same device.

    Attributes:
      group: what the path computes, such as ``dispatch``.
      path, reference: names of the two ways.
      dtype: type of the fast path's inputs; the reference is float32 at the highest precision.
      error, gradient_error: largest difference, over the largest value of the array; None if not run or not finite.
      allowed: largest error that counts as agreement.
      agrees: None if it was not run.
      note: why it was not run, or what went wrong.
    """

    group: str
    path: str
    reference: str
    dtype: str
    error: float | None
    gradient_error: float | None
    allowed: float
    agrees: bool | None
    note: str = ""


@dataclasses.dataclass(frozen=True)
class StepRow:
    """The train step of S/16 (in small: a tiny model) with one choice of router, dispatcher and attention.

    Attributes:
      router: preset.
      dispatch, attention: as configured.
      images: of a batch.
      timed_steps: steps that were timed.
      milliseconds: of a step.
      images_per_second: trained on.
      mfu: useful operations of a second, over the chip's peak; None if the chip is not known.
      against_first: time of a step, over that of the part's first row in the same rounds; None for the first row.
      dropped: share of the choices without a slot, mean over MoE layers.
      program_bytes: memory of the compiled step: state, batch, results and temporary arrays.
      peak_bytes: most memory in use on the device since the command began; None if it does not say.
      compile_seconds: tracing included.
      first_loss, last_loss: of the steps, on a batch that stays the same; None if not finite.
      learns: whether the loss fell.
    """

    router: str
    dispatch: str
    attention: str
    images: int
    timed_steps: int
    milliseconds: Spread
    images_per_second: float
    mfu: float | None
    against_first: Spread | None
    dropped: float
    program_bytes: int
    peak_bytes: int | None
    compile_seconds: float
    first_loss: float | None
    last_loss: float | None
    learns: bool


@dataclasses.dataclass(frozen=True)
class ResumeRow:
    """Steps from a state that was kept, against the same steps without a stop.

    Attributes:
      kept: how the state was kept.
      steps_before, steps_after: the stop.
      differing_arrays: arrays of the final state that differ in any bit; None if it could not be tried.
      note: why it could not be tried.
    """

    kept: str
    steps_before: int
    steps_after: int
    differing_arrays: int | None
    note: str = ""


@dataclasses.dataclass(frozen=True)
class TraceRow:
    """A trace of some steps.

    Attributes:
      trace_folder: where it lies.
      traced_steps: how many.
      num_files, num_bytes: of the trace.
    """

    trace_folder: str
    traced_steps: int
    num_files: int
    num_bytes: int


Row: TypeAlias = PathRow | StepRow | ResumeRow | TraceRow


@dataclasses.dataclass(frozen=True)
class Part:
    """One part of the check.

    Attributes:
      name: as ``--parts`` takes it.
      state: ``cut short`` where the time was over.
      seconds: that it took.
      rows: found until then.
      note: what was left out, or what went wrong.
    """

    name: str
    state: State
    seconds: float
    rows: tuple[Row, ...] = ()
    note: str = ""


@dataclasses.dataclass(frozen=True)
class Report:
    """All that the check has found so far.

    Attributes:
      version: of this schema.
      device_kind, platform, num_devices: as JAX says; one device is checked.
      compute_capability: of a GPU; empty elsewhere.
      chip: name in the table of chips; None if it is not known, and there is no MFU.
      small: whether the sizes are those for a CPU, whose times mean nothing.
      minutes: that were given.
      versions: of Python and of libraries.
      missing: libraries that are not installed, each with what was left out for it.
      parts: in the order in which they ran.
    """

    version: int
    device_kind: str
    platform: str
    num_devices: int
    compute_capability: str
    chip: str | None
    small: bool
    minutes: float
    versions: Mapping[str, str]
    missing: Mapping[str, str]
    parts: tuple[Part, ...] = ()

    @property
    def disagreements(self) -> int:
        """Paths that differ from their references, resumed runs that differ in a bit, and parts that failed."""
        wrong = sum(part.state == "failed" for part in self.parts)
        for row in (row for part in self.parts for row in part.rows):
            wrong += isinstance(row, PathRow) and row.agrees is False
            wrong += isinstance(row, ResumeRow) and bool(row.differing_arrays)
        return wrong


def write(path: storage.Path, report: Report) -> None:
    """Writes a report as JSON; the file is replaced whole."""
    storage.write_json(path, documents.to_json(report))


def read(path: pathlib.Path) -> Report:
    """The report that :func:`write` wrote. Raises as :func:`vmoe_inform.documents.read`."""
    return documents.read(path, {VERSION: lambda value: documents.from_json(value, Report)})
