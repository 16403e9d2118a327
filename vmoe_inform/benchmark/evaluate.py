"""``benchmark evaluate``: images a second of evaluation, of its parts, and what the host does besides decoding."""

from vmoe_inform import config as config_lib
from vmoe_inform.benchmark import shared


def measure() -> shared.Measured:
    """The evaluation of --config."""
    from vmoe_inform.performance import evaluation

    config = config_lib.as_images(shared.config())
    return {"config": config_lib.to_json(config)}, evaluation.measure(config, repeats=shared.repeats(3))


BENCHMARK = shared.Benchmark(measure, ("config",))
