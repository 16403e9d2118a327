"""The protocol of metric writers, and their registry."""

import abc
import dataclasses
import importlib.util
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from vmoe_inform import checks, storage
from vmoe_inform.registry import Registry

_MOST_BYTES = 1000  # of a recorded line


@dataclasses.dataclass(frozen=True)
class Opening:
    """What a writer is opened for.

    Attributes:
      workdir: folder of the run.
      start_step: optimizer steps done when this process begins; later steps that an earlier process wrote are repeated.
      config: resolved config of the run, as JSON values.
      evaluates_again: whether evaluations of ``start_step`` are repeated, with settings that change their results.
    """

    workdir: storage.Path
    start_step: int = 0
    config: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    evaluates_again: bool = False

    def recorded(self, file: str) -> str | None:
        """What :meth:`record` wrote into a file of the run's folder; None if there is none."""
        path = self.workdir / file
        if not storage.exists(path):
            return None
        return storage.read_bytes(path, most_bytes=_MOST_BYTES, within=self.workdir).decode().strip()

    def record(self, file: str, text: str) -> None:
        """Keeps a line, such as the id of a run at a tracking server, for the run that resumes."""
        storage.write_text(self.workdir / file, f"{text}\n", within=self.workdir)


class Writer(abc.ABC):
    """Writes the metrics of a run somewhere. The main process alone opens one.

    Writing must not wait for a network or a full disk: training would wait with it.

    Attributes:
      packages: import names of packages that the writer needs beyond those of vmoe_inform.
      extra: the extra of vmoe_inform that installs them.
      when_failing: what happens to metrics that cannot be written now.
    """

    packages: ClassVar[tuple[str, ...]] = ()
    extra: ClassVar[str] = ""
    when_failing: ClassVar[str] = "metrics are lost until it works"

    @abc.abstractmethod
    def __init__(self, opening: Opening):
        """Raises ValueError or OSError if nothing can be written at all."""

    @abc.abstractmethod
    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        """Writes metrics by name after optimizer step ``step``.

        Raises:
          Exception: they cannot be written now. It is logged once, and training continues.
        """

    def flush(self) -> None:
        """Waits until what was written outlasts this process. Raises as :meth:`write`."""
        return

    @abc.abstractmethod
    def close(self) -> None:
        """Writes what is left. Raises OSError if metrics are lost that the run itself needs."""


WRITERS: Registry[type[Writer]] = Registry("writer")
REQUIRED = "jsonl"  # a run that resumes reads it


def _is_installed(package: str) -> bool:
    """A folder of that name, such as the ``wandb`` that W&B writes, is no package."""
    found = importlib.util.find_spec(package)
    return found is not None and found.origin is not None


def check(names: Sequence[str]) -> None:
    """Checks ``train.writers``, before anything is compiled.

    Raises:
      ValueError: an unknown writer, one that is named twice or missing, or a package that is not installed.
    """
    field = "train.writers"
    for name in names:
        if name not in WRITERS:
            raise checks.unknown(field, f"one of {', '.join(WRITERS)}", name, WRITERS)
    if len(set(names)) != len(names):
        raise checks.error(field, "each writer once", names)
    if REQUIRED not in names:
        raise checks.error(field, f"{REQUIRED!r} among them, which a run that resumes reads", names)
    for name in names:
        writer = WRITERS[name]
        missing = [package for package in writer.packages if not _is_installed(package)]
        if missing:
            install = f"pip install 'vmoe-inform[{writer.extra}]'" if writer.extra else f"pip install {missing[0]}"
            raise checks.error(field, f"the package {missing[0]} for {name!r} ({install})", "no such package")
