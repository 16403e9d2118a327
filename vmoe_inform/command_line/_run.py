"""Runs a command: parses its flags, and turns what goes wrong into one line and an exit code."""

import gc
import io
import logging as standard_logging
import os
import re
import sys
import time
import traceback
from collections.abc import Callable, Sequence

from absl import app, flags, logging

from vmoe_inform import checks, plugins, storage, text
from vmoe_inform.command_line import _compilation_cache, _flags, _memory
from vmoe_inform.config import files as config_files
from vmoe_inform.exit_codes import BAD_INPUT, DIVERGED, INTERRUPTED, MISSING_PROCESS, STORAGE
from vmoe_inform.sharding import processes

_LAST_SECONDS = 2.0  # that process 0 leaves the others to say what they have found: JAX ends them when it is gone


def _fail(problem: BaseException, code: int = BAD_INPUT) -> None:
    print(text.printable(f"error: {problem}"), file=sys.stderr)
    _leave(code)


def _leave(code: int) -> None:
    """Ends this process. One of several must not wait for the others to end as well: they wait for this one."""
    if processes.index_and_count()[1] > 1:
        sys.stdout.flush()
        sys.stderr.flush()
        time.sleep(_LAST_SECONDS if processes.is_main() else 0.0)
        os._exit(code)
    sys.exit(code)


def _parse(arguments: Sequence[str]) -> list[str]:
    try:
        _check_once(arguments[1:])
        program, *rest = flags.FLAGS.read_flags_from_files(list(arguments), force_gnu=False)
        plugins.load_installed()
        if _flags.CONFIG.is_defined:
            config_files.import_plugins(rest)
            rest, _flags.CONFIG.fields = config_files.take_fields(rest)
        for group in (_flags.FIELDS, _flags.MODEL, _flags.DATA):
            if group.is_defined:
                rest = group.take(rest)
        return flags.FLAGS([program, *rest])
    except SystemExit:  # --help, which absl ends as if it were a mistake
        sys.exit(0)
    except (flags.Error, ValueError, TypeError, KeyError, AttributeError, OSError) as problem:
        _fail(in_our_words(problem))
    raise AssertionError("not reached: _fail exits")


def _check_once(arguments: Sequence[str]) -> None:
    """Raises ValueError for a flag that is given twice, unless it takes a list: of two values one would be ignored."""
    found = (re.match(r"--?(no)?(\w+)(=|$)", argument) for argument in arguments[: _end_of_flags(arguments)])
    names = [match[2] if match[2] in flags.FLAGS else f"{match[1] or ''}{match[2]}" for match in found if match]
    for name in names:
        if names.count(name) > 1 and name in flags.FLAGS and not isinstance(flags.FLAGS[name], flags.MultiFlag):
            raise checks.error(f"--{name}", "this flag once", f"{names.count(name)} times")


def _end_of_flags(arguments: Sequence[str]) -> int:
    return arguments.index("--") if "--" in arguments else len(arguments)


def in_our_words(problem: BaseException) -> BaseException:
    """An error of absl as ours: it wraps ours in a message of its own, and has other words for its own."""
    if isinstance(problem, checks.InputError):
        return problem
    if isinstance(problem.__context__, checks.InputError):
        return problem.__context__
    if isinstance(problem, flags.UnrecognizedFlagError):
        known = [name for name in flags.FLAGS if flags.FLAGS[name].help]
        name = problem.flagname.partition(".")[0]
        return checks.unknown("command line", "flags that --help lists", f"--{name}", [f"--{each}" for each in known])
    missing = re.fullmatch(r"Missing value for flag --(\w+)", str(problem))
    if missing:
        return checks.error(f"--{missing[1]}", f"a value, as --{missing[1]}=VALUE", checks.NOTHING)
    boolean = re.match(r"flag --(\w+)=(.*?): \('Non-boolean", str(problem), flags=re.DOTALL)
    if boolean:
        return checks.error(f"--{boolean[1]}", "true or false", boolean[2])
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
            raise checks.error("command line", f"{operands}, and flags (--name=value)", checks.NOTHING)
        return
    if subcommands and (len(words) != 1 or words[0] not in subcommands):
        received = " ".join(words) if words else checks.NOTHING
        raise checks.unknown("command line", f"one of {', '.join(subcommands)}, and flags", received, subcommands)
    if words and not subcommands:
        raise checks.error("command line", "flags only (--name=value)", " ".join(words))


def _prepare_terminal() -> None:
    """Warnings only, unless more is asked for, in characters that the terminal has and that do not command it."""
    # Orbax warns each time that a folder is opened for reading only, which is what evaluation means to do.
    logging.get_absl_logger().addFilter(lambda record: "directory is read only" not in str(record.msg))
    logging.get_absl_logger().addFilter(_printable)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    logging.set_verbosity(logging.WARNING if not flags.FLAGS["verbosity"].present else flags.FLAGS.verbosity)


def run(
    main: Callable[[list[str]], int | None],
    subcommands: Sequence[str] = (),
    operands: str = "",
    *,
    keeps_programs: bool = False,
) -> None:
    """Parses the flags and runs ``main``, whose result is the exit code.

    ``main`` gets the words of the command line that are no flags. These are the program's name and, if there are any,
    one of ``subcommands``, or one or more ``operands``, such as ``"archives to unpack"``. With ``keeps_programs`` what
    is compiled is kept for the next time; commands that measure compiling do without. Bad input (flags, configs,
    missing paths) prints one line and exits with 2. A diverged run exits with 3, one with missing processes with 69,
    and one whose files cannot be written with 74. A bug keeps its traceback.
    """

    def guarded(arguments: list[str]) -> None:
        gc.freeze()  # what is imported by now stays: searches for garbage need not go through it
        _prepare_terminal()
        try:
            _check_words(arguments[1:], subcommands, operands)
            if keeps_programs:
                _compilation_cache.turn_on()
            code = main(arguments)
        except (checks.InputError, FileNotFoundError, NotADirectoryError, PermissionError) as problem:
            _fail(problem)
        except ChildProcessError as problem:
            _fail(problem, MISSING_PROCESS)
        except (OSError, storage.OutOfReachError) as problem:
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
            if processes.index_and_count()[1] == 1:
                raise
            traceback.print_exc()
            _leave(1)
        sys.exit(code)

    _memory.keep_between_steps()
    app.run(guarded, flags_parser=_parse)
