"""A bucket on this machine: the emulator, with what it lacks and a real store has, and with faults on demand.

The emulator answers every request by itself. Before it does, this module compares the preconditions on generations,
which it ignores, and cuts its lists into pages. ``fail`` and ``flaky`` make requests fail as networks do.

    python -m tests.bucket_server --port=9199 [--flaky=0.02]
"""

import argparse
import collections
import contextlib
import functools
import io
import json
import os
import random
import re
import signal
import socket
import threading
import urllib.parse
from collections.abc import Iterator
from http import server

from gcp_storage_emulator import server as emulator
from gcp_storage_emulator.exceptions import NotFound
from gcp_storage_emulator.handlers import buckets
from gcp_storage_emulator.storage import Storage

BUCKET = "test"
KINDS = (
    "503",
    "dropped",
    "lost",
    "cut",
)  # before it is carried out (twice), after it, and within the answer; or the number of another answer
_OBJECT = re.compile(r"(?:/storage/v1|/upload/storage/v1|/download/storage/v1)?/b/([^/]+)/o(?:/([^/]+))?(/.*)?")


class BucketServer:
    """The server of the bucket ``test``; a context manager that runs it in a thread."""

    def __init__(self, port: int = 0, *, page: int = 1000):
        """Args:
        port: to listen at; 0: any.
        page: most objects of one answer to a list.
        """
        self.page = page
        self.uploaded: dict[str, bytes] = {}  # answers to the last part of an upload, by its session
        self.requests: list[str] = []  # method and address of each
        self.mutex = threading.RLock()
        self.storage = Storage(use_memory_fs=True)
        buckets.create_bucket(BUCKET, self.storage)
        self.failed = collections.Counter[str]()  # requests, by kind of fault
        self._faults: list[tuple[str, str]] = []
        self._flaky: tuple[float, random.Random, tuple[str, ...]] | None = None
        self._httpd = _Server(("127.0.0.1", port), functools.partial(_Handler, self))
        self.url = f"http://127.0.0.1:{self._httpd.server_address[1]}"

    def environment(self) -> dict[str, str]:
        """With which all libraries find the server."""
        return {
            "STORAGE_EMULATOR_HOST": self.url,
            "TENSORSTORE_GCS_HTTP_URL": self.url,
            "GOOGLE_AUTH_TOKEN_FOR_TESTING": "token",
        }

    def fail(self, *kinds: str, at: str = "") -> None:
        """Makes the next requests that match ``at`` ("METHOD ADDRESS") fail, each in one of the ways of KINDS."""
        self._faults += [(kind, at) for kind in kinds]

    def flaky(self, share: float, seed: int = 0, kinds: tuple[str, ...] = KINDS) -> None:
        """Makes a share of all requests fail from now on, in some of the ways of KINDS."""
        self._flaky = (share, random.Random(seed), kinds) if share else None

    @contextlib.contextmanager
    def out_of_order(self) -> Iterator[None]:
        """Within, all requests fail."""
        self.flaky(1.0)
        try:
            yield
        finally:
            self.flaky(0.0)

    def fault_of(self, request: str) -> str | None:
        """How a request fails, if it does."""
        with self.mutex:
            self.requests.append(request)
            kind = self._next_fault(request)
            self.failed.update([kind] if kind is not None else [])
            return kind

    def _next_fault(self, request: str) -> str | None:
        for index, (kind, at) in enumerate(self._faults):
            if re.search(at, request):
                del self._faults[index]
                return kind
        if self._flaky is not None and self._flaky[1].random() < self._flaky[0]:
            return self._flaky[1].choice(self._flaky[2])
        return None

    @property
    def faults_left(self) -> int:
        return len(self._faults)

    def names(self, prefix: str = "") -> list[str]:
        """Of all objects with a prefix."""
        return sorted(name for name in self.storage.objects.get(BUCKET, {}) if name.startswith(prefix))

    def __enter__(self) -> "BucketServer":
        threading.Thread(target=self._httpd.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._httpd.shutdown()
        self._httpd.server_close()


class _Server(server.ThreadingHTTPServer):
    request_queue_size = 128  # connections at a time; one that finds no room here tries again after a second


class _Handler(emulator.RequestHandler):
    def __init__(self, bucket: BucketServer, *arguments):
        self._bucket = bucket
        self._generation = ""  # of the object whose content is the answer
        super().__init__(bucket.storage, *arguments)

    def _serve(self, method: str) -> None:
        fault = self._bucket.fault_of(f"{method} {self.path}")
        body = emulator._read_raw_data(self) or b""
        if fault == "dropped":
            return self._hang_up()
        answer, connection = io.BytesIO(), self.wfile
        self.wfile = answer
        if fault is not None and fault.isdecimal():
            self.send_error(int(fault))
        else:
            with self._bucket.mutex:
                self._answer(method, body)
        content = answer.getvalue()
        self.wfile = connection
        if fault == "lost":
            return self._hang_up()
        head, blank, rest = content.partition(b"\r\n\r\n")
        with contextlib.suppress(ConnectionError):
            connection.write(head + blank + rest[: len(rest) // 2] if fault == "cut" and rest else content)
        return self._hang_up() if fault == "cut" else None

    def _hang_up(self) -> None:
        self.close_connection = True
        with contextlib.suppress(OSError):
            self.connection.shutdown(socket.SHUT_RDWR)

    def _answer(self, method: str, body: bytes) -> None:
        address = urllib.parse.urlsplit(self.path)
        query = dict(urllib.parse.parse_qsl(address.query))
        match = _OBJECT.fullmatch(address.path)
        if match is not None:
            name = urllib.parse.unquote(match[2]) if match[2] else query.get("name") or _name_in(body)
            if match[3] and "/o/" in match[3]:  # the target of a copy
                name = urllib.parse.unquote(match[3].rpartition("/o/")[2])
            if (status := self._precondition(query, match[1], name)) is not None:
                self.send_response(status)
                self.send_header("Content-Length", "0")
                return self.end_headers()
            if method == "GET" and not match[2]:
                return self._list(match[1], query)
            if query.get("alt") == "media" and name is not None:
                self._generation = self._generation_of(match[1], name)
        session = query.get("upload_id")  # gcsfs sends parts with POST
        if session in self._bucket.uploaded:  # its answer was lost: a store gives it again
            return self.wfile.write(self._bucket.uploaded[session])
        self.rfile = io.BytesIO(body)
        if "Transfer-Encoding" in self.headers:
            del self.headers["Transfer-Encoding"]
            self.headers["Content-Length"] = str(len(body))
        emulator.Router(self).handle(method)
        answer = self.wfile.getvalue()
        if session is not None and answer.split(maxsplit=2)[1] in (b"200", b"201"):
            self._bucket.uploaded[session] = answer
        return None

    def _precondition(self, query: dict[str, str], bucket: str, name: str | None) -> int | None:
        """412 or 304 if the object has not the generation that the request asks for."""
        wanted, unwanted = query.get("ifGenerationMatch"), query.get("ifGenerationNotMatch")
        if name is None or (wanted is None and unwanted is None):
            return None
        generation = self._generation_of(bucket, name)
        if wanted is not None and wanted != generation:
            return 412
        return 304 if unwanted is not None and unwanted == generation else None

    def _generation_of(self, bucket: str, name: str) -> str:
        """Of an object; 0 of none."""
        try:
            return str(self.storage.get_file_obj(bucket, name)["generation"])
        except NotFound:
            return "0"

    def end_headers(self) -> None:
        """Adds the generation of what is read, by which tensorstore knows whether it has changed."""
        generation, self._generation = self._generation, ""
        if generation:
            self.send_header("x-goog-generation", generation)
        super().end_headers()

    def _list(self, bucket: str, query: dict[str, str]) -> None:
        """A page: names and folders in one order, as a store has them."""
        try:
            files, prefixes = self.storage.get_file_list(bucket, query.get("prefix"), query.get("delimiter"))
        except NotFound:
            return self._say(404, {"error": {"code": 404, "message": "The specified bucket does not exist."}})
        entries = sorted([(file["name"], file) for file in files] + [(prefix, None) for prefix in prefixes or ()])
        entries = [entry for entry in entries if entry[0] > query.get("pageToken", "")]
        size = min(int(query.get("maxResults", self._bucket.page)), self._bucket.page)
        page = entries[:size]
        answer = {
            "kind": "storage#objects",
            "items": [file for _, file in page if file is not None],
            "prefixes": [name for name, file in page if file is None],
        } | ({"nextPageToken": page[-1][0]} if len(entries) > size else {})
        return self._say(200, answer)

    def _say(self, status: int, answer: dict[str, object]) -> None:
        content = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    do_GET = functools.partialmethod(_serve, "GET")
    do_POST = functools.partialmethod(_serve, "POST")
    do_PUT = functools.partialmethod(_serve, "PUT")
    do_PATCH = functools.partialmethod(_serve, "PATCH")
    do_DELETE = functools.partialmethod(_serve, "DELETE")


def _name_in(body: bytes) -> str | None:
    """The object's name in the description that an upload begins with."""
    found = re.search(rb'"name":\s*("(?:[^"\\]|\\.)*")', body[:4096])
    return None if found is None else json.loads(found[1])


@contextlib.contextmanager
def in_environment(bucket: BucketServer) -> Iterator[None]:
    """Within, the libraries of this process find the server."""
    before = {name: os.environ.get(name) for name in bucket.environment()}
    os.environ.update(bucket.environment())
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, default=9199)
    parser.add_argument("--flaky", type=float, default=0.0)
    given = parser.parse_args()
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})  # in all threads, for sigwait
    with BucketServer(given.port) as started:
        started.flaky(given.flaky)
        print("\n".join(f"export {name}={value}" for name, value in started.environment().items()), flush=True)
        signal.sigwait({signal.SIGINT, signal.SIGTERM})
        print(f"{len(started.requests)} requests; failed: {dict(started.failed)}")
