"""What the command lines share: flags read from a config file, and errors in one line instead of a traceback."""

import io
import logging as standard_logging
import os
import pathlib
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from typing import Annotated, Any

import ml_collections
from absl import app, flags, logging

from vmoe_inform import checks, text
from vmoe_inform.config import Config, from_text, groups
from vmoe_inform.config import files as config_files
from vmoe_inform.exit_codes import (
    BAD_INPUT,
    DIVERGED,
    DOES_NOT_FIT,
    INTERRUPTED,
    MISSING_PROCESS,
    STOPPED,
    STORAGE,
    STUCK,
)
from vmoe_inform.sharding import processes

__all__ = [
    "BAD_INPUT",
    "DIVERGED",
    "DOES_NOT_FIT",
    "MISSING_PROCESS",
    "STOPPED",
    "STORAGE",
    "STUCK",
    "define",
    "define_config",
    "define_json",
    "define_machine",
    "define_path",
    "define_processes",
    "run",
]
_LAST_SECONDS = 2.0  # that process 0 leaves the others to say what they have found: JAX ends them when it is gone


flags.disclaim_key_flags()  # a flag that is defined through this module is its caller's, among those that --help shows


class _Typed(flags.ArgumentParser):
    """Text to a value of a type with bounds, as fields of a config have them."""

    syntactic_help = ""

    def __init__(self, name: str, hint: Any):
        self._name, self._hint = name, hint

    def parse(self, argument: Any) -> Any:
        read = from_text.value if isinstance(argument, str) else checks.conform
        return read(f"--{self._name}", argument, self._hint)

    def flag_type(self) -> str:
        return checks.describe(self._hint)


def define(name: str, hint: Any, default: Any, description: str) -> flags.FlagHolder:
    """Defines ``--NAME=VALUE``.

    Args:
      name: of the flag.
      hint: type and bounds, as :func:`vmoe_inform.checks.conform` takes them; of a tuple the items are a comma list.
      default: value without the flag.
      description: for ``--help``.
    """
    return flags.DEFINE(_Typed(name, hint), name, default, description, serializer=flags.ArgumentSerializer())


def define_path(name: str, description: str, default: str | None = None) -> flags.FlagHolder:
    """Defines ``--NAME=PATH``; ``~`` is the home folder, and an address such as ``gs://`` is refused.

    So is an empty path, as of a shell variable that is not set: it would be the current folder.
    """
    return define(name, checks.GivenPath, default, description)


def define_json(description: str) -> Callable[[], pathlib.Path | None]:
    """Defines ``--json=FILE``.

    Returns:
      the file, None where none is asked for; to be called before the work that it is for. It raises ValueError unless
      a file can be written there.
    """
    holder = define_path("json", description)

    def file() -> pathlib.Path | None:
        if holder.value is None:
            return None
        path = pathlib.Path(holder.value).absolute()
        writable = os.access(path if path.exists() else path.parent, os.W_OK)
        if path.is_dir() or not path.parent.is_dir() or not writable:
            raise checks.error("--json", "a file that can be written, in a folder that exists", holder.value)
        return path

    return file


class ConfigFlag:
    """``--config=FILE[:ARGUMENT]``, with ``--config.a.b=VALUE`` for every field."""

    def __init__(self) -> None:
        self.fields: dict[str, Any] = {}  # what the command line sets, by field
        self._holder: flags.FlagHolder[str | None] | None = None
        self._loaded: ml_collections.ConfigDict | None = None

    @property
    def is_defined(self) -> bool:
        return self._holder is not None

    def define(self) -> None:
        help_text = "Config file, e.g. configs/digits.py:router=attention_vmoe; any field as --config.a.b=VALUE."
        self._holder = define("config", Annotated[str, checks.Text(8000)] | None, None, help_text)

    @property
    def file(self) -> str | None:
        """FILE[:ARGUMENT]; None if there is no such flag on the command line."""
        file = None if self._holder is None else self._holder.value
        if file is None and self.fields:
            raise checks.error("--config", "a config file beside --config.FIELD=VALUE", None)
        return file

    @property
    def value(self) -> ml_collections.ConfigDict | None:
        """The config that the file returns, with the fields of the command line; None if there is no file."""
        if self._loaded is None and self.file is not None:
            self._loaded = config_files.load(self.file, self.fields)
        return self._loaded


_CONFIG = ConfigFlag()


def define_config() -> ConfigFlag:
    """Defines ``--config=FILE[:ARGUMENT]`` with ``--config.a.b=VALUE`` for every field."""
    _CONFIG.define()
    return _CONFIG


def define_processes() -> Callable[[], None]:
    """Defines the flags by which processes that are started by hand find each other.

    Returns:
      joins them; to be called when the flags are parsed, before anything touches a device.
    """
    address = define("coordinator_address", checks.Name, None, "HOST:PORT of process 0, for processes started by hand.")
    count = define("num_processes", processes.Count, None, "Processes of this run, for processes started by hand.")
    number = define("process_id", processes.Number, None, "Number of this one, from 0, for processes started by hand.")
    timeout = define("initialization_timeout_seconds", checks.Seconds, 300.0, "How long to wait for all processes.")
    return lambda: processes.initialize(address.value, count.value, number.value, timeout_seconds=timeout.value)


def define_machine() -> Callable[[], dict[str, Any]]:
    """Defines the flags that say how it is on this machine, in place of a run's settings.

    Returns:
      what the flags say, for :func:`vmoe_inform.config.override`; an empty one, as of a shell variable that is not
      set, says nothing.
    """
    names = {
        "data_directory": ("data.directory", "Where the data lie, in place of data.directory."),
        "suites_directory": ("data.suites_directory", "In place of data.suites_directory."),
        "num_workers": ("data.num_workers", "In place of data.num_workers."),
        "batch_size": ("evaluation.batch_size", "In place of evaluation.batch_size."),
    }
    holders = {
        field: define(name, groups.hint_of(Config, field), None, words) for name, (field, words) in names.items()
    }
    holders["evaluation.generate_corruptions"] = flags.DEFINE_bool(
        "generate_corruptions",
        None,
        "Draw C while it is evaluated where no published files are, however long that takes.",
    )
    return lambda: {field: holder.value for field, holder in holders.items() if holder.value not in (None, "")}


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
        program, *rest = flags.FLAGS.read_flags_from_files(list(arguments), force_gnu=False)
        if _CONFIG.is_defined:
            rest, _CONFIG.fields = config_files.take_fields(rest)
        return flags.FLAGS([program, *rest])
    except (flags.Error, ValueError, TypeError, KeyError, AttributeError, OSError) as problem:
        _fail(in_our_words(problem))
    raise AssertionError("not reached: _fail exits")


def in_our_words(problem: BaseException) -> BaseException:
    """Absl wraps errors of the value of a flag in a message of its own: the error itself, or the message as ours."""
    if isinstance(problem, checks.InputError):
        return problem
    if isinstance(problem.__context__, checks.InputError):
        return problem.__context__
    flag, separator, reason = str(problem).removeprefix("flag --").partition(": ")
    name, equals, value = flag.partition("=")
    if not (separator and equals):
        return problem
    why = f" ({reason})" if len(reason) < 200 else ""  # it may repeat the value
    return checks.error(f"--{name}", f"a value of the flag's type{why}", value)


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
        except KeyboardInterrupt:  # at once: other threads may be saving, or be what is waited for
            print("error: interrupted", file=sys.stderr, flush=True)
            os._exit(INTERRUPTED)
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
