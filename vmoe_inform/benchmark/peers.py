"""``benchmark peers``: images a second of training and evaluation, compared with other programs."""

import pathlib

from vmoe_inform import checks, command_line
from vmoe_inform import config as config_lib
from vmoe_inform.benchmark import shared

_PEERS = command_line.define(
    "peers", shared.Names, (), "Python files with a function build(config, images, labels) each; none: ours alone."
)


def measure() -> shared.Measured:
    """The run of --config, compared with the programs of --peers."""
    from vmoe_inform.performance import peers

    config = shared.config()
    files = [pathlib.Path(name) for name in _PEERS.value]
    names = [file.stem for file in files]
    if len({*names, peers.OURS}) <= len(names):
        raise checks.error("--peers", f"files of different names, none of them {peers.OURS}.py", ",".join(_PEERS.value))
    builds = {name: peers.load(file) for name, file in zip(names, files, strict=True)}
    return {"config": config_lib.to_json(config)}, peers.measure(config, builds, repeats=shared.repeats(5))


BENCHMARK = shared.Benchmark(measure, ("config", "peers"))
