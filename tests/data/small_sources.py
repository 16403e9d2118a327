"""Pictures of one value, and the labels of a source."""

import io

import numpy as np
from PIL import Image


def png(value, shape=(5, 7, 3)):
    buffer = io.BytesIO()
    Image.fromarray(np.full(shape, value, np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def labels_of(source):
    return [source.records[index]["label"] for index in range(len(source.records))]
