"""The files that an evaluation of a checkpoint keeps in its run's folder."""

import dataclasses
import shlex
from collections.abc import Collection, Sequence
from typing import Any

from absl import logging

from vmoe_inform import storage
from vmoe_inform.evaluation import earlier, stored
from vmoe_inform.evaluation.results import Results
from vmoe_inform.runs.checkpoint_path import CheckpointPath
from vmoe_inform.runs.run import SavedRun
from vmoe_inform.sharding import processes
from vmoe_inform.storage import locks

_REROUTED = "rerouted"  # folder of the evaluations with other routers


@dataclasses.dataclass(frozen=True)
class EvaluationFiles:
    """The evaluation of one checkpoint on the disk. One that was asked for by its step has files of its own.

    Attributes:
      path: of the checkpoint.
      router: hash of the config with the routers that it was evaluated with; empty for those that it was trained with.
    """

    path: CheckpointPath
    router: str = ""

    @classmethod
    def of(cls, saved: SavedRun) -> "EvaluationFiles":
        """Of a run as it was trained, or with other routers."""
        return cls(saved.path, "" if saved.trained is None else saved.config_hash)

    @property
    def folder(self) -> storage.Path:
        """Of all evaluations of the run with these routers."""
        folder = self.path.folder / "evaluation"
        return folder / _REROUTED / self.router if self.router else folder

    def rerouted(self) -> "list[EvaluationFiles]":
        """Those of the same checkpoint with other routers that were evaluated."""
        folder = EvaluationFiles(self.path).folder / _REROUTED
        found = storage.matching(folder, f"*/{self.comparison.name}", within=self.path.folder)
        return [EvaluationFiles(self.path, path.parent.name) for path in found]

    @property
    def results(self) -> storage.Path:
        """All results."""
        return self.folder / f"results{self._suffix}.json"

    @property
    def comparison(self) -> storage.Path:
        """These routers compared with those that the run was trained with."""
        return self.folder / f"comparison{self._suffix}.json"

    @property
    def examples(self) -> storage.Path:
        """Clean images with the experts of their patches."""
        return self.folder / f"examples{self._suffix}.npz"

    @property
    def report(self) -> storage.Path:
        """The page about this checkpoint."""
        return self.folder / f"report{self._suffix}.html"

    def units(self, step: int) -> storage.Path:
        """Folder of the scores that are kept set by set, of the checkpoint of this step."""
        return self.folder / "units" / f"step_{step}"

    @property
    def _suffix(self) -> str:
        return "" if self.path.step is None else f"_step_{self.path.step}"

    def read_results(self) -> Results:
        """The results of an evaluated checkpoint.

        Raises:
          FileNotFoundError: it was not evaluated.
          DamagedFileError: they are not what was written.
        """
        command = f"python -m vmoe_inform.evaluate --workdir={shlex.quote(str(self.path))}"
        try:
            return stored.read_results(self.results, within=self.path.folder)
        except FileNotFoundError:
            expected = f"the results of an evaluated run ({command})"
            raise FileNotFoundError(f"{self.results}: expected {expected}; received no file") from None
        except storage.DamagedFileError as problem:
            raise problem.with_remedy(f"evaluate it again: {command}") from None

    def read_examples(self) -> list[dict[str, Any]]:
        """The examples, one dictionary an image, as the report takes them; empty if there are none."""
        try:
            return stored.read_examples(self.examples, within=self.path.folder)
        except FileNotFoundError:
            return []
        except storage.DamagedFileError as problem:
            logging.warning("no examples: %s", problem)
            return []

    def examples_are_damaged(self) -> bool:
        """Whether the examples have to be made again; with a warning. Where there are none, nothing is damaged."""
        try:
            stored.read_examples(self.examples, within=self.path.folder)
        except FileNotFoundError:
            return False
        except storage.DamagedFileError as problem:
            logging.warning("%s; made again", problem)
            return True
        return False

    def read_finished(self, step: int, config_hashes: Collection[str]) -> Results | None:
        """Results of an earlier call, if they are of this step and config; else none. Damaged ones are put aside."""
        try:
            results = stored.read_results(self.results, within=self.path.folder)
        except FileNotFoundError:
            return None
        except storage.DamagedFileError as problem:
            if processes.is_main():
                logging.warning("%s; moved to %s and evaluated again", problem, storage.set_aside(self.results))
            return None
        is_of_this = results.checkpoint_step == step and results.config_hash in config_hashes
        return results if is_of_this else None

    def write_examples(self, examples: dict[str, Any]) -> None:
        """Writes the examples; of several processes, the main one does."""
        if processes.is_main():
            storage.write_arrays(self.examples, examples, within=self.path.folder, compressed=True)

    def write_results(self, results: Results, changed: Sequence[str]) -> Results:
        """Writes the results, of the suites only those that changed: another evaluation may be at work on others.

        Args:
          results: of this evaluation.
          changed: suites whose results it has made or taken up.

        Returns:
          the results with what others have written since.
        """
        if not processes.is_main():
            return results
        with locks.held(self.results, within=self.path.folder):
            written = self.read_finished(results.checkpoint_step, {results.config_hash})
            merged = results if written is None else earlier.merge(written, results, changed)
            stored.write_results(self.results, merged, within=self.path.folder)
        return merged
