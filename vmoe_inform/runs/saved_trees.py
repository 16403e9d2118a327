"""What orbax is asked to restore, and what a checkpoint has in addition."""

import re
from collections.abc import Callable, Sequence
from typing import Any

import grain.checkpoint
import jax
import orbax.checkpoint as ocp
from absl import logging
from orbax.checkpoint import checkpoint_managers as policies

from vmoe_inform import checks, storage
from vmoe_inform.axes import Tree
from vmoe_inform.runs.state import TrainState
from vmoe_inform.sharding.rules import path_name

COMMITTED = "commit_success.txt"  # which orbax writes last
_UNFINISHED = ".orbax-checkpoint-tmp"  # ends the name of the folder into which orbax writes a checkpoint


def check_path(folder: storage.Path) -> None:
    """Raises ValueError if orbax would take the path of a run, or of its checkpoints, for a pattern or an address.

    It lists files by patterns that begin with the path, and opens them by address. So it would write checkpoints that
    it cannot read, or read those of other folders. In a bucket, what follows ``#`` or ``;`` is not part of a name.
    """
    path = str(storage.absolute(folder))
    if path.startswith("gs://") and re.search("[#;]", path):
        raise checks.error("workdir", "an address without # and ;, which the checkpoints' library cuts off", path)
    if re.search(r"[*?\[\]\\\udc80-\udcff]|(?:^|/)[A-Za-z][A-Za-z0-9+.-]*:/", path.removeprefix("gs://") + "/"):
        expected = (
            "a path in UTF-8 without * ? [ ] \\ and without a folder called NAME:, which are patterns and addresses"
        )
        raise checks.error("workdir", f"{expected} for the checkpoints' library (or a link to it)", path)


def reading_manager(folder: storage.Path) -> ocp.CheckpointManager:
    """Orbax's manager of a folder of checkpoints that are only read; it makes no folder and removes nothing."""
    options = ocp.CheckpointManagerOptions(read_only=True, create=False, save_interval_steps=0)
    said = logging.get_verbosity()
    logging.set_verbosity(logging.ERROR)  # orbax warns that it only reads, which is what it was asked for
    try:
        return ocp.CheckpointManager(str(folder), item_handlers=_handlers(), options=options)
    finally:
        logging.set_verbosity(said)


def writing_manager(
    folder: storage.Path, keep: int, keep_steps: Sequence[int], before_commit: Callable[[], None]
) -> ocp.CheckpointManager:
    """Orbax's manager of a folder of checkpoints that are written.

    Args:
      folder: is made if it does not exist. Unfinished checkpoints are left as they are.
      keep: newest checkpoints that stay.
      keep_steps: checkpoints that stay however old they are.
      before_commit: called when all files of a checkpoint are written, before it becomes one.
    """
    options = ocp.CheckpointManagerOptions(
        preservation_policy=policies.AnyPreservationPolicy(
            [policies.LatestN(keep), policies.CustomSteps(tuple(keep_steps))]
        ),
        create=True,
        async_options=ocp.AsyncOptions(
            post_finalization_callback=before_commit,
            # In the background, a folder that cannot be made would be waited for for minutes.
            create_directories_asynchronously=False,
        ),
    )
    return ocp.CheckpointManager(str(folder), item_handlers=_handlers(), options=options)


def unfinished(folder: storage.Path) -> list[storage.Path]:
    """Checkpoints of a folder that were not completed.

    Orbax ends their names with a mark. Where folders cannot be renamed, a file in them marks those that were completed.
    """
    if storage.renames_folders(folder):
        return storage.matching(folder, f"*{_UNFINISHED}")
    steps = (folder / str(step) for step in storage.numbered_folders(folder))
    return [path for path in steps if not storage.exists(path / COMMITTED)]


def being_written(folder: storage.Path, step: int) -> storage.Path:
    """The folder of a checkpoint that is not completed yet."""
    return folder / (f"{step}{_UNFINISHED}" if storage.renames_folders(folder) else str(step))


def _handlers() -> dict[str, Any]:
    return {"state": ocp.PyTreeCheckpointHandler(), "data": grain.checkpoint.CheckpointHandler()}


def as_dict(state: TrainState) -> dict[str, Tree]:
    """The state as it is written: its attributes by name; without a memory where the model carries none."""
    attributes = {name: getattr(state, name) for name in TrainState.__dataclass_fields__}
    if state.memory is None:  # checkpoints of older versions have none
        del attributes["memory"]
    return attributes


def by_path(tree: Tree) -> dict[str, Any]:
    """The arrays of a tree by path."""
    return {path_name(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}


def shapes_of(tree: Tree) -> dict[str, tuple[int, ...]]:
    """Shapes of the arrays of a tree by path."""
    return {path: tuple(leaf.shape) for path, leaf in by_path(tree).items()}


def check_same_model(step: int, saved: dict[str, tuple[int, ...]], expected: Tree) -> None:
    """Raises ValueError, with the differing paths, unless a checkpoint has the arrays that are expected.

    Args:
      step: of the checkpoint.
      saved: shapes of its arrays, by path.
      expected: arrays or shapes, or a flat dictionary of those by path.
    """
    wanted = shapes_of(expected)
    differing = sorted(path for path in saved.keys() | wanted.keys() if saved.get(path) != wanted.get(path))
    if differing:
        lines = [f"{path}: expected {wanted.get(path)}; received {saved.get(path)}" for path in differing[:10]]
        more = f"; and {len(differing) - 10} more" if len(differing) > 10 else ""
        raise checks.InputError(f"checkpoint {step} is of another model. " + "; ".join(lines) + more)


def parameters_for_evaluation(saved: dict[str, tuple[int, ...]]) -> str:
    """Where the parameters are that evaluation uses: the moving average, if the checkpoint has one."""
    return "ema_params" if any(path.startswith("ema_params/") for path in saved) else "params"


def restore_as(expected: Tree, *, partial: bool = False, restore_type: Any = None) -> ocp.args.PyTreeRestore:
    """Orbax's request for arrays.

    Args:
      expected: shapes, types and shardings.
      partial: whether the checkpoint may have more.
      restore_type: ``np.ndarray`` for arrays on no device, whose shardings do not matter.
    """
    if restore_type is None:
        arguments = ocp.checkpoint_utils.construct_restore_args(expected)
    else:
        arguments = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=restore_type), expected)
    return ocp.args.PyTreeRestore(expected, restore_args=arguments, partial_restore=partial)
