import io
import stat
import tarfile
import zipfile

import pytest

from tests import imagenet_tiny, processes
from tests.data.test_trees import REFUSED, tar_with
from vmoe_inform.config import DataConfig
from vmoe_inform.data import ilsvrc, sources, unpacking

FILES = {"imagenet-a/n01498041/a.jpg": b"ray", "imagenet-a/README.txt": b"about"}


def everything_in(directory):
    files = [path for path in directory.rglob("*") if path.is_file()]
    return {str(path.relative_to(directory)): path.read_bytes() for path in files}


def write_zip(path, members):
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members:
            archive.writestr(name, content)
    return path


@pytest.mark.parametrize("suffix", ["tar", "tar.gz", "tar.bz2", "tar.xz", "zip"])
def test_archives_keep_their_folders(tmp_path, suffix):
    path = tmp_path / f"imagenet-a.{suffix}"
    if suffix == "zip":
        write_zip(path, [("imagenet-a/", b""), *FILES.items()])
    else:
        imagenet_tiny.write_tar(path, FILES, suffix[4:])
    new, count = unpacking.unpack(path, tmp_path / "out")
    assert (new, count) == ([tmp_path / "out" / "imagenet-a"], 2)
    assert everything_in(tmp_path / "out") == FILES


def test_imagenets_own_tars_become_class_folders_and_a_flat_folder(tmp_path):
    classes = imagenet_tiny.write_ilsvrc_tars(tmp_path)
    archives = (str(tmp_path / ilsvrc.TRAIN_TAR), str(tmp_path / ilsvrc.VALIDATION_TAR))
    printed = processes.run("data.unpack", *archives, f"--directory={tmp_path / 'data'}")
    assert f"16 files -> {tmp_path / 'data' / 'train'}" in printed
    assert f"8 files -> {tmp_path / 'data' / 'val'}" in printed
    data = DataConfig(source="folder", directory=str(tmp_path / "data"), test_split="val")
    train, validation = sources.load(data, "train"), sources.load(data, "val")
    assert train.class_names == validation.class_names == classes
    assert len(train.records) == 16
    assert [validation.records.name(i) for i in range(2)] == [f"ILSVRC2012_val_0000000{i}.JPEG" for i in (1, 2)]
    # The classes of the first eight validation images, by ImageNet's own list.
    of_images = [validation.class_names[validation.records[i]["label"]] for i in range(8)]
    assert of_images[:3] == ["n01751748", "n09193705", "n02105855"]
    assert tuple(of_images) == ilsvrc.validation_classes()[:8]


def refused(archive, message):
    """The archive is refused, and nothing of it is left."""
    out = archive.parent / "out"
    with pytest.raises(ValueError, match=message):
        unpacking.unpack(archive, out)
    assert list(out.iterdir()) == []


@pytest.mark.parametrize("compression", ["", "gz"])
@pytest.mark.parametrize(("attributes", "message"), REFUSED)
def test_tar_members_that_lead_elsewhere_are_refused(tmp_path, attributes, message, compression):
    path = tar_with(tmp_path / "bad.tar")
    if compression:
        with tarfile.open(path, f"w:{compression}") as archive:
            member = tarfile.TarInfo("ant/b.png")
            for name, value in attributes.items():
                setattr(member, name, value)
            archive.addfile(member, io.BytesIO())
    else:
        tar_with(path, **attributes)
    refused(path, message)


@pytest.mark.parametrize("name", ["../a.jpg", "a/../../a.jpg", "/a.jpg"])
def test_zip_members_that_lead_elsewhere_are_refused(tmp_path, name):
    refused(write_zip(tmp_path / "bad.zip", [("fine/a.jpg", b""), (name, b"")]), "relative names and without")


def test_a_symbolic_link_in_a_zip_is_refused(tmp_path):
    link = zipfile.ZipInfo("a/link")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    refused(write_zip(tmp_path / "bad.zip", [("a/b.jpg", b""), (link, b"/etc")]), "no links or devices")


def test_members_of_the_tar_of_a_class_are_looked_at_too(tmp_path):
    inner = tar_with(tmp_path / "inner.tar", name="../../b.png").read_bytes()
    refused(imagenet_tiny.write_tar(tmp_path / "bad.tar", {"n01440764.tar": inner}), "without '..'")


@pytest.mark.parametrize("suffix", ["tar", "tar.gz", "tar.xz", "zip"])
def test_archives_that_were_cut_off_leave_nothing_behind(tmp_path, suffix):
    path = tmp_path / f"cut.{suffix}"
    files = [(f"a/{i}.jpg", imagenet_tiny.encoded("n01440764", i)) for i in range(5)]
    if suffix == "zip":
        write_zip(path, files)
    else:
        imagenet_tiny.write_tar(path, dict(files), suffix[4:])
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    refused(path, rf"cut.{suffix}: expected a whole archive")


def test_what_is_no_archive_is_refused(tmp_path):
    path = tmp_path / "page.tar"
    path.write_text("<html>Not found</html>" * 100)
    refused(path, "page.tar: expected a whole archive")


def test_a_member_that_comes_twice_is_refused(tmp_path):
    path = tmp_path / "twice.tar.gz"
    with tarfile.open(path, "w:gz") as archive:
        for _ in range(2):
            archive.addfile(tarfile.TarInfo("a/b.png"), io.BytesIO())
    refused(path, "expected each member once; received 'a/b.png'")


def test_an_empty_archive_is_refused(tmp_path):
    refused(imagenet_tiny.write_tar(tmp_path / "empty.tar", {}), "an archive with files")


def test_nothing_is_overwritten(tmp_path):
    path = imagenet_tiny.write_tar(tmp_path / "a.tar", FILES)
    (tmp_path / "imagenet-a").mkdir()
    with pytest.raises(ValueError, match=r"expected no imagenet-a in .* yet"):
        unpacking.unpack(path, tmp_path)
    assert sorted(other.name for other in tmp_path.iterdir()) == ["a.tar", "imagenet-a"]


def test_a_missing_archive_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"archive: expected a file; received '.*no_such\.tar'"):
        unpacking.unpack(tmp_path / "no_such.tar", tmp_path / "out")


def test_a_command_line_without_archives_says_what_is_missing():
    errors = processes.fail("data.unpack", "--directory=somewhere")
    assert "command line: expected archives to unpack, and flags (--name=value); received 'none'" in errors
