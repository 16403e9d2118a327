"""Settings of the data that all kinds of them share."""

import dataclasses
from typing import Annotated

from vmoe_inform import checks
from vmoe_inform.checks import Bound, Name, RunPath, Share, ShareBelowOne
from vmoe_inform.config.identity import Effect
from vmoe_inform.config.settings.bounds import Threads


@dataclasses.dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Where records come from and how they are read.

    Attributes:
      source: registered name of what they come from.
      directory: where the data lie, for sources that are not embedded; a folder, or ``gs://BUCKET/NAME``.
      tfds_name: TFDS builder, e.g. ``imagenet2012`` (tfds).
      train_split: name of the training split, as the source calls it.
      test_split: name of the test split.
      validation_share: share of the training split that is held out of training, and evaluated in place of the test
        split; 0: none.
      class_names: names of the classes, in the order of the labels; empty: those of the training split, in its order.
        A run records them, and matches classes by name.
      num_workers: processes that read, decode and augment; 0: threads of this process do.
      num_threads: threads of each such process; 0 is best for data in memory.
      prefetch_batches: batches kept ready.
      max_skipped_share: share of records that may be unreadable before the run stops.
    """

    source: Name
    directory: Annotated[RunPath, Effect.MACHINE] = ""
    tfds_name: Name = ""
    train_split: Name = "train"
    test_split: Annotated[Name, Effect.RESULTS] = "test"
    validation_share: ShareBelowOne = 0.0
    class_names: Annotated[tuple[Annotated[str, checks.Text(1000)], ...], Effect.CLASSES] = ()
    num_workers: Annotated[Threads, Effect.MACHINE] = 0
    num_threads: Annotated[Threads, Effect.MACHINE] = 4
    prefetch_batches: Annotated[int, Bound(at_least=1, at_most=1024), Effect.MACHINE] = 4
    max_skipped_share: Annotated[Share, Effect.MACHINE] = 0.01

    @property
    def folders(self) -> tuple[str, ...]:
        """Where this machine looks for records."""
        return (self.directory,)
