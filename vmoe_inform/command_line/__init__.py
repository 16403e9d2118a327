"""Shared code of the command lines: flags, configs, and errors in one line instead of a traceback."""

from vmoe_inform.command_line._flags import (
    ConfigFlag,
    GroupFlag,
    define,
    define_batches,
    define_config,
    define_data,
    define_fields,
    define_machine,
    define_model,
    define_output,
    define_path,
    define_processes,
    required,
    say,
)
from vmoe_inform.command_line._run import in_our_words, run
from vmoe_inform.exit_codes import (
    BAD_INPUT,
    DIVERGED,
    DOES_NOT_FIT,
    MISSING_PROCESS,
    STOPPED,
    STORAGE,
    STUCK,
)

__all__ = [
    "BAD_INPUT",
    "DIVERGED",
    "DOES_NOT_FIT",
    "MISSING_PROCESS",
    "STOPPED",
    "STORAGE",
    "STUCK",
    "ConfigFlag",
    "GroupFlag",
    "define",
    "define_batches",
    "define_config",
    "define_data",
    "define_fields",
    "define_machine",
    "define_model",
    "define_output",
    "define_path",
    "define_processes",
    "in_our_words",
    "required",
    "run",
    "say",
]
