"""Classes of image files, batch by batch."""

import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping, Sequence

import jax
import numpy as np
from scipy.special import softmax

from vmoe_inform import checks, tasks
from vmoe_inform import config as config_lib
from vmoe_inform.axes import Array, Float, Int
from vmoe_inform.config import Config, sizes
from vmoe_inform.data.skipped import SkippedRecords, Unreadable
from vmoe_inform.data.sources import Source
from vmoe_inform.evaluation.predict import Predictor
from vmoe_inform.prediction.files import ImageFiles
from vmoe_inform.runs.run import Run
from vmoe_inform.tasks.task import kinds_of

_TASK = "classification"


@dataclasses.dataclass(frozen=True)
class Prediction:
    """What a model says of a file.

    Attributes:
      position: of the file among all.
      name: of the file, as it was named.
      logits: of the classes; None of a file that could not be read.
      experts: by MoE layer, experts of every token, the first choice first; empty unless they were asked for.
      problem: why the file could not be read.
    """

    position: int
    name: str
    logits: Float[np.ndarray, " classes"] | None = None
    experts: Mapping[str, Int[np.ndarray, "N K"]] = dataclasses.field(default_factory=dict)
    problem: str = ""


def likeliest(logits: Float[np.ndarray, " classes"], number: int) -> list[tuple[int, float]]:
    """Labels and probabilities (softmax) of the likeliest classes, the likeliest first.

    Args:
      logits: of one image.
      number: of classes, at most all.
    """
    probabilities = softmax(np.asarray(logits, np.float64))
    order = np.argsort(-probabilities, kind="stable")[:number]
    return [(int(label), float(probabilities[label])) for label in order]


def class_names_of(config: Config) -> tuple[str, ...]:
    """Names of the classes of a run on images in the order of its logits; numbers for runs of older versions.

    Raises:
      ValueError: a run that says no classes of images.
    """
    if _TASK not in kinds_of(config.task):
        raise checks.error("workdir", f"a run on images, with task {_TASK!r}", config.task)
    images = config_lib.as_images(config)
    return images.data.class_names or tuple(map(str, range(images.model.num_classes)))


def predict(run: Run, files: ImageFiles, *, experts: bool = False) -> Iterator[Prediction]:
    """What a run says of files, in their order; those of one batch are in memory at a time.

    Images are prepared as evaluation prepares the test images. They depend on each other where those of a group share
    the experts' slots (``model.moe.group_size_sequences``).

    Args:
      run: on images.
      files: from :func:`vmoe_inform.prediction.find_files`.
      experts: whether the experts of all tokens are wanted.

    Raises:
      ValueError: a run that says no classes of images, or logits that are not finite. Or batches that the devices
        cannot share out (``evaluation.batch_size``), or that this machine cannot hold.
    """
    source, skipped = Source(files, class_names_of(run.config)), _Unreadable()
    predictor = Predictor(run.model, tasks.from_config(_with_small_batches(run, len(files))), run.mesh)
    for (logits, chosen), batch in predictor.each_answer(run.variables, source, skipped=skipped, experts=experts):
        found = [*skipped.taken(files), *readable(files, logits, chosen, batch)]
        yield from sorted(found, key=lambda prediction: prediction.position)


def _with_small_batches(run: Run, num_files: int) -> Config:
    """The run's config, with a batch that is not much larger than the number of files."""
    unit = run.mesh.size * run.config.model.moe.group_size_sequences
    batch_size = min(run.config.evaluation.batch_size, unit * math.ceil(num_files / unit))
    evaluation = dataclasses.replace(run.config.evaluation, batch_size=batch_size)
    config = dataclasses.replace(run.config, evaluation=evaluation)
    config_lib.check_evaluation_batch(config, run.mesh.size)
    sizes.check_memory(config, run.mesh.size, jax.local_device_count(), train=False)
    return config


def readable(
    files: ImageFiles, logits: Array, chosen: Mapping[str, Array], batch: Mapping[str, np.ndarray]
) -> Iterator[Prediction]:
    """What a model says of a batch.

    Args:
      files: all of them.
      logits: [B, classes].
      chosen: by MoE layer, experts of every token [B, N, K].
      batch: ``mask`` [B], False where the batch is only filled up, and ``index`` [B], the number of the file.

    Raises:
      ValueError: logits that are not finite.
    """
    values, experts = np.asarray(logits), {block: np.asarray(of_layer) for block, of_layer in chosen.items()}
    for row in np.flatnonzero(batch["mask"]):
        position = int(batch["index"][row])
        name = files.name(position)
        if not np.isfinite(values[row]).all():
            raise checks.error("logits", "finite numbers", f"NaN or infinity for {name!r}")
        yield Prediction(position, name, values[row], {block: of_layer[row] for block, of_layer in experts.items()})


class _Unreadable(SkippedRecords):
    """Keeps what could not be read, however much that is: whoever asks about files is told of each one."""

    def __init__(self) -> None:
        super().__init__(max_share=1.0)
        self._found: list[Unreadable] = []

    def add(self, readable: int, unreadable: Sequence[Unreadable]) -> None:
        self.readable(readable)
        self._found += unreadable

    def finish(self, total: Callable[[int], int] = int) -> None:
        """All may be unreadable."""

    def taken(self, files: ImageFiles) -> Iterator[Prediction]:
        """Those that were found since the last call."""
        found, self._found = self._found, []
        for one in found:
            yield Prediction(files.positions[one.name], one.name, problem=one.problem)
