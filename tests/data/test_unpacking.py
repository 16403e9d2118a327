import gzip
import io
import resource
import stat
import tarfile
import zipfile

import numpy as np
import pytest

from tests import imagenet_tiny, processes
from tests.data.images.test_trees import REFUSED, tar_with
from vmoe_inform import text
from vmoe_inform.config import ImageDataConfig
from vmoe_inform.data import sources, unpacking
from vmoe_inform.data.images import ilsvrc

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
    hostile = write_zip(tmp_path / "a\x1b[2J.zip", [("b\x1b]0;title\x07/image.png", b"1")])
    archives = (str(tmp_path / ilsvrc.TRAIN_TAR), str(tmp_path / ilsvrc.VALIDATION_TAR), str(hostile))
    printed = processes.run("data.unpack", *archives, f"--directory={tmp_path / 'data'}")
    assert f"16 files -> {tmp_path / 'data' / 'train'}" in printed
    assert f"8 files -> {tmp_path / 'data' / 'val'}" in printed
    assert r"a\x1b[2J.zip: 1 files -> " in printed  # what a user or an archive named commands no terminal
    assert text.printable(printed, keep="\n") == printed
    data = ImageDataConfig(source="folder", directory=str(tmp_path / "data"), test_split="val")
    train, validation = sources.load(data, "train"), sources.load(data, "val")
    assert train.class_names == validation.class_names == classes
    assert len(train.records) == 16
    assert [validation.records.name(i) for i in range(2)] == [f"ILSVRC2012_val_0000000{i}.JPEG" for i in (1, 2)]
    # The classes of the first eight validation images, by ImageNet's own list.
    of_images = [validation.class_names[validation.records[i]["label"]] for i in range(8)]
    assert of_images[:3] == ["n01751748", "n09193705", "n02105855"]
    assert tuple(of_images) == ilsvrc.validation_classes()[:8]


def refused(archive, message, **options):
    """The archive is refused, and nothing of it is left."""
    out = archive.parent / "out"
    with pytest.raises(ValueError, match=message):
        unpacking.unpack(archive, out, **options)
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


# Images cannot be compressed, so that most of the bytes of the archives are of the images themselves.
PICTURES = {f"a/{i}.jpg": np.random.default_rng(i).bytes(3000) for i in range(3)}


@pytest.mark.parametrize("suffix", ["tar.gz", "tar.bz2", "tar.xz", "zip"])
def test_a_flipped_bit_of_a_packed_archive_is_found_by_its_checksum(tmp_path, suffix):
    path = tmp_path / f"damaged.{suffix}"
    if suffix == "zip":
        write_zip(path, list(PICTURES.items()))
    else:
        imagenet_tiny.write_tar(path, PICTURES, suffix[4:])
    whole = np.frombuffer(path.read_bytes(), np.uint8)
    # Not in the last bytes: a tar is padded with zeros there, and a zip has notes that say nothing of the content.
    for place in np.linspace(len(whole) // 10, len(whole) * 0.9, 20).astype(int):
        damaged = whole.copy()
        damaged[place] ^= 4
        path.write_bytes(damaged.tobytes())
        refused(path, rf"damaged.{suffix}: expected a whole archive")


def test_a_zip_that_says_that_it_begins_before_its_start_is_refused(tmp_path):
    path = write_zip(tmp_path / "damaged.zip", list(PICTURES.items()))
    content = bytearray(path.read_bytes())
    content[-6] ^= 8  # of the place of the directory
    path.write_bytes(content)
    refused(path, "damaged.zip: expected a whole archive; received")


@pytest.mark.parametrize("compression", ["", "gz"])
def test_a_damaged_header_is_not_the_end_of_a_tar(tmp_path, compression):
    """As it is for tarfile: what comes after it would be lost without a word."""
    content = bytearray(imagenet_tiny.tar_bytes(PICTURES))
    content[content.index(b"a/1.jpg")] ^= 1
    packed = gzip.compress(content) if compression else bytes(content)
    (tmp_path / "damaged.tar").write_bytes(packed)
    refused(tmp_path / "damaged.tar", "damaged.tar: expected a whole archive")
    imagenet_tiny.write_tar(tmp_path / "outer.tar", {"n01440764.tar": bytes(content)})
    refused(tmp_path / "outer.tar", "outer.tar: expected a whole archive")


@pytest.mark.parametrize("size", [1024, 4096])
def test_a_packed_tar_that_was_cut_before_it_was_packed(tmp_path, size):
    """After the first member's header of 512 bytes and content, and in the middle of a content."""
    path = tmp_path / "cut.tar.gz"
    path.write_bytes(gzip.compress(imagenet_tiny.tar_bytes({"a/1.jpg": b"1"} | PICTURES)[:size]))
    refused(path, "cut.tar.gz: expected a whole archive")


@pytest.mark.parametrize("name", ["...tar", "a/...tar", ".tar", "a/.tar", "..tar"])
def test_a_tar_whose_name_is_no_class_is_refused(tmp_path, name):
    inner = imagenet_tiny.tar_bytes({"b.jpg": b""})
    refused(imagenet_tiny.write_tar(tmp_path / "bad.tar", {name: inner}), "without '..'|a tar CLASS.tar for each class")


@pytest.mark.parametrize("suffix", ["tar", "zip"])
@pytest.mark.parametrize("names", [("a/b", "a/b/c"), ("a/b/c", "a/b"), ("a/b/", "a/b"), ("a/b", "a/b/")])
def test_a_file_that_is_a_folder_too_is_refused(tmp_path, names, suffix):
    path = tmp_path / f"bad.{suffix}"
    if suffix == "zip":
        write_zip(path, [(name, b"") for name in names])
    else:
        with tarfile.open(path, "w") as archive:
            for name in names:
                member = tarfile.TarInfo(name.rstrip("/"))
                member.type = tarfile.DIRTYPE if name.endswith("/") else tarfile.REGTYPE
                archive.addfile(member, io.BytesIO())
    refused(path, "expected each member once, as a file or as a folder; received 'a/b")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("a/" * 1500 + "b.jpg", "expected members in at most 64 folders; received 'a/a/.*in 1501'"),
        ("a" * 256, "names of at most 255 bytes"),
        ("é" * 128, "names of at most 255 bytes"),
    ],
)
def test_names_that_no_file_system_takes_are_refused(tmp_path, name, message):
    refused(imagenet_tiny.write_tar(tmp_path / "bad.tar", {name: b""}), message)
    refused(write_zip(tmp_path / "bad.zip", [(name, b"")]), message)


def test_headers_that_would_fill_the_memory_or_never_end_are_refused(tmp_path):
    large = tarfile.TarInfo("long")
    large.type, large.size = tarfile.GNUTYPE_LONGNAME, 2**31
    (tmp_path / "large.tar").write_bytes(large.tobuf(tarfile.GNU_FORMAT) + bytes(2048))
    refused(tmp_path / "large.tar", "a header of 2147483648 bytes")
    chain = tarfile.TarInfo("long")
    chain.type, chain.size = tarfile.GNUTYPE_LONGNAME, 1
    (tmp_path / "chain.tar").write_bytes((chain.tobuf(tarfile.GNU_FORMAT) + b"a" + bytes(511)) * 2000 + bytes(1024))
    refused(tmp_path / "chain.tar", "expected a whole archive; received 'RecursionError")
    backwards = tarfile.TarInfo("a/b.jpg")
    backwards.pax_headers = {"size": "-1024"}
    (tmp_path / "backwards.tar").write_bytes(backwards.tobuf(tarfile.PAX_FORMAT) + bytes(1024))
    refused(tmp_path / "backwards.tar", "expected")


@pytest.mark.parametrize("suffix", ["tar.gz", "tar.bz2", "tar.xz", "zip"])
def test_an_archive_that_unpacks_to_more_than_is_allowed_is_refused(tmp_path, suffix):
    path = tmp_path / f"bomb.{suffix}"
    if suffix == "zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("a/zeros.bin", bytes(10**6))
    else:
        imagenet_tiny.write_tar(path, {"a/zeros.bin": bytes(10**6)}, suffix[4:])
    refused(path, r"expected at most 0.001 GB in it \(--max_unpacked_gb\); received 'more'", max_bytes=10**6)
    assert unpacking.unpack(path, tmp_path / "out", max_bytes=10**6 + 50_000)[1] == 1


def test_what_comes_after_the_end_of_a_tar_is_limited_too(tmp_path):
    path = tmp_path / "bomb.tar.gz"
    path.write_bytes(gzip.compress(imagenet_tiny.tar_bytes({"a/b.jpg": b""}) + bytes(2 * 10**6)))
    refused(path, "at most 0.001 GB", max_bytes=10**6)


def test_many_small_files_are_not_small(tmp_path):
    path = imagenet_tiny.write_tar(tmp_path / "many.tar.gz", {f"a/{i}": b"" for i in range(30)}, "gz")
    refused(path, "at most 0.0001 GB", max_bytes=100_000)


def test_an_archive_may_unpack_to_fifty_times_its_size_and_to_a_gigabyte():
    assert (unpacking.default_limit(10), unpacking.default_limit(10**9)) == (10**9, 50 * 10**9)


@pytest.mark.parametrize("suffix", ["tar", "tar.gz", "zip"])
def test_a_disk_that_does_not_take_a_file_leaves_nothing_behind(tmp_path, suffix):
    """A limit on the size of files stands for a full disk: ``write`` fails in the middle of the second file."""
    files = {"a/1.jpg": bytes(100), "a/2.jpg": bytes(30_000)}
    path = tmp_path / f"large.{suffix}"
    if suffix == "zip":
        write_zip(path, list(files.items()))
    else:
        imagenet_tiny.write_tar(path, files, suffix[4:])
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, before[1]))
    try:
        with pytest.raises(OSError, match=r"File too large: .*/a/2\.jpg"):
            unpacking.unpack(path, tmp_path / "out")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert list((tmp_path / "out").iterdir()) == []


def test_what_was_put_in_place_is_taken_back_where_the_rest_cannot_be(tmp_path, monkeypatch):
    path = imagenet_tiny.write_tar(tmp_path / "two.tar", {"a/1.jpg": b"", "b/1.jpg": b""})
    rename = type(path).rename

    def fails_for_b(source, target):
        if target == tmp_path / "out" / "b":
            raise OSError(5, "Input/output error")
        return rename(source, target)

    monkeypatch.setattr(type(path), "rename", fails_for_b)
    with pytest.raises(OSError, match="Input/output error"):
        unpacking.unpack(path, tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize("suffix", ["tar", "zip"])
def test_empty_folders_are_made(tmp_path, suffix):
    """A class without images is then seen as what it is, instead of giving its label to the next one."""
    path = tmp_path / f"a.{suffix}"
    if suffix == "zip":
        write_zip(path, [("a/bee/", b""), ("a/ant/1.jpg", b"")])
    else:
        with tarfile.open(path, "w") as archive:
            for name, kind in (("./", tarfile.DIRTYPE), ("a/bee", tarfile.DIRTYPE), ("a/ant/1.jpg", tarfile.REGTYPE)):
                member = tarfile.TarInfo(name)
                member.type = kind
                archive.addfile(member, io.BytesIO())
    assert unpacking.unpack(path, tmp_path / "out")[1] == 1
    assert sorted(other.name for other in (tmp_path / "out" / "a").iterdir()) == ["ant", "bee"]


def test_what_an_interrupted_unpacking_has_left_is_named(tmp_path, capsys):
    (tmp_path / ".unpacking_abc").mkdir()
    assert unpacking.unpack(imagenet_tiny.write_tar(tmp_path / "a.tar", FILES), tmp_path)[1] == 2
    assert capsys.readouterr().out == (
        f"left by an unpacking that was interrupted, or runs now: {tmp_path / '.unpacking_abc'}\n"
    )


def test_a_dangling_link_is_not_overwritten(tmp_path):
    (tmp_path / "imagenet-a").symlink_to("nowhere")
    with pytest.raises(ValueError, match=r"expected no imagenet-a in .* yet"):
        unpacking.unpack(imagenet_tiny.write_tar(tmp_path / "a.tar", FILES), tmp_path)


def test_what_is_no_archive_is_refused(tmp_path):
    path = tmp_path / "page.tar"
    path.write_text("<html>Not found</html>" * 100)
    refused(path, "page.tar: expected a whole archive")


@pytest.mark.parametrize(
    ("start", "name"), [(b"\x28\xb5\x2f\xfd", "zstd"), (b"7z\xbc\xaf\x27\x1c", "7z"), (b"Rar!", "rar")]
)
def test_archives_of_other_kinds_are_named(tmp_path, start, name):
    (tmp_path / "a.tar.zst").write_bytes(start + bytes(1000))
    refused(tmp_path / "a.tar.zst", f"expected a tar, tar.gz, tar.bz2, tar.xz or zip; received '{name}'")


def test_a_member_that_comes_twice_is_refused(tmp_path):
    path = tmp_path / "twice.tar.gz"
    with tarfile.open(path, "w:gz") as archive:
        for _ in range(2):
            archive.addfile(tarfile.TarInfo("a/b.png"), io.BytesIO())
    refused(path, "expected each member once, as a file or as a folder; received 'a/b.png'")


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
    assert "command line: expected archives to unpack, and flags (--name=value); received nothing" in errors
