"""Checkpoints of a run: the training state and the data position, written together as one orbax step.

Orbax writes into a temporary folder and renames it, so a checkpoint exists whole or not at all. The checksums of its
files are a part of it. Saving continues in the background. Random keys are not stored, since all of them come from
(seed, step).
"""

import contextlib
import pathlib
import time
import types
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import grain
import grain.checkpoint
import jax
import numpy as np
import orbax.checkpoint as ocp
from absl import logging

from vmoe_inform import checks, storage
from vmoe_inform.axes import Tree
from vmoe_inform.data.training_batches import TrainingBatches
from vmoe_inform.runs import _traces, checksums, positions, saved_trees
from vmoe_inform.runs import integrity as intact
from vmoe_inform.runs.integrity import DamagedCheckpointError
from vmoe_inform.runs.state import TrainState
from vmoe_inform.sharding import processes

CHECKPOINT_FOLDER = "checkpoints"
_UNFINISHED = ".orbax-checkpoint-tmp"  # ends the name of the folder into which orbax writes a checkpoint
_LOOKS, _LOOKS_THAT_FIND_NOTHING, _SECONDS_BETWEEN_LOOKS = 25, 3, 0.2  # for what a failed save leaves

_Restored = TypeVar("_Restored")


def _shortened(reason: str) -> str:
    """The storage's message in at most one line: its beginning and the system's reason."""
    words = " ".join(reason.split()).partition(" [source locations")[0]
    half = intact.REASON_LENGTH // 2
    return words if len(words) <= intact.REASON_LENGTH else f"{words[:half]} ... {words[-half:]}"


class SavingError(OSError):
    """A checkpoint could not be written; those before it are as they were."""


class Checkpoints:
    """The checkpoints of one run; a context manager that waits for unfinished saves at its end."""

    def __init__(self, workdir: pathlib.Path, *, keep: int | None = None, keep_steps: Sequence[int] = ()):
        """Args:
        workdir: of the run.
        keep: newest checkpoints that stay; None opens the folder for reading only, and touches nothing in it.
        keep_steps: checkpoints that always stay.

        Raises:
          ValueError: a path that orbax would take for something else.
        """
        saved_trees.check_path(workdir)
        self._workdir, self._keep, self._keep_steps = workdir, keep, tuple(keep_steps)
        self._folder = (workdir / CHECKPOINT_FOLDER).absolute()
        self._step_being_saved: int | None = None
        self._manager = self._open()

    def _open(self) -> ocp.CheckpointManager:
        """Opens the folder; unless it is only read, unfinished checkpoints of earlier processes are removed first.

        Orbax would remove them in a thread that it does not wait for when a manager is closed. If late, that thread
        removes what the next manager of the folder is writing.
        """
        if self._keep is not None:
            _traces.silence()
            if processes.is_main():
                self._remove_unfinished()
        intact.check_can_be_listed(self._folder)
        try:
            return saved_trees.open_manager(self._folder, self._keep, self._keep_steps, self._write_checksums)
        except (ValueError, TypeError, AttributeError) as problem:  # of a description that orbax reads at once
            reason = " ".join(str(problem).split())[: intact.REASON_LENGTH]
            raise checks.error(str(self._folder), "checkpoints that can be listed", reason) from None

    def _remove_unfinished(self) -> bool:
        """Removes checkpoints that were not completed; returns whether there were any."""
        unfinished = storage.matching(self._folder, f"*{_UNFINISHED}")
        for path in unfinished:
            storage.remove(path)  # what stays is said by a save of that step
        return bool(unfinished)

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: types.TracebackType | None
    ) -> None:
        if isinstance(error, KeyboardInterrupt):
            return  # whoever interrupts does not want to wait
        if error is not None and processes.missing(error) is not None:
            return  # closing would wait for the one that has gone
        try:
            with self._saving():
                self._manager.close()
        except SavingError as problem:
            if error is None:
                raise
            logging.error("%s", problem)  # in addition to the error that ends the run

    def latest_step(self) -> int | None:
        """Steps done in the newest checkpoint; None if there is none."""
        return self._manager.latest_step()

    # ---------------------------------------------------------------------------------------------------------- saving

    def save(self, state: TrainState, data: grain.DatasetIterator) -> None:
        """Saves under ``state.step``, in the background; an existing step is left as it is.

        Raises:
          SavingError: this checkpoint, or the one before in the background, cannot be written.
        """
        step = int(state.step)
        if step != self.latest_step():
            arguments = ocp.args.Composite(
                state=ocp.args.PyTreeSave(saved_trees.as_dict(state)), data=grain.checkpoint.CheckpointSave(data)
            )
            with self._saving():
                self._manager.wait_until_finished()  # before the step changes, which that save asks for at its end
                self._step_being_saved = step
                self._manager.save(step, args=arguments)

    def check(self) -> None:
        """Raises SavingError if saving in the background has failed; waits for nothing."""
        if not self._manager.is_saving_in_progress():
            self.wait()

    def wait(self) -> None:
        """Waits until nothing is being saved. Raises SavingError if it failed."""
        with self._saving():
            self._manager.wait_until_finished()

    @contextlib.contextmanager
    def _saving(self) -> Iterator[None]:
        """Turns errors of the storage into SavingError; saving can then be tried again."""
        try:
            yield
        except (OSError, ValueError, RuntimeError) as problem:
            if (gone := processes.missing(problem)) is not None:
                raise gone from problem
            reason = _shortened(str(problem))
            self._open_anew()
            raise SavingError(
                f"checkpoint in {self._folder}: expected to be written; received {reason!r}. "
                f"The checkpoints before it are as they were: {self._manager.all_steps()}"
            ) from problem

    def _open_anew(self) -> None:
        """A manager in place of the one that failed, which would report the failure for ever.

        Other writes of the failed save continue for a while, and recreate its folder when it is removed. Orbax would
        fail on it in the next save. So first that folder has to be gone for good.
        """
        gone = 0
        for _ in range(_LOOKS if processes.is_main() else 0):
            gone = 0 if self._remove_unfinished() else gone + 1
            if gone == _LOOKS_THAT_FIND_NOTHING:
                break
            time.sleep(_SECONDS_BETWEEN_LOOKS)
        with contextlib.suppress(OSError):
            self._manager = self._open()

    def _write_checksums(self) -> None:
        """Called by orbax when all files are written, before it makes the folder a checkpoint by renaming it."""
        if processes.is_main():
            checksums.write(self._folder / f"{self._step_being_saved}{_UNFINISHED}")

    # ------------------------------------------------------------------------------------------------------- restoring

    def restore(self, expected: TrainState, data: TrainingBatches) -> TrainState:
        """The newest intact checkpoint, with ``data`` set to its position.

        Newer ones that are damaged are renamed ``damaged_STEP``, with a warning.

        Args:
          expected: shapes, types and shardings that the state shall have, as ``jax.ShapeDtypeStruct``.
          data: iterator of the same pipeline; changed in place.

        Raises:
          FileNotFoundError: there is no checkpoint.
          ValueError: the checkpoint is of another model; lists the differing paths. Or none is intact.
        """
        wanted = saved_trees.as_dict(expected)

        def restore(step: int) -> TrainState:
            saved_trees.check_same_model(step, saved_trees.shapes_of(self._saved(step)), wanted)
            arguments: dict[str, Any] = {"state": saved_trees.restore_as(wanted)}
            with self._reading(step):
                others = positions.are_of_others(self._folder / str(step), data)
            if not others:
                arguments["data"] = grain.checkpoint.CheckpointRestore(data)
            with self._reading(step):
                restored = self._manager.restore(step, args=ocp.args.Composite(**arguments))
            if others:
                positions.skip_to_step(step, data)
            return TrainState(**restored["state"])

        step, state = self._newest_intact(restore)
        if self._keep is not None:
            self._set_aside([newer for newer in self._manager.all_steps() if newer > step])
        return state

    def restore_variables(self, expected: dict[str, Tree], *, step: int | None = None) -> tuple[int, dict[str, Tree]]:
        """Step and variables of a checkpoint, without the optimizer and the data position.

        Args:
          expected: shapes, types and shardings of what ``model.apply`` takes.
          step: of the checkpoint; the newest intact one by default.

        Returns:
          steps done, and the variables; with the moving average in place of the parameters if the run keeps one.

        Raises:
          FileNotFoundError, ValueError: as :meth:`restore`, and for none of that step, or one whose files are damaged.
        """

        def restore(step: int) -> dict[str, Tree]:
            saved = saved_trees.shapes_of(self._saved(step))
            parameters = saved_trees.parameters_for_evaluation(saved)
            wanted = {parameters: expected["params"], "routing": expected.get("routing", {})}
            of_variables = {p: s for p, s in saved.items() if p.startswith((f"{parameters}/", "routing/"))}
            saved_trees.check_same_model(step, of_variables, wanted)
            restored = self._restore_part(step, wanted)
            variables = {"params": restored[parameters]}
            return variables | ({"routing": restored["routing"]} if wanted["routing"] else {})

        return self._newest_intact(restore, step)

    def load_arrays(
        self, step: int | None = None, *, names: Sequence[str] = tuple(TrainState.__dataclass_fields__)
    ) -> tuple[int, dict[str, Tree]]:
        """Step and NumPy arrays of a checkpoint, for any model and devices.

        Args:
          step: of the checkpoint; the newest intact one by default.
          names: of attributes of the state; what the run does not have is None or ``{}``.

        Raises:
          FileNotFoundError, ValueError: as :meth:`restore_variables`, but for another model.
        """

        def restore(step: int) -> dict[str, Tree]:
            saved = {name: tree for name, tree in self._saved(step).items() if name in names}
            wanted = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), saved)
            return self._restore_part(step, wanted, restore_type=np.ndarray)

        return self._newest_intact(restore, step)

    def steps(self) -> list[int]:
        """Steps done in each checkpoint, ascending."""
        return sorted(self._manager.all_steps())

    def find_step(self, step: int | None = None) -> int:
        """Steps done in a checkpoint: the newest one's, or ``step``.

        Raises:
          FileNotFoundError: there is no checkpoint, or none of that step.
        """
        steps = self.steps()
        if not steps:
            raise FileNotFoundError(f"checkpoint: expected one in {self._folder}; received none")
        if step is not None and step not in steps:
            raise FileNotFoundError(
                f"checkpoint: expected one of step {step} in {self._folder}; received those of "
                f"{', '.join(map(str, steps))}"
            )
        return steps[-1] if step is None else step

    def _newest_intact(self, restore: Callable[[int], _Restored], step: int | None = None) -> tuple[int, _Restored]:
        """Restores ``step``, or the newest checkpoint that is intact; all processes take the same one."""
        self.find_step(step)
        steps = self.steps()[::-1] if step is None else [step]
        first: DamagedCheckpointError | None = None
        for candidate in steps:
            problem = intact.problem_of(self._folder, candidate) if processes.is_main() else None
            if not processes.any_process(problem is not None):
                restored = None
                try:
                    self._check_step(candidate)
                    restored = restore(candidate)
                except DamagedCheckpointError as damage:
                    problem = damage
                if not processes.any_process(problem is not None) and restored is not None:
                    if first is not None:
                        logging.warning("%s; taking checkpoint %d instead", first, candidate)
                    return candidate, restored
            first = first or problem or intact.damaged(self._folder, candidate, "damage, as another process says")
        assert first is not None  # find_step: there is at least one
        raise first

    def is_of_its_step(self, step: int) -> bool:
        """Whether the checkpoint of this name is of this step: folders may have been renamed. Nothing else is read."""
        try:
            intact.check_kinds(self._folder, step)
            self._check_step(step)
        except DamagedCheckpointError as damage:
            logging.warning("%s", damage)
            return False
        return True

    def _check_step(self, step: int) -> None:
        wanted = {"step": jax.ShapeDtypeStruct((), np.int32)}
        inside = int(self._restore_part(step, wanted, restore_type=np.ndarray)["step"])
        if inside != step:
            raise intact.damaged(self._folder, step, f"step {inside}, as if its folder had been renamed")

    def _set_aside(self, steps: Sequence[int]) -> None:
        """Moves checkpoints out of the way of those that the run is about to write."""
        if steps:
            self._manager.close()
            if processes.is_main():
                intact.set_aside(self._folder, steps)
            processes.any_process(False)  # all wait until it is done
            self._manager = self._open()

    def _saved(self, step: int) -> dict[str, Tree]:
        with self._reading(step):
            metadata = self._manager.item_metadata(step)["state"]
            if metadata is None:
                raise FileNotFoundError("no description of the state")
            return metadata.tree

    def _restore_part(self, step: int, wanted: dict[str, Tree], restore_type: Any = None) -> dict[str, Tree]:
        arguments = ocp.args.Composite(state=saved_trees.restore_as(wanted, partial=True, restore_type=restore_type))
        with self._reading(step):
            return self._manager.restore(step, args=arguments)["state"]

    @contextlib.contextmanager
    def _reading(self, step: int) -> Iterator[None]:
        """Turns errors of orbax and its storage on damaged files into one ValueError, in one line."""
        try:
            yield
        except (OSError, ValueError, KeyError) as problem:
            raise intact.damaged(self._folder, step, problem) from None
