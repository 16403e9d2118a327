"""The program that makes the first state."""

import chex
import jax
import pytest

from tests import tiny
from vmoe_inform import config as config_lib
from vmoe_inform.nn import models
from vmoe_inform.training import program as program_lib


@pytest.fixture
def optimised():
    """As users have it; the tests leave out most optimisations."""
    before = jax.config.read("jax_disable_most_optimizations")
    jax.config.update("jax_disable_most_optimizations", False)
    yield
    jax.config.update("jax_disable_most_optimizations", before)


@pytest.mark.slow
def test_half_the_compilers_work_makes_the_same_bits(optimised):
    program = program_lib.build(config_lib.parse(tiny.config_dict("symphony_vmoe", **tiny.ONE_BLOCK)), 6)
    create, arguments = program.initialize.func, program.initialize.args
    with program.in_use():
        half = create(*arguments)
        whole = jax.jit(create.__wrapped__, compiler_options={"xla_backend_optimization_level": "3"})(*arguments)
    chex.assert_trees_all_equal(jax.device_get(half), jax.device_get(whole))


def test_the_initialisation_is_traced_once(monkeypatch):
    calls, initialize = [], models.initialize
    monkeypatch.setattr(models, "initialize", lambda *arguments: calls.append(1) or initialize(*arguments))
    program = program_lib.build(config_lib.parse(tiny.config_dict(**tiny.ONE_BLOCK)), 6)
    with program.in_use():
        program.initialize.func.trace(*program.initialize.args)
    assert len(calls) == 1
