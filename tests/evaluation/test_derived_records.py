import concurrent.futures
import pickle

import numpy as np
import pytest

from vmoe_inform.data.images.framing import Framing
from vmoe_inform.data.records import SelectedRecords
from vmoe_inform.data.sources import ArrayRecords
from vmoe_inform.evaluation import corruptions
from vmoe_inform.evaluation.derived_records import CorruptedRecords

IMAGES = np.random.default_rng(0).integers(0, 256, (6, 40, 48, 3)).astype(np.uint8)
RECORDS = ArrayRecords(IMAGES, np.arange(6))


@pytest.fixture
def noisy():
    return CorruptedRecords(RECORDS, 32, Framing(0.8), "shot_noise", 3, seed=7)


def test_an_image_is_corrupted_at_the_models_size_by_its_own_number(noisy):
    from vmoe_inform.data.images.pixels import to_square

    expected = corruptions.corrupt(to_square(IMAGES[4], 32, Framing(0.8)), 4, "shot_noise", 3, 7)
    np.testing.assert_array_equal(noisy[4]["image"], expected)
    assert (noisy[4]["label"], noisy.name(4), len(noisy)) == (4, "4", 6)


def test_neither_threads_nor_processes_change_what_is_drawn(noisy):
    expected = [noisy[index]["image"] for index in range(6)]
    with concurrent.futures.ThreadPoolExecutor(6) as pool:
        found = list(pool.map(lambda index: noisy[index % 6]["image"], range(60)))
    for index, image in enumerate(found):
        np.testing.assert_array_equal(image, expected[index % 6])
    in_another_process = pickle.loads(pickle.dumps(noisy))
    np.testing.assert_array_equal(in_another_process[5]["image"], expected[5])


def test_selected_records_keep_their_names_and_labels():
    chosen = SelectedRecords(RECORDS, (5, 2))
    assert [(chosen[i]["label"], chosen.name(i)) for i in range(len(chosen))] == [(5, "5"), (2, "2")]
