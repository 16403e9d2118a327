"""Batches that are kept in flight: their order, how many there are, and that collectives do not cross."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests import tiny
from vmoe_inform import config as config_lib
from vmoe_inform.data.skipped import SkippedRecords
from vmoe_inform.data.sources import ArrayRecords, Source
from vmoe_inform.evaluation.runner import AHEAD, Runner
from vmoe_inform.nn import models
from vmoe_inform.sharding.mesh import make_mesh
from vmoe_inform.tasks.classification import Classification

NUM_BATCHES = 12


class Watched(Classification):
    """Counts the batches that were read."""

    read = 0

    def evaluation_batches(self, *arguments):
        for batch in super().evaluation_batches(*arguments):
            self.read += 1
            yield batch


@pytest.fixture(scope="module")
def source():
    images = np.random.default_rng(0).integers(0, 256, (8 * NUM_BATCHES - 3, 32, 32, 3), np.uint8)
    return Source(ArrayRecords(images, np.arange(len(images)) % 10), tuple("0123456789"))


def runner_of(num_devices, experts):
    overrides = {"evaluation__batch_size": 8, "model__moe__group_size_sequences": 1}
    task = Watched(config_lib.parse(tiny.config_dict(**overrides)))
    mesh = make_mesh(num_devices // experts, experts, jax.devices()[:num_devices])
    return Runner(models.from_config(task.config.model), task, mesh), task


@pytest.mark.parametrize("ahead", [0, AHEAD])
def test_batches_come_in_order_and_few_are_read_ahead(source, ahead):
    """The last is not full; a report comes with each, before the next is read."""
    runner, task = runner_of(1, 1)
    found, read, reports = [], [], []
    function = runner.compiled(lambda variables, batch, memory: (batch["index"] + variables, memory))
    batches = runner.each_batch(function, jnp.int32(1000), source, skipped=SkippedRecords(0.0), ahead=ahead)
    with runner.reporting(lambda: reports.append(task.read)):
        for outputs, batch in batches:
            found.append(np.asarray(outputs)[batch["mask"]])
            np.testing.assert_array_equal(found[-1], batch["index"][batch["mask"]] + 1000)
            read.append(task.read)
    np.testing.assert_array_equal(np.concatenate(found), np.arange(8 * NUM_BATCHES - 3) + 1000)
    assert read == reports == [min(number + ahead, NUM_BATCHES) for number in range(1, NUM_BATCHES + 1)]


def test_what_a_report_raises_ends_the_evaluation(source):
    runner, task = runner_of(1, 1)
    function = runner.compiled(lambda variables, batch, memory: (batch["index"], memory))

    def stop():
        raise KeyboardInterrupt

    with runner.reporting(stop), pytest.raises(KeyboardInterrupt):
        runner.collect(function, jnp.int32(0), source)
    assert task.read == 1 + AHEAD


def test_collectives_of_batches_in_flight_do_not_cross(source):
    """Batches that do not depend on each other, with many collectives each, on eight devices.

    Were devices free to take them in any order, one would wait for the others in a batch that those have not begun.
    """
    runner, _ = runner_of(8, 4)
    mix = jax.random.normal(jax.random.key(0), (64, 64)) / 64

    def function(variables, batch, memory):
        values = batch["image"][:, :, 0, :2].reshape(8, 64).astype(jnp.float32) @ variables
        for _ in range(4):  # to the devices' own columns and back
            values = jax.lax.with_sharding_constraint(values, jax.P(None, ("replica", "expert")))
            values = jnp.tanh(jnp.flip(values, axis=0))
            values = jax.lax.with_sharding_constraint(values, jax.P(("replica", "expert"), None))
        return values, memory

    compiled = runner.compiled(function)
    one_by_one = [
        np.asarray(outputs)[batch["mask"]]
        for outputs, batch in runner.each_batch(compiled, mix, source, skipped=SkippedRecords(0.0), ahead=0)
    ]
    found = runner.collect(compiled, mix, source)
    np.testing.assert_array_equal(found.outputs, np.concatenate(one_by_one))
    np.testing.assert_array_equal(found.facts["label"], np.arange(8 * NUM_BATCHES - 3) % 10)
