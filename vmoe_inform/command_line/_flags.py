"""Flags: typed ones, those that several commands share, and ``--config``."""

import re
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any

import ml_collections
from absl import flags

from vmoe_inform import checks, storage, text
from vmoe_inform.config import files as config_files
from vmoe_inform.config import from_text, groups
from vmoe_inform.config.settings import CONFIGS
from vmoe_inform.sharding import processes

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


def define_checkpoint() -> flags.FlagHolder:
    """Defines ``--from``, a checkpoint of another program."""
    words = "Checkpoint: a file, folder, what names of files begin with, or a published name."
    return define("from", Annotated[str, checks.Text(4000)], None, words)


def define_run_path(name: str, description: str) -> flags.FlagHolder:
    """Defines ``--NAME=PATH`` of a folder that may be in a bucket, too; :func:`vmoe_inform.storage.path` takes it."""
    return define(name, checks.GivenRunPath, None, description)


def required(holder: flags.FlagHolder, expected: str) -> Any:
    """The value of a flag that a command cannot do without.

    Raises:
      ValueError: it is not on the command line.
    """
    if holder.value is None:
        raise checks.error(f"--{holder.name}", expected, checks.NOTHING)
    return holder.value


def say(*lines: str) -> None:
    """Prints lines, without characters that would command the terminal; of several processes, the first does."""
    if processes.is_main():
        for line in lines:
            print(text.printable(line))


def define_output(name: str, description: str) -> Callable[[], storage.Path | None]:
    """Defines ``--NAME=FILE``, a file to write, which may be in a bucket.

    Returns:
      the file, None where none is asked for; to be called before the work that it is for. It raises ValueError unless
      a file can be written there.
    """
    holder = define_run_path(name, description)

    def file() -> storage.Path | None:
        if holder.value is None:
            return None
        path = storage.absolute(storage.path(f"--{name}", holder.value))
        storage.check_replaceable(path, f"--{name}")
        return path

    return file


def arguments_without(*names: str) -> list[str]:
    """This process's command line without some of its flags, for another process.

    Args:
      *names: of flags that take a value.
    """
    rest: list[str] = []
    left = sys.argv[1:]
    while left:
        argument = left.pop(0)
        match = re.fullmatch(r"--?(\w+)(=.*)?", argument, flags=re.DOTALL)
        if match is None or match[1] not in names:
            rest.append(argument)
        elif match[2] is None:
            left.pop(0)
    return rest


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
        help_text = (
            "Config file, the name of one that comes with the package, or a run's config.json, "
            "e.g. digits:router=attention_vmoe; any field as --config.a.b=VALUE."
        )
        self._holder = define("config", Annotated[str, checks.Text(8000)] | None, None, help_text)

    @property
    def file(self) -> str | None:
        """FILE[:ARGUMENT]; None if there is no such flag on the command line."""
        file = None if self._holder is None else self._holder.value
        if file is None and self.fields:
            raise checks.error("--config", "a config file with --config.FIELD=VALUE", checks.NOTHING)
        return file

    @property
    def required_file(self) -> str:
        """FILE[:ARGUMENT]; raises ValueError if there is none."""
        if self.file is None:
            raise checks.error("--config", "a config file, e.g. --config=digits", checks.NOTHING)
        return self.file

    @property
    def required(self) -> ml_collections.ConfigDict:
        """The config of the command line; raises ValueError if there is none."""
        if self._loaded is None:
            self._loaded = config_files.load(self.required_file, self.fields)
        return self._loaded

    @property
    def value(self) -> ml_collections.ConfigDict | None:
        """The config that the file returns, with the fields of the command line; None if there is no file."""
        return None if self.file is None else self.required


class GroupFlag:
    """``--GROUP.KEY=VALUE``: settings of a checkpoint or a run, whose names are known when that is opened.

    So the values stay text: of a run, plug-ins may have fields of their own.

    Args:
      group: see above.
      help_text: of a flag ``--GROUP`` that takes no value; None for no such flag.
    """

    def __init__(self, group: str, help_text: str | None = None) -> None:
        self.fields: dict[str, str] = {}  # what the command line sets, by key
        self.is_defined = False
        self._group, self._help_text = group, help_text

    def define(self) -> None:
        if self._help_text is not None:
            define(self._group, Annotated[str, checks.Text(0)] | None, None, self._help_text)
        self.is_defined = True

    def take(self, arguments: Sequence[str]) -> list[str]:
        """Takes ``--GROUP.KEY=VALUE`` off a command line; returns the other arguments.

        Raises:
          ValueError: no value, or a key that is given twice.
        """
        rest: list[str] = []
        left = list(arguments)
        while left:
            argument = left.pop(0)
            if argument == "--":
                return [*rest, argument, *left]
            match = re.fullmatch(rf"--?(no)?{self._group}\.([^=]+)(?:=(.*))?", argument, flags=re.DOTALL)
            if match is None:
                rest.append(argument)
                continue
            negated, key, value = match.groups()
            flag = f"--{self._group}.{key}"
            if negated or (value is None and not left):
                raise checks.error(flag, f"a value, as {flag}=VALUE", argument)
            if key in self.fields:
                raise checks.error(flag, "this flag once", "2 times")
            self.fields[key] = left.pop(0) if value is None else value
        return rest


CONFIG = ConfigFlag()
_UNSAID = "A setting that the checkpoint does not say, as"
MODEL = GroupFlag("model", f"{_UNSAID} --model.KEY=VALUE, e.g. --model.num_heads=6.")
DATA = GroupFlag("data", f"{_UNSAID} --data.KEY=VALUE, e.g. --data.pixel_mean=0.5.")
FIELDS = GroupFlag("config")


def define_model() -> GroupFlag:
    """Defines ``--model.KEY=VALUE``."""
    MODEL.define()
    return MODEL


def define_data() -> GroupFlag:
    """Defines ``--data.KEY=VALUE``."""
    DATA.define()
    return DATA


def define_fields() -> GroupFlag:
    """Defines ``--config.FIELD=VALUE`` without ``--config=FILE``: fields of the configs of runs that are given."""
    FIELDS.define()
    return FIELDS


def define_config() -> ConfigFlag:
    """Defines ``--config=FILE[:ARGUMENT]`` with ``--config.a.b=VALUE`` for every field."""
    CONFIG.define()
    return CONFIG


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


def define_batches() -> Callable[[], dict[str, Any]]:
    """Defines the flags that say how records are read and evaluated on this machine.

    Returns:
      what the flags say, for :func:`vmoe_inform.config.override`.
    """
    holders = _define_fields(_BATCHES)
    return lambda: _given(holders)


def define_machine() -> Callable[[], dict[str, Any]]:
    """Defines the flags that replace a run's settings on this machine: those of batches, and where the data lie.

    Returns:
      what the flags say, for :func:`vmoe_inform.config.override`; an empty one, as of a shell variable that is not
      set, says nothing. It raises ValueError for a folder that does not exist.
    """
    holders = _define_fields({**_FOLDERS, **_BATCHES})
    holders["evaluation.generate_corruptions"] = flags.DEFINE_bool(
        "generate_corruptions",
        None,
        "Draw C while it is evaluated where no published files are, however long that takes.",
    )

    def here() -> dict[str, Any]:
        given = _given(holders)
        for name, (field, _) in _FOLDERS.items():
            directory = given.get(field)
            if directory is not None and not storage.inputs.is_folder(storage.path(f"--{name}", directory)):
                raise checks.error(f"--{name}", "a folder that exists", directory)
        return given

    return here


# Flag -> field of the config, and what the flag says of itself
_FOLDERS = {
    "data_directory": ("data.directory", "Where the data lie, in place of data.directory."),
    "suites_directory": ("data.suites_directory", "In place of data.suites_directory."),
}
_BATCHES = {
    "num_workers": ("data.num_workers", "In place of data.num_workers."),
    "batch_size": ("evaluation.batch_size", "In place of evaluation.batch_size."),
}


def _define_fields(names: Mapping[str, tuple[str, str]]) -> dict[str, flags.FlagHolder[Any]]:
    kinds = list(CONFIGS.values())
    return {field: define(name, groups.hint_of(kinds, field), None, words) for name, (field, words) in names.items()}


def _given(holders: Mapping[str, flags.FlagHolder[Any]]) -> dict[str, Any]:
    return {field: holder.value for field, holder in holders.items() if holder.value not in (None, "")}
