"""What a run learns and by which number it is known: the seam between a domain and all that trains or evaluates.

The training step, the program, the loop and the predictor know a task and nothing of its domain. A task is one class in
one file, registered by the name that ``config.task`` gives.
"""

import abc
import contextlib
import dataclasses
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Self, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from vmoe_inform import checks, storage
from vmoe_inform.axes import Array, Float, Int, Tree
from vmoe_inform.config import Config
from vmoe_inform.data.skipped import SkippedRecords
from vmoe_inform.registry import Registry
from vmoe_inform.tasks.predictions import Answers, Predictions

if TYPE_CHECKING:
    from vmoe_inform.data.training_batches import TrainingBatches

ConfigT = TypeVar("ConfigT", bound=Config)
SourceT = TypeVar("SourceT")  # of data that a model can be asked about
Batch = Mapping[str, Array]  # arrays [B, ...] by name
HostBatch = dict[str, np.ndarray]
Keys = tuple[Array, Array, Array]  # independent random keys of one training step


@dataclasses.dataclass(frozen=True)
class Headline:
    """The one number that a run is compared by.

    Attributes:
      name: set and metric, such as ``clean/top1``; the log has it as ``evaluation/clean/top1``.
      value: of the metric.
      less_is_better: whether the smaller of two is the better one, as of a perplexity.
    """

    name: str
    value: float
    less_is_better: bool = False


class Task(abc.ABC, Generic[ConfigT, SourceT]):
    """A task of one config. Its methods on arrays are pure and run under ``jit``; the others read data on the host.

    A batch holds the field ``input_field``, which the model's inputs are made of. Batches of evaluation also hold
    ``index`` int32 [B], the number of each record in its source, and ``mask`` bool [B], False for filler.

    Attributes:
      inputs: the ``model.inputs`` that the task goes with.
      input_field: name of the batch's field that the model's inputs are made of.
      facts: names of the batch's fields that evaluation collects for every record.
      headline_name: name of the headline.
      less_is_better: of the headline.
      counted: what the log counts, such as ``images``.
      shown: metrics of a step that the terminal shows.
      carries_memory: whether row r of a batch continues row r of the batch before, in training and in evaluation. What
        the model remembers of a batch is then handed to the next one.
      records: what the records of evaluation are, in the plural.
      config: of the run; of an opened task with all that the data decide.
    """

    inputs: ClassVar[str]
    input_field: ClassVar[str]
    facts: ClassVar[tuple[str, ...]] = ()
    headline_name: str
    less_is_better: ClassVar[bool] = False
    counted: ClassVar[str] = "images"
    shown: tuple[str, ...] = ("loss", "accuracy")
    carries_memory: ClassVar[bool] = False
    records: ClassVar[str] = "images"

    config: ConfigT

    def __init__(self, config: ConfigT):
        """Reads no data.

        Raises:
          ValueError: the model takes other inputs.
        """
        if config.model.inputs != self.inputs:
            raise checks.error("model.inputs", f"{self.inputs!r} with task = {config.task!r}", config.model.inputs)
        self.config = config

    # ------------------------------------------------------------------------------------------------------ on devices

    @abc.abstractmethod
    def batch_shapes(self, batch_size: int) -> dict[str, jax.ShapeDtypeStruct]:
        """Names, shapes and types of a training batch over all processes."""

    @abc.abstractmethod
    def random_batch(self, generator: np.random.Generator, batch_size: int) -> HostBatch:
        """A training batch of noise, for timing."""

    @abc.abstractmethod
    def prepare(self, keys: Keys | None, batch: Batch) -> dict[str, Array]:
        """A batch of the host as model and loss take it.

        Args:
          keys: of the random changes of training; None in evaluation, which changes nothing at random.
          batch: as of :meth:`batch_shapes`, or of :meth:`evaluation_batches`; or its ``input_field`` alone.

        Returns:
          ``inputs``, what the model is called with, and whatever :meth:`loss` looks at, [B, ...] each.
        """

    def mask(self, batch: Batch) -> Array | None:
        """Which sequences are real [B]; None: all. By default the field ``mask`` of a prepared batch."""
        return batch.get("mask")

    def token_mask(self, batch: Batch) -> Array | None:
        """Which tokens are real and no padding [B, N]; None: all. By default the field ``token_mask``, prepared."""
        return batch.get("token_mask")

    def num_examples_of(self, batch: Batch) -> Int[Array, ""] | None:
        """How many examples :meth:`loss` is the mean over, of a training batch that is not prepared; None: all B.

        Parts of a batch count by it where gradients are accumulated. By default the real sequences, see :meth:`mask`.
        """
        mask = self.mask(batch)
        return None if mask is None else jnp.sum(mask)

    def counted_tokens(self, batch: Batch) -> Array | None:
        """Which tokens of a batch of evaluation count in statistics [B, N]; None: all tokens of the real sequences.

        By default all that :meth:`token_mask` says are real.
        """
        return self.token_mask(batch)

    @abc.abstractmethod
    def loss(self, outputs: Any, aux: Mapping[str, Any], batch: Batch) -> tuple[Float[Array, ""], dict[str, Array]]:
        """The objective without the auxiliary losses of routing, and what else the log is to say of a step.

        Args:
          outputs: of the model: logits. They are not computed where nobody looks at them.
          aux: what else the model gives, such as ``head``, of which losses are made where the logits are too many.
          batch: prepared.

        Returns:
          the mean over the batch's examples, see :meth:`num_examples_of`; and scalar metrics by name, means over the
          same examples.
        """

    def metrics_of_step(self, means: dict[str, Array]) -> dict[str, Array]:
        """Metrics of a whole step, of their means over its parts; by default those. Some are no means themselves."""
        return means

    def kept(self, outputs: Any, aux: Mapping[str, Any], batch: Batch) -> Tree:
        """What evaluation keeps of a batch, [B, ...] each: by default the model's outputs, all of them.

        Args:
          outputs: of the model.
          aux: what else the model gives.
          batch: of :meth:`evaluation_batches`, prepared.
        """
        del aux, batch
        return outputs

    def evaluation_shapes(self, batch_size: int) -> dict[str, jax.ShapeDtypeStruct]:
        """Names, shapes and types of what of a batch :meth:`kept` depends on, over all processes."""
        inputs = self.batch_shapes(batch_size)[self.input_field]
        return {self.input_field: inputs, "mask": jax.ShapeDtypeStruct((batch_size,), jnp.bool_)}

    # ----------------------------------------------------------------------------------------------------- on the host

    @abc.abstractmethod
    def opened(self) -> Self:
        """The task with its training data found, and with the config that they complete (names of classes, ...).

        Raises:
          ValueError: data that do not fit the config.
          FileNotFoundError: missing data.
        """

    def keep(self, folder: storage.Path) -> None:
        """Writes into a run's folder what the run needs besides its config; by default nothing. Of an opened task."""

    @property
    @abc.abstractmethod
    def num_records(self) -> int:
        """Training examples of an epoch."""

    @property
    def rate(self) -> str:
        """The metric of the log that says how many of what it counts a second has."""
        return f"{self.counted}_per_second"

    @property
    def counted_per_example(self) -> int:
        """How many of what the log counts a training example holds."""
        return 1

    @abc.abstractmethod
    def num_examples(self, source: SourceT) -> int:
        """Examples of a source, those included that turn out not to be readable."""

    @property
    @abc.abstractmethod
    def training_source(self) -> SourceT:
        """What the run learns from."""

    @property
    @abc.abstractmethod
    def test_source(self) -> SourceT:
        """What the headline is measured on."""

    @abc.abstractmethod
    def training_batches(self, skipped: SkippedRecords, process_index: int, process_count: int) -> "TrainingBatches":
        """Endless batches of a process, decided by the seed, whose position a checkpoint keeps.

        Args:
          skipped: counts unreadable records.
          process_index: number of this process.
          process_count: of all processes, which share the records.
        """

    @abc.abstractmethod
    def evaluation_batches(
        self, source: SourceT, skipped: SkippedRecords, process_index: int, process_count: int
    ) -> Iterator[HostBatch]:
        """Every record of a source once, in batches that end with filler.

        Args:
          source: that the model can be asked about.
          skipped: counts this process's unreadable records.
          process_index: number of this process.
          process_count: of all processes, which share the records; all make the same number of batches.

        Raises:
          ValueError: a source that the model was not trained for, or too many unreadable records.
        """

    def keeps_workers(self) -> contextlib.AbstractContextManager[None]:
        """A context for several calls of :meth:`evaluation_batches`, in which they share what takes long to start.

        By default nothing does. A context within another one does nothing.
        """
        return contextlib.nullcontext()

    @abc.abstractmethod
    def headline(self, kept: Tree, facts: Mapping[str, np.ndarray]) -> Headline:
        """The run's number.

        Args:
          kept: as :meth:`kept` gives it, of all n readable records of :attr:`test_source` in their order.
          facts: :attr:`facts` [n] of the same records.
        """

    def answers(
        self, kept: Tree, facts: Mapping[str, np.ndarray], indices: Int[np.ndarray, " n"], skipped: int
    ) -> Answers:
        """What the model says of a set, as suites take it: by default logits for records with labels.

        Args:
          kept: as for :meth:`headline`, of all n readable records of a set.
          facts: the same.
          indices: as of :class:`~vmoe_inform.tasks.predictions.Answers`.
          skipped: the same.
        """
        return Predictions(kept, facts["label"], indices, skipped)

    def headline_in_words(self, value: float) -> str:
        """The headline and its value as a reader sees them; by default name and number."""
        return f"{self.headline_name} {value:.4g}"


TASKS: Registry[type[Task[Any, Any]]] = Registry("task")


def kinds_of(name: str) -> frozenset[str]:
    """Names of the tasks that this one is a kind of: itself, and the registered ones that its class inherits from."""
    if name not in TASKS:
        return frozenset({name})
    return frozenset(other for other in TASKS if issubclass(TASKS[name], TASKS[other]))


def from_config(config: Config) -> Task[Any, Any]:
    """The task that ``config.task`` names.

    Raises:
      ValueError: an unknown task, or one that does not go with the model.
    """
    if config.task not in TASKS:
        raise checks.unknown("task", f"one of {', '.join(TASKS)}", config.task, TASKS)
    return TASKS[config.task](config)
