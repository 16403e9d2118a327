"""Every preset in every config file builds, survives JSON, and is what its paper says."""

import importlib.util
import json
from pathlib import Path

import pytest

from vmoe_inform import config as config_lib
from vmoe_inform import presets

FILES = sorted((Path(__file__).parents[1] / "configs").glob("*.py"))


def load(path, argument=None):
    spec = importlib.util.spec_from_file_location(f"configs_{path.stem}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.get_config(argument)


EVERY_FILE = pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)


def test_there_are_config_files_and_the_four_systems():
    assert "digits" in {path.stem for path in FILES}
    assert {"vmoe", "similarity_vmoe", "attention_vmoe", "symphony_vmoe"} <= set(presets.ROUTERS)


@EVERY_FILE
@pytest.mark.parametrize("router", presets.ROUTERS)
def test_every_preset_in_every_file(path, router):
    config = config_lib.parse(load(path, f"router={router}"))
    assert config_lib.parse(json.loads(json.dumps(config_lib.to_json(config)))) == config
    wanted = load(path, "router=vmoe")  # what is left of another preset must not matter
    presets.set_router(wanted, router)
    presets.set_experts(wanted, str(config.model.moe.num_experts), "last2")
    wanted = config_lib.parse_model(wanted.model)
    assert config.model.router == wanted.router
    assert config.model.moe.num_selected_experts == wanted.moe.num_selected_experts


@EVERY_FILE
def test_every_file_knows_its_argument(path):
    config = config_lib.parse(load(path, "variant=Ti/16,experts=4,where=every2"))
    assert (config.model.hidden_size, config.model.patch_size_px) == (64, 16)
    assert (config.model.moe.num_experts, config.model.moe.layers) == (4, "every2")
    with pytest.raises(ValueError, match=r"config argument: expected one of the keys .*; received 'rooter'"):
        load(path, "rooter=vmoe")
    with pytest.raises(ValueError, match=r"router preset: expected one of .*'vmo' \(did you mean 'vmoe'"):
        load(path, "router=vmo")


def test_routers_are_what_the_papers_say():
    def router(name):
        config = config_lib.default()
        presets.set_router(config, name)
        return config_lib.parse_model(config.model).router

    plain = router("vmoe")
    assert (plain.inform_steps, plain.options) == (
        (),
        {"linear": {"bias": False}, "top_experts": {"renormalize": False}},
    )
    assert (plain.noise_std, plain.losses.importance, plain.losses.load) == (1.0, 0.005, 0.005)
    similarity = router("similarity_vmoe")
    assert similarity.inform_steps == ("similarity",)
    assert similarity.options["similarity"] == {
        "temperature": 1.0,
        "metric": "dot",
        "learned_weight": False,
        "block_size": None,
    }
    attention = router("attention_vmoe")
    assert attention.inform_steps == ("attention",)
    assert (attention.options["attention"]["sigma"], attention.options["attention"]["heads"]) == (1.0, "lowest_entropy")
    symphony = router("symphony_vmoe")
    assert symphony.inform_steps == ("symphony",)
    assert (symphony.options["symphony"]["decay"], symphony.options["symphony"]["initial_value"]) == (0.9, 0.0)
    assert all(r.options["top_experts"]["renormalize"] is True for r in (similarity, attention, symphony))


@pytest.mark.parametrize(
    ("variant", "sizes"),
    [
        ("S/32", (8, 512, 2048, 8, 32)),
        ("B/16", (12, 768, 3072, 12, 16)),
        ("L/16", (24, 1024, 4096, 16, 16)),
        ("H/14", (32, 1280, 5120, 16, 14)),
    ],
)
def test_sizes(variant, sizes):
    config = config_lib.default()
    presets.set_variant(config, variant)
    model = config_lib.parse_model(config.model)
    assert (model.num_layers, model.hidden_size, model.mlp_size, model.num_heads, model.patch_size_px) == sizes


@pytest.mark.parametrize(
    ("where", "blocks"), [("last2", (5, 7)), ("every2", (1, 3, 5, 7)), ("none", ()), ("7+0", (0, 7)), ("3", (3,))]
)
def test_places_of_experts(where, blocks):
    config = config_lib.default()
    presets.set_experts(config, "16", where)
    model = config_lib.parse_model(config.model)
    assert (model.moe.num_experts, model.moe_layers) == (16, blocks)


@pytest.mark.parametrize("variant", ["X/32", "S", "S/0", "S/", "s/32", "S/32x"])
def test_bad_variant(variant):
    with pytest.raises(ValueError, match=f"variant: expected SIZE/PATCH .*; received '{variant}'"):
        presets.set_variant(config_lib.default(), variant)


@pytest.mark.parametrize(("experts", "where"), [("0", "last2"), ("-1", "last2"), ("x", "last2")])
def test_bad_number_of_experts(experts, where):
    with pytest.raises(ValueError, match=f"experts: expected a number >= 1; received '{experts}'"):
        presets.set_experts(config_lib.default(), experts, where)


@pytest.mark.parametrize("where", ["last", "last0", "first2", "5+", "5,7", ""])
def test_bad_place(where):
    with pytest.raises(ValueError, match=r"where: expected lastN, .*; received"):
        presets.set_experts(config_lib.default(), "4", where)
