"""What the README and the pages of docs/ show is what works."""

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
from vmoe_inform.config import presets
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


def test_missing_names_are_found():
    text = "`vmoe_inform.nn.made_up`, `training/made_up.py`, `launch/test_made_up.py`, `test_made_up.py`"
    text += "python -m vmoe_inform.traim, vmoe-traim"
    assert len(missing_names(text)) == 7  # the module of the command is a name, too
    assert missing_names("`vmoe_inform.routing.inform`, `training/step.py`, RUN/analysis/figures.py") == []


def test_the_citation_is_of_this_version():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert {"cff-version", "message", "title", "authors"} <= set(citation)
    assert citation["version"] == vmoe_inform.__version__
    assert f"## [{vmoe_inform.__version__}]" in PAGES["CHANGELOG.md"]
    for each in citation["references"]:
        assert {"type", "title", "authors", "year", "url"} <= set(each)
