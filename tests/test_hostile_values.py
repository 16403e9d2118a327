"""Every field, option, preset and flag with values that nobody should give: a config that can work, or one line."""

import dataclasses
import functools
import json
import re
import subprocess
import sys
import typing
from typing import Any

import pytest

from tests import processes, test_imports
from vmoe_inform import checks
from vmoe_inform import config as config_lib
from vmoe_inform.config import files as config_files
from vmoe_inform.config import groups, presets
from vmoe_inform.routing import steps


def _nested(levels):
    value = []
    for _ in range(levels):
        value = [value]
    return value


VALUES = [
    *(0, -1, 2**31, 2**32, 2**63, 10**400, 1e20, 1e300, 5e-324, -0.0, 1e308 * 10, -1e308 * 10, float("nan")),
    *(
        True,
        None,
        "",
        "None",
        "gs://bucket",
        "~no_such_user/x",
        "a\0b",
        "\ud800",
        "x" * 100_000,
        "a" * 300,
        "../" * 2000,
    ),
    *([], (), {}, _nested(10_000), [None], [2**63], ["x" * 100_000], b"x", 1j, object(), {"a": _nested(10_000)}),
    tuple(range(10_000)),
]
TEXTS = [
    *(
        "0",
        "-1",
        "-0.0",
        "2147483648",
        "9223372036854775808",
        "1e20",
        "1e300",
        "5e-324",
        "1e999",
        "nan",
        "inf",
        "9" * 5000,
    ),
    *("", " ", ",", "a,", "None", "True", "[]", "()", "{}", "(" * 3000, "-" * 5000 + "1", "[" * 150 + "]" * 150),
    *("{[]: 1}", "b'x'", "1j", "'", "'a", "1if 1else 0", "\\d", "x" * 100_000, "a" * 300, "\0", "\ud800", "٣", "0x10"),
    *("gs://bucket/x", "s3:/x", "~no_such_user/x", "../" * 2000, "(" * 90 + "1" + ")" * 90, "1," * 1_000 + "1"),
]


def fields(group=config_lib.Config, prefix=""):
    """Every field by its path, with its type; options of the routers' steps too."""
    for field in dataclasses.fields(group):
        path = f"{prefix}{field.name}"
        hint = groups.hint_of([config_lib.ImageConfig], path)
        if dataclasses.is_dataclass(hint):
            yield from fields(hint, f"{path}.")
        elif field.name == "options":
            for name, options in hint.items():
                yield from ((f"{path}.{name}.{option}", kind) for option, kind in options.items())
        else:
            yield path, hint


FIELDS = dict(fields())


def constraints(hint):
    """(type, constraint or None) of every number and text in a type."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Annotated:
        held = [one for one in arguments[1:] if isinstance(one, checks.Bound | checks.Text | checks.LocalPath)]
        yield from [(arguments[0], one) for one in held] or constraints(arguments[0])
    elif hint in (int, float, str):
        yield hint, None
    elif origin is not typing.Literal:
        for argument in arguments:
            if argument is not Ellipsis:
                yield from constraints(argument)


def test_every_number_is_bounded_and_every_text_too():
    for kind, constraint in (found for hint in FIELDS.values() for found in constraints(hint)):
        if kind is str:
            assert isinstance(constraint, checks.Text | checks.LocalPath)
        else:
            assert isinstance(constraint, checks.Bound)
            assert None not in (
                constraint.at_least if constraint.above is None else constraint.above,
                constraint.at_most if constraint.below is None else constraint.below,
            )


@functools.cache
def _base():
    return json.dumps(config_lib.to_json(config_lib.ImageConfig()))


def _steps_of(path):
    """The settings of a router that has the step whose option ``path`` names."""
    router: dict[str, Any] = {"noise_std": 0.0, "losses": ["importance"]}
    match = re.match(r"model\.router\.options\.(\w+)", path)
    if match is None:
        return {}, {}
    name = match[1]
    if name in steps.SCORE_STEPS:
        selects = steps.SCORE_STEPS[name].selects
        router |= {"score": name}
        router |= {"select": selects[0]} if selects else {}
    elif name in steps.INFORM_STEPS:
        router |= {"inform": name}
    elif name in steps.LOSS_STEPS:
        router |= {"losses": [name], "noise_std": 1.0}
    else:
        router |= {"select": name}
        scores = ("soft_slots",) if name == "soft" else steps.SELECT_STEPS[name].scores
        router |= {"score": scores[0]} if scores else {}
    return router, {"num_selected_experts": 1}


def _with(path, value):
    tree = json.loads(_base())
    tree["train"]["epochs"] = 1.0
    router, moe = _steps_of(path)
    tree["model"]["router"] |= router
    tree["model"]["moe"] |= moe
    *place, name = path.split(".")
    group = tree
    for key in place:
        group = group.setdefault(key, {})
    group[name] = value
    return tree


def _check_sizes(config):
    """That what was accepted is finite, can be written, and that devices can count it."""
    text = json.dumps(config_lib.to_json(config), allow_nan=False)
    assert config_lib.parse(json.loads(text)) == config
    for number in re.findall(r"-?\d[\d.e+-]*", re.sub(r'"(\\.|[^"\\])*"', "", text)):
        assert abs(float(number)) <= 1e18 if "." in number or "e" in number else abs(int(number)) < 2**32
    try:
        config_lib.mesh_sizes(config, 1)
    except checks.InputError as problem:
        _check_line(problem)


def _check_line(problem, path=""):
    line = str(problem)
    assert re.fullmatch(r"[^:\n]+: expected [^\n]+; received [^\n]+", line), line[:500]
    assert len(line) < 2_000, line[:500]
    assert path.rpartition(".")[2] in line, line


def _tries(path, give):
    """Whether a value was accepted; anything but a config or one line fails."""
    try:
        config = config_lib.parse(_with(path, give()))
    except checks.InputError as problem:
        _check_line(problem, path)
        return False
    _check_sizes(config)
    return True


@pytest.mark.parametrize("path", FIELDS)
def test_hostile_values_of_every_field(path):
    refused = [value for value in VALUES if not _tries(path, lambda value=value: value)]
    assert len(refused) >= len(VALUES) / 2
    for text in TEXTS:
        _tries(path, lambda text=text: config_files.take_fields([f"--config.{path}={text}"])[1][path])


@pytest.mark.parametrize("path", ["seed", "model.moe.layers", "plugins", "data.pixel_mean", "model.router.inform"])
def test_a_list_as_long_as_a_command_line(path):
    """Of one field of each kind: to read it as Python takes a seventh of a second."""
    _tries(path, lambda: config_files.take_fields([f"--config.{path}={'1,' * 50_000}1"])[1][path])


@pytest.mark.parametrize("name", steps.all_steps())
def test_hostile_options_in_the_name_of_a_router(name):
    options = steps.all_steps()[name].option_types
    chosen = [router for router in (*presets.ROUTERS, *_INFORMED) if name in _step_names(router)]
    config = config_lib.default()  # one for all: a preset sets every option of its router anew
    for option in options if chosen else ():
        for text in [text for text in TEXTS if "," not in text]:
            try:
                presets.set_router(config, f"{chosen[0]}@{name}.{option}={text}")
                config_lib.parse_model(config.model)
            except checks.InputError as problem:
                _check_line(problem)


_INFORMED = tuple(f"{inform}_vmoe" for inform in steps.INFORM_STEPS)


@functools.cache
def _step_names(router):
    config = config_lib.default()
    presets.set_router(config, router)
    return config_lib.parse_model(config.model).router.step_names


@pytest.mark.parametrize("key", ["router", "variant", "experts", "where", "recipe", "key"])
def test_hostile_arguments_of_a_config_file(key):
    recipes = {"one": lambda config: None}
    for text in TEXTS:
        for value in (text, f"vmoe@{text}", f"vmoe@linear.{text}=1", f"S/{text}", f"last{text}", f"1+{text}"):
            try:
                config = presets.start(
                    f"{key}={value}", router="vmoe", variant="S/32", experts="8", where="last2", recipes=recipes
                )
                config.train.epochs = 1.0
                _check_sizes(config_lib.parse(config))
            except checks.InputError as problem:
                _check_line(problem)


# A process for all commands: each defines its flags in absl's one table, from which they are taken again.
_FLAGS_OF_COMMANDS = """
import importlib, json, sys
from absl import flags
from vmoe_inform import checks, command_line

texts, commands, found = *json.load(sys.stdin), {}
before = set(flags.FLAGS)
for command in commands:
    importlib.import_module(command)
    shown = {flag.name for flag in flags.FLAGS.get_key_flags_for_module(command)}  # by --help
    new = {name for name in set(flags.FLAGS) - before if "vmoe_inform." in flags.FLAGS.find_module_defining_flag(name)}
    assert shown >= new, (command, new - shown)  # others are of the libraries that it imports
    for name in new:
        for number, text in enumerate(texts):
            try:
                flags.FLAGS[name].unparse()
                flags.FLAGS[name].parse(text)
                said = None
            except flags.Error as problem:
                said = str(command_line.in_our_words(problem))
            found.setdefault(f"{command} --{name}", []).append(said)
        delattr(flags.FLAGS, name)
json.dump(found, sys.stdout)
"""


def test_hostile_values_of_every_flag_of_every_command():
    """An error of absl has no line of its own: it is said in our words."""
    in_packages = test_imports.COMMANDS_IN_PACKAGES - {"vmoe_inform.interop.check_golden"}  # which has no flags
    packages = {path.parent.name for path in (processes.ROOT / "vmoe_inform").glob("*/__main__.py")}
    names = (f"{name}.__main__" if name in packages else name for name in test_imports.COMMAND_LINES)
    commands = sorted([*(f"vmoe_inform.{name}" for name in names), *in_packages])
    done = subprocess.run(
        [sys.executable, "-c", _FLAGS_OF_COMMANDS],
        input=json.dumps([TEXTS, commands]),
        capture_output=True,
        text=True,
        cwd=processes.ROOT,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    for flag in ("study --seeds", "drill.__main__ --kills", "benchmark.__main__ --groups", "evaluate --num_processes"):
        assert f"vmoe_inform.{flag}" in found
    for flag, errors in found.items():
        for text, said in zip(TEXTS, errors, strict=True):
            if said is not None:
                _check_line(said, flag.partition("--")[2])
            elif flag.endswith(("--data_directory", "--suites_directory", "--predictions", "--json")):  # or in a bucket
                assert not text.startswith(("s3:", "~")), flag
            elif flag.endswith("_dir"):
                assert not text.startswith(("gs:", "s3:", "~")), flag
