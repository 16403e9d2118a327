"""Data in a bucket are the data of a disk: the same records, names, labels and fingerprints."""

import gzip
import pickle

import numpy as np
import pytest

from tests import imagenet_tiny
from vmoe_inform import storage
from vmoe_inform.config import ImageDataConfig, TextDataConfig
from vmoe_inform.data import sources
from vmoe_inform.data.images import published, readers
from vmoe_inform.data.text import sources as text_sources
from vmoe_inform.evaluation import fingerprints

CLASSES = ("n01440764", "n01443537")


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def images_of(split):
    return {f"{name}/{split}_{index}.JPEG": imagenet_tiny.encoded(name, index) for name in CLASSES for index in (0, 1)}


def write_folder(root):
    for split in ("train", "test"):
        imagenet_tiny.write_files(root / split, images_of(split))


def write_tars(root):
    for split in ("train", "test"):
        imagenet_tiny.write_tar(root / f"{split}.tar", images_of(split))


def write_idx(root):
    for prefix in ("train", "t10k"):
        pixels, labels = np.arange(24, dtype=np.uint8), bytes([0, 1])
        images = bytes((0, 0, 8, 3, 0, 0, 0, 2, 0, 0, 0, 3, 0, 0, 0, 4)) + pixels.tobytes()
        (root / f"{prefix}-images-idx3-ubyte.gz").write_bytes(gzip.compress(images))
        (root / f"{prefix}-labels-idx1-ubyte").write_bytes(bytes((0, 0, 8, 1, 0, 0, 0, 2)) + labels)


def upload(root, folder):
    for path in root.rglob("*"):
        if path.is_file():
            storage.write_bytes(folder / path.relative_to(root), path.read_bytes())


def contents(source):
    return [(source.records.name(i), source.records[i]) for i in range(len(source.records))]


@pytest.mark.parametrize(("source", "write"), [("folder", write_folder), ("folder", write_tars), ("idx", write_idx)])
def test_images_of_a_bucket_are_those_of_a_disk(tmp_path, bucket_folder, source, write):
    root = tmp_path / "data"
    root.mkdir()
    write(root)
    upload(root, bucket_folder)
    here, there = (
        sources.load(ImageDataConfig(source=source, directory=str(place)), "test") for place in (root, bucket_folder)
    )
    assert here.class_names == there.class_names
    assert here.origin == there.origin
    np.testing.assert_equal(contents(there), contents(here))
    np.testing.assert_equal(contents(pickle.loads(pickle.dumps(there))), contents(here))
    assert fingerprints.fingerprint(there) == fingerprints.fingerprint(here)


def test_prepared_data_are_fetched_split_by_split(tmp_path, bucket_server, bucket_folder, prepared_imagenet):
    upload(prepared_imagenet / "imagenet2012", bucket_folder / "imagenet2012")
    before = len(bucket_server.requests)
    here, there = (
        sources.load(ImageDataConfig(source="tfds", tfds_name="imagenet2012", directory=str(place)), "validation[:50%]")
        for place in (prepared_imagenet, bucket_folder)
    )
    np.testing.assert_equal(contents(there), contents(here))
    assert fingerprints.fingerprint(there) == fingerprints.fingerprint(here)
    fetched = [one for one in bucket_server.requests[before:] if "alt=media" in one and "array_record-" in one]
    assert fetched
    assert not any("train" in one for one in fetched)


@pytest.mark.parametrize("kind", ["folder", "tar"])
def test_a_published_suite_of_a_bucket(tmp_path, bucket_folder, kind):
    suite = published.PublishedSuite("Two", ("two",), None, 2)
    files = {f"{name}/1.JPEG": imagenet_tiny.encoded(name, 1) for name in CLASSES}
    if kind == "tar":
        storage.write_bytes(bucket_folder / "Two.tar", imagenet_tiny.tar_bytes(files))
    else:
        for name, content in files.items():
            storage.write_bytes(bucket_folder / "Two" / name, content)
    found = published.load(suite, ImageDataConfig(suites_directory=str(bucket_folder)), CLASSES)
    assert [(name, record["image"]) for name, record in contents(found)] == list(files.items())
    assert found.origin == f"published {kind}"
    missing = published.PublishedSuite("Three", ("three",), None, 2)
    with pytest.raises(published.MissingSuiteError, match=f"expected three or three.tar in {bucket_folder}; "):
        published.load(missing, ImageDataConfig(suites_directory=str(bucket_folder)), CLASSES)


@pytest.mark.parametrize(
    ("source", "files"),
    [("text", {"train.txt": "a b\nc\n"}), ("text", {"train/1.txt": "a\n", "train/2.txt": "b\n"})],
)
def test_lines_of_a_bucket(bucket_folder, source, files):
    for name, content in files.items():
        storage.write_text(bucket_folder / name, content)
    lines = text_sources.lines(TextDataConfig(source=source, directory=str(bucket_folder)), "train")
    assert "\n".join([*lines, ""]) == "".join(files.values())


def test_tables_of_a_bucket(bucket_folder):
    storage.write_text(bucket_folder / "train.csv", "text,label\ngood,1\nbad,0\n")
    texts = text_sources.labelled(TextDataConfig(source="table", directory=str(bucket_folder)), "train")
    assert (texts.texts, texts.labels.tolist(), texts.class_names) == (["good", "bad"], [1, 0], ("0", "1"))


def test_a_bucket_out_of_reach_stops_training_and_leaves_no_record_out(tmp_path, bucket_server, bucket_folder):
    root = tmp_path / "data"
    write_folder(root)
    upload(root, bucket_folder)
    data = ImageDataConfig(source="folder", directory=str(bucket_folder))
    records = sources.load(data, "train").records
    read = readers.EvaluationReader(records, 8, readers.Framing.of(data))
    assert read(0)["mask"]
    with bucket_server.out_of_order(), pytest.MonkeyPatch.context() as patch:
        patch.setattr("vmoe_inform.storage._objects.RETRY_SECONDS", 0.2)
        with pytest.raises(storage.OutOfReachError):
            read(0)
    storage.remove(bucket_folder / "train" / records.name(0))
    assert not read(0)["mask"]  # that is a record which is not there


def test_a_bucket_that_one_may_not_read_is_one_line(bucket_server, bucket_folder):
    bucket_server.fail("403", at=f"GET .*{bucket_folder.name}")
    with pytest.raises(PermissionError, match=f"403 .*{bucket_folder}") as caught:  # exit code 2
        sources.load(ImageDataConfig(source="folder", directory=str(bucket_folder)), "train")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("source", "config"), [("folder", ImageDataConfig), ("text", TextDataConfig)])
@pytest.mark.parametrize("place", ["gs://no-such-bucket/data", "gs://test/no-such-folder"])
def test_an_address_where_nothing_is_is_named(bucket_server, source, config, place):
    load = sources.load if config is ImageDataConfig else text_sources.lines
    with pytest.raises(FileNotFoundError, match=f"{place}"):
        load(config(source=source, directory=place), "train")
