"""Decoding beside tf.data. TensorFlow gets a process of its own, whose warnings are not ours."""

import io
import json
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from vmoe_inform.performance import decoding

ROOT = pathlib.Path(__file__).parents[2]

_BESIDE_TENSORFLOW = """
import dataclasses, json, sys
import numpy as np
from vmoe_inform.data.images import decode, pixels
from vmoe_inform.performance import decoding

files = decoding.photographs(4)
rows = decoding.measure(files, image_size_px=64, min_area=0.5, repeats=1, seconds=0.05)
# Of whole images (an area of 1, or the image itself if that does not fit) both give the same but for resizing.
ours = [pixels.to_square(content, 64) for content in files if decode.size(content) == (500, 500)]
whole = next(decoding.tf_data_batches(files, 64, 0.9999, antialias=True)())
difference = np.abs(whole[3].astype(int) - ours[0]).mean()
print(json.dumps({"rows": [dataclasses.asdict(row) for row in rows], "shape": whole.shape, "difference": difference}))
"""


@pytest.mark.slow  # imports TensorFlow; what is counted and decoded is shown below
def test_beside_tf_data():
    process = subprocess.run(
        [sys.executable, "-c", _BESIDE_TENSORFLOW],
        cwd=ROOT,
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.returncode == 0, process.stderr
    found = json.loads(process.stdout.splitlines()[-1])
    assert [row["reference"] for row in found["rows"]] == ["tf.data", "tf.data, antialiased"]
    for row in found["rows"]:
        assert row["over_reference"]["median"] > 0
        # One round: the ratio is that of its two rates.
        ours, theirs = (row[f"{whose}images_per_cpu_second"]["median"] for whose in ("", "reference_"))
        np.testing.assert_allclose(row["over_reference"]["median"], ours / theirs)
    assert found["shape"] == [32, 64, 64, 3]
    assert found["difference"] < 4  # of 255


def test_photographs_are_those_of_the_seed_in_imagenets_sizes():
    files = decoding.photographs(5)
    assert files == decoding.photographs(5)
    assert [Image.open(io.BytesIO(content)).size for content in files] == [
        (width, height) for height, width in ((375, 500), (500, 375), (333, 500), (500, 500), (300, 400))
    ]
    assert all(Image.open(io.BytesIO(content)).format == "JPEG" for content in files)


def test_draining_counts_what_came_after_the_first_and_ends_the_iterator():
    ended = []

    def batches():
        try:
            while True:
                yield np.zeros((16, 2, 2, 3))
        finally:
            ended.append(True)

    times = iter([100.0, 101.0, 104.0])
    assert decoding.drain(batches(), 3.5, clock=lambda: next(times)) == 2 * 16 / 4.0
    assert ended == [True]


def test_a_folder_of_jpegs(tmp_path):
    content = decoding.photographs(1)[0]
    (tmp_path / "n01440764").mkdir()
    (tmp_path / "n01440764" / "x.JPEG").write_bytes(content)
    (tmp_path / "readme.txt").write_text("no image")
    assert decoding.read_jpegs(str(tmp_path)) == [content]
    with pytest.raises(FileNotFoundError, match="--photographs: expected a folder with JPEG files; received 'nowhere'"):
        decoding.read_jpegs("nowhere")


def test_other_files_are_refused():
    buffer = io.BytesIO()
    Image.new("RGB", (4, 4)).save(buffer, "PNG")
    with pytest.raises(ValueError, match="photographs: expected JPEG files"):
        decoding.measure([buffer.getvalue()], image_size_px=4, min_area=0.5, repeats=1)
