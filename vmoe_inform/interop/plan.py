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
    for path, shape in wanted.items():
        problem = _misfit(stored, moves[path], shape) if path in moves else f"{path} {list(shape)}: missing"
        if problem is not None and _is_allowed(path, moves.get(path), allowed):
            moves.pop(path, None)
            rows.append(Row("", path, shape, STARTS_ANEW))
            continue
        if problem is not None:
            problems.append(problem)
        theirs = " + ".join(moves[path].theirs) if path in moves else ""
        rows.append(Row(theirs, path, shape, moves[path].action if path in moves else "MISSING"))
    used = {name for move in moves.values() for name in move.theirs}
    for name, array in stored.arrays.items():
        if name in used:
            continue
        why = family.ignored(name)
        if why is None and not _is_allowed(name, None, allowed):
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
    if move.action == AS_IT_IS and (given := stored.arrays[move.theirs[0]].shape) != shape:
        return f"{move.theirs[0]}: shape {list(given)} in place of {list(shape)}"
    return None


def read_params(plan: Plan) -> dict[str, np.ndarray]:
    """Our parameters that the checkpoint has, float32, by path; an array of theirs is read once for each of ours.

    Raises:
      ValueError: a damaged file, another shape, or values that are not finite.
    """
    params = {}
    shapes = flatten(plan.shapes["params"])
    for path, move in plan.moves.items():
        array = _converted(move, [plan.stored.arrays[name].read() for name in move.theirs])
        if array.shape != shapes[path].shape:
            expected = f"shape {list(shapes[path].shape)} for {path}"
            raise checks.error(" + ".join(move.theirs), expected, f"{list(array.shape)} ({move.action})")
        if not np.all(np.isfinite(array)):
            raise checks.error(" + ".join(move.theirs), "finite values", "NaN or infinity")
        params[path] = np.ascontiguousarray(array, np.float32).reshape(array.shape)
    return params


def _converted(move: Move, theirs: Sequence[np.ndarray]) -> np.ndarray:
    try:
        return np.asarray(move.convert(*theirs))
    except checks.InputError:
        raise
    except (ValueError, IndexError):  # NumPy's, of arrays that have not the axes that they should have
        shapes = " + ".join(str(list(array.shape)) for array in theirs)
        expected = f"shapes for {move.ours} ({move.action})"
        raise checks.error(" + ".join(move.theirs), expected, shapes) from None


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
