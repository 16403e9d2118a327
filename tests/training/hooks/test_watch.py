"""The watch: every finished step is told to the watchdog, and steps that are not finite stop the run."""

import jax
import jax.numpy as jnp
import pytest

from vmoe_inform.training.hooks.base import Training
from vmoe_inform.training.hooks.watch import Watch
from vmoe_inform.training.in_flight import FinishedStep
from vmoe_inform.training.nonfinite import WHERE, parameter_groups

PARAMS = {
    "block_0": {"attention": {"key": jnp.ones(2)}, "mlp": {"hidden": jnp.ones(2)}},
    "block_2": {"mlp": {"hidden": jnp.ones(2)}},
    "head": {"kernel": jnp.ones(2)},
}
GROUPS = list(parameter_groups(PARAMS))


class _Watchdog:
    def __init__(self):
        self.told = []

    def finished(self, what):
        self.told.append(what)

    def expect_compilation(self, of):
        self.told.append(f"compilation of {of}")


def _watch(most: int) -> Watch:
    return Watch(_Watchdog(), PARAMS, most)  # type: ignore[arg-type]


def _step(step: int, where: int, loss: float = 1.0, norm: float = 1.0) -> FinishedStep:
    metrics: dict[str, jax.Array] = {
        WHERE: jnp.int32(where),
        "loss": jnp.float32(loss),
        "gradient_norm": jnp.float32(norm),
    }
    return FinishedStep(step, metrics, None, None)


def test_the_watchdog_is_told_of_every_step():
    watchdog = _Watchdog()
    watch = Watch(watchdog, PARAMS, 0)  # type: ignore[arg-type]
    watch.begin(Training(None, None, 3, last_step=5, total_steps=5))
    watch.step_finished(_step(4, -1))
    watch.step_finished(_step(5, -1))
    assert watchdog.told == ["compilation of training", "step 4", "step 5"]


def test_the_step_and_the_group_are_named():
    watch = _watch(0)
    watch.step_finished(_step(1, -1))
    message = r"gradient_norm: expected a finite number; received inf at step 2; .* not finite: block_2/mlp$"
    with pytest.raises(FloatingPointError, match=message):
        watch.step_finished(_step(2, GROUPS.index("block_2/mlp"), norm=float("inf")))
    with pytest.raises(FloatingPointError, match=r"loss: .* received nan at step 5; .* not finite: none$"):
        _watch(0).step_finished(_step(5, len(GROUPS), loss=float("nan")))


def test_only_steps_in_a_row_stop_the_run():
    watch = _watch(2)
    for step, where in enumerate([0, 0, -1, 0, 0], start=1):
        watch.step_finished(_step(step, where, loss=float("nan")))
    assert watch.skipped == 4
    with pytest.raises(FloatingPointError, match=r"at step 6; .* not finite: head \(3 steps in a row\)"):
        watch.step_finished(_step(6, 0, loss=float("nan")))
