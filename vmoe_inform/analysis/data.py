"""The records that an analysis shows to routers: the seam between it and what they are, images or text."""

import abc
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Generic, Self, TypeVar

from vmoe_inform import checks
from vmoe_inform.analysis.collect.choices import Choices
from vmoe_inform.analysis.collect.observing import Observer
from vmoe_inform.analysis.results import Analysis, Corruptions, SwappedWords
from vmoe_inform.config import Config
from vmoe_inform.registry import Registry
from vmoe_inform.runs.run import Run
from vmoe_inform.tasks.task import kinds_of

ViewsT = TypeVar("ViewsT")  # what a page shows of single records


class AnalysedData(abc.ABC, Generic[ViewsT]):
    """Records of a run's test set. One class a kind of inputs; nothing else in an analysis knows what they are.

    Attributes:
      unit: what a record is, in the plural.
      compared_fields: fields of the config in which two runs have to agree to be shown the same records.
      suite: which records these are, as ``--suite`` names them.
      class_names: of the labels; empty where there are none.
    """

    unit: str
    compared_fields: ClassVar[Sequence[str]]
    suite: str
    class_names: tuple[str, ...]

    @classmethod
    @abc.abstractmethod
    def of_run(cls, config: Config, suite: str, number: int | None) -> Self:
        """The records that a command line selects.

        Args:
          config: of the run, as it holds on this machine.
          suite: what ``--suite`` says.
          number: at most this many; None: all.

        Raises:
          ValueError, FileNotFoundError: no such suite, or data that are missing or damaged.
        """

    @abc.abstractmethod
    def source(self) -> Any:
        """The records, as the run's task takes them.

        Raises:
          ValueError: records that are unavailable; all that will be needed are asked for before any work.
        """

    def corruptions(self, observer: Observer, say: Callable[[str], None]) -> Corruptions | None:
        """What corruptions of the records do, if that was asked for; by default nothing.

        Args:
          observer: of the checkpoint.
          say: called with a line for each corruption.
        """
        del observer, say
        return None

    def swapped_words(self, observer: Observer, say: Callable[[str], None]) -> SwappedWords | None:
        """What swapped words do, if that was asked for; by default nothing. Args as of :meth:`corruptions`."""
        del observer, say
        return None

    @abc.abstractmethod
    def views(self, runs: Sequence[Run], choices: Choices, found: Analysis) -> ViewsT:
        """What the page shows: some of the records, with the routing of each run.

        Args:
          runs: the first is the one that the page is about.
          choices: of the first, for the records of :meth:`source` that could be read.
          found: the analysis of all.
        """


ANALYSED: Registry[type[AnalysedData[Any]]] = Registry("kind of analysed records")  # by the name of their task


def kind_of(task: str) -> type[AnalysedData[Any]]:
    """The records that an analysis shows to a run of this task, or of one that the task is a kind of.

    Raises:
      ValueError: there are none.
    """
    kinds = [task] if task in ANALYSED else [name for name in ANALYSED if name in kinds_of(task)]
    if not kinds:
        raise checks.error("task", f"one whose records can be analysed: {', '.join(ANALYSED)}", task)
    return ANALYSED[kinds[0]]
