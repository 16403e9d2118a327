"""The command line of the benchmarks, one file a subcommand; what they measure is in :mod:`vmoe_inform.performance`."""
