"""Runs the parts of the accelerator check in the order of their worth, and writes each row when it is there."""

import contextlib
import dataclasses
import importlib.metadata
import importlib.util
import platform
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence

import jax

from vmoe_inform import checks, storage
from vmoe_inform.performance.accelerator import paths, results, resuming, steps, tracing
from vmoe_inform.performance.accelerator.clock import Clock, OutOfTimeError
from vmoe_inform.performance.accelerator.comparing import compare, in_short
from vmoe_inform.performance.accelerator.recorder import Recorder
from vmoe_inform.performance.accelerator.results import Report, Row, State
from vmoe_inform.performance.accelerator.sizes import FULL, SMALL, Sizes
from vmoe_inform.sharding.chips import CHIPS

_SHARE_OF_PATHS = 0.45  # of the time, where other parts follow
_LIBRARIES = ("jax", "jaxlib", "flax", "optax", "numpy", "orbax-checkpoint", "libtpu", "jax-cuda13-plugin", "tokamax")
# Libraries that are not needed here, and what is left out without them
_OPTIONAL = {
    "grain": "resuming through a checkpoint",
    "orbax": "resuming through a checkpoint",
}


@dataclasses.dataclass
class _Context:
    """What the parts share.

    Attributes:
      sizes: of arrays and runs.
      clock: until the end of the check.
      trace_folder: None for no trace.
      others_follow: whether parts follow the first one, which leaves them some time.
      step: of training, once it is there.
    """

    sizes: Sizes
    clock: Clock
    trace_folder: storage.Path | None
    others_follow: bool
    step: steps.Step | None = None

    def trained(self) -> steps.Step:
        """The step of training, which is made where that part did not run."""
        if self.step is None:
            self.step = steps.train(self.sizes, self.clock)[0]
        return self.step


Found = Iterator[Row | str]  # rows, and in words what was left out


def _paths(context: _Context) -> Found:
    clock = context.clock.share(_SHARE_OF_PATHS if context.others_follow else 1.0)
    pairs = [(path, dtype) for path in paths.all_paths(context.sizes) for dtype in path.dtypes]
    longest = 0.0
    for number, (path, dtype) in enumerate(pairs):
        clock.need(longest, ", ".join(f"{path.group} {path.name} {dtype}" for path, dtype in pairs[number:]))
        start = time.perf_counter()
        yield compare(path, dtype)
        longest = max(longest, time.perf_counter() - start)


def _training(context: _Context) -> Found:
    context.step, row, note = steps.train(context.sizes, context.clock)
    yield row
    yield note


def _resume(context: _Context) -> Found:
    return resuming.resume(context.trained())


def _trace(context: _Context) -> Found:
    if context.trace_folder is None:
        yield "neither --trace nor --json says where"
    else:
        yield tracing.trace(context.trained(), context.trace_folder)


def _side_by_side(context: _Context) -> Found:
    return steps.side_by_side(context.sizes, context.trained(), context.clock)


PARTS: Mapping[str, Callable[[_Context], Found]] = {
    "paths": _paths,
    "training": _training,
    "resume": _resume,
    "trace": _trace,
    "side_by_side": _side_by_side,
}


def check(
    *,
    minutes: float,
    names: Sequence[str] = tuple(PARTS),
    sizes: Sizes | None = None,
    file: storage.Path | None = None,
    trace_folder: storage.Path | None = None,
    started: float | None = None,
    at_deadline: Callable[[Report], None] | None = None,
) -> Report:
    """Checks the first device of this machine.

    Args:
      minutes: that it may take.
      names: of parts; they run in the order of :data:`PARTS`.
      sizes: None for those that go with the platform.
      file: JSON, which is written again with every row; None for none.
      trace_folder: None for no trace.
      started: when the minutes began, by ``time.perf_counter``; None for now.
      at_deadline: ends the process when the minutes are over and a part does not return, such as a compiler.

    Raises:
      ValueError: an unknown part, or none.
    """
    for name in names:
        if name not in PARTS:
            raise checks.unknown("--parts", f"some of {', '.join(PARTS)}", name, PARTS)
    if not names:
        raise checks.error("--parts", f"some of {', '.join(PARTS)}", checks.NOTHING)
    begun = 0.0 if started is None else time.perf_counter() - started
    clock = Clock(60 * minutes - begun)
    recorder = Recorder(_about(minutes, sizes), file)
    chosen = [name for name in PARTS if name in names]
    sizes = sizes or (SMALL if recorder.report.small else FULL)
    timer = None
    if at_deadline is not None:
        timer = threading.Timer(clock.left, lambda: at_deadline(recorder.stop(chosen)))
        timer.daemon = True
        timer.start()
    with _compilation_cache():
        context = _Context(sizes, clock, trace_folder, others_follow=len(chosen) > 1)
        for name in chosen:
            if clock.left == 0:
                recorder.skip(name, "out of time")
            else:
                _run(name, context, recorder)
    if timer is not None:
        timer.cancel()
    return recorder.report


def _run(name: str, context: _Context, recorder: Recorder) -> None:
    recorder.begin(name)
    notes: list[str] = []
    any_row = False
    state: State = "done"
    try:
        for found in PARTS[name](context):
            if isinstance(found, str):
                notes += [found] if found else []
            else:
                any_row = True
                recorder.add(found)
    except OutOfTimeError as problem:
        notes.append(str(problem))
        state = "cut short" if any_row else "left out"
    except Exception as problem:  # of a device that we do not know; the other parts still run
        traceback.print_exc()
        notes.append(in_short(problem))
        state = "failed"
    recorder.end(state if any_row or state != "done" else "left out", "; ".join(notes))


def _about(minutes: float, sizes: Sizes | None) -> Report:
    device = jax.devices()[0]
    small = device.platform == "cpu" if sizes is None else sizes is not FULL
    chip = next((name for name in CHIPS if device.device_kind in CHIPS[name].device_kinds), None)
    found = {name: version for name in _LIBRARIES if (version := _version(name))}
    return Report(
        version=results.VERSION,
        device_kind=device.device_kind,
        platform=device.platform,
        num_devices=len(jax.devices()),
        compute_capability=str(getattr(device, "compute_capability", "")),
        chip=chip,
        small=small,
        minutes=minutes,
        versions={"python": platform.python_version(), **found},
        missing={name: words for name, words in _OPTIONAL.items() if importlib.util.find_spec(name) is None},
    )


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return ""


@contextlib.contextmanager
def _compilation_cache() -> Iterator[None]:
    """Programs that are made twice, such as that of the first state, are compiled once; unless a cache is there."""
    if jax.config.jax_compilation_cache_dir:  # type: ignore[attr-defined]
        yield
        return
    with tempfile.TemporaryDirectory(prefix="accelerator_check_", ignore_cleanup_errors=True) as folder:
        jax.config.update("jax_compilation_cache_dir", folder)
        try:
            yield
        finally:
            jax.config.update("jax_compilation_cache_dir", None)
