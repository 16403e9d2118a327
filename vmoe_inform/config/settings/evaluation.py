"""Settings of evaluation: suites, metrics and attacks."""

import dataclasses
from typing import Annotated

from vmoe_inform.checks import Bound, Name, Path, PositiveInt, Seed
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


@dataclasses.dataclass(frozen=True)
class EvaluationConfig:
    """Settings of evaluation.

    Attributes:
      every_steps: training steps between measurements of clean accuracy; None: only after the last step.
      suites_every_steps: pairs of a suite and its cadence in training steps; its metrics are logged as
        ``evaluation/SUITE/METRIC``, also after the last step.
      suites: default of ``python -m vmoe_inform.evaluate --suites=``.
      ece_bins: equal-width bins of the expected calibration error.
      cache_directory: where generated suites are kept; empty for ``$XDG_CACHE_HOME/vmoe_inform``.
      corruption_seed: seed of the generated corruptions.
      generate_corruptions: draw the corruptions of a large test set while they are evaluated, where the published
        files are missing.
      shots: training images of each class that the suite fewshot learns from; each number is tried.
      attack: of the suites fgsm and pgd.
    """

    every_steps: Annotated[PositiveInt | None, Effect.MACHINE] = None
    batch_size: Annotated[Batch, Effect.MACHINE] = 256
    suites_every_steps: Annotated[tuple[tuple[Name, PositiveInt], ...], Effect.MACHINE] = ()
    suites: Annotated[tuple[Name, ...], Effect.MACHINE] = ("clean", "c", "r", "a", "o")
    ece_bins: Annotated[int, Bound(at_least=1, at_most=100_000)] = 15
    cache_directory: Annotated[Path, Effect.MACHINE] = ""
    corruption_seed: Seed = 0
    generate_corruptions: Annotated[bool, Effect.MACHINE] = False
    shots: tuple[PositiveInt, ...] = (1, 5, 10)
    attack: AttackConfig = AttackConfig()
