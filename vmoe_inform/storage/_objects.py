"""Objects of a bucket, by path: read, written, joined, copied, listed and deleted, with retries.

A request that fails for a moment (503, 429, a lost connection) is repeated with growing pauses. What still fails is an
OSError in one line. Writing an object is atomic by itself: readers see the old one, or the whole new one.
"""

import base64
import contextlib
import dataclasses
import errno
import functools
import io
import itertools
import pathlib
import time
from collections.abc import Iterator, Mapping
from typing import IO, Any

import google.auth.exceptions
import requests
from absl import logging
from google.api_core import exceptions as api_exceptions
from google.cloud import storage as google_storage
from google.cloud.storage import exceptions as storage_exceptions
from google.cloud.storage.retry import DEFAULT_RETRY

RETRY_SECONDS = 120.0  # that one request may take with all its repetitions
_ATTEMPT_SECONDS = (10.0, 60.0)  # to connect, and between two packets
_WHOLE_BYTES = 1 << 26  # an object of at most this many is read in one request
_BLOCK_BYTES = 1 << 24  # of a larger one, in each
_SILENT_SECONDS = 10.0  # that a request may be repeated before a line says so
_SAID_EVERY_SECONDS = 60.0  # at most, by each process
_MOST_CONNECTIONS = 256  # that are kept
_MARKS = 8  # of folders, that may come before the first object below one
_NOTHING: Mapping[str, str] = {}


class ChangedError(OSError):
    """The object is another one by now, or is there already; nothing was written."""


@dataclasses.dataclass(frozen=True)
class Object:
    """What is known of an object without reading it.

    Attributes:
      name: in its bucket.
      size: in bytes.
      generation: number of this content; every write makes another.
      crc32c: of its content, 4 bytes.
      facts: that were written with it, by name.
      encoding: what its readers are to undo, such as ``gzip``; empty for nothing.
    """

    name: str
    size: int
    generation: int
    crc32c: bytes = b""
    facts: Mapping[str, str] = dataclasses.field(default_factory=dict)
    encoding: str = ""


def find(path: pathlib.PurePath, *, seconds: float | None = None) -> Object | None:
    """The object of a path, if there is one; ``seconds`` as of :func:`write`."""
    with _one_line(path):
        return _object(_bucket(path).get_blob(name_of(path), **_patience(seconds)))


@contextlib.contextmanager
def opened(path: pathlib.PurePath, found: Object) -> Iterator[IO[bytes]]:
    """An object, open for reading. Raises ChangedError if it is replaced while it is read."""
    blob = _bucket(path).blob(found.name)
    with _one_line(path):
        if found.size <= _WHOLE_BYTES:
            content = blob.download_as_bytes(if_generation_match=found.generation, **_patience())
            yield io.BytesIO(content)
            return
        how = _patience()
        with blob.open("rb", chunk_size=_BLOCK_BYTES, if_generation_match=found.generation, **how) as file:
            yield file


def read(path: pathlib.PurePath) -> bytes:
    """The content of an object, whichever generation is the newest; one request, whose checksum is compared."""
    with _one_line(path):
        return _bucket(path).blob(name_of(path)).download_as_bytes(**_patience())


def read_part(path: pathlib.PurePath, found: Object, start: int, end: int) -> bytes:
    """The bytes ``start`` to ``end`` - 1 of an object, at least one. Raises ChangedError if it was replaced."""
    with _one_line(path):
        blob = _bucket(path).blob(found.name)
        part = blob.download_as_bytes(start=start, end=end - 1, if_generation_match=found.generation, **_patience())
    if len(part) != end - start:
        raise OSError(errno.EIO, f"{len(part):,} bytes came of {end - start:,}", str(path))
    return part


def write(
    path: pathlib.PurePath,
    content: bytes | IO[bytes],
    *,
    generation: int | None = None,
    facts: Mapping[str, str] = _NOTHING,
    seconds: float | None = None,
) -> Object:
    """Writes an object whole.

    Args:
      path: of the object.
      content: all of it, or a file that is read from its beginning.
      generation: that it must have, 0 for none; None: any.
      facts: to be read with :func:`find`.
      seconds: that it may take with all repetitions; None: as all requests.

    Raises:
      ChangedError: it has another generation; or this very request has been answered before, and the answer was lost.
    """
    blob = _bucket(path).blob(name_of(path))
    blob.metadata = dict(facts) or None
    file = io.BytesIO(content) if isinstance(content, bytes) else content
    size = file.seek(0, io.SEEK_END)
    with _one_line(path):
        blob.upload_from_file(file, rewind=True, size=size, if_generation_match=generation, **_patience(seconds))
    return _known(blob)


def join(path: pathlib.PurePath, part: pathlib.PurePath, *, generation: int) -> Object:
    """Adds an object of the same bucket to the end of another, within the store; raises as :func:`write`."""
    bucket = _bucket(path)
    blob = bucket.blob(name_of(path))
    blob.content_type = "application/octet-stream"
    with _one_line(path):
        parts = [bucket.blob(name_of(one)) for one in (path, part)]
        blob.compose(parts, if_generation_match=generation, **_patience())
    return _known(blob)


def copy(path: pathlib.PurePath, target: pathlib.PurePath) -> None:
    """Copies an object within the store."""
    source, copied = _bucket(path).blob(name_of(path)), _bucket(target).blob(name_of(target))
    with _one_line(path):
        token, _, _ = copied.rewrite(source, **_patience())
        while token is not None:
            token, _, _ = copied.rewrite(source, token=token, **_patience())


def delete(path: pathlib.PurePath, *, generation: int | None = None) -> None:
    """Deletes an object; one that is gone already is no error. Raises ChangedError as :func:`write`."""
    with contextlib.suppress(FileNotFoundError), _one_line(path):
        _bucket(path).blob(name_of(path)).delete(if_generation_match=generation, **_patience())


def level(folder: pathlib.PurePath) -> tuple[list[str], list[str]]:
    """Names of the objects and of the folders right below a folder; nothing deeper is listed."""
    prefix = f"{name_of(folder)}/"
    with _one_line(folder), _listing(folder):
        listed = _bucket(folder).list_blobs(prefix=prefix, delimiter="/", **_patience())
        names = [blob.name.removeprefix(prefix) for blob in listed]  # the folders are known after the last page
        folders = [name.removeprefix(prefix).rstrip("/") for name in listed.prefixes]
    return [name for name in names if name], [name for name in folders if name]


def below(folder: pathlib.PurePath, *, most: int | None = None) -> list[str]:
    """Names of all objects below a folder, relative to it, or the first ``most``.

    A name with an empty part (``//``) is of no path. Joined to the folder, it would name another object.
    """
    prefix = f"{name_of(folder)}/"
    with _one_line(folder), _listing(folder):
        size = None if most is None else most + _MARKS
        listed = _bucket(folder).list_blobs(prefix=prefix, page_size=size, **_patience())
        names = (blob.name.removeprefix(prefix) for blob in listed)
        files = (name for name in names if all(name.split("/")))  # one that ends with / is a mark of consoles
        return list(itertools.islice(files, most))


@contextlib.contextmanager
def _listing(folder: pathlib.PurePath) -> Iterator[None]:
    """Says what a list that is not found means: in a bucket that is there it would be empty."""
    try:
        yield
    except api_exceptions.NotFound:
        raise FileNotFoundError(errno.ENOENT, f"there is no bucket {folder.parts[2]}", str(folder)) from None


def name_of(path: pathlib.PurePath) -> str:
    """Of the object in its bucket."""
    return "/".join(path.parts[3:])


def _bucket(path: pathlib.PurePath) -> Any:
    return _client().bucket(path.parts[2])


@functools.cache
def _client() -> Any:
    client = google_storage.Client(project=None)
    # By itself it keeps ten connections: each further thread would connect for every request, and warn of it. There is
    # no public way to keep more (3.17): Client(_http=...) would need its credentials, too.
    connections = requests.adapters.HTTPAdapter(pool_maxsize=_MOST_CONNECTIONS)
    for scheme in ("https://", "http://"):
        client._http.mount(scheme, connections)
    return client


def _patience(seconds: float | None = None) -> dict[str, Any]:
    """How often a request is repeated, as the client takes it: what calls its function."""
    most = RETRY_SECONDS if seconds is None else seconds
    retry = DEFAULT_RETRY.with_timeout(most).with_delay(initial=0.2, maximum=20.0, multiplier=2.0)
    say = functools.partial(_say, time.monotonic(), most) if seconds is None else None
    return {"retry": functools.partial(retry, on_error=say), "timeout": _ATTEMPT_SECONDS}


def _say(begun: float, most: float, problem: Exception) -> None:
    """Says why a command is still waiting."""
    waited = time.monotonic() - begun
    if waited >= _SILENT_SECONDS:
        words = "the bucket does not answer; asking again for up to %d s (%s)"
        logging.log_every_n_seconds(logging.WARNING, words, _SAID_EVERY_SECONDS, most - waited, _line(problem))


def _object(blob: Any) -> Object | None:
    return None if blob is None else _known(blob)


def _known(blob: Any) -> Object:
    crc32c = base64.b64decode(blob.crc32c or "")
    return Object(
        blob.name, int(blob.size), int(blob.generation), crc32c, blob.metadata or {}, blob.content_encoding or ""
    )


@contextlib.contextmanager
def _one_line(path: pathlib.PurePath) -> Iterator[None]:
    """Turns what the client raises into an OSError that names the path."""
    try:
        yield
    except api_exceptions.NotFound as problem:
        raise FileNotFoundError(errno.ENOENT, _line(problem), str(path)) from None
    except api_exceptions.PreconditionFailed as problem:
        raise ChangedError(errno.EBUSY, _line(problem), str(path)) from None
    except (api_exceptions.Forbidden, api_exceptions.Unauthorized, google.auth.exceptions.GoogleAuthError) as problem:
        raise PermissionError(errno.EACCES, _line(problem), str(path)) from None
    except (
        api_exceptions.GoogleAPIError,
        storage_exceptions.DataCorruption,
        storage_exceptions.InvalidResponse,
        requests.RequestException,
    ) as problem:
        raise OSError(errno.EIO, _line(problem), str(path)) from None


def _line(problem: Exception) -> str:
    return " ".join(str(problem).split())[:300]
