"""Processes that were started by hand meet at the coordinator's port before JAX uses it.

JAX aborts a process that waits in vain or has another's number. Its stack trace does not say which one is missing. Here
all of them print the same sentence instead.
"""

import json
import socket
import time
from collections.abc import Iterable, Mapping

from vmoe_inform import checks

_RETRY_SECONDS = 0.1
_INTRODUCTION_SECONDS = 5.0  # that a connection may take to say who it is; what does not is a stranger


class MissingProcessError(Exception):
    """A process of the run, or its coordinator, did not join in time."""


def parse_address(address: str) -> tuple[str, int]:
    """``HOST:PORT`` or ``[IPv6]:PORT`` as (host, port).

    Raises:
      ValueError: it is something else.
    """
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 2**16:
        raise checks.error("--coordinator_address", "HOST:PORT", address)
    return host.removeprefix("[").removesuffix("]"), int(port)


def meet(address: str, num_processes: int, process_id: int, timeout_seconds: float) -> None:
    """Returns when all processes of the run have joined; the port is free again then.

    Args:
      address: HOST:PORT, where process 0 listens.
      num_processes, process_id: of this process; each number from 0 to ``num_processes`` - 1 has to come once.
      timeout_seconds: how long to wait.

    Raises:
      MissingProcessError: some did not join; process 0 tells the others which are missing.
      ValueError: in all of them, two processes with the same number or with different numbers of processes. Also a port
        that process 0 cannot open.
    """
    deadline = time.monotonic() + timeout_seconds
    if process_id == 0:
        _wait_for_all(address, num_processes, deadline, timeout_seconds)
    else:
        _introduce(address, num_processes, process_id, deadline, timeout_seconds)


def _wait_for_all(address: str, num_processes: int, deadline: float, timeout_seconds: float) -> None:
    there: dict[int, socket.socket] = {}
    try:
        with _listen(address) as server:
            while len(there) < num_processes - 1:
                server.settimeout(max(deadline - time.monotonic(), 1e-3))
                try:
                    connection, _ = server.accept()
                except TimeoutError:
                    missing = sorted(set(range(1, num_processes)) - there.keys())
                    raise MissingProcessError(
                        f"processes: expected {num_processes} at {address} within {timeout_seconds:g} s; "
                        f"missing: process {', '.join(map(str, missing))}"
                    ) from None
                introduced = _hear(connection)
                if introduced is None:
                    connection.close()
                    continue
                other = introduced["process_id"]
                taken = other == 0 or other in there
                there[-1 - len(there) if taken else other] = connection  # so that it receives the error, too
                if introduced["num_processes"] != num_processes:
                    raise checks.error(
                        "--num_processes", f"{num_processes} as process 0 has it", introduced["num_processes"]
                    )
                if taken:
                    raise checks.error("--process_id", "a number of its own for each process", other)
    except (MissingProcessError, checks.InputError) as problem:
        kind = "missing" if isinstance(problem, MissingProcessError) else "input"
        _tell(there.values(), {kind: str(problem)})
        raise
    _tell(there.values(), {})


def _listen(address: str) -> socket.socket:
    port = parse_address(address)[1]
    try:
        if socket.has_dualstack_ipv6():
            return socket.create_server(("", port), family=socket.AF_INET6, dualstack_ipv6=True)
        return socket.create_server(("", port))
    except OSError as problem:
        raise checks.error("--coordinator_address", f"a port that process 0 can open ({problem})", address) from None


def _hear(connection: socket.socket) -> dict[str, int] | None:
    connection.settimeout(_INTRODUCTION_SECONDS)
    try:
        said = json.loads(connection.makefile("rb").readline(1000))
        return {name: int(said[name]) for name in ("process_id", "num_processes")}
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _tell(connections: Iterable[socket.socket], message: Mapping[str, str]) -> None:
    for connection in connections:
        with connection:
            try:
                connection.sendall(json.dumps(message).encode() + b"\n")
            except OSError:
                continue  # it has gone; JAX's own start will miss it


def _introduce(address: str, num_processes: int, process_id: int, deadline: float, timeout_seconds: float) -> None:
    host, port = parse_address(address)
    said = json.dumps({"process_id": process_id, "num_processes": num_processes}).encode() + b"\n"
    reason = "no answer"
    while (left := deadline - time.monotonic()) > 0:
        try:
            with socket.create_connection((host, port), timeout=left) as connection:
                connection.sendall(said)
                # Process 0 may have come later, and waits for others as long.
                connection.settimeout(timeout_seconds + _INTRODUCTION_SECONDS)
                answer = json.loads(connection.makefile("rb").readline() or b"null")
        except (OSError, ValueError) as problem:
            reason, answer = str(problem), None
        if answer is not None:
            return _obey(answer)
        time.sleep(min(_RETRY_SECONDS, max(left, 0.0)))
    raise MissingProcessError(
        f"--coordinator_address: expected process 0 at {address} within {timeout_seconds:g} s; received {reason!r}"
    )


def _obey(answer: Mapping[str, str]) -> None:
    if "missing" in answer:
        raise MissingProcessError(answer["missing"])
    if "input" in answer:
        raise checks.InputError(answer["input"])
