"""``benchmark experts``: a kernel for the experts' MLPs and single products, by the schedules of a TPU's compiler."""

from typing import Annotated, TypeAlias

from vmoe_inform import checks, command_line
from vmoe_inform.benchmark import shared
from vmoe_inform.benchmark.layer import EXPERTS
from vmoe_inform.config import presets

_Rates: TypeAlias = tuple[Annotated[float, checks.Bound(at_least=0.0, at_most=0.99)], ...]

_DROPOUT = command_line.define("expert_dropout", _Rates, (0.0, 0.2), "Rates of dropout in the experts.")
_EXPERT_MLP = command_line.define("expert_mlp", shared.Names, ("xla", "fused"), "Implementations.")


def measure() -> shared.Measured:
    """Each number of experts, rate of dropout and implementation."""
    from vmoe_inform.performance import experts

    if shared.TOPOLOGY.value is None:
        raise checks.error("--topology", "a TPU to compile for, e.g. v5e:2x2", "nothing")
    config = presets.start(None, router="vmoe", variant="S/16", experts="8", where="last2")
    model = config.model
    tokens = (model.image_size_px // model.patch_size_px) ** 2 + 1
    rows = round(shared.IMAGES.value * tokens * model.moe.num_selected_experts * model.moe.capacity_factor)
    settings = {"hidden_size": model.hidden_size, "mlp_size": model.mlp_size, "dtype": shared.DTYPE.value, "rows": rows}
    return settings, experts.measure(
        shared.TOPOLOGY.value,
        experts=shared.some("--experts", EXPERTS.value),
        rows=rows,
        width=model.hidden_size,
        hidden_size=model.mlp_size,
        dtype=shared.DTYPE.value,
        dropouts=_DROPOUT.value,
        implementations=shared.names("--expert_mlp", _EXPERT_MLP.value, []),
    )


BENCHMARK = shared.Benchmark(measure, ("topology", "dtype", "experts", "images", "expert_dropout", "expert_mlp"))
