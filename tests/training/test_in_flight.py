"""Steps in flight: their order, how many there are, and their times by a clock that the test sets."""

import jax.numpy as jnp
import numpy as np
import pytest

from vmoe_inform.training.in_flight import StepsInFlight


class _Metric:
    """Stands for an array of a step that the devices are at."""

    def __init__(self, devices: "_Devices", done_at: float):
        self._devices = devices
        self._done_at = done_at

    def is_ready(self) -> bool:
        return self._devices.now >= self._done_at

    def block_until_ready(self) -> "_Metric":
        self._devices.now = max(self._devices.now, self._done_at)
        return self


class _Devices:
    """A clock, and steps that take a second each, one after the other."""

    def __init__(self) -> None:
        self.now = 0.0
        self._free_at = 0.0

    def start(self) -> dict[str, _Metric]:
        self._free_at = max(self.now, self._free_at) + 1.0
        return {"loss": _Metric(self, self._free_at)}


def _run(host_seconds: float, data_seconds: float, steps: int, *, most: int = 2):
    """(step, seconds, wait) of each step, and how many were in flight at most."""
    devices = _Devices()
    in_flight = StepsInFlight(most, clock=lambda: devices.now)
    finished, largest = [], 0
    for step in range(1, steps + 1):
        with in_flight.waiting_for_data():
            devices.now += data_seconds
        devices.now += host_seconds
        finished += in_flight.add(step, devices.start())
        largest = max(largest, step - len(finished))
    finished += in_flight.finish()
    return [(done.step, done.seconds, done.data_wait_seconds) for done in finished], largest


def test_where_devices_are_slow_times_are_theirs_and_the_host_is_a_few_steps_ahead():
    times, largest = _run(host_seconds=0.125, data_seconds=0.0, steps=8)
    assert largest == 2
    assert times == [(1, None, None)] + [(step, 1.0, 0.0) for step in range(2, 9)]


def test_where_data_are_slow_times_are_from_batch_to_batch():
    times, _ = _run(host_seconds=0.0, data_seconds=4.0, steps=5)
    # Step 2 is found together with nothing, when step 3 is started; the last one is waited for: 1 second after 4.
    assert [step for step, _, _ in times] == [1, 2, 3, 4, 5]
    assert times[1:4] == [(2, 4.0, 4.0), (3, 4.0, 4.0), (4, 4.0, 4.0)]
    assert times[4] == (5, 1.0, 0.0)


def test_steps_found_together_share_their_time():
    devices = _Devices()
    in_flight = StepsInFlight(4, clock=lambda: devices.now)
    in_flight.add(1, devices.start())
    in_flight.finish()  # at second 1
    in_flight.add(2, devices.start())
    in_flight.add(3, devices.start())
    with in_flight.waiting_for_data():
        devices.now += 5.0
    found = in_flight.add(4, devices.start())
    assert [(done.step, done.seconds, done.data_wait_seconds) for done in found] == [(2, 2.5, 2.5), (3, 2.5, 2.5)]


def test_a_pause_belongs_to_no_step():
    devices = _Devices()
    in_flight = StepsInFlight(4, clock=lambda: devices.now)
    in_flight.restart_clock()  # before the first step: it stays without a time
    in_flight.add(1, devices.start())
    assert in_flight.finish()[0].seconds is None
    devices.now += 100.0
    in_flight.restart_clock()
    in_flight.add(2, devices.start())
    assert in_flight.finish()[0].seconds == 1.0


def test_arrays_of_devices_are_taken_in_order():
    in_flight = StepsInFlight()
    metrics = [{"loss": jnp.float32(step)} for step in (1, 2, 3)]
    finished = [done for step, values in enumerate(metrics, start=1) for done in in_flight.add(step, values)]
    finished += in_flight.finish()
    assert [(done.step, np.asarray(done.metrics["loss"])) for done in finished] == [(1, 1.0), (2, 2.0), (3, 3.0)]
    assert in_flight.finish() == []
    assert all(done.seconds == pytest.approx(0.0, abs=60.0) for done in finished[1:] if done.seconds is not None)
