"""The config of an imported run: how its images are prepared, and what its logits stand for."""

import dataclasses

import numpy as np
import pytest

from tests.interop import checkpoint_files as files
from tests.interop.test_golden_checkpoints import FOLDER
from vmoe_inform import checks
from vmoe_inform.data.images import label_sets
from vmoe_inform.interop import checkpoint_import, formats, plan, run_config
from vmoe_inform.interop.precedence import Value

SCALE = {"pixel_mean": "0.485,0.456,0.406", "pixel_std": "0.25"}
TITLES = tuple(label_sets.title(each) for each in label_sets.wordnet_ids())


@pytest.fixture(scope="module")
def timm():
    """A model of timm whose config.json says nothing of pixels."""
    return checkpoint_import.prepare(str(FOLDER / "timm_gap" / "model.safetensors"))


@pytest.fixture(scope="module")
def hugging_face():
    return checkpoint_import.prepare(str(FOLDER / "hugging_face" / "model.safetensors"))


def saying(found, names, count=7):
    """The import of a checkpoint with these names of classes."""
    settings = dataclasses.replace(found.settings, data={**found.settings.data, "class_names": names})
    values = {**found.values, "num_classes": Value(count, "given")}
    model = dataclasses.replace(found.model, num_classes=count)
    return dataclasses.replace(found, settings=settings, values=values, model=model)


def test_the_scale_of_pixels_is_asked_for_where_nothing_says_it(timm):
    with pytest.raises(checks.InputError, match=r"--data: expected .*--data.pixel_mean=VALUE, .*--data.pixel_std="):
        run_config.make(timm)
    with pytest.raises(checks.InputError, match=r"does not say: --data.pixel_std=VALUE, 0.5, or"):
        run_config.make(timm, given={"pixel_mean": "0.5"})
    data = run_config.make(timm, given={**SCALE, "evaluation_crop": "0.8"})[0].data
    assert (data.pixel_mean, data.pixel_std) == ((0.485, 0.456, 0.406), 0.25)
    assert (data.evaluation_crop, data.evaluation_interpolation) == (0.8, "bicubic")  # given; timm's


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"pixel_means": "1"}, "--data.pixel_means: expected a field of config.data.*pixel_mean"),
        ({"pixel_std": "0"}, "--data.pixel_std: expected .*; received 0"),
        ({"pixel_mean": "red"}, "--data.pixel_mean: expected .*; received 'red'"),
    ],
)
def test_bad_flags_of_data_are_one_line(given, message, timm):
    with pytest.raises(checks.InputError, match=message) as caught:
        run_config.make(timm, given={**SCALE, **given})
    assert "\n" not in str(caught.value)


def test_names_of_classes_are_recorded(hugging_face):
    def recorded(names, count=7):
        return run_config.make(saying(hugging_face, names, count))[0].data.class_names

    names = tuple("abcdefg")
    assert recorded(names) == names
    assert recorded(("a", "a", *"cdefg")) == ()
    assert recorded(names, count=3) == ()  # of a head that starts anew


@pytest.mark.parametrize("said", [(), label_sets.wordnet_ids(), TITLES], ids=["nothing", "ids", "words"])
def test_imagenets_words_are_its_wordnet_ids(said, hugging_face):
    assert len(set(TITLES)) < 1000  # there are two cranes
    config, data = run_config.make(saying(hugging_face, said, 1000))
    assert config.data.class_names == label_sets.wordnet_ids()
    assert data["class_names"].origin == ("checkpoint" if said else "assumed")


def test_a_thousand_other_classes_are_others(hugging_face):
    names = tuple(f"class {number}" for number in range(1000))
    data = run_config.make(saying(hugging_face, names, 1000))[0].data
    assert (data.class_names, data.source) == (names, "folder")


def test_arrays_of_other_axes_are_said_before_one_is_read(tmp_path):
    arrays = formats.open_checkpoint(FOLDER / "timm_gap" / "model.safetensors").arrays
    stored = {name: array.read() for name, array in arrays.items()}
    stored["blocks.1.attn.qkv.weight"] = np.zeros((70, 24), np.float32)
    files.save_safetensors(tmp_path / "model.safetensors", stored)
    found = checkpoint_import.prepare(
        str(tmp_path / "model.safetensors"), given={"num_heads": "3", "activation": "gelu_exact"}
    )
    assert found.plan.problems == [
        f"blocks.1.attn.qkv.weight [70, 24]: not of the shape for block_1/attention/{part}/kernel [24, 3, 8] "
        f"(part {number} of 3, transposed)"
        for number, part in enumerate(("key", "query", "value"))
        for number in [("query", "key", "value").index(part) + 1]
    ]


def test_a_stack_of_blocks_is_read_once():
    found = checkpoint_import.prepare(str(FOLDER / "big_vision_stacked" / "vit.npz"))
    reads = []

    def counted(name, array):
        return dataclasses.replace(array, read=lambda: reads.append(name) or array.read())

    arrays = {name: counted(name, array) for name, array in found.stored.arrays.items()}
    stored = dataclasses.replace(found.stored, arrays=arrays)
    params = plan.read_params(dataclasses.replace(found.plan, stored=stored))
    assert sorted(reads) == sorted(arrays)
    assert list(params) == list(found.plan.moves)
