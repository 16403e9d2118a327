"""Which grouped product a machine has, and that a library's kernels are called as the compiler's own are."""

import importlib.machinery
import logging
import sys
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from vmoe_inform.dispatch import choice, grouped, products


class Gpu:
    platform = "gpu"

    def __init__(self, capability):
        self.compute_capability = capability


@pytest.fixture
def tokamax(monkeypatch):
    """A stand-in that does as the library where it has no kernel, and counts its calls."""
    module = types.ModuleType("tokamax")
    module.__spec__ = importlib.machinery.ModuleSpec("tokamax", None)
    calls = []

    def ragged_dot_general(*arguments, **options):
        calls.append(options)
        return lax.ragged_dot_general(*arguments)

    module.ragged_dot_general = ragged_dot_general
    monkeypatch.setitem(sys.modules, "tokamax", module)
    return calls


@pytest.mark.parametrize(
    ("capability", "dtype", "sides", "has"),
    [
        ("8.0", jnp.bfloat16, (512, 2048), True),
        ("9.0", "float16", (128, 384), True),
        ("10.3", "bfloat16", (512, 2048), True),
        ("9.0", "float32", (512, 2048), False),
        ("9.0", "bfloat16", (352, 512), False),  # an error of the library on an H100
        ("9.0", "bfloat16", (512, 352), False),
        ("7.5", "bfloat16", (512, 2048), False),
        ("12.0", "bfloat16", (512, 2048), False),
        ("gfx942", "bfloat16", (512, 2048), False),
    ],
)
def test_which_gpus_have_kernels(tokamax, monkeypatch, capability, dtype, sides, has):
    monkeypatch.setattr(jax, "devices", lambda: [Gpu(capability)])
    assert grouped.has_kernels(dtype, *sides) is has
    assert (grouped.ragged_dot_general(dtype, *sides) is lax.ragged_dot_general) is not has


def test_a_cpu_and_a_machine_without_the_library_have_none(monkeypatch):
    assert not grouped.has_kernels(jnp.bfloat16, 512, 2048)
    monkeypatch.setattr(jax, "devices", lambda: [Gpu("9.0")])
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert not grouped.has_kernels(jnp.bfloat16, 512, 2048)


def test_products_are_the_librarys_where_there_are_kernels_and_sums_over_rows_are_not(tokamax, monkeypatch):
    """Its kernel for these sums gives wrong ones, see :mod:`vmoe_inform.dispatch.grouped`."""
    random = np.random.default_rng(0)
    rows, kernels = (jnp.asarray(random.normal(size=shape), jnp.bfloat16) for shape in ((3, 2, 128), (2, 128, 256)))
    experts = jnp.array([0, 1, 1], jnp.int32)
    monkeypatch.setattr(jax, "devices", lambda: [Gpu("9.0")])
    # As on a GPU, on which the compiler's own product stands in for the library's
    monkeypatch.setattr(lax, "platform_dependent", lambda *operands, default, **others: default(*operands))
    found, pull_back = jax.vjp(lambda rows, kernels: products.block_products(rows, kernels, experts), rows, kernels)
    exact = [np.asarray(array, np.float32) for array in (rows, kernels, found)]
    np.testing.assert_allclose(exact[2], exact[0] @ exact[1][np.asarray(experts)], rtol=2e-2, atol=0.2)
    gradient = np.asarray(pull_back(found)[1], np.float32)
    np.testing.assert_allclose(gradient[0], exact[0][0].T @ exact[2][0], rtol=2e-2, atol=1.0)
    assert tokamax == [{"implementation": ("mosaic", "xla")}] * 2  # the product, and the gradient of its rows


def test_what_it_says_of_every_untuned_shape_is_not_logged():
    record = logging.LogRecord("absl", logging.WARNING, "op.py", 1, "Autotuning cache miss for %s", ("dot",), None)
    assert not grouped._is_of_interest(record)
    record.msg = "something else"
    assert grouped._is_of_interest(record)


def test_a_gpu_takes_them_where_slots_would_cost_three_times_as_much():
    sizes = {"num_choices": 2048, "num_groups": 2, "num_experts": 8, "kernel_size": 2**20, "expert_devices": 1}
    names = [
        choice.choose_dispatcher("gpu", **sizes, capacity=capacity, grouped_kernels=has)[0]
        for capacity, has in ((1024, True), (1024, False), (768, True))
    ]
    assert names == ["ragged", "gather", "gather"]
