"""Six of ImageNet's classes with all its suites, for tests that evaluate: two images a class and set."""

import dataclasses
import pathlib

import numpy as np

from tests import imagenet_tiny
from vmoe_inform.config import (
    Config,
    ImageConfig,
    ImageDataConfig,
    ImageEvaluationConfig,
    VisionModelConfig,
)
from vmoe_inform.data.sources import Source
from vmoe_inform.evaluation.results import SuiteResult
from vmoe_inform.evaluation.suites.base import Predictions, Suite

CLASSES = (
    "n01440764",  # 0: in no subset
    "n01484850",  # 1: R
    "n01498041",  # 2: A and R
    "n01558993",  # 3: A
    "n01704323",  # 4: O
    "n01770081",  # 5: A and O
)
IN_A, IN_R, IN_O = (2, 3, 5), (1, 2), (4, 5)
IMAGES_PER_CLASS = 2


def write(directory: pathlib.Path) -> None:
    """train/, val/ and suites/ as published."""
    imagenet_tiny.write_class_tree(directory / "train", CLASSES, 1)
    imagenet_tiny.write_files(directory / "val", imagenet_tiny.validation_tree(CLASSES, IMAGES_PER_CLASS))
    imagenet_tiny.write_suites(directory / "suites", CLASSES, IMAGES_PER_CLASS)


def config(directory: pathlib.Path, **evaluation: object) -> Config:
    data = ImageDataConfig(
        source="folder", directory=str(directory), suites_directory=str(directory / "suites"), test_split="val"
    )
    model = VisionModelConfig(num_classes=len(CLASSES), image_size_px=32, patch_size_px=8)
    settings = ImageEvaluationConfig(batch_size=8, cache_directory=str(directory / "cache"))
    return ImageConfig(model=model, data=data, evaluation=dataclasses.replace(settings, **evaluation))


def predictions(logits: object, labels: object, skipped: int = 0) -> Predictions:
    """Predictions for the records 0, 1, ..."""
    labels = np.asarray(labels)
    return Predictions(np.asarray(logits, np.float32), labels, np.arange(len(labels)), skipped)


def entry_of(suite: Suite, predictions: dict[str, Predictions]) -> SuiteResult:
    """The suite's result of the predictions for its sets."""
    return suite.result({name: suite.score(name, own) for name, own in predictions.items()})


def labels_of(source: Source) -> np.ndarray:
    return np.array([source.records[index]["label"] for index in range(len(source.records))])


def logits_by_name(source: Source, seed: int = 0) -> np.ndarray:
    """As a model may give them that knows nothing, decided by the records' names."""
    names = [source.records.name(index) for index in range(len(source.records))]
    seeds = [np.frombuffer(name.encode().ljust(64)[:64], np.uint32).tolist() for name in names]
    return np.stack([np.random.default_rng([seed, *own]).normal(size=source.num_classes) for own in seeds])
