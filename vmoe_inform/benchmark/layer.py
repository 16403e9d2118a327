"""``benchmark layer``: a MoE layer over a dense MLP that does the same activated work."""

from vmoe_inform import checks, command_line
from vmoe_inform import config as config_lib
from vmoe_inform.benchmark import shared
from vmoe_inform.config import presets

_VARIANT = command_line.define("variant", checks.Name, "S/16", "SIZE/PATCH at 224 px that the layer is from.")
EXPERTS = command_line.define("experts", shared.Sizes, (8, 32, 128), "Numbers of experts.")
_GROUPS = command_line.define("groups", shared.Sizes, (1, 8, 32), "Images whose tokens share the experts' slots.")
_MULTIPLE_OF = command_line.define(
    "capacity_multiple_of", checks.Width, 4, "The slots of an expert are rounded up to a multiple of this."
)
_CAPACITY_FACTOR = command_line.define(
    "capacity_factor", checks.PositiveFloat, None, "Slots for an assignment; by default those of the recipes' training."
)
_TIMED_UP_TO = command_line.define(
    "timed_up_to", checks.NonNegativeFloat, 2.5, "Dispatchers of more operations, in dense MLPs, are not timed."
)


def measure() -> shared.Measured:
    """Layers of each number of experts, size of group and dispatcher."""
    from vmoe_inform.performance import layer

    config = presets.start(None, router="vmoe", variant=_VARIANT.value, experts="8", where="last2")
    config.model.dtype = shared.DTYPE.value
    config.model.moe.capacity_multiple_of = _MULTIPLE_OF.value
    if _CAPACITY_FACTOR.value is not None:
        config.model.moe.capacity_factor = _CAPACITY_FACTOR.value
    model = config_lib.parse_model(config.model)
    folder = shared.schedules_folder()
    rows = layer.measure(
        model,
        experts=shared.some("--experts", EXPERTS.value),
        images_per_group=shared.some("--groups", _GROUPS.value),
        dispatchers=shared.names("--dispatch", shared.DISPATCH.value, [model.moe.dispatch, "einsum"]),
        images=shared.IMAGES.value,
        repeats=shared.repeats(3),
        timed_up_to=_TIMED_UP_TO.value,
        topology=shared.chip(),
        schedules_in=folder,
    )
    settings = {
        "images": shared.IMAGES.value,
        "tokens": model.num_tokens,
        "hidden_size": model.hidden_size,
        "mlp_size": model.mlp_size,
        "num_selected_experts": model.moe.num_selected_experts,
        "capacity_factor": model.moe.capacity_factor,
        "capacity_multiple_of": model.moe.capacity_multiple_of,
        "dtype": model.dtype,
    }
    return settings, rows


BENCHMARK = shared.Benchmark(
    measure,
    (
        *("topology", "dtype", "variant", "experts", "groups", "images", "dispatch"),
        *("capacity_factor", "capacity_multiple_of", "timed_up_to"),
    ),
)
