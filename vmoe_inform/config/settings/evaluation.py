"""Settings of evaluation: suites, metrics and attacks."""

import dataclasses
from typing import Annotated

from vmoe_inform.checks import Bound, Name, PositiveInt, RunPath, Seed, Share
from vmoe_inform.config.identity import Effect
from vmoe_inform.config.settings.bounds import Batch


@dataclasses.dataclass(frozen=True)
class AttackConfig:
    """Adversarial images of the suites fgsm and pgd (arXiv 1412.6572 and 1706.06083), bounded in the largest change.

    Attributes:
      epsilon: largest change of a pixel, in 1/255 of the pixel range.
      num_steps: of PGD.
      step_size: of a step of PGD, in the unit of epsilon.
      seed: of PGD's random start.
      images: number of test images to attack, evenly over the split; None: all.
    """

    epsilon: Annotated[float, Bound(above=0.0, at_most=255.0)] = 1.0
    num_steps: Annotated[int, Bound(at_least=1, at_most=100_000)] = 10
    step_size: Annotated[float, Bound(above=0.0, at_most=255.0)] = 0.25
    seed: Seed = 0
    images: PositiveInt | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvaluationConfig:
    """Settings of evaluation that all tasks share.

    Attributes:
      every_steps: training steps between measurements of the headline; None: only after the last step.
      batch_size: sequences (images, rows of text) of a batch over all devices.
      suites_every_steps: pairs of a suite and its cadence in training steps; its metrics are logged as
        ``evaluation/SUITE/METRIC``, also after the last step.
      suites: default of ``python -m vmoe_inform.evaluate --suites=``.
      ece_bins: equal-width bins of the expected calibration error.
      cache_directory: where generated suites are kept; empty for ``$XDG_CACHE_HOME/vmoe_inform``.
    """

    every_steps: Annotated[PositiveInt | None, Effect.MACHINE] = None
    batch_size: Annotated[Batch, Effect.MACHINE] = 256
    suites_every_steps: Annotated[tuple[tuple[Name, PositiveInt], ...], Effect.MACHINE] = ()
    suites: Annotated[tuple[Name, ...], Effect.MACHINE] = ()
    ece_bins: Annotated[int, Bound(at_least=1, at_most=100_000)] = 15
    cache_directory: Annotated[RunPath, Effect.MACHINE] = ""


@dataclasses.dataclass(frozen=True, kw_only=True)
class ImageEvaluationConfig(EvaluationConfig):
    """Settings of the evaluation of images.

    Attributes:
      corruption_seed: seed of the generated corruptions.
      corrupted_images: number of test images that the generated corruptions are drawn of, evenly over the split; None:
        all.
      generate_corruptions: draw the corruptions of a large test set while they are evaluated, where the published
        files are missing.
      shots: training images of each class that the suite fewshot learns from; each number is tried.
      attack: of the suites fgsm and pgd.
    """

    suites: Annotated[tuple[Name, ...], Effect.MACHINE] = ("clean", "c", "r", "a", "o")
    corruption_seed: Seed = 0
    corrupted_images: PositiveInt | None = None
    generate_corruptions: Annotated[bool, Effect.MACHINE] = False
    shots: tuple[PositiveInt, ...] = (1, 5, 10)
    attack: AttackConfig = AttackConfig()


@dataclasses.dataclass(frozen=True, kw_only=True)
class TextEvaluationConfig(EvaluationConfig):
    """Settings of the evaluation of text.

    Attributes:
      batch_size: rows of a batch. A split is read as this number of contiguous streams side by side, and each begins
        without context: perplexity depends on it.
      swap_shares: shares of the words of a line that the suite word_swap replaces.
      swap_seed: decides which.
    """

    batch_size: Annotated[Batch, Effect.RESULTS] = 16
    suites: Annotated[tuple[Name, ...], Effect.MACHINE] = ("perplexity", "word_swap")
    swap_shares: tuple[Share, ...] = (0.015, 0.05, 0.10)
    swap_seed: Seed = 0
