"""Every setting of a run, as frozen dataclasses: each field is the one home of a setting and of its default.

A field's suffix is its unit: ``_px`` pixels, ``_steps`` optimizer steps. Its type states its
:class:`~vmoe_inform.config.identity.Effect`; a field whose type states none has that of its group. Checks across fields
are in validate.py.
"""

import dataclasses
from collections.abc import Mapping
from typing import Annotated

from vmoe_inform.checks import Name, PositiveInt, Seed, Text
from vmoe_inform.config.identity import Effect
from vmoe_inform.config.settings.bounds import Batch, Devices, Pixels
from vmoe_inform.config.settings.data import DataConfig
from vmoe_inform.config.settings.evaluation import (
    AttackConfig,
    EvaluationConfig,
    ImageEvaluationConfig,
    TextEvaluationConfig,
)
from vmoe_inform.config.settings.image_data import ImageDataConfig
from vmoe_inform.config.settings.language import LanguageModelConfig
from vmoe_inform.config.settings.model import (
    ModelConfig,
    MoeConfig,
    RouterConfig,
    options_of,
    resolve_layers,
)
from vmoe_inform.config.settings.text_data import TextDataConfig
from vmoe_inform.config.settings.train import CheckpointConfig, OptimizerConfig, TrainConfig
from vmoe_inform.config.settings.vision import VisionModelConfig

__all__ = [
    "CONFIGS",
    "AttackConfig",
    "Batch",
    "CheckpointConfig",
    "Config",
    "DataConfig",
    "Devices",
    "EvaluationConfig",
    "ImageConfig",
    "ImageDataConfig",
    "ImageEvaluationConfig",
    "LanguageConfig",
    "LanguageModelConfig",
    "MeshConfig",
    "ModelConfig",
    "MoeConfig",
    "OptimizerConfig",
    "Pixels",
    "RouterConfig",
    "TextDataConfig",
    "TextEvaluationConfig",
    "TrainConfig",
    "VisionModelConfig",
    "options_of",
    "resolve_layers",
]


@dataclasses.dataclass(frozen=True)
class MeshConfig:
    """Devices along each axis; :func:`vmoe_inform.config.mesh_sizes` chooses those that are None.

    The batch is sharded over all axes.

    Attributes:
      replica: over which only the batch is; None: all devices that the others leave.
      fsdp: over which parameters and the optimizer's state are too.
      expert: over which the experts are; None: as many as divide both the experts and the devices of a slice that
        ``replica`` and ``fsdp`` leave.
    """

    replica: Devices | None = None
    fsdp: Devices = 1
    expert: Devices | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    """A run: what the runs of all domains share. A run itself is of one of the domains in ``CONFIGS``.

    Attributes:
      seed: decides the parameters, the data order and all noise.
      plugins: modules outside this package that register routers, suites, metrics, data sources or tasks. A parsed
        config has all that did so before it, see :mod:`vmoe_inform.plugins`.
      task: registered name of what is learned.
      profile: steps to profile after each (re)start, into DIR/profile; None disables profiling.
    """

    seed: Annotated[Seed, Effect.TRAINING] = 0
    plugins: Annotated[tuple[Annotated[str, Text(1000)], ...], Effect.MACHINE] = ()
    task: Annotated[Name, Effect.TRAINING]
    profile: Annotated[PositiveInt | None, Effect.MACHINE] = None
    model: Annotated[ModelConfig, Effect.TRAINING]
    data: Annotated[DataConfig, Effect.TRAINING]
    train: Annotated[TrainConfig, Effect.TRAINING] = dataclasses.field(default_factory=TrainConfig)
    optimizer: Annotated[OptimizerConfig, Effect.TRAINING] = dataclasses.field(default_factory=OptimizerConfig)
    checkpoint: Annotated[CheckpointConfig, Effect.MACHINE] = dataclasses.field(default_factory=CheckpointConfig)
    evaluation: Annotated[EvaluationConfig, Effect.RESULTS]
    mesh: Annotated[MeshConfig, Effect.MACHINE] = dataclasses.field(default_factory=MeshConfig)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ImageConfig(Config):
    """A run on images."""

    task: Annotated[Name, Effect.TRAINING] = "classification"
    model: Annotated[VisionModelConfig, Effect.TRAINING] = dataclasses.field(default_factory=VisionModelConfig)
    data: Annotated[ImageDataConfig, Effect.TRAINING] = dataclasses.field(default_factory=ImageDataConfig)
    evaluation: Annotated[ImageEvaluationConfig, Effect.RESULTS] = dataclasses.field(
        default_factory=ImageEvaluationConfig
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class LanguageConfig(Config):
    """A run on text."""

    task: Annotated[Name, Effect.TRAINING] = "language_modeling"
    model: Annotated[LanguageModelConfig, Effect.TRAINING] = dataclasses.field(default_factory=LanguageModelConfig)
    data: Annotated[TextDataConfig, Effect.TRAINING] = dataclasses.field(default_factory=TextDataConfig)
    evaluation: Annotated[TextEvaluationConfig, Effect.RESULTS] = dataclasses.field(
        default_factory=TextEvaluationConfig
    )


# By ``model.inputs``, which decides about the fields of ``model``, ``data`` and ``evaluation``.
CONFIGS: Mapping[str, type[Config]] = {"images": ImageConfig, "tokens": LanguageConfig}
