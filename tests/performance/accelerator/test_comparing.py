"""Comparisons of fast paths with references: errors over the largest value, of outputs and of gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vmoe_inform import dispatch
from vmoe_inform.performance.accelerator.comparing import ALLOWED, Path, compare
from vmoe_inform.performance.accelerator.paths import all_paths
from vmoe_inform.performance.accelerator.sizes import SMALL


def path(fast, **changes):
    def reference(inputs):
        return jnp.sin(inputs["a"]), 10.0 * inputs["b"]

    def make(random):
        return {"a": random.normal(size=(3, 4)), "b": np.full(2, 2.0)}

    return Path("made up", "fast", "slow", make, lambda dtype: fast, reference, **changes)


def test_errors_are_shares_of_the_largest_value():
    row = compare(path(lambda inputs: (jnp.sin(inputs["a"]), 10.1 * inputs["b"])), "float32")
    assert row.error == pytest.approx(0.01, rel=1e-4)  # 20.2 instead of 20
    assert row.gradient_error == pytest.approx(0.01, rel=1e-4)
    assert row.agrees is False
    exact = compare(path(lambda inputs: (jnp.sin(inputs["a"]), 5.0 * (inputs["b"] + inputs["b"]))), "float32")
    assert exact.agrees is True
    assert exact.error < 1e-6


def test_a_wrong_gradient_is_found_where_outputs_agree():
    def fast(inputs):
        return jnp.sin(jax.lax.stop_gradient(inputs["a"])), 10.0 * inputs["b"]

    row = compare(path(fast), "float32")
    assert (row.error, row.agrees) == (0.0, False)
    assert row.gradient_error == pytest.approx(1.0)


def test_what_cannot_be_run_is_said():
    def fails(inputs):
        raise NotImplementedError("needs cuDNN\nand more")

    row = compare(path(fails), "bfloat16")
    assert (row.agrees, row.note) == (False, "NotImplementedError: needs cuDNN")
    infinite = compare(path(lambda inputs: (inputs["a"] / 0.0, 10.0 * inputs["b"])), "float32")
    assert (infinite.error, infinite.agrees, infinite.note) == (None, False, "not finite")
    absent = compare(path(fails, unavailable="the kernel is for TPUs"), "float32")
    assert (absent.agrees, absent.note) == (None, "the kernel is for TPUs")


def test_every_dispatcher_and_both_types_are_among_the_paths():
    found = all_paths(SMALL)
    names = {each.name for each in found if each.group == "dispatch"}
    assert names == set(dispatch.DISPATCHERS) - {"reference"}
    groups = {each.group for each in found}
    assert groups == {"dispatch", "experts", "attention", "cross-entropy", "similarity", "posterior", "adjacency"}
    assert all(set(each.dtypes) <= set(ALLOWED) for each in found)


# The dearer ones are compared by the slow test of the whole command.
@pytest.mark.parametrize("group", ["cross-entropy", "similarity", "adjacency"])
def test_paths_agree_with_their_references(group):
    row = compare(next(each for each in all_paths(SMALL) if each.group == group), "float32")
    assert row.agrees, row
    assert max(row.error, row.gradient_error) < 1e-5
