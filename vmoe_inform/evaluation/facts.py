"""What results say of the model and of the clean test records."""

from collections.abc import Callable, Mapping
from typing import Any

from vmoe_inform.config import Config, ImageConfig, LanguageConfig
from vmoe_inform.data.images import label_sets
from vmoe_inform.data.sources import Source
from vmoe_inform.evaluation import earlier
from vmoe_inform.evaluation.results import CleanData, ModelFacts, RouterFacts
from vmoe_inform.evaluation.suites.base import Records


def of_model(config: Config, parameters: int) -> ModelFacts:
    """Facts of the model of a run, which has this number of parameters."""
    model = config.model
    return ModelFacts(
        parameters=parameters,
        router=RouterFacts(model.router.score, tuple(model.router.inform_steps)),
        experts=model.moe.num_experts,
        experts_per_token=model.moe.num_selected_experts,
        num_layers=model.num_layers,
        hidden_size=model.hidden_size,
        moe_layers=tuple(model.moe_layers),
        **_OF_DOMAIN[model.inputs](config),
    )


def of_data(config: Config, source: Records) -> CleanData:
    """Facts of the clean test records."""
    data = earlier.data_of_split(source, config.data)
    return CleanData(
        source=config.data.source,
        classes_are_imagenet=isinstance(source, Source) and label_sets.is_imagenet(source.class_names),
        place=data.place,
        fingerprint=data.fingerprint,
    )


def _of_images(config: ImageConfig) -> dict[str, Any]:
    model = config.model
    return {
        "num_classes": model.num_classes,
        "image_size_px": model.image_size_px,
        "patch_size_px": model.patch_size_px,
    }


def _of_text(config: LanguageConfig) -> dict[str, Any]:
    model = config.model
    return {
        "inputs": model.inputs,
        "num_classes": model.num_classes,
        "vocabulary_size": model.vocabulary_size,
        "num_tokens": model.num_tokens,
        "block": model.block,
        "attention_style": model.attention_style,
        "attention_span": model.attention_span,
        "allow_future": model.allow_future or None,
    }


# By ``model.inputs``.
_OF_DOMAIN: Mapping[str, Callable[[Any], dict[str, Any]]] = {"images": _of_images, "tokens": _of_text}
