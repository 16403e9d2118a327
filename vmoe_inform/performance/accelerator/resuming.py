"""Whether a run that stops and resumes on this device ends with the bits of one that does not stop."""

import pathlib
import tempfile
from collections.abc import Callable, Iterator

import jax
import numpy as np

from vmoe_inform import storage
from vmoe_inform.axes import Tree
from vmoe_inform.performance.accelerator.comparing import in_short
from vmoe_inform.performance.accelerator.results import ResumeRow
from vmoe_inform.performance.accelerator.steps import Step, copies
from vmoe_inform.runs.state import TrainState
from vmoe_inform.sharding.rules import path_name

_BEFORE, _AFTER = 3, 3  # steps


def resume(step: Step) -> Iterator[ResumeRow]:
    """Takes steps from a state that was kept in several ways, and compares with the steps that followed at once.

    The first row keeps nothing: it repeats all steps. Where that differs, the device does not compute the same twice.
    """
    step.state = step.first_state()
    kept = copies(step.take(_BEFORE))
    wanted = jax.device_get(step.take(_AFTER))
    yield _row("not at all: repeated", _differing(_from(step, step.first_state(), _BEFORE + _AFTER), wanted))
    yield _row("in a file, by NumPy", _differing(_from(step, _through(_numpy_file, kept, step), _AFTER), wanted))
    words = "in a checkpoint, by Orbax"
    try:
        differing = _differing(_from(step, _through(_checkpoint, kept, step), _AFTER), wanted)
    except ModuleNotFoundError as problem:
        yield _row(words, None, f"{problem.name} is not installed")
    except Exception as problem:  # of a library on a machine that we do not know
        yield _row(words, None, in_short(problem))
    else:
        yield _row(words, differing)


def _row(kept: str, differing: int | None, note: str = "") -> ResumeRow:
    return ResumeRow(kept, _BEFORE, _AFTER, differing, note)


def _from(step: Step, state: TrainState, count: int) -> TrainState:
    step.state = state
    return step.take(count)


def _differing(found: TrainState, wanted: TrainState) -> int:
    """Arrays that differ in any bit."""
    pairs = zip(jax.tree.leaves(jax.device_get(found)), jax.tree.leaves(wanted), strict=True)
    return sum(np.asarray(one).tobytes() != np.asarray(other).tobytes() for one, other in pairs)


def _through(keep: Callable[[pathlib.Path, TrainState], dict[str, np.ndarray]], state: TrainState, step: Step) -> Tree:
    """The state, written to a folder and read again onto the device."""
    with tempfile.TemporaryDirectory(prefix="accelerator_check_") as folder:
        arrays = keep(pathlib.Path(folder), state)

    def put(path: tuple, shape: jax.ShapeDtypeStruct) -> jax.Array:
        return jax.device_put(arrays[path_name(path)], shape.sharding)

    return jax.tree_util.tree_map_with_path(put, step.program.state_shapes)


def _numpy_file(folder: pathlib.Path, state: TrainState) -> dict[str, np.ndarray]:
    flat = {path_name(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(jax.device_get(state))}
    names = {str(number): name for number, name in enumerate(flat)}
    storage.write_arrays(folder / "state.npz", {number: flat[name] for number, name in names.items()})
    read = storage.read_arrays(folder / "state.npz")
    return {name: read[number] for number, name in names.items()}


def _checkpoint(folder: pathlib.Path, state: TrainState) -> dict[str, np.ndarray]:
    """As a run keeps it, but for the position in its data."""
    from vmoe_inform.runs import saved_trees
    from vmoe_inform.runs.checkpoints import Checkpoints

    with Checkpoints(folder, keep=1) as checkpoints:
        checkpoints.save(state, None)
        checkpoints.wait()
        return saved_trees.by_path(checkpoints.load_arrays()[1])
