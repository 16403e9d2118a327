"""What the README and the pages of docs/ show is what works."""

import dataclasses
import importlib
import pathlib
import re
import sys
import tomllib

import jax
import numpy as np
import pytest
import yaml

import vmoe_inform
from tests import tiny
from vmoe_inform import routing
from vmoe_inform.config import ImageConfig, LanguageConfig, groups, presets
from vmoe_inform.nn import models
from vmoe_inform.routing import steps

ROOT = pathlib.Path(__file__).parents[1]
PAGES = {
    path.relative_to(ROOT).as_posix(): path.read_text()
    for path in [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), ROOT / "notebooks" / "README.md"]
}
ROUTERS = PAGES["docs/routers.md"]


def python_blocks(page: str) -> list[str]:
    return re.findall(r"```python\n(.*?)```", PAGES[page], flags=re.DOTALL)


@pytest.fixture
def registry_as_before():
    before = dict(steps.INFORM_STEPS._entries)
    yield
    steps.INFORM_STEPS._entries.clear()
    steps.INFORM_STEPS._entries.update(before)


def test_a_router_is_one_function_and_one_line(registry_as_before, tmp_path, monkeypatch):
    (block,) = python_blocks("docs/extending.md")
    (tmp_path / "neighbours.py").write_text(block)
    monkeypatch.setattr(routing, "__path__", [*routing.__path__, str(tmp_path)])
    routing.import_steps()
    monkeypatch.delitem(sys.modules, "vmoe_inform.routing.neighbours")
    config = tiny.config_dict()
    config.model.router.inform = "image_mean"
    config.model.router.options.image_mean.share = 1.0
    model = models.from_config(config.model)
    variables = models.initialize(model, jax.random.key(0))
    images = jax.random.normal(jax.random.key(1), (2, 32, 32, 3))
    _, left = jax.jit(lambda v, x: model.apply(v, x, mutable="intermediates"))(variables, images)
    informed = np.asarray(left["intermediates"]["block_1"]["moe"]["routing"].informed)
    # With a share of 1 all tokens of an image have the same probabilities, and the two images differ.
    np.testing.assert_allclose(informed, np.broadcast_to(informed[:, :1], informed.shape), atol=1e-6)
    assert not np.allclose(informed[0], informed[1], atol=1e-6)
    config.model.router.options.image_mean.share = 1.5
    with pytest.raises(ValueError, match=r"options.image_mean.share: expected float >= 0 and <= 1; received 1.5"):
        models.from_config(config.model)


def test_the_python_example_runs_as_it_is_written():
    (block,) = python_blocks("README.md")
    names = {}
    exec(compile(block, "README.md", "exec"), names)
    assert names["logits"].shape == (8, 10)
    assert names["informed"].shape == (8, 16, 4)
    assert names["neighbours"].shape == (8, 16)


def test_the_table_of_routers_names_every_preset_and_every_step():
    assert set(presets.ROUTERS) <= set(re.findall(r"`(\w+)`", ROUTERS))
    registries = {"score": steps.SCORE_STEPS, "inform": steps.INFORM_STEPS, "select": steps.SELECT_STEPS}
    for kind, registry in registries.items():
        rows = dict(re.findall(rf"^\| `(\w+)` \| {kind} \| (.*?) \|", ROUTERS, flags=re.MULTILINE))
        assert set(rows) == set(registry)
        for name, options in rows.items():
            listed = re.findall(r"`(\w+)`", re.sub(r"\(.*?\)", "", options))
            assert set(listed) == set(registry[name].option_types)


@pytest.mark.parametrize("page", PAGES)
def test_pages_name_files_and_modules_that_exist(page):
    text = PAGES[page]
    assert missing_names(text) == []


# Folders where a path in `backticks` may start: the repository and, for short, the package and its tests.
PLACES = (ROOT, ROOT / "vmoe_inform", ROOT / "tests")
SCRIPTS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
FOLDERS = {path.name for place in PLACES for path in place.iterdir() if path.is_dir()} - {"data", "runs"}


def missing_names(text: str) -> list[str]:
    """Commands, dotted names and paths in a page's text that are none of this repository's."""
    missing = [name for name in re.findall(r"python3? -m (vmoe_inform[\w.]*)", text) if not is_module(name)]
    missing += [name for name in re.findall(r"(?<![/\w.])vmoe_inform(?:\.\w+)+", text) if not is_name(name)]
    missing += [name for name in re.findall(r"(?<![\w/-])vmoe-(?!inform)[a-z-]+", text) if name not in SCRIPTS]
    for path in re.findall(
        r"(?<![\w/.$])((?:(?:\w+/)+[\w.]+|test_\w+)\.(?:py|md|sh|sbatch|yaml|ipynb|npz|txt))\b", text
    ):
        if (path.split("/")[0] in FOLDERS or "test_" in path) and not any((place / path).exists() for place in PLACES):
            missing.append(path)
    return missing


def is_module(name: str) -> bool:
    path = ROOT.joinpath(*name.split("."))
    return path.with_suffix(".py").exists() or (path / "__init__.py").exists()


def is_name(name: str) -> bool:
    """Whether it is a module, or an attribute of one."""
    if is_module(name):
        return True
    module, _, attribute = name.rpartition(".")
    return is_module(module) and hasattr(importlib.import_module(module), attribute)


def test_the_list_of_documentation_has_every_page():
    _, listed = PAGES["README.md"].split("## Documentation")
    pages = {page for page in PAGES if re.fullmatch(r"docs/\w+\.md", page)}
    assert pages - set(re.findall(r"\]\((docs/\w+\.md)", listed)) == set()


def test_missing_names_are_found():
    text = "`vmoe_inform.nn.made_up`, `training/made_up.py`, `launch/test_made_up.py`, `test_made_up.py`"
    text += "python -m vmoe_inform.traim, vmoe-traim"
    assert len(missing_names(text)) == 7  # the module of the command is a name, too
    assert missing_names("`vmoe_inform.routing.inform`, `training/step.py`, RUN/analysis/figures.py") == []


@pytest.mark.parametrize("page", [page for page in PAGES if page != "CHANGELOG.md"])  # which names those of before, too
def test_pages_name_settings_that_exist(page):
    assert unknown_settings(PAGES[page]) == []


def unknown_settings(text: str) -> list[str]:
    """Fields of configs in a page's text, on command lines or in `backticks`, that no config has."""
    groups_of_config = "|".join(field.name for field in dataclasses.fields(ImageConfig))
    fields = re.findall(r"--config\.([a-z_][\w.]*)", text)
    fields += re.findall(rf"`((?:{groups_of_config})\.[a-z_][\w.]*)", text)
    unknown = []
    for field in fields:
        if field.rpartition(".")[2] in ("py", "md", "json", "lock", "txt", "safetensors", "jax_export"):
            continue  # a file
        try:
            groups.hint_of([ImageConfig, LanguageConfig], field)
        except ValueError:
            unknown.append(field)
    return [field for field in unknown if "image_mean" not in field]  # the step of docs/extending.md


def test_unknown_settings_are_found():
    assert unknown_settings("`--config.model.mo.dispatch=auto`, `train.epochs=3`, `data.sauce`, `train.lock`") == [
        "model.mo.dispatch",
        "data.sauce",
    ]


FLAG = re.compile(r"""(?:define|define_path|define_run_path|define_output|DEFINE_\w+)\(\s*"(\w+)\"""")
SHARED_FLAGS = {"config", "help", "verbosity"}


@pytest.mark.parametrize("page", PAGES)
def test_commands_have_flags_that_exist(page):
    assert unknown_flags(PAGES[page]) == []


def unknown_flags(text: str) -> list[str]:
    """Flags that the commands in a page's text do not define; a command may have several lines."""
    shared = SHARED_FLAGS | set(FLAG.findall(sources_of("command_line")))
    shared |= set(re.findall(r'"(\w+)": \("(?:data|evaluation)\.', sources_of("command_line")))  # in place of a field
    modules = dict(re.findall(r'(\w+) = _command\("([\w.]+)"\)', sources_of("commands")))
    unknown = []
    for command, arguments in re.findall(r"(vmoe-(?!inform)[a-z-]+)((?:\\\n|[^\n`])*)", text):
        module = modules[SCRIPTS[command].partition(":")[2]]
        known = shared | set(FLAG.findall(sources_of(module)))
        unknown += [flag for flag in re.findall(r"--([a-z_]+)\b(?!\.)", arguments) if flag not in known]
    return unknown


def test_unknown_flags_are_found():
    text = "```\nvmoe-train --config=digits --workdir=a \\\n    --dry_runs\n```\n`vmoe-evaluate --suites=a --kills=3`"
    assert unknown_flags(text) == ["dry_runs", "kills"]


def sources_of(name: str) -> str:
    """The source of a module of the package, or of all modules of a folder."""
    module = ROOT.joinpath("vmoe_inform", *name.split("."))
    files = module.glob("*.py") if module.is_dir() else [module.with_suffix(".py")]
    return "\n".join(file.read_text() for file in files)


def test_the_citation_is_of_this_version():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert {"cff-version", "message", "title", "authors"} <= set(citation)
    assert citation["version"] == vmoe_inform.__version__
    assert f"## [{vmoe_inform.__version__}]" in PAGES["CHANGELOG.md"]
    for each in citation["references"]:
        assert {"type", "title", "authors", "year", "url"} <= set(each)
