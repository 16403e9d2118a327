"""Measurements of speed, memory and experts over all steps from one log entry to the next."""

from collections.abc import Mapping, Sequence

import jax
import numpy as np
from jax.sharding import Mesh

from vmoe_inform.axes import Float
from vmoe_inform.nn.operations import training_flops_per_sequence
from vmoe_inform.sharding.chips import Chip, chip_of
from vmoe_inform.tasks import Task
from vmoe_inform.training.in_flight import FinishedStep

EXPERT_LOADS = "expert_loads"  # metric of a step, not logged itself: shares of the choices [MoE layers, E]

_PERCENTILES = (50, 90, 99)


class Window:
    """Collects the steps of one entry of the log. docs/observability.md says what each name means."""

    def __init__(self, task: Task, mesh: Mesh):
        """Args:
        task: of the run.
        mesh: the devices that do the steps.
        """
        config = task.config
        self._rate, self._counted_per_example = task.rate, task.counted_per_example
        self._batch_size = config.train.batch_size
        self._blocks = [f"block_{layer}" for layer in config.model.moe_layers]
        device = mesh.devices.flat[0]
        peak = peak_flops(chip_of(device.device_kind), config.model.dtype)
        self._examples_per_second_at_peak = (
            None if peak is None else peak * mesh.devices.size / training_flops_per_sequence(config.model)
        )
        self._devices = jax.local_devices()
        self._begin()

    def _begin(self) -> None:
        self._seconds: list[float] = []
        self._waited = 0.0
        self._loads: list[np.ndarray] = []

    def add(self, finished: FinishedStep) -> None:
        """Takes the next step."""
        if EXPERT_LOADS in finished.metrics:
            self._loads.append(np.asarray(finished.metrics[EXPERT_LOADS]))
        if finished.seconds is not None and finished.data_wait_seconds is not None:
            self._seconds.append(finished.seconds)
            self._waited += finished.data_wait_seconds

    def close(self) -> dict[str, float]:
        """Numbers for the log; what comes next belongs to the next entry."""
        numbers = step_times(self._seconds)
        total = sum(self._seconds)
        if total > 0:
            rate = len(self._seconds) * self._batch_size / total
            numbers |= {self._rate: rate * self._counted_per_example, "data_wait_share": self._waited / total}
            if self._examples_per_second_at_peak is not None:
                numbers["mfu"] = rate / self._examples_per_second_at_peak
        peak_bytes = peak_memory_bytes(self._devices)
        if peak_bytes is not None:
            numbers["hbm_peak_bytes"] = float(peak_bytes)
        if self._loads:
            for block, load in zip(self._blocks, np.mean(self._loads, axis=0), strict=True):
                numbers |= {f"routing/{block}/{name}": value for name, value in load_numbers(load).items()}
        self._begin()
        return numbers


def step_times(seconds: Sequence[float]) -> dict[str, float]:
    """Percentiles (between two steps, linearly) and the longest of the steps' times; nothing of no steps."""
    if not seconds:
        return {}
    values = np.percentile(seconds, _PERCENTILES)
    named = {f"step_seconds/p{p}": float(value) for p, value in zip(_PERCENTILES, values, strict=True)}
    return named | {"step_seconds/max": max(seconds)}


def load_numbers(load: Float[np.ndarray, " E"]) -> dict[str, float]:
    """Balance of a layer's experts.

    Args:
      load: share of the choices that each expert got; the sum is 1, or 0 where no token chose any.

    Returns:
      ``largest_load`` and ``smallest_load`` times E (1 is perfect balance), ``load_cv`` (standard deviation over mean)
      and ``dead_experts``, how many got nothing at all.
    """
    relative = load.astype(np.float64) * len(load)
    return {
        "largest_load": float(relative.max()),
        "smallest_load": float(relative.min()),
        "load_cv": float(relative.std() / (relative.mean() or 1.0)),
        "dead_experts": float(np.count_nonzero(load == 0)),
    }


def peak_flops(chip: Chip | None, dtype: str) -> float | None:
    """Operations per second of a device with products of this type; None if its figures are not known."""
    if chip is None:
        return None
    return chip.peak_flops if dtype == "bfloat16" else chip.peak_flops_float32


def peak_memory_bytes(devices: Sequence[jax.Device]) -> int | None:
    """The most memory that one of the devices has had in use since the process began; None if they do not say."""
    stated: list[Mapping[str, int]] = [device.memory_stats() or {} for device in devices]
    peaks = [stats["peak_bytes_in_use"] for stats in stated if "peak_bytes_in_use" in stats]
    return max(peaks, default=None)
