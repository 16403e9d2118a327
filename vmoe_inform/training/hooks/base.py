"""The protocol of hooks, and the training that they look at."""

import dataclasses

from vmoe_inform.data.training_batches import TrainingBatches
from vmoe_inform.runs.state import TrainState
from vmoe_inform.training.in_flight import FinishedStep


@dataclasses.dataclass
class Training:
    """The progress of a run. The loop advances it; hooks read it, and may set ``stopping``.

    Attributes:
      state: after ``step`` steps; the devices may still be computing it.
      data: iterator of the batches, positioned after batch ``step``.
      step: optimizer steps started, counted from the beginning of the run.
      last_step: the step at which this call of the loop ends.
      total_steps: steps of the whole run.
      stopping: the loop ends before the next step; the same in all processes.
      headline: the task's number after step ``total_steps``; None until it is measured.
    """

    state: TrainState
    data: TrainingBatches
    step: int
    last_step: int
    total_steps: int
    stopping: bool = False
    headline: float | None = None


class Hook:
    """An action of a run between its steps. Methods that a hook does not override do nothing.

    The loop calls hooks in the order of their list. It calls them in every process at the same steps. So a hook may
    communicate between processes, if each of its decisions is the same in all of them.

    Attributes:
      counts_as_step_time: whether the time of :meth:`act` belongs to the next step in ``step_seconds``.
    """

    counts_as_step_time = False

    def begin(self, training: Training) -> None:
        """Before the first step of this process, which is compiled."""

    def step_started(self, training: Training) -> None:
        """Step ``training.step`` was handed to the devices. Must not wait for them."""

    def step_finished(self, done: FinishedStep) -> None:
        """The devices have finished a step. Called once for each step, in order, possibly some steps later."""

    def is_due(self, step: int) -> bool:
        """Whether :meth:`act` is to be called after this step, 0 < ``step`` < ``total_steps``.

        The answer depends on the step and the config only, so that it is the same in all processes.
        """
        return False

    def act(self, training: Training) -> None:
        """Called after each step for which the hook is due, with all steps finished.

        Also called before :meth:`begin` for the step that a run resumes from, since the process before may have stopped
        in between. A hook recognises what is done already.
        """

    def end(self, training: Training) -> None:
        """After the last step of this process, with all steps finished."""
