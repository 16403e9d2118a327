"""Settings of a run: ConfigDicts as people write them, dataclasses as the rest of the package takes them.

``default()`` gives the ConfigDict that the files in ``configs/`` start from; ``parse`` turns a ConfigDict, or the dict
of a run's ``config.json``, into checked dataclasses.
"""

from vmoe_inform.config.domains import as_images, as_language
from vmoe_inform.config.from_text import parse_argument
from vmoe_inform.config.mesh import check_evaluation_batch, mesh_sizes
from vmoe_inform.config.schema import (
    JsonValue,
    default,
    override,
    parse,
    parse_model,
    parse_recorded,
    to_json,
    with_class_names,
    with_recorded,
    with_vocabulary,
)
from vmoe_inform.config.settings import (
    AttackConfig,
    CheckpointConfig,
    Config,
    DataConfig,
    EvaluationConfig,
    ImageConfig,
    ImageDataConfig,
    ImageEvaluationConfig,
    LanguageConfig,
    LanguageModelConfig,
    MeshConfig,
    ModelConfig,
    MoeConfig,
    OptimizerConfig,
    RouterConfig,
    TextDataConfig,
    TextEvaluationConfig,
    TrainConfig,
    VisionModelConfig,
    options_of,
    resolve_layers,
)
from vmoe_inform.config.validate import check_duration, check_warmup

__all__ = [
    "AttackConfig",
    "CheckpointConfig",
    "Config",
    "DataConfig",
    "EvaluationConfig",
    "ImageConfig",
    "ImageDataConfig",
    "ImageEvaluationConfig",
    "JsonValue",
    "LanguageConfig",
    "LanguageModelConfig",
    "MeshConfig",
    "ModelConfig",
    "MoeConfig",
    "OptimizerConfig",
    "RouterConfig",
    "TextDataConfig",
    "TextEvaluationConfig",
    "TrainConfig",
    "VisionModelConfig",
    "as_images",
    "as_language",
    "check_duration",
    "check_evaluation_batch",
    "check_warmup",
    "default",
    "mesh_sizes",
    "options_of",
    "override",
    "parse",
    "parse_argument",
    "parse_model",
    "parse_recorded",
    "resolve_layers",
    "to_json",
    "with_class_names",
    "with_recorded",
    "with_vocabulary",
]
