"""Reads the checkpoints of a run: which there are, whether they are intact, and what is in them.

Nothing in the folder is touched. :class:`vmoe_inform.runs.checkpoints.Checkpoints` also writes.
"""

import contextlib
import types
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Self, TypeVar

import jax
import numpy as np
import orbax.checkpoint as ocp
from absl import logging

from vmoe_inform import checks, storage
from vmoe_inform.axes import Tree
from vmoe_inform.runs import integrity, saved_trees
from vmoe_inform.runs.integrity import DamagedCheckpointError
from vmoe_inform.runs.state import TrainState
from vmoe_inform.sharding import processes

CHECKPOINT_FOLDER = "checkpoints"

_Restored = TypeVar("_Restored")


class CheckpointReader:
    """The checkpoints of one run, for reading only; a context manager."""

    def __init__(self, workdir: storage.Path):
        """Args:
        workdir: of the run.

        Raises:
          ValueError: a path that orbax would take for something else, or checkpoints that cannot be listed.
        """
        saved_trees.check_path(workdir)
        self._folder = storage.absolute(workdir / CHECKPOINT_FOLDER)
        self._manager = self._open()

    def _open(self) -> ocp.CheckpointManager:
        integrity.check_can_be_listed(self._folder)
        try:
            return self._make_manager()
        except (ValueError, TypeError, AttributeError) as problem:  # of a description that orbax reads at once
            reason = " ".join(str(problem).split())[: integrity.REASON_LENGTH]
            raise checks.error(str(self._folder), "checkpoints that can be listed", reason) from None

    def _make_manager(self) -> ocp.CheckpointManager:
        return saved_trees.reading_manager(self._folder)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: types.TracebackType | None
    ) -> None:
        if isinstance(error, KeyboardInterrupt):
            return  # whoever interrupts does not want to wait
        if error is not None and processes.missing(error) is not None:
            return  # closing would wait for the one that has gone
        self._close(error)

    def _close(self, error: BaseException | None) -> None:
        """Closes the manager after ``error``, if there was one."""
        self._manager.close()

    def latest_step(self) -> int | None:
        """Steps done in the newest checkpoint; None if there is none."""
        return self._manager.latest_step()

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

    def restore_variables(self, expected: dict[str, Tree], *, step: int | None = None) -> tuple[int, dict[str, Tree]]:
        """Step and variables of a checkpoint, without the optimizer and the data position.

        Args:
          expected: shapes, types and shardings of what ``model.apply`` takes.
          step: of the checkpoint; the newest intact one by default.

        Returns:
          steps done, and the variables; with the moving average in place of the parameters if the run keeps one.

        Raises:
          FileNotFoundError: there is no checkpoint, or none of that step.
          ValueError: the checkpoint is of another model; lists the differing paths. Or no intact one is there.
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

    def _newest_intact(self, restore: Callable[[int], _Restored], step: int | None = None) -> tuple[int, _Restored]:
        """Restores ``step``, or the newest checkpoint that is intact; all processes take the same one."""
        self.find_step(step)
        steps = self.steps()[::-1] if step is None else [step]
        first: DamagedCheckpointError | None = None
        for candidate in steps:
            problem = integrity.problem_of(self._folder / str(candidate)) if processes.is_main() else None
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
            first = first or problem or self._damaged(candidate, "damage, as another process says")
        assert first is not None  # find_step: there is at least one
        raise first

    def is_of_its_step(self, step: int) -> bool:
        """Whether the checkpoint of this name is of this step: folders may have been renamed. Nothing else is read."""
        try:
            integrity.check_kinds(self._folder / str(step))
            self._check_step(step)
        except DamagedCheckpointError as damage:
            logging.warning("%s", damage)
            return False
        return True

    def _check_step(self, step: int) -> None:
        wanted = {"step": jax.ShapeDtypeStruct((), np.int32)}
        inside = int(self._restore_part(step, wanted, restore_type=np.ndarray)["step"])
        if inside != step:
            raise self._damaged(step, f"step {inside}, as if its folder had been renamed")

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
            raise self._damaged(step, problem) from None

    def _damaged(self, step: int, problem: Exception | str) -> DamagedCheckpointError:
        return integrity.damaged(self._folder / str(step), problem)
