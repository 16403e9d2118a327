"""``benchmark step``: time of the train step with each dispatcher, over one of them or over a dense model's."""

from vmoe_inform import checks, command_line
from vmoe_inform import config as config_lib
from vmoe_inform.benchmark import shared

_MATMUL_SIZE = command_line.define("matmul_size", checks.Width, 4096, "Rows and columns of the plain matrix product.")


def measure() -> shared.Measured:
    """The train step of a config with each dispatcher."""
    from vmoe_inform.performance import step

    config = shared.config()
    against = shared.AGAINST.value
    chosen = shared.names("--dispatch", shared.DISPATCH.value, [config.model.moe.dispatch])
    rows = step.measure(
        config,
        dispatchers=list(dict.fromkeys([*chosen, against])),
        against=against,
        repeats=shared.repeats(5),
        matmul_size=_MATMUL_SIZE.value,
        topology=shared.chip(),
    )
    return {"matmul_size": _MATMUL_SIZE.value, "config": config_lib.to_json(config)}, rows


BENCHMARK = shared.Benchmark(measure, ("topology", "config", "dispatch", "against", "matmul_size"))
