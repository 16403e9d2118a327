"""Unpacks archives whole or not at all, and nothing of them outside the folder that is asked for."""

import pathlib
import shutil
import stat
import tarfile
import tempfile
import zipfile
from collections.abc import Iterator
from typing import IO

from vmoe_inform import checks
from vmoe_inform.data import archives, ilsvrc

_FOLDERS = {ilsvrc.TRAIN_TAR: "train", ilsvrc.VALIDATION_TAR: "val"}  # whose members are in no folder
_PROGRESS_FILES = 50_000

# (folders and name, content) of each file; folders without files are not made.
Files = Iterator[tuple[tuple[str, ...], IO[bytes]]]


def unpack(archive: pathlib.Path, directory: pathlib.Path) -> tuple[list[pathlib.Path], int]:
    """Unpacks one archive.

    Args:
      archive: the file.
      directory: where to; it is made.

    Returns:
      what is new in ``directory``, and the number of files.

    Raises:
      FileNotFoundError: no such archive.
      ValueError: not an archive, or a damaged one; a member that is refused or comes twice; a file or folder that is
        there already. ``directory`` is then as it was.
    """
    if not archive.is_file():
        raise FileNotFoundError(f"archive: expected a file; received {str(archive)!r}")
    directory.mkdir(parents=True, exist_ok=True)
    # Beside the place where the files will be, so that they can be renamed.
    with tempfile.TemporaryDirectory(prefix=".unpacking_", dir=directory) as temporary, archives.whole(archive):
        files = _zip_files(archive) if archives.compression(archive) == "zip" else _tar_files(archive)
        count = 0
        for parts, content in files:
            _refuse_existing(archive, directory / parts[0])
            path = pathlib.Path(temporary, *parts)
            path.parent.mkdir(parents=True, exist_ok=True)
            try:
                with path.open("xb") as file:
                    shutil.copyfileobj(content, file)
            except FileExistsError:
                raise checks.error(str(archive), "each member once", "/".join(parts)) from None
            count += 1
            if count % _PROGRESS_FILES == 0:
                print(f"{archive.name}: {count:,} files", flush=True)
        if count == 0:
            raise checks.error(str(archive), "an archive with files", "none")
        new = [directory / path.name for path in sorted(pathlib.Path(temporary).iterdir())]
        for path in new:
            _refuse_existing(archive, path)
            pathlib.Path(temporary, path.name).rename(path)
    return new, count


def _refuse_existing(archive: pathlib.Path, path: pathlib.Path) -> None:
    if path.exists():
        raise checks.error(str(archive), f"no {path.name} in {path.parent} yet", "one that is there")


def _tar_files(archive: pathlib.Path) -> Files:
    if not archives.compression(archive):
        archives.tar_members(archive)  # an archive that is cut or refused is known before anything is written
    folder = (_FOLDERS[archive.name],) if archive.name in _FOLDERS else ()
    with tarfile.open(archive, "r|*") as tar:
        for parts, content in _members(archive, tar):
            if not parts[-1].endswith(".tar"):
                yield folder + parts, content
                continue
            with tarfile.open(fileobj=content, mode="r|") as inner:  # the images of one class
                class_folder = folder + parts[:-1] + (parts[-1].removesuffix(".tar"),)
                for inner_parts, inner_content in _members(archive, inner):
                    yield class_folder + inner_parts, inner_content


def _members(archive: pathlib.Path, tar: tarfile.TarFile) -> Files:
    """The files of a tar that is read as a stream, each to be read before the next."""
    while (member := tar.next()) is not None:
        parts = archives.check_member(archive, member)
        content = tar.extractfile(member) if member.isreg() else None
        if content is not None:
            yield parts, content
        tar.members.clear()  # type: ignore[attr-defined]  # a million of them would fill the memory


def _zip_files(archive: pathlib.Path) -> Files:
    with zipfile.ZipFile(archive) as file:
        for member in file.infolist():
            parts = archives.check_parts(archive, member.filename)
            mode = member.external_attr >> 16  # as Unix programs write it, else 0
            if stat.S_IFMT(mode) not in (0, stat.S_IFREG, stat.S_IFDIR):
                raise checks.error(str(archive), "files and folders only, no links or devices", member.filename)
            if member.flag_bits & 0x1:
                raise checks.error(str(archive), "members without a password", member.filename)
            if not member.is_dir():
                with file.open(member) as content:
                    yield parts, content
