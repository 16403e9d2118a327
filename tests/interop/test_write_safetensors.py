"""What is written is read bit-identically, by this package and by the format's own library."""

import json
import struct

import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
import safetensors
import safetensors.numpy

from vmoe_inform.interop import formats
from vmoe_inform.interop.formats import write_safetensors

RANDOM = np.random.default_rng(0)
ARRAYS = {
    "params/a": RANDOM.normal(size=(3, 5)).astype(np.float32),
    "params/é|\n": RANDOM.normal(size=(2, 1, 7)).astype(np.float16),
    "scalar": np.float64(0.1),
    "empty": np.zeros((0, 4), np.float32),
    "on a device": jnp.arange(5, dtype=jnp.int32),
    "flags": np.array([True, False, True]),
    "turned": np.asarray(RANDOM.normal(size=(4, 6)).T),  # not contiguous
    "big endian": np.arange(3, dtype=">i8"),
    "half": RANDOM.normal(size=9).astype(ml_dtypes.bfloat16),
}


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    path = tmp_path_factory.mktemp("written") / "model.safetensors"
    write_safetensors.write(path, ARRAYS, {"format": "vmoe_inform", "step": "7"})
    return path


def same(found, expected):
    expected = np.asarray(expected)
    assert found.shape == expected.shape
    assert found.dtype == expected.dtype.newbyteorder("=")
    np.testing.assert_array_equal(found, expected)


def test_this_package_reads_what_was_written(path):
    stored = formats.open_checkpoint(path)
    assert stored.description["metadata"] == {"format": "vmoe_inform", "step": "7"}
    assert stored.arrays.keys() == ARRAYS.keys()
    for name, array in stored.arrays.items():
        same(array.read(), ARRAYS[name])


def test_the_library_of_the_format_reads_what_was_written(path):
    found = safetensors.numpy.load_file(path)
    assert found.keys() == ARRAYS.keys()
    for name, array in found.items():
        same(array, ARRAYS[name])
    with safetensors.safe_open(path, "numpy") as file:
        assert file.metadata() == {"format": "vmoe_inform", "step": "7"}


def test_values_are_aligned(path):
    content = path.read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    assert length % 8 == 0
    header = json.loads(content[8 : 8 + length])
    for name, array in ARRAYS.items():
        assert header[name]["data_offsets"][0] % array.dtype.itemsize == 0


def test_the_same_arrays_are_the_same_bytes_in_any_order(path, tmp_path):
    write_safetensors.write(tmp_path / "b", dict(reversed(ARRAYS.items())), {"format": "vmoe_inform", "step": "7"})
    assert (tmp_path / "b").read_bytes() == path.read_bytes()


def test_other_types_are_refused_and_nothing_is_written(tmp_path):
    with pytest.raises(ValueError, match=r"^a: expected one of the types F64, .*; received 'complex64'$"):
        write_safetensors.write(tmp_path / "a", {"a": np.zeros(2, np.complex64)}, {})
    assert list(tmp_path.iterdir()) == []
