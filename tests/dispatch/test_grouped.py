"""Which grouped product a machine has, and that a library's kernels are called as the compiler's own are."""

import importlib.machinery
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
        return lax.ragged_dot_general(*arguments, **options)

    module.ragged_dot_general = ragged_dot_general
    monkeypatch.setitem(sys.modules, "tokamax", module)
    return calls


@pytest.mark.parametrize(
    ("capability", "has"),
    [("8.0", True), ("9.0", True), ("10.3", True), ("7.5", False), ("12.0", False), ("gfx942", False)],
)
def test_which_gpus_have_kernels(tokamax, monkeypatch, capability, has):
    monkeypatch.setattr(jax, "devices", lambda: [Gpu(capability)])
    assert grouped.has_kernels() is has
    assert (grouped.ragged_dot_general() is lax.ragged_dot_general) is not has


def test_a_cpu_and_a_machine_without_the_library_have_none(monkeypatch):
    assert not grouped.has_kernels()
    monkeypatch.setattr(jax, "devices", lambda: [Gpu("9.0")])
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert not grouped.has_kernels()


def test_products_and_their_gradient_are_the_librarys_where_there_are_kernels(tokamax, monkeypatch):
    random = np.random.default_rng(0)
    rows, kernels = (jnp.asarray(random.normal(size=shape), jnp.float32) for shape in ((6, 3), (2, 3, 4)))
    sizes = jnp.array([4, 2], jnp.int32)
    monkeypatch.setattr(jax, "devices", lambda: [Gpu("9.0")])
    found = products.grouped_products(rows, kernels, sizes, transpose=False)
    expected = np.concatenate([rows[:4] @ kernels[0], rows[4:] @ kernels[1]])
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    gradient = products.grouped_kernel_gradient(rows, found, sizes)
    np.testing.assert_allclose(gradient[1], rows[4:].T @ found[4:], rtol=1e-5)
    assert tokamax == [{}, {"preferred_element_type": jnp.float32}]


def test_a_gpu_takes_them_where_slots_would_cost_three_times_as_much():
    sizes = {"num_choices": 2048, "num_groups": 2, "num_experts": 8, "kernel_size": 2**20, "expert_devices": 1}
    names = [
        choice.choose_dispatcher("gpu", **sizes, capacity=capacity, grouped_kernels=has)[0]
        for capacity, has in ((1024, True), (1024, False), (768, True))
    ]
    assert names == ["ragged", "gather", "gather"]
