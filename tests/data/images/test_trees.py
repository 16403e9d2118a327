import concurrent.futures
import io
import pickle
import re
import tarfile

import numpy as np
import pytest

from tests import imagenet_tiny
from vmoe_inform.data import archives
from vmoe_inform.data.images import decode, trees
from vmoe_inform.data.images import pixels as images

FILES = {"bee/b.JPEG": b"first", "ant/c.png": b"second, longer", "bee/a.jpg": b"third"}


def contents(records):
    return [(records.name(i), records[i]["image"], records[i]["label"]) for i in range(len(records))]


# Sorted by class and file; the label of "ant" is 7, that of "bee" is 3.
EXPECTED = [("ant/c.png", b"second, longer", 7), ("bee/a.jpg", b"third", 3), ("bee/b.JPEG", b"first", 3)]


def folder_of(tmp_path, files):
    imagenet_tiny.write_files(tmp_path / "tree", files)
    return tmp_path / "tree"


def tar_of(tmp_path, files):
    return imagenet_tiny.write_tar(tmp_path / "tree.tar", files)


@pytest.mark.parametrize("write", [folder_of, tar_of])
def test_a_tree_has_sorted_classes_and_reads_its_files(tmp_path, write):
    tree = trees.read(write(tmp_path, FILES))
    assert tree.classes == ("ant", "bee")
    assert contents(tree.records([7, 3])) == EXPECTED


@pytest.mark.parametrize("root", ["./", "imagenet-a/", "./a/b/"])
def test_the_root_of_a_tree_may_lie_in_folders_of_the_tar(tmp_path, root):
    files = {f"{root}README.txt": b"about", **{root + name: content for name, content in FILES.items()}}
    assert contents(trees.read(tar_of(tmp_path, files)).records([7, 3])) == EXPECTED


def test_one_of_several_trees_of_a_tar(tmp_path):
    path = tar_of(tmp_path, {f"fog/{severity}/ant/x.JPEG": bytes([severity]) for severity in (1, 2, 3)})
    assert contents(trees.read_tar(path, ("fog", "2")).records([0])) == [("ant/x.JPEG", b"\2", 0)]
    with pytest.raises(ValueError, match=r"class folders in one place.*'fog/1/ant', 'fog/2/ant', 'fog/3/ant'"):
        trees.read_tar(path)
    with pytest.raises(FileNotFoundError, match=r"tree.tar/fog/4: expected folders of classes"):
        trees.read_tar(path, ("fog", "4"))


@pytest.mark.parametrize("write", [folder_of, tar_of])
def test_records_are_read_by_threads_and_by_processes_that_unpickle_them(tmp_path, write):
    records = trees.read(write(tmp_path, FILES)).records([7, 3])
    assert records[0]["image"] == EXPECTED[0][1]  # the tar is open now
    pickled = pickle.dumps(records)
    trees._descriptor.cache_clear()  # as in a new process, which opens the tar for itself
    assert contents(pickle.loads(pickled)) == EXPECTED
    with concurrent.futures.ThreadPoolExecutor(4) as threads:
        many = list(threads.map(lambda i: records[i % 3]["image"], range(300)))
    assert many == [EXPECTED[i % 3][1] for i in range(300)]


def test_a_long_tar_is_read_at_its_offsets(tmp_path):
    """Names above 100 bytes take further blocks, contents are padded to 512 bytes."""
    random = np.random.default_rng(0)
    files = {f"{'c' * 150}/{i}_{'n' * 99}.png": random.bytes(int(random.integers(0, 2000))) for i in range(20)}
    records = trees.read(tar_of(tmp_path, files)).records([0])
    assert {name: content for name, content, _ in contents(records)} == files


@pytest.mark.parametrize("write", [folder_of, tar_of])
def test_files_that_are_no_images_by_their_names_are_counted(tmp_path, write, caplog):
    extra = {"ant/notes.txt": b"", "ant/._c.png": b"", "bee/Thumbs.db": b""}
    tree = trees.read(write(tmp_path, FILES | extra))
    assert len(tree.names) == 3
    assert "files that are left out, since they are no images of a class: 3 (in ant, bee)" in caplog.text


def test_images_beside_the_class_folders_are_counted(tmp_path, caplog):
    trees.read(folder_of(tmp_path, FILES | {"loose.png": b""}))
    assert "files that are left out, since they are no images of a class: 1 (in .)" in caplog.text


NOT_CLASSES = ("@eaDir", "lost+found", "__MACOSX", ".ipynb_checkpoints", "#recycle", "$RECYCLE.BIN")


@pytest.mark.parametrize("write", [folder_of, tar_of])
def test_folders_that_machines_make_are_no_classes_and_named(tmp_path, write, caplog):
    extra = {f"{name}/a.png": b"" for name in NOT_CLASSES} | {".DS_Store": b"", "Thumbs.db": b""}
    tree = trees.read(write(tmp_path, FILES | extra | {"ant/@eaDir/c.png/SYNO.png": b""}))
    assert contents(tree.records([7, 3])) == EXPECTED
    (line,) = caplog.messages
    assert line.endswith(f"folders that are taken for no classes: {', '.join(sorted(NOT_CLASSES))}")


def test_empty_folders_that_machines_make_are_no_classes(tmp_path):
    for name in NOT_CLASSES:
        (folder_of(tmp_path, FILES) / name).mkdir()
    assert trees.read(tmp_path / "tree").classes == ("ant", "bee")


@pytest.mark.parametrize("kind", ["folder", "tar"])
def test_class_folders_without_images_are_named_and_shift_no_labels(tmp_path, kind):
    root = folder_of(tmp_path, FILES | {"aphid/notes.txt": b""})
    (root / "ape").mkdir()
    if kind == "tar":
        with tarfile.open(tmp_path / "a.tar", "w") as archive:
            archive.add(root, "some/tree")
        root = tmp_path / "a.tar"
    with pytest.raises(
        FileNotFoundError, match="expected folders of classes with images; received no image in ape, ap"
    ):
        trees.read(root)


def test_folders_and_files_may_be_links_and_suffixes_of_any_case(tmp_path):
    imagenet_tiny.write_files(tmp_path / "elsewhere", {"b.JPEG": b"first", "a.jpg": b"third"})
    root = folder_of(tmp_path, {"ant/c.PNG": b"second, longer"})
    (root / "bee").symlink_to(tmp_path / "elsewhere")
    names = [(name.lower(), content, label) for name, content, label in contents(trees.read(root).records([7, 3]))]
    assert names == [(name.lower(), content, label) for name, content, label in EXPECTED]


@pytest.mark.parametrize(
    ("content", "what"), [(b"", "zero bytes"), (b"This is text, and no image.", "text"), (None, "cut off")]
)
@pytest.mark.parametrize("write", [folder_of, tar_of])
def test_what_is_no_image_by_its_content_is_an_unreadable_record(tmp_path, write, content, what):
    whole = imagenet_tiny.encoded("n01440764", 0)
    records = trees.read(write(tmp_path, {"ant/a.JPEG": whole[:300] if content is None else content})).records([0])
    with pytest.raises(decode.UnreadableImageError):
        images.to_square(records[0]["image"], 16)


# ----------------------------------------------------------------------------------------------------- refused tars


def tar_with(path, **attributes):
    """A tar with one good member and one that has these attributes."""
    with tarfile.open(path, "w") as archive:
        for member in (tarfile.TarInfo("ant/a.png"), tarfile.TarInfo("ant/b.png")):
            if member.name == "ant/b.png":
                for name, value in attributes.items():
                    setattr(member, name, value)
            archive.addfile(member, io.BytesIO())
    return path


REFUSED = [
    ({"name": "../b.png"}, "expected members with relative names and without '..'; received '../b.png'"),
    ({"name": "ant/../../b.png"}, "without '..'"),
    ({"name": "/ant/b.png"}, "relative names"),
    ({"type": tarfile.SYMTYPE, "linkname": "/etc/passwd"}, "no links or devices; received 'ant/b.png'"),
    ({"type": tarfile.LNKTYPE, "linkname": "ant/a.png"}, "no links or devices"),
    ({"type": tarfile.FIFOTYPE}, "no links or devices"),
    ({"type": tarfile.CHRTYPE}, "no links or devices"),
]


@pytest.mark.parametrize(("attributes", "message"), REFUSED)
def test_tars_with_members_that_lead_elsewhere_are_refused(tmp_path, attributes, message):
    with pytest.raises(ValueError, match=message):
        trees.read(tar_with(tmp_path / "bad.tar", **attributes))


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"a.png": b"", "ant/b.png": b""}, r"all images in them; received \['a.png', 'ant'\]"),
        ({"n01440764.tar": b""}, r"not further tars \(unpack it: python -m vmoe_inform.data.unpack .*bad.tar --dir"),
    ],
)
def test_tars_of_another_layout_are_refused(tmp_path, files, message):
    with pytest.raises(ValueError, match=message):
        trees.read(imagenet_tiny.write_tar(tmp_path / "bad.tar", files))


def test_a_file_that_comes_twice_is_refused(tmp_path):
    with tarfile.open(tmp_path / "bad.tar", "w") as archive:
        for _ in range(2):
            archive.addfile(tarfile.TarInfo("ant/a.png"), io.BytesIO())
    with pytest.raises(ValueError, match="expected each file once; received '1 twice'"):
        trees.read(tmp_path / "bad.tar")


@pytest.mark.parametrize("compression", ["gz", "bz2", "xz"])
def test_compressed_tars_name_the_command_that_unpacks_them(tmp_path, compression):
    path = imagenet_tiny.write_tar(tmp_path / f"a; $b.tar.{compression}", FILES, compression)
    command = re.escape(f"python -m vmoe_inform.data.unpack '{path}' --directory={tmp_path})")  # for a shell
    with pytest.raises(ValueError, match=command):
        trees.read(path)


# Two members of a header of 512 bytes and a block of content each, and the end: cut in a header, in a content, and
# between the members, where the rest is a tar without its end.
@pytest.mark.parametrize("size", [100, 700, 1024, 1100, 1600])
def test_a_tar_that_was_cut_off_is_refused(tmp_path, size):
    path = tar_of(tmp_path, {"ant/a.png": b"1", "ant/b.png": b"2"})
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(ValueError, match=r"tree\.tar: expected a whole archive"):
        archives.tar_members(path)


def test_a_tar_that_was_replaced_is_read_anew(tmp_path):
    assert len(archives.tar_members(tar_of(tmp_path, FILES))) == 3
    assert len(archives.tar_members(tar_of(tmp_path, FILES | {f"ant/{i}.png": b"x" * 512 for i in range(30)}))) == 33


def test_a_tar_that_became_shorter_is_an_error_of_the_record(tmp_path):
    path = tar_of(tmp_path, FILES)
    records = trees.read(path).records([7, 3])
    path.write_bytes(b"")
    with pytest.raises(OSError, match=r"ends before ant/c\.png does"):
        records[0]
