"""What the command lines share: flags read from a config file, and errors in one line instead of a traceback."""

import io
import logging as standard_logging
import os
import re
import sys
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import ml_collections
from absl import app, flags, logging
from ml_collections import config_flags

from vmoe_inform import checks, text
from vmoe_inform import config as config_lib
from vmoe_inform.exit_codes import BAD_INPUT, DIVERGED, DOES_NOT_FIT, MISSING_PROCESS, STOPPED, STORAGE, STUCK
from vmoe_inform.sharding import processes

__all__ = [
    "BAD_INPUT",
    "DIVERGED",
    "DOES_NOT_FIT",
    "MISSING_PROCESS",
    "STOPPED",
    "STORAGE",
    "STUCK",
    "config_file",
    "define_config",
    "define_machine",
    "define_processes",
    "load_config",
    "run",
]
_LAST_SECONDS = 2.0  # that process 0 leaves the others to say what they have found: JAX ends them when it is gone


def define_config() -> flags.FlagHolder:
    """Defines ``--config=FILE[:ARGUMENT]`` with ``--config.a.b=VALUE`` for every field."""
    return config_flags.DEFINE_config_file(
        "config", None, "Config file, e.g. configs/digits.py:router=attention_vmoe; any field as --config.a.b=VALUE."
    )


def define_processes() -> Callable[[], None]:
    """Defines the flags by which processes that are started by hand find each other.

    Returns:
      joins them; to be called when the flags are parsed, before anything touches a device.
    """
    address = flags.DEFINE_string("coordinator_address", None, "HOST:PORT of process 0, for processes started by hand.")
    count = flags.DEFINE_integer("num_processes", None, "Processes of this run, for processes started by hand.")
    number = flags.DEFINE_integer("process_id", None, "Number of this one, from 0, for processes started by hand.")
    timeout = flags.DEFINE_float("initialization_timeout_seconds", 300.0, "How long to wait for all processes.")
    return lambda: processes.initialize(address.value, count.value, number.value, timeout_seconds=timeout.value)


def define_machine() -> Callable[[], dict[str, Any]]:
    """Defines the flags that say how it is on this machine, in place of a run's settings.

    Returns:
      what the flags say, for :func:`vmoe_inform.config.override`; an empty one, as of a shell variable that is not
      set, says nothing.
    """
    holders = {
        "data.directory": flags.DEFINE_string(
            "data_directory", None, "Where the data lie, in place of data.directory."
        ),
        "data.suites_directory": flags.DEFINE_string("suites_directory", None, "In place of data.suites_directory."),
        "data.num_workers": flags.DEFINE_integer("num_workers", None, "In place of data.num_workers."),
        "evaluation.batch_size": flags.DEFINE_integer("batch_size", None, "In place of evaluation.batch_size."),
        "evaluation.generate_corruptions": flags.DEFINE_bool(
            "generate_corruptions",
            None,
            "Draw C while it is evaluated where no published files are, however long that takes.",
        ),
    }
    return lambda: {field: holder.value for field, holder in holders.items() if holder.value not in (None, "")}


def config_file() -> tuple[str, dict[str, Any]]:
    """What ``--config`` says, FILE[:ARGUMENT], and the values of all ``--config.a.b=VALUE`` by ``a.b``.

    Raises:
      ValueError: there is no ``--config``.
    """
    if flags.FLAGS.config is None:
        raise checks.error("--config", "a config file, e.g. --config=configs/digits.py", None)
    flag = flags.FLAGS["config"]
    return config_flags.get_config_filename(flag), config_flags.get_override_values(flag)


def load_config(file: str, overrides: Mapping[str, Any]) -> ml_collections.ConfigDict:
    """Loads a config file once more, with another argument.

    Args:
      file: FILE[:ARGUMENT].
      overrides: fields to set, as :func:`config_file` gives them.

    Raises:
      ValueError: an argument that the file refuses.
    """
    values = flags.FlagValues()
    arguments = ["", f"--config={file}"]
    config_flags.DEFINE_config_file("config", None, flag_values=values, sys_argv=arguments)
    try:
        values(arguments)
        config: Any = values["config"].value
        config.update_from_flattened_dict(overrides)
    except (flags.Error, ValueError, TypeError, KeyError, AttributeError, OSError) as problem:
        raise checks.InputError(str(_in_our_words(problem))) from None
    return config


def _fail(problem: BaseException, code: int = BAD_INPUT) -> None:
    print(text.printable(f"error: {problem}"), file=sys.stderr)
    _leave(code)


def _leave(code: int) -> None:
    """Ends this process. One of several must not wait for the others to end as well: they wait for this one."""
    if processes.place()[1] > 1:
        sys.stdout.flush()
        sys.stderr.flush()
        time.sleep(_LAST_SECONDS if processes.is_main() else 0.0)
        os._exit(code)
    sys.exit(code)


def _parse(arguments: Sequence[str]) -> list[str]:
    try:
        config_lib.check_overrides(arguments[1:])
        rest = flags.FLAGS(list(arguments))
        if "config" in flags.FLAGS and flags.FLAGS.config is not None:
            dir(flags.FLAGS.config.seed)  # a file that could not be loaded raises when it is looked at
        return rest
    except (flags.Error, ValueError, TypeError, KeyError, AttributeError, OSError) as problem:
        _fail(_in_our_words(problem))
    raise AssertionError("not reached: _fail exits")


def _in_our_words(problem: BaseException) -> BaseException:
    """ml_collections and absl wrap errors in messages of their own, a config file's with its whole traceback."""
    message = str(problem)
    ours = re.search(r"InputError: (.+)", message)
    if ours is not None:
        return checks.InputError(ours[1])
    missing = re.search(r"No such file or directory: ['\"](.+?)['\"]", message)
    if missing is not None:
        return checks.error("--config", "a config file", missing[1])
    flag, separator, reason = message.removeprefix("flag --").partition(": ")
    name, equals, value = flag.partition("=")
    if not (separator and equals) or isinstance(problem, checks.InputError):
        return problem
    return checks.error(name.removeprefix("config."), f"a value of the field's type ({reason})", value)


def _printable(record: standard_logging.LogRecord) -> bool:
    """Lets no name in a message command the terminal."""
    record.msg, record.args = text.printable(record.getMessage(), keep="\n\t"), None
    return True


def _check_words(words: Sequence[str], subcommands: Sequence[str], operands: str) -> None:
    if operands:
        if not words:
            raise checks.error("command line", f"{operands}, and flags (--name=value)", "none")
        return
    if subcommands and (len(words) != 1 or words[0] not in subcommands):
        raise checks.error("command line", f"one of {', '.join(subcommands)}, and flags", " ".join(words))
    if words and not subcommands:
        raise checks.error("command line", "flags only (--name=value)", " ".join(words))


def run(main: Callable[[list[str]], int | None], subcommands: Sequence[str] = (), operands: str = "") -> None:
    """Parses the flags and runs ``main``, whose result is the exit code.

    ``main`` gets the words of the command line that are no flags: the program's name and, if there are any, one of
    ``subcommands``, or one or more words of what ``operands`` says, such as ``"archives to unpack"``. Bad input (flags,
    configs, missing paths) prints one line and exits with 2, a diverged run with 3, one whose processes do not find or
    lose each other with 69, one whose files cannot be written with 74; a mistake of the program itself keeps its
    traceback.
    """

    def guarded(arguments: list[str]) -> None:
        # Orbax warns each time that a folder is opened for reading only, which is what evaluation means to do.
        logging.get_absl_logger().addFilter(lambda record: "directory is read only" not in str(record.msg))
        logging.get_absl_logger().addFilter(_printable)
        for stream in (sys.stdout, sys.stderr):  # what the terminal's encoding does not have is no reason to end
            if isinstance(stream, io.TextIOWrapper):
                stream.reconfigure(errors="backslashreplace")
        logging.set_verbosity(logging.WARNING if not flags.FLAGS["verbosity"].present else flags.FLAGS.verbosity)
        try:
            _check_words(arguments[1:], subcommands, operands)
            code = main(arguments)
        except (checks.InputError, FileNotFoundError, NotADirectoryError, PermissionError) as problem:
            _fail(problem)
        except ChildProcessError as problem:
            _fail(problem, MISSING_PROCESS)
        except OSError as problem:
            _fail(problem, STORAGE)
        except FloatingPointError as problem:
            _fail(problem, DIVERGED)
        except processes.MissingProcessError as problem:
            _fail(problem, MISSING_PROCESS)
        except Exception as problem:
            gone = processes.missing(problem)
            if gone is not None:
                _fail(gone, MISSING_PROCESS)
            if processes.place()[1] == 1:
                raise
            traceback.print_exc()
            _leave(1)
        sys.exit(code)

    app.run(guarded, flags_parser=_parse)
