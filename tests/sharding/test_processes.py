"""Processes find each other, or say in one line who is missing, in time."""

import concurrent.futures
import socket
import time

import pytest

from tests import processes as commands
from tests.sharding.test_launchers import SLURM
from vmoe_inform import checks
from vmoe_inform.sharding import processes, rendezvous
from vmoe_inform.sharding.rendezvous import MissingProcessError


def free_address() -> str:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return f"127.0.0.1:{server.getsockname()[1]}"


def meet(*arrivals: tuple[int, int], timeout_seconds: float = 300.0) -> list[BaseException | None]:
    """What each of these (number of processes, own number) has met with at the same address."""
    address = free_address()
    with concurrent.futures.ThreadPoolExecutor(len(arrivals)) as pool:
        futures = [pool.submit(rendezvous.meet, address, *arrival, timeout_seconds) for arrival in arrivals]
        return [future.exception() for future in futures]


def test_all_are_there():
    assert meet((4, 3), (4, 1), (4, 0), (4, 2)) == [None] * 4


def test_everybody_hears_who_is_missing():
    for problem in meet((4, 0), (4, 2), timeout_seconds=2.0):
        assert isinstance(problem, MissingProcessError)
        assert "expected 4 at" in str(problem)
        assert "within 2 s; missing: process 1, 3" in str(problem)


def test_nobody_is_at_the_address():
    (problem,) = meet((2, 1), timeout_seconds=0.5)
    assert isinstance(problem, MissingProcessError)
    assert "expected process 0 at 127.0.0.1" in str(problem)
    assert "within 0.5 s; received '[Errno 111] Connection refused'" in str(problem)


@pytest.mark.parametrize(
    ("arrivals", "message"),
    [
        (((3, 0), (3, 1), (3, 1)), "--process_id: expected a number of its own for each process; received 1"),
        (((3, 0), (2, 1)), "--num_processes: expected 3 as process 0 has it; received 2"),
    ],
)
def test_everybody_hears_what_is_wrong(arrivals, message):
    for problem in meet(*arrivals):
        assert isinstance(problem, checks.InputError)
        assert message in str(problem)


def test_a_second_process_0_cannot_open_the_port():
    with socket.create_server(("", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        with pytest.raises(ValueError, match=r"--coordinator_address: expected a port that process 0 can open"):
            rendezvous.meet(address, 2, 0, 1.0)


def test_strangers_are_not_taken_for_processes():
    address = free_address()
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        first = pool.submit(rendezvous.meet, address, 2, 0, 300.0)
        host, port = rendezvous.parse_address(address)
        while True:
            try:
                with socket.create_connection((host, port)) as stranger:
                    stranger.sendall(b"GET / HTTP/1.1\r\n\r\n")
                break
            except ConnectionRefusedError:
                assert not first.done(), first.exception()
                time.sleep(0.02)
        second = pool.submit(rendezvous.meet, address, 2, 1, 300.0)
        assert (first.exception(), second.exception()) == (None, None)


@pytest.mark.parametrize("address", ["localhost", ":80", "host:port", "host:0", "host:65536"])
def test_bad_addresses(address):
    with pytest.raises(ValueError, match="--coordinator_address: expected HOST:PORT"):
        processes.initialize(address, 2, 0)


def test_an_address_of_version_6():
    assert rendezvous.parse_address("[::1]:80") == ("::1", 80)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("h:1", 2, None), "expected all of --coordinator_address, --num_processes and --process_id, or none"),
        (("h:1", 0, 0), "--num_processes: expected an integer >= 1; received 0"),
        (("h:1", 2, 2), "--process_id: expected 0 to 1; received 2"),
        (("h:1", 2, -1), "--process_id: expected 0 to 1; received -1"),
    ],
)
def test_bad_numbers(arguments, message):
    with pytest.raises(ValueError, match=message):
        processes.initialize(*arguments)


def test_one_process_gets_into_touch_with_nothing():
    processes.initialize()
    processes.initialize("nowhere.invalid:1", 1, 0)
    processes.initialize(num_processes=1)
    assert processes.index_and_count() == (0, 1)
    assert processes.is_main()
    assert (processes.any_process(True), processes.any_process(False), processes.total(3)) == (True, False, 3)


def test_the_command_lines_say_it_in_one_line(tmp_path):
    train = ("--config=configs/digits.py", f"--workdir={tmp_path / 'run'}", "--initialization_timeout_seconds=1")
    address = f"--coordinator_address={free_address()}"
    lines = {
        (*train, address, "--num_processes=2", "--process_id=1"): (69, "expected process 0 at"),
        (*train, address, "--num_processes=2", "--process_id=0"): (69, "missing: process 1"),
        (*train, address, "--num_processes=2", "--process_id=2"): (2, "--process_id: expected 0 to 1; received 2"),
        (*train, "--num_processes=2"): (2, "or none"),
    }
    for (code, _, errors), (expected, message) in zip(
        commands.run_many("train", list(lines), tmp_path), lines.values(), strict=True
    ):
        assert code == expected, errors
        (line,) = [line for line in errors.splitlines() if line.startswith("error: ")]
        assert message in line
        assert "Traceback" not in errors
    assert not (tmp_path / "run").exists()


def test_a_task_of_slurm_whose_others_never_come_ends_in_time(tmp_path, monkeypatch):
    for name, value in SLURM.items():
        monkeypatch.setenv(name, value)
    train = ("--config=configs/digits.py", f"--workdir={tmp_path / 'run'}", "--initialization_timeout_seconds=1")
    ((code, _, errors),) = commands.run_many("train", [train], tmp_path)
    assert code == 69
    assert "error: processes: expected all workers of this job to start within 1 s" in errors
