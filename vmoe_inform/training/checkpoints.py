"""Checkpoints of a run: the training state and the data position, written together as one orbax step.

Orbax writes into a temporary folder and renames it, so that a checkpoint is there whole or not at all. Saving goes on
in the background; random keys need no place of their own, since all of them come from (seed, step).
"""

import contextlib
import json
import pathlib
import types
from collections.abc import Iterator, Sequence
from typing import Any

import flax.traverse_util
import grain
import grain.checkpoint
import jax
import orbax.checkpoint as ocp
from orbax.checkpoint import checkpoint_managers as policies

from vmoe_inform import checks
from vmoe_inform import config as config_lib
from vmoe_inform.axes import Tree
from vmoe_inform.sharding.rules import path_name
from vmoe_inform.training.state import TrainState

CONFIG_FILE = "config.json"
CHECKPOINT_FOLDER = "checkpoints"
_REASON_LENGTH = 300  # of what the storage says of a damaged file, which may be pages

# What may differ when a run is continued; everything else would make it another run.
_MAY_CHANGE = (
    "train.steps",
    "train.epochs",
    "train.log_every_steps",
    "data.directory",
    "data.num_threads",
    "data.prefetch_batches",
    "data.max_skipped_share",
    "checkpoint.",
    "evaluation.",
    "mesh.",
)


def _flat(config: dict[str, Any]) -> dict[str, Any]:
    return flax.traverse_util.flatten_dict(config, sep=".")


def check_same_run(
    workdir: pathlib.Path, config: config_lib.Config, *, may_change: tuple[str, ...] = _MAY_CHANGE
) -> None:
    """Checks that the run in ``workdir``, if there is one, is the run that ``config`` describes.

    Args:
      workdir: of the run.
      config: what it should be.
      may_change: beginnings of the fields' names that may differ; by default what still is the same run, continued.

    Raises:
      ValueError: it has another model, data, seed, objective or optimizer; says which fields. Or the run would start
        from itself.
    """
    initial = config.train.initial_checkpoint
    if initial and pathlib.Path(initial).resolve() == workdir.resolve():
        raise checks.error("train.initial_checkpoint", "the folder of another run than the workdir", initial)
    path = workdir / CONFIG_FILE
    if not path.exists():
        return
    before, after = _flat(json.loads(path.read_text())), _flat(config_lib.to_json(config))
    differing = [
        f"{name}: expected {before.get(name)!r} (as in {path}); received {after.get(name)!r}"
        for name in sorted(before.keys() | after.keys())
        if before.get(name) != after.get(name) and not name.startswith(may_change)
    ]
    if differing:
        raise checks.InputError("workdir holds another run. " + "; ".join(differing))


def write_config(workdir: pathlib.Path, config: config_lib.Config) -> None:
    """Writes the resolved config, whole or not at all."""
    if jax.process_index() == 0:
        path = workdir / CONFIG_FILE
        workdir.mkdir(parents=True, exist_ok=True)
        temporary = path.with_suffix(".tmp")
        temporary.write_text(json.dumps(config_lib.to_json(config), indent=2) + "\n")
        temporary.rename(path)


def read_config(workdir: pathlib.Path) -> config_lib.Config:
    """The resolved config of a run.

    Raises:
      FileNotFoundError: no run in ``workdir``.
      ValueError: the file is damaged, or of a library version with other settings.
    """
    path = workdir / CONFIG_FILE
    if not path.is_file():
        raise FileNotFoundError(f"workdir: expected a run with {CONFIG_FILE}; received {str(workdir)!r}")
    try:
        return config_lib.parse(json.loads(path.read_text()))
    except json.JSONDecodeError as problem:
        raise checks.error(str(path), f"JSON ({problem})", "something else") from None


class Checkpoints:
    """The checkpoints of one run; a context manager that waits for unfinished saves at its end."""

    def __init__(self, workdir: pathlib.Path, *, keep: int | None = None, keep_steps: Sequence[int] = ()):
        """Args:
        workdir: of the run.
        keep: newest checkpoints that stay; None opens the folder for reading only, and touches nothing in it.
        keep_steps: checkpoints that stay however old they are.
        """
        options = (
            ocp.CheckpointManagerOptions(read_only=True, create=False, save_interval_steps=0)
            if keep is None
            else ocp.CheckpointManagerOptions(
                preservation_policy=policies.AnyPreservationPolicy(
                    [policies.LatestN(keep), policies.CustomSteps(tuple(keep_steps))]
                ),
                create=True,
                cleanup_tmp_directories=True,
            )
        )
        handlers = {"state": ocp.PyTreeCheckpointHandler(), "data": grain.checkpoint.CheckpointHandler()}
        folder = (workdir / CHECKPOINT_FOLDER).absolute()
        self._manager = ocp.CheckpointManager(folder, item_handlers=handlers, options=options)

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: types.TracebackType | None
    ) -> None:
        self._manager.close()

    def latest_step(self) -> int | None:
        """Steps done in the newest checkpoint; None if there is none."""
        return self._manager.latest_step()

    def save(self, state: TrainState, data: grain.DatasetIterator) -> None:
        """Saves under ``state.step``, in the background; a step that is there already is left as it is."""
        step = int(state.step)
        if step != self.latest_step():
            arguments = ocp.args.Composite(
                state=ocp.args.PyTreeSave(_as_dict(state)), data=grain.checkpoint.CheckpointSave(data)
            )
            self._manager.save(step, args=arguments)

    def restore(self, expected: TrainState, data: grain.DatasetIterator) -> TrainState:
        """The newest checkpoint, with ``data`` set to its position.

        Args:
          expected: shapes, types and shardings that the state shall have, as ``jax.ShapeDtypeStruct``.
          data: iterator of the same pipeline; changed in place.

        Raises:
          FileNotFoundError: there is no checkpoint.
          ValueError: the checkpoint is of another model; lists the differing paths.
        """
        step = self.find_step()
        wanted = _as_dict(expected)
        check_same_model(step, self._saved_shapes(step), wanted)
        arguments = ocp.args.Composite(state=_restore_as(wanted), data=grain.checkpoint.CheckpointRestore(data))
        return TrainState(**self._manager.restore(step, args=arguments)["state"])

    def restore_variables(self, expected: dict[str, Tree], *, step: int | None = None) -> tuple[int, dict[str, Tree]]:
        """Step and variables of a checkpoint, without the optimizer and the data position.

        Args:
          expected: shapes, types and shardings of what ``model.apply`` takes.
          step: of the checkpoint; the newest by default.

        Returns:
          steps done, and the variables; with the moving average in place of the parameters if the run keeps one.

        Raises:
          FileNotFoundError, ValueError: as :meth:`restore`, and for none of that step, or one whose files are damaged.
        """
        step = self.find_step(step)
        saved = self._saved_shapes(step)
        averaged = any(path.startswith("ema_params/") for path in saved)
        parameters = "ema_params" if averaged else "params"
        wanted = {parameters: expected["params"], "routing": expected.get("routing", {})}
        check_same_model(step, {p: s for p, s in saved.items() if p.startswith((f"{parameters}/", "routing/"))}, wanted)
        arguments = ocp.args.Composite(state=_restore_as(wanted, partial=True))
        with self._reading(step):
            restored = self._manager.restore(step, args=arguments)["state"]
        variables = {"params": restored[parameters]}
        return step, variables | ({"routing": restored["routing"]} if wanted["routing"] else {})

    def find_step(self, step: int | None = None) -> int:
        """Steps done in a checkpoint: the newest one's, or ``step``.

        Raises:
          FileNotFoundError: there is no checkpoint, or none of that step.
        """
        steps = sorted(self._manager.all_steps())
        if not steps:
            raise FileNotFoundError(f"checkpoint: expected one in {self._manager.directory}; received none")
        if step is not None and step not in steps:
            raise FileNotFoundError(
                f"checkpoint: expected one of step {step} in {self._manager.directory}; received those of "
                f"{', '.join(map(str, steps))}"
            )
        return steps[-1] if step is None else step

    def _saved_shapes(self, step: int) -> dict[str, tuple[int, ...]]:
        with self._reading(step):
            metadata = self._manager.item_metadata(step)["state"]
            if metadata is None:
                raise FileNotFoundError("no description of the state")
            return _shapes(metadata.tree)

    @contextlib.contextmanager
    def _reading(self, step: int) -> Iterator[None]:
        """Whatever orbax and its storage raise of damaged files is one ValueError, in one line."""
        try:
            yield
        except (OSError, ValueError, KeyError) as problem:
            reason = " ".join(str(problem).split())
            raise checks.error(
                f"checkpoint {step} in {self._manager.directory}",
                "whole files (an older checkpoint may have them: FOLDER@STEP)",
                reason[:_REASON_LENGTH],
            ) from None


def check_same_model(step: int, saved: dict[str, tuple[int, ...]], expected: Tree) -> None:
    """Raises ValueError, with the differing paths, unless a checkpoint has the arrays that are expected.

    Args:
      step: of the checkpoint.
      saved: shapes of its arrays, by path.
      expected: arrays or shapes, or a flat dictionary of those by path.
    """
    wanted = _shapes(expected)
    differing = sorted(path for path in saved.keys() | wanted.keys() if saved.get(path) != wanted.get(path))
    if differing:
        lines = [f"{path}: expected {wanted.get(path)}; received {saved.get(path)}" for path in differing[:10]]
        more = f"; and {len(differing) - 10} more" if len(differing) > 10 else ""
        raise checks.InputError(f"checkpoint {step} is of another model. " + "; ".join(lines) + more)


def _restore_as(expected: Tree, *, partial: bool = False) -> ocp.args.PyTreeRestore:
    """Orbax's request for arrays of these shapes, types and shardings."""
    arguments = ocp.checkpoint_utils.construct_restore_args(expected)
    return ocp.args.PyTreeRestore(expected, restore_args=arguments, partial_restore=partial)


def _as_dict(state: TrainState) -> dict[str, Tree]:
    return {name: getattr(state, name) for name in TrainState.__dataclass_fields__}


def _shapes(tree: Tree) -> dict[str, tuple[int, ...]]:
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {path_name(path): tuple(leaf.shape) for path, leaf in leaves}
