"""Imports go one way: a package may import what stands on its own floor or below, never what stands above it."""

import ast
import pathlib

import pytest

ROOT = pathlib.Path(__file__).parent.parent

# What each part of vmoe_inform may import besides itself.
FOUNDATION = {
    "axes",
    "registry",
    "checks",
    "documents",
    "exit_codes",
    "plugins",
    "storage",
    "text",
}
PURE = {"axes", "checks", "registry"}  # functions of arrays, which read and write nothing
CONFIG = FOUNDATION | {"routing", "dispatch", "config"}
MODEL = CONFIG | {"sharding", "nn"}
RUNS = MODEL | {"data", "runs"}
TASKS = RUNS | {"tasks"}
ALLOWED = {
    "": set(),  # vmoe_inform/__init__.py
    "axes": set(),
    "registry": {"checks"},
    "plugins": {"checks", "registry"},
    "constraints": set(),
    "checks": {"constraints"},
    "exit_codes": set(),
    "text": set(),
    "progress": set(),  # rich; for what takes long
    "lettering": {"text"},  # matplotlib; for what draws
    "storage": {"checks"},
    "documents": {"checks", "storage"},
    "dispatch": PURE,
    "routing": PURE | {"dispatch"},  # a router ends in a plan that dispatch carries out
    "config": CONFIG,
    "sharding": CONFIG,
    "nn": CONFIG | {"sharding"},
    "data": CONFIG | {"lettering"},
    "runs": RUNS,  # a trained model and where it is from
    "tasks": TASKS,  # what a model learns and is measured by
    "evaluation": TASKS,
    "training": TASKS | {"evaluation", "progress"},  # the loop evaluates as it goes; evaluation knows no training
    "report": TASKS | {"evaluation", "lettering"},
    # what a run's routers do to the images of the suites
    "analysis": TASKS | {"evaluation", "report", "lettering"},
    "studies": TASKS | {"evaluation", "training", "report", "lettering", "progress"},  # many runs, trained and measured
    "generation": RUNS,  # what language models write
    # what classifiers say of a user's own images
    "prediction": TASKS | {"evaluation", "report", "analysis", "progress"},
    # what a program costs, compiled and timed; only command lines look at it
    "performance": TASKS | {"evaluation", "training"},
    # checkpoints of other programs, which become runs: state and optimizer are those of training
    "interop": RUNS | {"training"},
    # a trained model for programs that know nothing of this package, with its scores
    "export": TASKS | {"evaluation", "report", "interop", "lettering", "__version__"},
    "command_line": CONFIG | {"sharding"},  # what the command lines share
    "commands": set(),  # the console scripts, which run command lines by name
}
COMMAND_LINES = {
    *("train", "evaluate", "analyze", "study", "generate", "predict", "export"),
    *("benchmark", "accelerator_check", "compile_check", "drill", "import_checkpoint"),
}
EVERYTHING_BUT_COMMAND_LINES = set(ALLOWED)
# Commands inside a package, which may use what the command lines beside it may.
COMMANDS_IN_PACKAGES = {
    "vmoe_inform.data.check",
    "vmoe_inform.data.prepare",
    "vmoe_inform.data.unpack",
    "vmoe_inform.evaluation.rehearsal",
    "vmoe_inform.interop.check_checkpoint",
    "vmoe_inform.interop.check_golden",
}


def part_of(module: str) -> str:
    """``vmoe_inform.routing.graphs`` -> ``routing``, ``configs.digits`` -> ``configs``."""
    names = module.split(".")
    if names[0] == "configs":
        return "configs"
    return names[1] if len(names) > 1 else ""


def allowed_imports(module: str) -> set[str]:
    part = part_of(module)
    if part == "configs":
        return {"config"}
    if part in COMMAND_LINES or module in COMMANDS_IN_PACKAGES:
        return EVERYTHING_BUT_COMMAND_LINES
    if part not in ALLOWED:
        raise ValueError(f"{module}: {part!r} has no line in tests/test_imports.py; say there what it may import")
    return ALLOWED[part]


def imported_modules(module: str, text: str, *, is_package: bool = False) -> list[tuple[int, str]]:
    """(line, full name) of every import of this repository, inside functions and relative ones too."""
    found: list[tuple[int, str]] = []
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            found += [(node.lineno, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                above = module.split(".")
                above = above[: len(above) - node.level + is_package]
                base = ".".join([*above, *([node.module] if node.module else [])])
            found += [(node.lineno, f"{base}.{alias.name}") for alias in node.names]
    return [(line, name) for line, name in found if name.split(".")[0] in ("vmoe_inform", "configs")]


def wrong_arrows(module: str, text: str, *, is_package: bool = False) -> list[str]:
    """The imports of a module's text that go the wrong way, in words."""
    may = allowed_imports(module) | {part_of(module)}
    return [
        f"{module}:{line} imports {name}"
        for line, name in imported_modules(module, text, is_package=is_package)
        if part_of(name) not in may and name != "vmoe_inform.__version__"
    ]


def modules() -> dict[str, pathlib.Path]:
    found = {}
    for path in sorted([*(ROOT / "vmoe_inform").rglob("*.py"), *(ROOT / "configs").rglob("*.py")]):
        names = path.relative_to(ROOT).with_suffix("").parts
        found[".".join(names[:-1] if names[-1] == "__init__" else names)] = path
    return found


def test_modules_import_only_from_below():
    """In one test, as for all modules together it takes a second; what is wrong has the module's name."""
    assert len(modules()) > 300
    for module, path in modules().items():
        found = wrong_arrows(module, path.read_text(), is_package=path.name == "__init__.py")
        assert found == []


@pytest.mark.parametrize(
    ("module", "text"),
    [
        ("vmoe_inform.routing.made_up", "from vmoe_inform import config"),
        ("vmoe_inform.routing.made_up", "from vmoe_inform import storage"),
        ("vmoe_inform.dispatch.made_up", "from vmoe_inform.routing import top_experts"),
        ("vmoe_inform.routing.made_up", "import vmoe_inform.nn.moe as moe"),
        ("vmoe_inform.routing.made_up", "from ..nn import moe"),
        ("vmoe_inform.routing.made_up", "from .. import runs"),
        ("vmoe_inform.data.made_up", "def late():\n    from vmoe_inform.nn.models import from_config"),
        ("vmoe_inform.sharding.made_up", "from vmoe_inform.nn.moe import MoeLayer"),
        ("vmoe_inform.evaluation.made_up", "from vmoe_inform.training import loop"),
        ("vmoe_inform.runs.made_up", "from vmoe_inform.evaluation import predict"),
        ("vmoe_inform.tasks.made_up", "from vmoe_inform.training import loop"),
        ("vmoe_inform.training.made_up", "from vmoe_inform.analysis import traces"),
        ("vmoe_inform.performance.made_up", "from vmoe_inform.studies import plan"),
        ("vmoe_inform.training.made_up", "from vmoe_inform import command_line"),
        ("vmoe_inform.evaluation.made_up", "from vmoe_inform.train import main"),
        ("vmoe_inform.evaluation.made_up", "from vmoe_inform import evaluate"),
        ("vmoe_inform.train", "from vmoe_inform import evaluate"),
        ("vmoe_inform.nn.made_up", "from configs import digits"),
        ("configs.made_up", "from vmoe_inform.nn.models import from_config"),
        ("configs.made_up", "from vmoe_inform import routing"),
    ],
)
def test_the_wrong_way_is_found(module, text):
    assert len(wrong_arrows(module, text)) == 1


@pytest.mark.parametrize(
    ("module", "text"),
    [
        ("vmoe_inform.routing.made_up", "from vmoe_inform.routing.steps import register_inform\nimport jax"),
        ("vmoe_inform.routing.made_up", "from . import steps\nfrom .. import checks"),
        ("vmoe_inform.config", "from vmoe_inform import checks, dispatch, routing"),
        ("vmoe_inform.evaluation.made_up", "from vmoe_inform import data, runs"),
        ("vmoe_inform.train", "from vmoe_inform.training import loop\nfrom vmoe_inform.evaluation import suites"),
        ("configs.made_up", "from vmoe_inform import config as config_lib\nfrom vmoe_inform.config import presets"),
    ],
)
def test_the_right_way_passes(module, text):
    assert wrong_arrows(module, text) == []


def private_to_others(module: str, text: str, *, is_package: bool = False) -> list[str]:
    """Imports of modules or names with a leading underscore from outside of the folder that they lie in."""
    found = []
    for line, name in imported_modules(module, text, is_package=is_package):
        parts = name.split(".")
        private = next((place for place, part in enumerate(parts) if part.startswith("_") and part != "__version__"), 0)
        owner = ".".join(parts[:private])
        if private and not f"{module}.".startswith(f"{owner}."):
            found.append(f"{module}:{line}: {name} is private to {owner}")
    return found


def test_private_modules_are_imported_in_their_folder_only():
    for module, path in modules().items():
        assert private_to_others(module, path.read_text(), is_package=path.name == "__init__.py") == []


@pytest.mark.parametrize(
    ("module", "text", "found"),
    [
        ("vmoe_inform.page.made_up", "from vmoe_inform.draw._panels import panels", 1),
        ("vmoe_inform.page.made_up", "from vmoe_inform.draw import _panels", 1),
        ("vmoe_inform.page.made_up", "from vmoe_inform.draw.panels import _panels", 1),
        ("vmoe_inform.draw.made_up", "from vmoe_inform.draw._panels import panels", 0),
        ("vmoe_inform.draw.maps.made_up", "from vmoe_inform.draw import _panels", 0),
        ("vmoe_inform.page.made_up", "from vmoe_inform import __version__", 0),
    ],
)
def test_private_imports_of_others_are_found(module, text, found):
    assert len(private_to_others(module, text)) == found


def test_relative_import_of_a_package_is_resolved_from_the_package():
    assert imported_modules("vmoe_inform.nn", "from .moe import X", is_package=True) == [(1, "vmoe_inform.nn.moe.X")]


def test_a_new_part_has_to_say_what_it_imports():
    with pytest.raises(ValueError, match="'gadgets' has no line"):
        wrong_arrows("vmoe_inform.gadgets.made_up", "")


@pytest.mark.parametrize("folder", ["vmoe_inform", "tests"])
def test_every_folder_with_modules_is_a_package(folder):
    """Others would be missing in the wheel."""
    folders = {path.parent for path in (ROOT / folder).rglob("*.py")}
    assert [path.relative_to(ROOT).as_posix() for path in folders if not (path / "__init__.py").exists()] == []
