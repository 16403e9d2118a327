"""Config files, and the fields that a command line sets in what they return."""

import contextlib
import dataclasses
import pathlib
import re
import traceback
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import ml_collections

from vmoe_inform import checks, plugins, storage
from vmoe_inform.config import from_text, groups, migrations, schema
from vmoe_inform.config.settings import CONFIGS, RouterConfig
from vmoe_inform.storage import inputs

_SHOWN = 300  # characters of another program's message
_OPTIONS = "model.router.options."


def take_fields(arguments: Sequence[str]) -> tuple[list[str], dict[str, Any]]:
    """Takes ``--config.a.b=VALUE``, ``--config.a.b VALUE`` and, of a switch, ``--[no]config.a.b`` off a command line.

    Args:
      arguments: of the command line, without the program's name.

    Returns:
      the other arguments, and the values by field (``a.b``); of a field that is set twice, the last.

    Raises:
      ValueError: an unknown field, no value, or one that does not fit the field.
    """
    rest: list[str] = []
    values: dict[str, Any] = {}
    left = list(arguments)
    while left:
        argument = left.pop(0)
        if argument == "--":
            return [*rest, argument, *left], values
        match = re.fullmatch(r"--?(no)?config\.([^=]*)(=(.*))?", argument, flags=re.DOTALL)
        if match is None:
            rest.append(argument)
            continue
        negative, field, _, text = match.groups()
        hint = groups.hint_of(list(CONFIGS.values()), field)
        if isinstance(hint, Mapping) or dataclasses.is_dataclass(hint):
            raise checks.error(field, f"a field of this group, as --config.{field}.NAME=VALUE", argument)
        is_switch = checks.plain(hint) is bool
        if text is None and (negative or is_switch):
            if not is_switch:
                raise checks.error(field, f"{checks.describe(hint)}, as --config.{field}=VALUE", argument)
            values[field] = not negative
            continue
        if text is None:
            if not left:
                raise checks.error(field, f"{checks.describe(hint)}, as --config.{field}=VALUE", "nothing")
            text = left.pop(0)
        values[field] = from_text.value(field, text, hint)
    return rest, values


def import_plugins(arguments: Sequence[str]) -> None:
    """Imports what the ``--config`` file of a command line imports: only then are options of its steps fields.

    Raises:
      ValueError: as :func:`load`.
    """
    given = None
    for number, argument in enumerate(arguments):
        match = re.fullmatch(r"--?config(=(.*))?", argument, flags=re.DOTALL)
        if argument == "--":
            break
        if match is not None:
            given = match[2] if match[1] else next(iter(arguments[number + 1 :]), None)
    if given:
        path = _locate(split(given)[0])
        if path.suffix == ".json":
            _of_run(path)
        else:
            _module(path)


def load(file: str, fields: Mapping[str, Any] | None = None) -> ml_collections.ConfigDict:
    """The config that a file describes, with some fields set.

    Args:
      file: FILE or FILE:ARGUMENT, whose function ``get_config`` gets the argument. FILE may be the NAME of a config
        that comes with the package. Or the ``config.json`` of a run.
      fields: values by field, as of :func:`take_fields`. ``train.steps`` replaces ``train.epochs``,
        and the other way round.

    Raises:
      ValueError: no such file, or it is no config file; the message has the line and the problem.
    """
    name, argument = split(file)
    path = _locate(name)
    if path.suffix == ".json":
        if argument is not None:
            raise checks.error("--config", f"{path} without :ARGUMENT; it says what every setting is", file)
        config = _of_run(path)
    else:
        config = _returned_by(path, [] if argument is None else [argument])
    for field, value in _with_one_length(fields or {}).items():
        try:
            config.update_from_flattened_dict({field: value})
        except (AttributeError, KeyError, TypeError, ValueError) as problem:
            raise checks.error(field, f"a field of the config that {path} returns ({_line(problem)})", value) from None
    return config


def split(file: str) -> tuple[str, str | None]:
    """FILE and ARGUMENT of FILE[:ARGUMENT]; FILE may be ``gs://BUCKET/NAME``, and ARGUMENT None for none."""
    match = re.fullmatch(r"((?:gs://)?[^:]*)(?::(.*))?", file, flags=re.DOTALL)
    assert match is not None  # as any text matches
    return match[1], match[2]


def check_options_are_used(fields: Mapping[str, Any], routers: Sequence[RouterConfig]) -> None:
    """Checks that options on the command line are of steps that are used: others would change nothing.

    Args:
      fields: values by field, as of :func:`take_fields`.
      routers: of all runs that get the fields.

    Raises:
      ValueError: an option of a step that no router has.
    """
    used = {name: None for router in routers for name in router.step_names}
    for field, value in fields.items():
        step = field.removeprefix(_OPTIONS).partition(".")[0]
        if field.startswith(_OPTIONS) and step not in used:
            raise checks.error(field, f"an option of a step that the router has ({', '.join(used)})", value)


def _with_one_length(fields: Mapping[str, Any]) -> dict[str, Any]:
    """The fields, and None for ``train.epochs`` where only ``train.steps`` is given a value, or the other way round."""
    steps, epochs = "train.steps", "train.epochs"
    lengths = {one: None for one, other in ((steps, epochs), (epochs, steps)) if fields.get(other) is not None}
    return {**lengths, **fields}


def packaged() -> dict[str, pathlib.Path]:
    """The config files that come with the package, by name: in its folder once installed, next to it in a checkout."""
    package = pathlib.Path(__file__).parents[1]
    folder = next((one for one in (package / "configs", package.parent / "configs") if one.is_dir()), None)
    return {} if folder is None else {path.stem: path for path in sorted(folder.glob("[!_]*.py"))}


def _locate(given: str) -> pathlib.Path:
    """The file on this machine; one of a bucket is fetched."""
    path, known = storage.path("--config", given, checks.GivenRunPath), packaged()
    if not inputs.is_file(path) and given in known:
        return known[given]
    if inputs.is_folder(path) and inputs.is_file(path / "config.json"):
        raise checks.error("--config", f"a config file, such as {path / 'config.json'}", given)
    if not storage.exists(path):
        expected = f"a config file, or one of the names {', '.join(known)}"
        if path.stem in known:
            problem = checks.error("--config", expected, given)
            raise checks.InputError(f"{problem} (did you mean {path.stem!r}, which comes with the package?)")
        raise checks.unknown("--config", expected, given, known)
    return inputs.local(path) if inputs.is_file(path) else pathlib.Path(path)


def _of_run(path: pathlib.Path) -> ml_collections.ConfigDict:
    """The resolved config that a run wrote, of this version or an older one."""
    tree = storage.read_json(path, dict[str, Any])
    try:
        return schema.to_config_dict(schema.parse_recorded(tree, path.parent))
    except checks.InputError as problem:
        raise checks.InputError(f"{path}: {problem}") from None


def _returned_by(path: pathlib.Path, arguments: Sequence[str]) -> ml_collections.ConfigDict:
    get_config = _module(path).get_config
    with _one_line(path):
        config = get_config(*arguments)
    if not isinstance(config, ml_collections.ConfigDict):
        expected = f"a ConfigDict from get_config of {path}, such as vmoe_inform.config.default()"
        raise checks.error("--config", expected, config)
    return config


def _module(path: pathlib.Path) -> Any:
    """The file as a module."""
    with _one_line(path):
        module = plugins.run_file(path)
    if not callable(getattr(module, "get_config", None)):
        raise checks.error("--config", f"a function get_config in {path}", "a file without one")
    return module


@contextlib.contextmanager
def _one_line(path: pathlib.Path) -> Iterator[None]:
    """Turns a mistake in a config file into one line."""
    try:
        yield
    except checks.InputError:
        raise
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError) as problem:
        if problem.filename == str(path):
            raise checks.error("--config", "a config file", str(path)) from None
        raise _as_input_error(path, problem) from None
    except Exception as problem:
        raise _as_input_error(path, problem) from None


def _as_input_error(path: pathlib.Path, problem: Exception) -> checks.InputError:
    """The error in one line, with the last line of the config file that led to it."""
    lines = [frame.lineno for frame in traceback.extract_tb(problem.__traceback__) if frame.filename == str(path)]
    if isinstance(problem, SyntaxError) and problem.filename == str(path):
        lines.append(problem.lineno)
    where = f"{path}, line {lines[-1]}" if lines else path
    unknown = re.search(r'Key "(\w+)" does not exist', str(problem))  # as a ConfigDict says it
    if unknown and (today := migrations.renamed(unknown[1])):
        return checks.error(f"--config: {where}", f"the new name of {unknown[1]!r}, {today}", unknown[1])
    return checks.InputError(
        f"--config: expected a config file that can be run; received {type(problem).__name__} in {where}: "
        f"{_line(problem)}"
    )


def _line(problem: Exception) -> str:
    message = problem.msg if isinstance(problem, SyntaxError) else str(problem)
    line = " ".join(message.split())
    return line if len(line) <= _SHOWN else f"{line[:_SHOWN]}..."
