"""``benchmark start``: processor time of a run from the start of its process, with compiled programs and without."""

import pathlib

from vmoe_inform import command_line
from vmoe_inform.benchmark import shared

_BEFORE = command_line.define_path("before", "Another checkout of this repository, to compare the start of runs with.")
# Two steps on the digits that come with the package, and an evaluation.
_DIGITS = (
    "--config=digits:router=vmoe",
    "--config.train.steps=2",
    "--config.train.epochs=None",
    "--config.optimizer.warmup_steps=0",
)


def measure() -> shared.Measured:
    """The run of --config, or two steps on digits."""
    from vmoe_inform.performance import start_up

    if shared.CONFIG.file is None:
        arguments = list(_DIGITS)
    else:
        _ = shared.CONFIG.required  # says here what is wrong with it
        arguments = command_line.arguments_without("before", "repeats", "json")
        arguments.remove("start")  # the subcommand; what comes after it may be called so, too
    before = None if _BEFORE.value is None else pathlib.Path(_BEFORE.value)
    rows = start_up.measure(arguments, before, repeats=shared.repeats(3))
    return {"arguments": " ".join(arguments)}, rows


BENCHMARK = shared.Benchmark(measure, ("config", "before"))
