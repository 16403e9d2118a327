"""Prepared folders from elsewhere: nothing that they name is imported."""

import json
import sys

import pytest

from vmoe_inform.config import ImageDataConfig
from vmoe_inform.data import preparation, sources
from vmoe_inform.data.images import tfds, tfds_metadata

OWN = "tensorflow_datasets.core.features."
IMAGE = {"pythonClassName": OWN + "image_feature.Image", "image": {"dtype": "uint8", "encodingFormat": "png"}}
LABEL = {"pythonClassName": OWN + "class_label_feature.ClassLabel", "classLabel": {"numClasses": "2"}}
INFO = {"name": "tiny", "version": "1.0.0", "fileFormat": "array_record"}


def features_of(**features):
    return {"pythonClassName": OWN + "features_dict.FeaturesDict", "featuresDict": {"features": features}}


def write(directory, features, info=INFO, place="tiny/1.0.0"):
    folder = directory / place
    folder.mkdir(parents=True)
    for name, content in (("features.json", features), ("dataset_info.json", info)):
        if content is not None:
            (folder / name).write_text(content if isinstance(content, str) else json.dumps(content))
    return ImageDataConfig(source="tfds", tfds_name="tiny", directory=str(directory))


@pytest.fixture
def trap(tmp_path, monkeypatch):
    """A module that says that it was imported, where Python finds it."""
    (tmp_path / "path").mkdir()
    (tmp_path / "path" / "trap_of_tfds.py").write_text("raise SystemExit('imported')")
    monkeypatch.syspath_prepend(str(tmp_path / "path"))
    yield "trap_of_tfds.Image"
    assert "trap_of_tfds" not in sys.modules


def nested(kind, name):
    evil = {"pythonClassName": name, "image": {}}
    legacy = {"type": name, "content": {}}
    return {
        "root": {**features_of(image=IMAGE), "pythonClassName": name},
        "feature": features_of(image=evil, label=LABEL),
        "other spelling": features_of(image={"python_class_name": name, "image": {}}),
        "in a sequence": features_of(
            image={"pythonClassName": OWN + "sequence_feature.Sequence", "sequence": {"feature": evil}}
        ),
        "legacy": legacy,
        "legacy in legacy": {"type": OWN + "features_dict.FeaturesDict", "content": {"image": legacy}},
        "JSON in JSON": {
            "pythonClassName": OWN + "features_dict.FeaturesDict",
            "jsonFeature": {"json": json.dumps({"image": legacy})},
        },
        "JSON as the content": {"type": OWN + "features_dict.FeaturesDict", "content": json.dumps(features_of(a=evil))},
    }[kind]


KINDS = ("root", "feature", "other spelling", "in a sequence", "legacy", "legacy in legacy", "JSON in JSON")


@pytest.mark.parametrize("kind", [*KINDS, "JSON as the content"])
def test_a_class_that_is_not_tfds_own_is_refused(tmp_path, trap, kind):
    data = write(tmp_path, nested(kind, trap))
    message = rf"features\.json: expected features of the classes of tensorflow_datasets only; received '{trap}'"
    with pytest.raises(ValueError, match=message):
        sources.load(data, "train")


@pytest.mark.parametrize("place", ["tiny", "tiny/1.0.0", "tiny/config/1.0.0"])
def test_every_folder_that_tfds_may_choose_is_looked_at(tmp_path, trap, place):
    data = write(tmp_path, nested("root", trap), place=place)
    for name in ("tiny", "Tiny", "tiny:1.*.*", "tiny/config", "tiny/config:1.0.0"):
        with pytest.raises(ValueError, match="classes of tensorflow_datasets only"):
            tfds.builder_of(name, data.directory)


def test_preparing_looks_at_it_too(tmp_path, trap, monkeypatch):
    data = write(tmp_path, nested("root", trap))
    monkeypatch.setattr(preparation, "_need_tensorflow", lambda: None)
    with pytest.raises(ValueError, match="classes of tensorflow_datasets only"):
        preparation.prepare(
            "tiny", data_dir=data.directory, manual_dir="", file_format="array_record", whole=False, suites=()
        )


@pytest.mark.parametrize(
    "name", ["tensorflow_datasets_evil.A", "tensorflow_datasets", "tensorflow_datasets..A", 3, None]
)
def test_names_that_only_begin_like_tfds_are_refused(tmp_path, name):
    write(tmp_path, nested("root", name))
    with pytest.raises(ValueError, match="classes of tensorflow_datasets only"):
        tfds_metadata.check(tmp_path / "tiny")


def test_a_default_config_cannot_lead_elsewhere(tmp_path, trap):
    write(tmp_path, nested("root", trap), place="other/1.0.0")
    (tmp_path / "tiny" / ".config").mkdir(parents=True)
    (tmp_path / "tiny" / ".config" / "metadata.json").write_text(json.dumps({"defaultConfigName": "../other"}))
    with pytest.raises(ValueError, match=r"metadata\.json: expected the name of a config; received '\.\./other'"):
        tfds.builder_of("tiny", str(tmp_path))


@pytest.mark.parametrize("name", ["kaggle:tiny", "huggingface:tiny/config"])
def test_registries_whose_code_would_be_downloaded_are_refused(tmp_path, name):
    with pytest.raises(ValueError, match="expected a data set of TFDS itself, of no other registry"):
        tfds.builder_of(name, str(tmp_path))


@pytest.mark.parametrize(
    ("features", "info", "message"),
    [
        ("{", INFO, r"features\.json: expected JSON as TFDS writes it"),
        ("[" * 100_000, INFO, r"features\.json: expected JSON as TFDS writes it; received 'RecursionError"),
        ("[]", INFO, r"features\.json: expected a JSON object"),
        ("[" * 500 + "]" * 500, INFO, r"a JSON object"),
        ('{"a": ' * 500 + "1" + "}" * 500, INFO, "at most 100 features in each other"),
        (features_of(image=IMAGE), "{'name': 1}", r"dataset_info\.json: expected JSON as TFDS writes it"),
        (
            features_of(image=IMAGE),
            {**INFO, "no_such_field": 1},
            "metadata of tiny in .*: expected such as TFDS writes",
        ),
        ({"pythonClassName": OWN + "image_feature.Image"}, INFO, "metadata of tiny in"),
        ({**features_of(image=IMAGE), "more": 1}, INFO, "metadata of tiny in"),
    ],
)
def test_damaged_metadata_are_one_line(tmp_path, features, info, message):
    data = write(tmp_path, features, info)
    with pytest.raises(ValueError, match=message) as caught:
        sources.load(data, "train")
    assert "\n" not in str(caught.value)


def test_features_that_are_no_dictionary_are_named(tmp_path):
    write(tmp_path, LABEL)
    builder = tfds.load_builder("tiny", str(tmp_path))
    with pytest.raises(ValueError, match=r"features of tiny: expected an image .*; received \['ClassLabel'\]"):
        tfds.class_names(builder, "tiny")


def test_a_feature_may_be_called_as_the_keys_are(tmp_path):
    write(tmp_path, features_of(type=LABEL, json=IMAGE, content=LABEL))
    tfds_metadata.check(tmp_path / "tiny")
    tfds_metadata.check(tmp_path / "nothing here")
    assert sorted(tfds.load_builder("tiny", str(tmp_path)).info.features) == ["content", "json", "type"]
