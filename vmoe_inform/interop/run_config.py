"""The config of an imported run: its model, how its images are prepared, and the order of its labels."""

import dataclasses
import pathlib
from collections.abc import Mapping
from typing import Any

import ml_collections

from vmoe_inform import checks, storage
from vmoe_inform import config as config_lib
from vmoe_inform.config import ImageConfig, ImageDataConfig, from_text, groups
from vmoe_inform.data.images import label_sets
from vmoe_inform.interop import precedence
from vmoe_inform.interop.checkpoint_import import CheckpointImport, with_values
from vmoe_inform.interop.precedence import Value

IMAGENET, UNKNOWN = "imagenet", "unknown"  # of --classes
_NOTHING: Mapping[str, Any] = {}
_FROM_CHECKPOINT = Value((), precedence.CHECKPOINT)
_MOST_CLASSES_BYTES = 1 << 26
_BATCH = 128  # at least, a multiple of the images of a group
_IMAGENET_SUITES = ("clean", "c", "r", "a", "o", "v2", "sketch", "real")


def make(
    found: CheckpointImport,
    config: ml_collections.ConfigDict | None = None,
    *,
    classes: str | None = None,
    set_fields: Mapping[str, Any] = _NOTHING,
    given: Mapping[str, str] = _NOTHING,
) -> tuple[ImageConfig, dict[str, Value]]:
    """The config of the run, and the fields of ``config.data`` that somebody says, with where each is from.

    Args:
      found: the import.
      config: what the rest of the run is; None for the defaults below.
      classes: of the command line, see :func:`_class_names`.
      set_fields: fields of ``config`` that the command line sets.
      given: text by field of ``config.data``.

    Raises:
      FileNotFoundError: no such file of class names.
      ValueError: settings that do not go together, or that nobody says.
    """
    typed = {field: _data_value(field, text) for field, text in given.items()}
    if classes is not None and {"class_names", "data.class_names"} & {*typed, *set_fields}:
        raise checks.error("--classes", "names of the classes once", "--classes and data.class_names")
    values = precedence.of_data(found.settings, given=typed, set_fields=set_fields)
    if values.get("class_names", _FROM_CHECKPOINT).origin == precedence.CHECKPOINT:
        values["class_names"] = _class_names(found, classes)
    names = values["class_names"].value
    group = found.model.moe.group_size_sequences
    base = _default(group, imagenet=names == label_sets.wordnet_ids()) if config is None else config
    changed = with_values(base, found.values)
    for field, value in values.items():
        changed.data[field] = value.value
    parsed = config_lib.parse(changed)
    assert isinstance(parsed, ImageConfig)  # that of a text model was refused
    return parsed, values


def _data_value(field: str, text: str) -> Any:
    """The value of a field of ``config.data``."""
    known = [each.name for each in dataclasses.fields(ImageDataConfig)]
    if field not in known:
        raise checks.unknown(f"--data.{field}", "a field of config.data", field, known)
    return from_text.value(f"--data.{field}", text, groups.hint_of([ImageDataConfig], field))


def _class_names(found: CheckpointImport, classes: str | None) -> Value:
    """Names of the classes in the order of the logits; empty if they are not known.

    Args:
      found: the import. Words of ImageNet become its WordNet ids, and 1,000 classes without names are taken for them.
      classes: ``"imagenet"``, ``"unknown"``, or a file of names, one a line; None for what the checkpoint says.

    Raises:
      FileNotFoundError: no such file.
      ValueError: another number of names, or one twice.
    """
    count, ids = found.model.num_classes, label_sets.wordnet_ids()
    if classes == UNKNOWN:
        return Value((), precedence.GIVEN)
    if classes == IMAGENET:
        if count != len(ids):
            raise checks.error("--classes", f"names of {count:,} classes", f"{IMAGENET}, which has {len(ids):,}")
        return Value(ids, precedence.GIVEN)
    if classes is not None:
        file = storage.inputs.existing_file("--classes", classes, "imagenet, unknown, or a file of names")
        return Value(read_class_names(file, count), precedence.GIVEN)
    said = tuple(found.settings.data.get("class_names", ()))
    if said in (ids, tuple(map(label_sets.title, ids))) and count == len(ids):
        return Value(ids, precedence.CHECKPOINT)
    if said and len(set(said)) == count:
        return Value(said, precedence.CHECKPOINT)
    if said or count != len(ids):
        return Value((), precedence.CHECKPOINT)
    return Value(ids, precedence.ASSUMED if found.reference is None else precedence.PUBLISHED)


def _default(group: int, *, imagenet: bool) -> ml_collections.ConfigDict:
    """A run that is evaluated as it is. Trained, it is fine-tuned as the original V-MoE is."""
    config = config_lib.default()
    config.data.source = "folder"
    if imagenet:
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
