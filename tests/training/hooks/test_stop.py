"""Stopping after a signal. How several processes agree is in tests/launch/test_two_processes.py."""

import pytest

from vmoe_inform.sharding.mesh import make_mesh
from vmoe_inform.training.hooks.base import Training
from vmoe_inform.training.hooks.stop import Stop
from vmoe_inform.training.stopping import Stopped, StopRequest


@pytest.fixture(scope="module")
def mesh():
    import jax

    return make_mesh(replica=1, fsdp=1, expert=1, devices=jax.devices()[:1])


def _training(step: int) -> Training:
    return Training(None, None, step, last_step=20, total_steps=20)


def test_a_signal_is_obeyed_at_the_next_step(mesh):
    request, training = StopRequest(), _training(5)
    stop = Stop(request, mesh)
    stop.begin(training)
    stop.step_started(training)
    stop.raise_if_agreed()
    assert not training.stopping
    request.received = "SIGTERM"
    with pytest.raises(Stopped):
        stop.raise_if_agreed()
    stop.step_started(training)
    assert training.stopping


def test_a_signal_during_the_start_is_obeyed_before_the_first_step(mesh):
    request, training = StopRequest(), _training(0)
    request.received = "SIGINT"
    Stop(request, mesh).begin(training)
    assert training.stopping


def test_it_says_what_stopped_an_unfinished_run(mesh, caplog):
    request = StopRequest()
    request.received = "SIGTERM"
    for step in (7, 20):
        training = _training(step)
        training.stopping = True
        Stop(request, mesh).end(training)
    assert [record.getMessage() for record in caplog.records] == ["SIGTERM: saved step 7 of 20 and stopped"]
