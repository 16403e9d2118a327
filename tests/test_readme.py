"""What the README shows is what works."""

import pathlib
import re
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests import tiny
from vmoe_inform import routing
from vmoe_inform.config import presets
from vmoe_inform.nn import models
from vmoe_inform.routing import steps

ROOT = pathlib.Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
ROUTERS = (ROOT / "docs" / "routers.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)


@pytest.fixture
def registry_as_before():
    before = dict(steps.INFORM_STEPS._entries)
    yield
    steps.INFORM_STEPS._entries.clear()
    steps.INFORM_STEPS._entries.update(before)


def test_a_router_is_one_function_and_one_line(registry_as_before, tmp_path, monkeypatch):
    (block,) = [block for block in BLOCKS if "register_inform" in block]
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


def test_the_python_example_runs():
    (block,) = [block for block in BLOCKS if "from_config" in block]
    names = {
        "jax": jax,
        "images": jnp.zeros((8, 32, 32, 3)),
        "tokens": jax.random.normal(jax.random.key(0), (2, 5, 4)),
        "probabilities": jnp.full((2, 5, 3), 1 / 3),
    }
    exec(compile(block, "README.md", "exec"), names)
    assert names["logits"].shape == (8, 10)
    assert names["informed"].shape == (2, 5, 3)


def test_the_table_of_routers_names_every_preset_and_every_step():
    names = set(re.findall(r"`(\w+)`", ROUTERS))
    bases = re.search(r"X is one of (.*?)\.", ROUTERS, flags=re.DOTALL)[1]
    for base in re.findall(r"`(\w+)`", bases):
        names |= {f"{inform}_{base}" for inform in ("similarity", "attention", "symphony")}
    assert set(presets.ROUTERS) <= names
    registries = {"score": steps.SCORE_STEPS, "inform": steps.INFORM_STEPS, "select": steps.SELECT_STEPS}
    for kind, registry in registries.items():
        rows = dict(re.findall(rf"^\| `(\w+)` \| {kind} \| (.*?) \|", ROUTERS, flags=re.MULTILINE))
        assert set(rows) == set(registry)
        for name, options in rows.items():
            listed = re.findall(r"`(\w+)`", re.sub(r"\(.*?\)", "", options))
            assert set(listed) == set(registry[name].option_types)


def test_no_place_is_left_open():
    assert not re.findall(r"[A-Z]+_RESULTS", README + ROUTERS)
