"""The config of an imported run: its model, how its images are prepared, and the order of its labels."""

import pathlib
from collections.abc import Sequence

import ml_collections

from vmoe_inform import checks, storage
from vmoe_inform import config as config_lib
from vmoe_inform.config import ImageConfig
from vmoe_inform.data.images import label_sets
from vmoe_inform.interop.checkpoint_import import CheckpointImport, with_values

_MOST_CLASSES_BYTES = 1 << 26
_BATCH = 128  # at least, a multiple of the images of a group
_IMAGENET_SUITES = ("clean", "c", "r", "a", "o", "v2", "sketch", "real")


def make(
    found: CheckpointImport,
    config: ml_collections.ConfigDict | None = None,
    class_names: Sequence[str] = (),
    set_fields: Sequence[str] = (),
) -> ImageConfig:
    """The config of the run.

    Args:
      found: the import.
      config: what the rest of the run is; None for the defaults below.
      class_names: in the order of the logits; empty: ImageNet's, if there are 1,000, otherwise not known.
      set_fields: fields that the command line sets, which the family's preparation of images does not override.

    Raises:
      ValueError: settings that do not go together.
    """
    classes = found.model.num_classes
    base = _default(classes, found.model.moe.group_size_sequences) if config is None else config
    changed = with_values(base, found.values)
    for field, value in found.settings.data.items():
        if f"data.{field}" not in set_fields:
            changed.data[field] = value
    if not class_names and classes == len(label_sets.wordnet_ids()):
        class_names = label_sets.wordnet_ids()
    if class_names:
        changed.data.class_names = tuple(class_names)
    parsed = config_lib.parse(changed)
    assert isinstance(parsed, ImageConfig)  # that of a text model was refused
    return parsed


def _default(num_classes: int, group: int) -> ml_collections.ConfigDict:
    """A run that is evaluated as it is. Trained, it is fine-tuned as the original V-MoE is."""
    config = config_lib.default()
    config.data.source = "folder"
    if num_classes == len(label_sets.wordnet_ids()):
        config.data.source = "tfds"
        config.data.tfds_name = "imagenet2012"
        config.data.test_split = "validation"
        config.evaluation.suites = _IMAGENET_SUITES
    config.data.crop = "inception"
    config.data.random_flip = True
    batch = -(-_BATCH // group) * group
    config.train.batch_size = config.evaluation.batch_size = batch
    config.train.steps = 10_000
    config.optimizer.name = "sgd"
    config.optimizer.learning_rate = 3e-3
    config.optimizer.warmup_steps = 500
    config.optimizer.gradient_clip_norm = 10.0
    return config


def read_class_names(path: pathlib.Path, count: int) -> tuple[str, ...]:
    """Names of classes in a file, one a line, in the order of the logits.

    Raises:
      FileNotFoundError: no such file.
      ValueError: another number of names, or one twice.
    """
    content = storage.read_bytes(path.resolve(), most_bytes=_MOST_CLASSES_BYTES)
    try:
        names = tuple(content.decode("utf-8").splitlines())
    except UnicodeDecodeError:
        raise checks.error("--classes", "a text in UTF-8", str(path)) from None
    if len(names) != count or len(set(names)) != count or "" in names:
        raise checks.error("--classes", f"the {count:,} names of the classes, one a line", f"{len(names):,} lines")
    return names
