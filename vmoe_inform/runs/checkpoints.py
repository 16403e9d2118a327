"""Checkpoints of a run: the training state and the data position, written together as one orbax step.

Orbax writes into a temporary folder and renames it; in a bucket it writes a mark last. So a checkpoint exists whole or
not at all. The checksums of its files are a part of it. Saving continues in the background. Random keys are not stored,
since all of them come from (seed, step).
"""

import contextlib
import time
from collections.abc import Iterator, Sequence
from typing import Any

import grain
import grain.checkpoint
import orbax.checkpoint as ocp
from absl import logging

from vmoe_inform import storage
from vmoe_inform.data.training_batches import TrainingBatches
from vmoe_inform.runs import _traces, integrity, positions, saved_trees
from vmoe_inform.runs.lock import RunLock
from vmoe_inform.runs.reading import CheckpointReader
from vmoe_inform.runs.state import TrainState
from vmoe_inform.sharding import processes

_LOOKS, _LOOKS_THAT_FIND_NOTHING, _SECONDS_BETWEEN_LOOKS = 25, 3, 0.2  # for what a failed save leaves


def _shortened(reason: str) -> str:
    """The storage's message in at most one line: its beginning and the system's reason."""
    words = " ".join(reason.split()).partition(" [source locations")[0]
    half = integrity.REASON_LENGTH // 2
    return words if len(words) <= integrity.REASON_LENGTH else f"{words[:half]} ... {words[-half:]}"


class SavingError(OSError):
    """A checkpoint could not be written; those before it are as they were."""


class Checkpoints(CheckpointReader):
    """The checkpoints of a run that is trained; a context manager that waits for unfinished saves at its end."""

    def __init__(
        self,
        workdir: storage.Path,
        *,
        keep: int,
        keep_steps: Sequence[int] = (),
        lock: RunLock | None = None,
    ):
        """Args:
        workdir: of the run.
        keep: newest checkpoints that stay.
        keep_steps: checkpoints that always stay.
        lock: of the run. If another process trains in the folder by now, no checkpoint is completed there, and its
          unfinished ones are left alone.

        Raises:
          ValueError: as of :class:`CheckpointReader`.
        """
        self._keep, self._keep_steps, self._lock = keep, tuple(keep_steps), lock
        self._step_being_saved: int | None = None
        super().__init__(workdir)

    def _make_manager(self) -> ocp.CheckpointManager:
        """Removes unfinished checkpoints of earlier processes first.

        Orbax would remove them in a thread that it does not wait for when a manager is closed. If late, that thread
        removes what the next manager of the folder is writing.
        """
        _traces.silence()
        if processes.is_main():
            self._remove_unfinished()
        return saved_trees.writing_manager(self._folder, self._keep, self._keep_steps, self._before_commit)

    def _remove_unfinished(self) -> bool:
        """Removes checkpoints that were not completed; returns whether there were any."""
        unfinished = saved_trees.unfinished(self._folder)
        for path in unfinished:
            if path.name.isdecimal() and storage.exists(path / integrity.CHECKSUM_FILE):
                why = "all its files are there, but not orbax's mark that it was completed"
                logging.warning("%s: %s; moved to %s", path, why, storage.set_aside(path))
            else:
                storage.remove(path)  # what stays is said by a save of that step
        return bool(unfinished)

    def _close(self, error: BaseException | None) -> None:
        try:
            with self._saving():
                super()._close(error)
        except OSError as problem:  # SavingError or RemovedError
            if error is None:
                raise
            logging.error("%s", problem)  # in addition to the error that ends the run

    # ---------------------------------------------------------------------------------------------------------- saving

    def save(self, state: TrainState, data: grain.DatasetIterator | None) -> None:
        """Saves under ``state.step``, in the background; an existing step is left as it is.

        Args:
          state: of the run.
          data: at its position; None for a run whose data are not known yet. It begins with their first batch.

        Raises:
          SavingError: this checkpoint, or the one before in the background, cannot be written.
          RemovedError: the same, since another process trains in the folder by now.
        """
        step = int(state.step)
        if step != self.latest_step():
            items: dict[str, Any] = {"state": ocp.args.PyTreeSave(saved_trees.as_dict(state))}
            if data is not None:
                items["data"] = grain.checkpoint.CheckpointSave(data)
            with self._saving():
                self._manager.wait_until_finished()  # before the step changes, which that save asks for at its end
                self._step_being_saved = step
                self._manager.save(step, args=ocp.args.Composite(**items))

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
        if self._lock is not None:
            self._lock.check()
        gone = 0
        for _ in range(_LOOKS if processes.is_main() else 0):
            gone = 0 if self._remove_unfinished() else gone + 1
            if gone == _LOOKS_THAT_FIND_NOTHING:
                break
            time.sleep(_SECONDS_BETWEEN_LOOKS)
        with contextlib.suppress(OSError):
            self._manager = self._open()

    def _before_commit(self) -> None:
        """Called by orbax when all files are written, before it makes the folder a checkpoint; an error prevents that.

        The lock is asked last: until the checksums are written, minutes may pass.
        """
        if processes.is_main():
            assert self._step_being_saved is not None
            integrity.write_checksums(saved_trees.being_written(self._folder, self._step_being_saved))
            if self._lock is not None:
                self._lock.confirm()

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
        self._set_aside([newer for newer in self._manager.all_steps() if newer > step])
        return state

    def _set_aside(self, steps: Sequence[int]) -> None:
        """Moves checkpoints out of the way of those that the run is about to write."""
        if steps:
            self._manager.close()
            if processes.is_main():
                for step in steps:  # renamed, to damaged_STEP or damaged_STEP_2; nothing is deleted
                    logging.warning("checkpoint %d was moved to %s", step, storage.set_aside(self._folder / str(step)))
            processes.any_process(False)  # all wait until it is done
            self._manager = self._open()
