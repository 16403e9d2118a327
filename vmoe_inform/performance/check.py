"""A step compiled for devices that need not be there: whether it fits them, and what it costs."""

import dataclasses
import math
import pathlib
import time
from collections.abc import Sequence
from typing import Any

import jax

from vmoe_inform.axes import Tree
from vmoe_inform.config import Config
from vmoe_inform.evaluation.predict import Predictor
from vmoe_inform.performance import costs, topology
from vmoe_inform.performance.costs import schedules
from vmoe_inform.sharding.chips import chip_of
from vmoe_inform.sharding.mesh import slice_count
from vmoe_inform.training import program as program_lib

NUM_STEPS = 100_000  # of a run whose config counts epochs; only numbers in the schedule depend on it


@dataclasses.dataclass(frozen=True)
class Check:
    """Bytes, operations and cycles are of one device and one step.

    Attributes:
      step: train or eval.
      examples: images or rows of text of the step, over all devices.
      size: of the step in what its task counts, such as ``24,576 tokens``.
      device_kind, num_devices, num_slices: what it is compiled for; devices of all slices.
      mesh: size of each axis by name.
      hbm_bytes: memory of a device; None for a device that :mod:`vmoe_inform.performance.topology` does not know.
      parameter_bytes, optimizer_bytes: of the state; evaluation has no optimizer.
      trace_seconds, compile_seconds: time that it took to compile.
      costs: of the compiled step; None if the compiler gave up because it does not fit.
      problem: why it does not fit; None if it does.
      schedule: cycles by the compiler's final schedules; None if they were not asked for.
    """

    step: str
    examples: int
    size: str
    device_kind: str
    num_devices: int
    num_slices: int
    mesh: dict[str, int]
    hbm_bytes: int | None
    parameter_bytes: int
    optimizer_bytes: int
    trace_seconds: float
    compile_seconds: float
    costs: costs.Costs | None
    problem: str | None
    schedule: schedules.Schedule | None = None

    def to_json(self) -> dict[str, Any]:
        """All fields side by side, those of the costs too (None without costs), and ``fits``."""
        values = dataclasses.asdict(self)
        nothing = dict.fromkeys(field.name for field in dataclasses.fields(costs.Costs))
        found = values.pop("costs") or nothing
        return values | {"fits": self.problem is None} | found


def compile_step(
    config: Config, devices: Sequence[jax.Device], step: str, *, schedules_in: pathlib.Path | None = None
) -> Check:
    """Compiles the step that training runs (``"train"``), or the one that evaluation runs (``"eval"``).

    Args:
      config: the run; the data set is not looked at.
      devices: of this machine, or of :func:`vmoe_inform.performance.topology.devices_of`.
      step: train or eval.
      schedules_in: folder of :func:`vmoe_inform.performance.costs.schedules.write_to`; None if they are not asked for.

    Raises:
      ValueError: devices, mesh and batch do not go together.
    """
    program = program_lib.build(config, config.train.steps or NUM_STEPS, devices)
    state = program.state_shapes
    started = time.perf_counter()
    with program.in_use():
        if step == "train":
            lowered = program.train_step.lower(state, program.batch_shapes)
        else:
            lowered = Predictor(program.model, program.task, program.mesh).lower(state.variables(averaged=True))
        traced = time.perf_counter()
        compiled, problem = _compile(lowered)
    compile_seconds = time.perf_counter() - traced
    chip = chip_of(devices[0].device_kind)
    found = None if compiled is None else costs.of(compiled)
    if found is not None and chip is not None and found.peak_bytes > chip.hbm_bytes:
        problem = f"{found.peak_bytes:,} bytes of the device's {chip.hbm_bytes:,}"
    examples = config.train.batch_size if step == "train" else config.evaluation.batch_size
    return Check(
        step=step,
        examples=examples,
        size=f"{examples * program.task.counted_per_example:,} {program.task.counted}",
        device_kind=devices[0].device_kind,
        num_devices=len(devices),
        num_slices=slice_count(devices),
        mesh=dict(program.mesh.shape),
        hbm_bytes=None if chip is None else chip.hbm_bytes,
        parameter_bytes=device_bytes(state.params),
        optimizer_bytes=device_bytes(state.opt_state) if step == "train" else 0,
        trace_seconds=traced - started,
        compile_seconds=compile_seconds,
        costs=found,
        problem=problem,
        schedule=None if compiled is None else schedules.of_compiled(compiled, devices[0].device_kind, schedules_in),
    )


def _compile(lowered: jax.stages.Lowered) -> tuple[jax.stages.Compiled | None, str | None]:
    """The program, or the compiler's words on why it does not fit."""
    try:
        with topology.uncached():
            return lowered.compile(), None
    except jax.errors.JaxRuntimeError as problem:
        if "RESOURCE_EXHAUSTED" not in str(problem):
            raise
        return None, str(problem).splitlines()[0].removeprefix("RESOURCE_EXHAUSTED: ")


def device_bytes(tree: Tree) -> int:
    """Bytes that arrays with shardings take on one device."""
    return sum(math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def lines(result: Check) -> list[str]:
    """The figures of a check, for people."""
    mesh = " x ".join(f"{name} {size}" for name, size in result.mesh.items())
    slices = f"{result.num_slices} slices of " if result.num_slices > 1 else ""
    devices = f"{slices}{result.num_devices // result.num_slices} devices"
    found = result.costs
    sizes: dict[str, int | None] = {"parameters": result.parameter_bytes, "optimizer": result.optimizer_bytes}
    if found is not None:
        sizes |= {
            "state and batch": found.argument_bytes,
            "results": found.output_bytes,
            "activations": found.temp_bytes,
            "program": found.code_bytes,
            "at most at a time": found.peak_bytes,
        }
    sizes["the device has"] = result.hbm_bytes
    shown = [
        f"{result.step} step of {result.size}, {devices} ({result.device_kind}), {mesh}",
        f"compiled in {result.compile_seconds:,.0f} s, after {result.trace_seconds:,.0f} s of tracing",
        *(f"{name:<18}{size / 2**20:>14,.1f} MiB" for name, size in sizes.items() if size is not None),
    ]
    if found is None:
        return shown
    amounts: dict[str, Any] = {"flops": found.flops, "bytes accessed": found.bytes_accessed}
    if found.estimated_cycles is not None:
        amounts["estimated cycles"] = found.estimated_cycles
    shown += [f"{name:<18}{amount / 1e6:>14,.1f} million" for name, amount in amounts.items()]
    if result.schedule is not None:
        cycles = dataclasses.asdict(result.schedule)
        names = {"scheduled": "scheduled", "at_peak": "at peak", "by_bandwidth": "by bandwidth", "longest": "longest"}
        names |= {"waiting": "of these waiting", "without_schedule": "not scheduled"}
        shown.append("cycles by the final schedules:")
        shown += [f"  {shown_name:<16}{cycles[name] / 1e6:>14,.1f} million" for name, shown_name in names.items()]
    tables = {"collectives": found.collectives, "work that no estimate of cycles covers": found.without_cycles}
    for title, table in tables.items():
        shown.append(f"{title}:{'' if table else ' none'}")
        shown += [f"  {kind:<16}{size / 2**20:>14,.1f} MiB {often:>6,} times" for kind, (often, size) in table.items()]
    if result.num_slices > 1:
        shown += _lines_of_slices(found.across_slices, result.num_devices // result.num_slices)
    if found.unknown_loops:
        shown.append(f"loops of unknown length, whose bodies count once: {found.unknown_loops}")
    return shown


def _lines_of_slices(sent: costs.Counts, devices_of_slice: int) -> list[str]:
    """What crosses the network between slices in a step: of one device, and at most of all devices of a slice."""
    if not sent:
        return ["across slices: none"]
    shown = ["across slices, sent by each device, and at most by a slice:"]
    for kind, (often, size) in sent.items():
        of_slice = size * devices_of_slice / 2**20
        shown.append(f"  {kind:<16}{size / 2**20:>14,.1f} MiB {often:>6,} times {of_slice:>12,.1f} MiB")
    return shown
