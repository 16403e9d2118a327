"""The config of an imported run: its model, how its images are prepared, and the order of its labels."""

import dataclasses
import pathlib
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import ml_collections

from vmoe_inform import checks, storage
from vmoe_inform import config as config_lib
from vmoe_inform.config import ImageConfig, ImageDataConfig, from_text, groups
from vmoe_inform.data.images import label_sets
from vmoe_inform.interop.checkpoint_import import CheckpointImport, with_values
from vmoe_inform.interop.families import Settings

_NOTHING: Mapping[str, str] = {}
_MOST_CLASSES_BYTES = 1 << 26
_BATCH = 128  # at least, a multiple of the images of a group
_IMAGENET_SUITES = ("clean", "c", "r", "a", "o", "v2", "sketch", "real")


def make(
    found: CheckpointImport,
    config: ml_collections.ConfigDict | None = None,
    class_names: Sequence[str] = (),
    set_fields: Sequence[str] = (),
    given_data: Mapping[str, str] = _NOTHING,
) -> ImageConfig:
    """The config of the run.

    Args:
      found: the import.
      config: what the rest of the run is; None for the defaults below.
      class_names: in the order of the logits; empty: what the checkpoint says, see :func:`_class_names`.
      set_fields: fields that the command line sets, which the family's preparation of images does not override.
      given_data: text by field of ``config.data``, which comes before all others.

    Raises:
      ValueError: settings that do not go together, or that nothing says.
    """
    given = {field: _data_value(field, text) for field, text in given_data.items()}
    _check_asked(found.settings, {*given, *(field.removeprefix("data.") for field in set_fields)})
    said = {field: value for field, value in found.settings.data.items() if f"data.{field}" not in set_fields}
    theirs = said.pop("class_names", ())
    names = tuple(class_names or _class_names(found.model.num_classes, theirs))
    group = found.model.moe.group_size_sequences
    base = _default(group, imagenet=names == label_sets.wordnet_ids()) if config is None else config
    changed = with_values(base, found.values)
    if names and "data.class_names" not in set_fields:
        changed.data.class_names = names
    for field, value in {**said, **given}.items():
        changed.data[field] = value
    parsed = config_lib.parse(changed)
    assert isinstance(parsed, ImageConfig)  # that of a text model was refused
    return parsed


def _check_asked(settings: Settings, known: Collection[str]) -> None:
    """Raises ValueError for fields of ``config.data`` that nothing says."""
    missing = {field: words for field, words in settings.asked_data.items() if field not in known}
    if missing:
        listed = "; ".join(f"--data.{field}=VALUE, {words}" for field, words in missing.items())
        raise checks.InputError(f"--data: expected what the checkpoint does not say: {listed}; received none of them")


def _data_value(field: str, text: str) -> Any:
    """The value of a field of ``config.data``."""
    known = [each.name for each in dataclasses.fields(ImageDataConfig)]
    if field not in known:
        raise checks.unknown(f"--data.{field}", "a field of config.data", field, known)
    return from_text.value(f"--data.{field}", text, groups.hint_of([ImageDataConfig], field))


def _class_names(count: int, said: Sequence[str]) -> Sequence[str]:
    """Names of the classes in the order of the logits; empty if they are not known.

    Args:
      count: number of classes.
      said: in the checkpoint's words; without any, 1,000 classes are ImageNet's.
    """
    ids = label_sets.wordnet_ids()
    words = ((), ids, tuple(label_sets.title(each) for each in ids))
    if count == len(ids) and tuple(said) in words:
        return ids
    return said if len(set(said)) == count else ()


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
