"""What an import does with every array, decided before any value is read."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import flax.traverse_util
import jax
import numpy as np

from vmoe_inform import checks
from vmoe_inform.axes import Tree
from vmoe_inform.config import VisionModelConfig
from vmoe_inform.interop.families import Family, Move
from vmoe_inform.interop.families.base import AS_IT_IS
from vmoe_inform.interop.stored import StoredCheckpoint
from vmoe_inform.nn import models

_SHOWN = 10  # arrays of each kind in an error
_KINDS = "fV"  # NumPy's of floats, and that of ml_dtypes' types
STARTS_ANEW, LEFT_OUT = "starts anew", "left out"


@dataclasses.dataclass(frozen=True)
class Row:
    """One line of the table of arrays; a side that has no such array is empty."""

    theirs: str
    ours: str
    shape: tuple[int, ...]
    action: str


@dataclasses.dataclass(frozen=True)
class Plan:
    """Where each of our variables is from.

    Attributes:
      stored: the checkpoint.
      model: of the config.
      shapes: of our variables, as ``model.apply`` takes them.
      moves: by our paths below ``params``, for all that the checkpoint has.
      rows: all arrays of either side.
      problems: what has no counterpart and may not be without, in words; empty if the import is possible.
    """

    stored: StoredCheckpoint
    model: VisionModelConfig
    shapes: Mapping[str, Tree]
    moves: Mapping[str, Move]
    rows: Sequence[Row]
    problems: Sequence[str]

    def check(self) -> None:
        """Raises ValueError for arrays without a counterpart, or of another shape; lists them."""
        if self.problems:
            more = f"; and {len(self.problems) - _SHOWN} more" if len(self.problems) > _SHOWN else ""
            raise checks.InputError(
                f"{self.stored.path}: expected the arrays of the model, all of them and no others; received "
                f"{'; '.join(self.problems[:_SHOWN])}{more} (--allow_missing=NAME,... says which may be without)"
            )


def make_plan(
    stored: StoredCheckpoint, family: Family, model: VisionModelConfig, allow_missing: Sequence[str] = ()
) -> Plan:
    """Compares the arrays of a checkpoint with the parameters of a model.

    Args:
      stored: the checkpoint.
      family: that it is of.
      model: that its arrays are to be.
      allow_missing: names of arrays of either side, or beginnings of such names up to a ``/`` or ``.``. Ours may start
        anew, theirs may be left out.
    """
    shapes = jax.eval_shape(lambda: models.initialize(models.from_config(model), jax.random.key(0)))
    wanted = {path: tuple(leaf.shape) for path, leaf in flatten(shapes["params"]).items()}
    moves: dict[str, Move] = {}
    for move in family.moves(stored, model):
        if move.ours in moves:
            raise ValueError(f"{move.ours} is moved twice")  # a mistake of the family's
        if move.ours in wanted and all(name in stored.arrays for name in move.theirs):
            moves[move.ours] = move
    allowed = [name.strip("/.") for name in allow_missing]
    rows, problems = [], []
    replaced: set[str] = set()  # arrays of theirs in whose place ours start anew
    for path, shape in wanted.items():
        problem = _misfit(stored, moves[path], shape) if path in moves else f"{path} {list(shape)}: missing"
        if problem is not None and _is_allowed(path, moves.get(path), allowed):
            replaced |= set(moves.pop(path).theirs) if path in moves else set()
            rows.append(Row("", path, shape, STARTS_ANEW))
            continue
        if problem is not None:
            problems.append(problem)
        theirs = " + ".join(moves[path].theirs) if path in moves else ""
        rows.append(Row(theirs, path, shape, moves[path].action if path in moves else "MISSING"))
    used = {name for move in moves.values() for name in move.theirs}
    ignored = family.ignored(stored)
    for name, array in stored.arrays.items():
        if name in used:
            continue
        why = ignored.get(name)
        if why is None and name not in replaced and not _is_allowed(name, None, allowed):
            problems.append(f"{name} {list(array.shape)}: unknown")
            rows.append(Row(name, "", array.shape, "UNKNOWN"))
        else:
            rows.append(Row(name, "", array.shape, LEFT_OUT if why is None else f"{LEFT_OUT}: {why}"))
    return Plan(stored, model, shapes, moves, rows, problems)


def flatten(tree: Tree) -> dict[str, Any]:
    """The leaves of nested dictionaries by path."""
    return flax.traverse_util.flatten_dict(tree, sep="/")


def _is_allowed(name: str, move: Move | None, allowed: Sequence[str]) -> bool:
    names = (name, *(() if move is None else move.theirs))
    return any(one == prefix or one.startswith((f"{prefix}/", f"{prefix}.")) for one in names for prefix in allowed)


def _misfit(stored: StoredCheckpoint, move: Move, shape: tuple[int, ...]) -> str | None:
    """Why an array cannot be ours, where its type or shape says so; no value is read."""
    for name in move.theirs:
        array = stored.arrays[name]
        if array.dtype.kind not in _KINDS:
            return f"{name}: of type {array.dtype}, which are no parameters"
    received = " + ".join(f"{name} {list(stored.arrays[name].shape)}" for name in move.theirs)
    if move.action == AS_IT_IS:
        given = stored.arrays[move.theirs[0]].shape
        return None if given == shape else f"{move.theirs[0]}: shape {list(given)} in place of {list(shape)}"
    if _shape_made(stored, move) != shape:
        return f"{received}: not of the shape for {move.ours} {list(shape)} ({move.action})"
    return None


def _shape_made(stored: StoredCheckpoint, move: Move) -> tuple[int, ...] | None:
    """The shape that arrays of theirs have when they are converted; None if they have not the axes for it."""
    stand_ins = [np.broadcast_to(np.zeros((), np.int8), stored.arrays[name].shape) for name in move.theirs]
    try:
        return np.shape(move.convert(*stand_ins))
    except checks.InputError:
        raise
    except (ValueError, IndexError):  # NumPy's
        return None


def read_params(plan: Plan) -> dict[str, np.ndarray]:
    """Our parameters that the checkpoint has, float32, by path. Each array of theirs is read once.

    Raises:
      ValueError: a damaged file, or values that are not finite.
    """
    params: dict[str, np.ndarray] = {}
    sources: dict[tuple[str, ...], list[str]] = {}
    for path, move in plan.moves.items():
        sources.setdefault(move.theirs, []).append(path)
    for theirs, paths in sources.items():
        arrays = [plan.stored.arrays[name].read() for name in theirs]
        for path in paths:
            array = np.asarray(plan.moves[path].convert(*arrays))
            if not np.all(np.isfinite(array)):
                raise checks.error(" + ".join(theirs), "finite values", "NaN or infinity")
            params[path] = np.ascontiguousarray(array, np.float32).reshape(array.shape)
    return {path: params[path] for path in plan.moves}


def complete(plan: Plan, params: Mapping[str, np.ndarray], seed: int = 0) -> dict[str, Tree]:
    """All variables of the model, as ``model.apply`` takes them.

    Args:
      plan: of the import.
      params: from :func:`read_params`.
      seed: of the parameters that start anew, and of states of router steps.
    """
    wanted = flatten(plan.shapes["params"])
    if params.keys() == wanted.keys() and plan.shapes.keys() == {"params"}:
        return {"params": flax.traverse_util.unflatten_dict(dict(params), sep="/")}
    fresh = models.initialize(models.from_config(plan.model), jax.random.key(seed))
    whole = {path: params.get(path, leaf) for path, leaf in flatten(fresh["params"]).items()}
    return {**fresh, "params": flax.traverse_util.unflatten_dict(whole, sep="/")}
