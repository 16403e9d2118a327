"""Experts' MLPs by a kernel and by single products, compiled for a TPU: cycles by the final schedules, and memory."""

import dataclasses
import pathlib
import tempfile
from collections.abc import Iterator, Sequence

import jax
import jax.numpy as jnp

from vmoe_inform import checks
from vmoe_inform.axes import Array, Tree
from vmoe_inform.nn.mlp import ExpertParameters, apply_experts
from vmoe_inform.performance.compiled import compile_for
from vmoe_inform.performance.costs import schedules
from vmoe_inform.performance.topology import devices_of


@dataclasses.dataclass(frozen=True)
class ExpertsRow:
    """Forward and backward pass of all experts, in millions of cycles; see :class:`schedules.Schedule`.

    Attributes:
      experts: E.
      rows: T of each.
      dropout: rate of hidden layer and outputs.
      expert_mlp: ``xla`` or ``fused``.
      scheduled, at_peak, by_bandwidth, longest, estimated, without_schedule, waiting: of all instructions.
      temp_megabytes: memory of intermediate values, with what is kept for the backward pass.
    """

    experts: int
    rows: int
    dropout: float
    expert_mlp: str
    scheduled: float
    at_peak: float
    by_bandwidth: float
    longest: float
    estimated: float
    without_schedule: float
    waiting: float
    temp_megabytes: float


def measure(
    topology: str,
    *,
    experts: Sequence[int],
    rows: int,
    width: int,
    hidden_size: int,
    dtype: str,
    dropouts: Sequence[float],
    implementations: Sequence[str],
) -> Iterator[ExpertsRow]:
    """Compiles each combination for one chip.

    Args:
      topology: see :func:`devices_of`.
      experts: numbers of them.
      rows: of all experts together, rounded up to a multiple of 8 for each.
      width, hidden_size: D and M.
      dtype: of the products.
      dropouts: rates.
      implementations: ``xla``, ``fused``.

    Raises:
      ValueError: no such TPU, or sizes that the kernel cannot do.
    """
    with tempfile.TemporaryDirectory() as folder:
        schedules.write_to(pathlib.Path(folder))
        device = devices_of(topology)[0]
        for num_experts in experts:
            for dropout in dropouts:
                for name in implementations:
                    if name not in ("xla", "fused"):
                        raise checks.error("expert_mlp", "xla or fused", name)
                    shape = (num_experts, -(-rows // (8 * num_experts)) * 8, width)
                    yield _row(device, pathlib.Path(folder), shape, hidden_size, dtype, dropout, name)


def _row(
    device: jax.Device,
    folder: pathlib.Path,
    shape: tuple[int, int, int],
    hidden_size: int,
    dtype: str,
    dropout: float,
    implementation: str,
) -> ExpertsRow:
    num_experts, num_rows, width = shape

    def both_passes(parameters: ExpertParameters, rows: Array, gradient: Array, key: Array) -> Tree:
        def apply(parameters: ExpertParameters, rows: Array) -> Array:
            return apply_experts(
                parameters,
                rows,
                dtype=jnp.dtype(dtype),
                dropout_rate=dropout,
                dropout_key=key if dropout > 0 else None,
                implementation="fused" if implementation == "fused" else "xla",
            )

        outputs, pull_back = jax.vjp(apply, parameters, rows)
        return outputs, pull_back(gradient)

    def layer(inputs: int, outputs: int) -> tuple[jax.ShapeDtypeStruct, jax.ShapeDtypeStruct]:
        shapes = (num_experts, inputs, outputs), (num_experts, outputs)
        return jax.ShapeDtypeStruct(shapes[0], jnp.float32), jax.ShapeDtypeStruct(shapes[1], jnp.float32)

    rows = jax.ShapeDtypeStruct((num_experts, 1, num_rows, width), dtype)
    parameters = layer(width, hidden_size), layer(hidden_size, width)
    key = jax.eval_shape(lambda: jax.random.key(0))
    compiled = compile_for(device, both_passes, parameters, rows, rows, key, schedules_in=folder)
    assert compiled.schedule is not None  # a topology has no other devices than TPUs
    cycles = {name: round(number / 1e6, 3) for name, number in dataclasses.asdict(compiled.schedule).items()}
    memory = round(compiled.costs.temp_bytes / 1e6, 1)
    return ExpertsRow(num_experts, num_rows, dropout, implementation, **cycles, temp_megabytes=memory)
