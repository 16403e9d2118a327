"""Labelled text that TFDS has prepared as ``array_record`` files, such as ``glue/sst2``."""

from typing import Any

import numpy as np

from vmoe_inform import checks
from vmoe_inform.config import TextDataConfig
from vmoe_inform.data.images import tfds as prepared
from vmoe_inform.data.text.lines import LABELLED, LabelledTexts


@LABELLED.register("tfds")
def tfds(data: TextDataConfig, split: str) -> LabelledTexts:
    """A split of the data set ``data.tfds_name``, with the features ``data.text_field`` and ``data.label_field``.

    ``data.directory`` is TFDS' data directory (empty: its default) and ``split`` any split that TFDS understands.

    Raises:
      FileNotFoundError: an unknown data set, or one that is not prepared; the message has the command.
      ValueError: no name, an unknown split, other features, or texts without a label, as in the test split of GLUE.
    """
    if not data.tfds_name:
        raise checks.error("data.tfds_name", "the name of a TFDS data set", data.tfds_name)
    builder = prepared.builder_of(data.tfds_name, data.directory)
    names = _class_names(builder, data)
    source = prepared.fetch_split(builder, data.tfds_name, split, data.directory)
    texts, labels = [], []
    for index in range(len(source)):
        example = prepared.read(source, index)
        place = f"{data.tfds_name}:{split}[{index}]"
        label = int(example[data.label_field])
        if not 0 <= label < len(names):
            expected = f"a label from 0 to {len(names) - 1}; some published test splits have none"
            raise checks.error(place, expected, label)
        texts.append(prepared.text(example[data.text_field]))
        labels.append(label)
    return LabelledTexts(texts, np.asarray(labels, np.int32), names, "TFDS")


def _class_names(builder: Any, data: TextDataConfig) -> tuple[str, ...]:
    """The names of the classes, after a check of both features."""
    features = builder.info.features
    found = sorted(features) if hasattr(features, "keys") else [type(features).__name__]
    for field, setting in ((data.text_field, "data.text_field"), (data.label_field, "data.label_field")):
        if field not in found:
            expected = f"one of the features of {data.tfds_name}: {', '.join(found)}"
            raise checks.unknown(setting, expected, field, found)
    if not hasattr(features[data.label_field], "names"):
        raise checks.error("data.label_field", "a feature that is a class label", data.label_field)
    return tuple(features[data.label_field].names)
