"""The dry run: compiles the step and prints its costs, and trains nothing."""

from vmoe_inform import tasks
from vmoe_inform.config import Config
from vmoe_inform.training import program as program_lib


def lines(config: Config) -> list[str]:
    """Steps, parameters, operations and memory of a run, for people.

    Raises:
      FileNotFoundError, ValueError: missing data, or settings that do not go with them.
    """
    steps = program_lib.total_steps(config, tasks.from_config(config).num_records)
    costs = program_lib.describe(program_lib.build(config, steps))
    found = [f"steps             {steps:>16,}", f"parameters        {int(costs['parameters']):>16,}"]
    if config.optimizer.frozen:
        found.append(f"  of them frozen  {int(costs['frozen_parameters']):>16,}")
    found.append(f"flops of a step   {costs['flops']:>16,.0f}   on each device, as compiled")
    for name in ("argument_bytes", "temporary_bytes", "output_bytes"):
        words = name.removesuffix("_bytes") + " memory"
        found.append(f"{words:<18}{costs[name] / 2**20:>16,.1f}   MiB on each device")
    return found
