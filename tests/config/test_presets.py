"""Every preset in every config file builds, survives JSON, and is what its paper says."""

import dataclasses
import importlib.util
import json
from pathlib import Path

import pytest

from tests import tiny
from vmoe_inform import checks
from vmoe_inform import config as config_lib
from vmoe_inform.config import presets
from vmoe_inform.nn.auxiliary_losses import loss_weights
from vmoe_inform.routing import steps

FROM_A_RUN = ("finetune", "upcycle")  # which tests/configs/test_from_a_run.py tests
FILES = sorted(path for path in (Path(__file__).parents[2] / "configs").glob("*.py") if path.stem not in FROM_A_RUN)
OF_TEXT = ("text_classification", "wikitext103", "wordnet")
LOOK_AHEAD = ("base", "expert_choice", "soft")  # by their choice of experts


def load(path, argument=None):
    spec = importlib.util.spec_from_file_location(f"configs_{path.stem}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.get_config(argument)


def model_of(name, inputs="images"):
    config = config_lib.default(inputs)
    presets.set_router(config, name)
    return config_lib.parse_model(config.model)


EVERY_FILE = pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
FILES_OF_IMAGES = [path for path in FILES if path.stem not in OF_TEXT]
FILES_OF_TEXT = [path for path in FILES if path.stem in OF_TEXT]


BASES = ("vmoe", "smoe_top1", "smoe_top2", "glam", "xmoe", "smoe_dropout")


def test_there_are_config_files_and_all_systems_of_the_papers():
    assert "digits" in {path.stem for path in FILES}
    others = {"alternate_vmoe", "stablemoe", "hash", "base", "expert_choice", "soft", "loss_free", "remoe"}
    assert set(presets.ROUTERS) == {*BASES, *others}


# Presets that look at later tokens are not for text: a test below holds that they are refused.
FILES_AND_ROUTERS = [
    pytest.param(path, router, id=f"{path.stem}-{router}")
    for path in FILES
    for router in (*presets.ROUTERS, *tiny.INFORMED)
    if path not in FILES_OF_TEXT or router not in LOOK_AHEAD
]


@pytest.mark.parametrize("path", FILES_OF_TEXT, ids=lambda path: path.stem)
@pytest.mark.parametrize("router", LOOK_AHEAD)
def test_presets_that_look_ahead_are_refused_for_text(path, router):
    with pytest.raises(ValueError, match=r"model\.(router\.select|allow_future)"):
        config_lib.parse(load(path, f"router={router}"))


@pytest.mark.parametrize(("path", "router"), FILES_AND_ROUTERS)
def test_every_preset_in_every_file(path, router):
    config = config_lib.parse(load(path, f"router={router}"))
    assert config_lib.parse(json.loads(json.dumps(config_lib.to_json(config)))) == config
    wanted = model_of(router, config.model.inputs)
    # Files may set options that depend on the length of their run.
    assert dataclasses.replace(config.model.router, options=wanted.router.options) == wanted.router
    assert config.model.moe.num_selected_experts == wanted.moe.num_selected_experts


@EVERY_FILE
def test_every_file_knows_its_argument(path):
    size = "size=tiny" if path in FILES_OF_TEXT else "variant=Ti/16"
    model = config_lib.parse(load(path, f"{size},experts=4,where=every2")).model
    wanted = presets.LANGUAGE_SIZES["tiny"] if path in FILES_OF_TEXT else presets.SIZES["Ti"]
    assert (model.num_layers, model.hidden_size, model.mlp_size, model.num_heads) == wanted[:4]
    assert (model.moe.num_experts, model.moe.layers) == (4, "every2")
    with pytest.raises(
        ValueError, match=r"config argument: expected one of the keys .*; received 'rooter' \(did you mean 'router'\?\)"
    ):
        load(path, "rooter=vmoe")
    with pytest.raises(ValueError, match=r"router preset: expected one of .*'vmo' \(did you mean 'vmoe'"):
        load(path, "router=vmo")


@pytest.mark.parametrize("path", FILES_OF_IMAGES, ids=lambda path: path.stem)
def test_an_option_of_the_argument_goes_before_that_of_the_file(path):
    options = load(path, "router=stablemoe@distilled.switch_step=7").model.router.options
    assert options.distilled.switch_step == 7
    assert load(path, "router=stablemoe").model.router.options.distilled.switch_step > 100


def losses(router):
    return loss_weights(router)


# score, select, K, losses, noise
SYSTEMS = {
    "vmoe": ("linear", "top_experts", 2, {"importance": 0.005, "load": 0.005}, 1.0),
    "smoe_top1": ("linear", "top_experts", 1, {}, 0.0),
    "smoe_top2": ("linear", "top_experts", 2, {}, 0.0),
    "glam": ("linear", "top_experts", 2, {"gshard": 0.01}, 0.0),
    "xmoe": ("cosine", "top_experts", 2, {"switch": 0.01}, 0.0),
    "smoe_dropout": ("frozen", "top_experts", 2, {}, 0.0),
    "stablemoe": ("distilled", "top_experts", 1, {"balance": 0.3, "distillation": 0.3}, 0.0),
    "hash": ("hash", "top_experts", 1, {}, 0.0),
    "base": ("linear", "balanced_assignment", 1, {}, 0.0),
    "expert_choice": ("linear", "expert_choice", 2, {}, 0.0),
    "soft": ("soft_slots", "soft", 2, {}, 0.0),
    "loss_free": ("sigmoid", "biased_top_experts", 2, {}, 0.0),
    "remoe": ("relu", "positive_experts", 2, {"sparsity": 1.0}, 0.0),
}


@pytest.mark.parametrize("name", SYSTEMS)
def test_plain_systems(name):
    model = model_of(name)
    router = model.router
    k = model.moe.num_selected_experts
    assert (router.score, router.select, k, losses(router), router.noise_std) == SYSTEMS[name]
    assert router.inform_steps == ()


@pytest.mark.parametrize("k", [1, 2, 3, 8])
def test_a_family_of_presets_for_any_k(k):
    model, plain = model_of(f"symphony_smoe_top{k}"), model_of("symphony_smoe_top2")
    assert model.moe == dataclasses.replace(plain.moe, num_selected_experts=k)
    assert model.router == plain.router
    assert model_of(f"smoe_top{k}").moe.num_selected_experts == k
    for bad in ("smoe_top0", "smoe_top", "smoe_top2x", "smoe_top08", "linear2_smoe_top4"):
        with pytest.raises(ValueError, match=f"router preset: expected one of .*; received '{bad}'"):
            model_of(bad)


@pytest.mark.parametrize("base", BASES)
@pytest.mark.parametrize("inform", ["similarity", "attention", "symphony"])
def test_products_are_their_base_with_an_inform_step_and_renormalised_weights(base, inform):
    plain, informed = model_of(base), model_of(f"{inform}_{base}")
    assert informed.router.inform_steps == (inform,)
    assert informed.router.options["top_experts"]["renormalize"] is True
    assert plain.moe == informed.moe
    back = dataclasses.replace(informed.router, inform="none", options=plain.router.options)
    assert back == plain.router
    assert presets.find_router(base).where == presets.find_router(f"{inform}_{base}").where


def test_several_steps_are_a_router_too():
    router = model_of("similarity+symphony_vmoe@symphony.decay=0.5@similarity.temperature=2").router
    assert router.inform_steps == ("similarity", "symphony")
    assert (router.options["symphony"]["decay"], router.options["similarity"]["temperature"]) == (0.5, 2.0)
    assert model_of("symphony+similarity_vmoe").router.inform_steps == ("symphony", "similarity")
    with_loss = model_of("attention+z+cosine_vmoe").router
    assert (with_loss.score, with_loss.inform_steps) == ("cosine", ("attention",))
    assert with_loss.losses == ("importance", "load", "z")
    for bad in ("similarity+similarity_vmoe", "similarity+_vmoe", "similarity+nothing_vmoe"):
        with pytest.raises(ValueError, match=r"router preset: expected one of .*; received"):
            model_of(bad)


@pytest.mark.parametrize("step", steps.all_steps())
def test_a_registered_step_is_a_router_at_once(step):
    """STEP_NAME has that step in place of NAME's, and nothing that the step does not go with."""
    base = {"balanced_assignment": "smoe_top1"}.get(step, "vmoe")
    model = model_of(f"{step}_{base}")
    assert step in model.router.step_names
    plain = model_of(base)
    assert model.moe == plain.moe
    new = set(model.router.step_names) - set(plain.router.step_names)
    with_it = {"soft_slots": {"soft"}, "positive_experts": {"relu"}}.get(step, set())
    assert new - with_it == ({step} if step not in plain.router.step_names else set())


def test_a_step_that_is_registered_later_is_a_router_too(monkeypatch, capsys):
    def mean(probabilities, context, *, share: checks.Share = 0.3):
        """Each token with the mean over its image."""

    monkeypatch.setitem(steps.INFORM_STEPS._entries, "image_mean", steps.InformStep("image_mean", mean))
    config = load(FILES_OF_IMAGES[0], "router=image_mean_vmoe@image_mean.share=0.5")
    assert config.model.router.inform == "image_mean"
    assert config.model.router.options.image_mean.share == 0.5
    with pytest.raises(SystemExit):
        load(FILES_OF_IMAGES[0], "router=help")
    assert "image_mean_vmoe" in capsys.readouterr().out
    with pytest.raises(ValueError, match=r"router preset: expected .* image_mean, .*'image_men_vmoe' \(did you"):
        load(FILES_OF_IMAGES[0], "router=image_men_vmoe")


def test_a_step_that_is_named_as_a_part_of_a_preset_hides_nothing(monkeypatch):
    monkeypatch.setitem(steps.INFORM_STEPS._entries, "alternate", steps.InformStep("alternate", lambda p, c: p))
    with pytest.raises(ValueError, match="router: expected a name of its own for each: alternate_vmoe is a preset"):
        model_of("alternate_vmoe")


@pytest.mark.parametrize(
    ("given", "inform", "renormalized"),
    [
        ("informed", "none", False),
        ("informed", "similarity", True),
        (False, "similarity", False),
        ("one", "none", "one"),
    ],
)
def test_an_inform_step_that_is_set_by_hand_renormalises_as_its_preset_does(given, inform, renormalized):
    config = config_lib.default()
    presets.set_router(config, "vmoe")
    config.model.router.inform = inform
    if given != "informed":
        config.model.router.options.top_experts.renormalize = given
    model = config_lib.parse_model(config.model)
    assert model.router.options["top_experts"]["renormalize"] is renormalized or given == "one"
    assert (model == model_of("similarity_vmoe")) == (renormalized is True)
    # What is written out stays: an older run, or one that says so, is not renormalised.
    assert config_lib.parse_model(dataclasses.asdict(model)) == model


def test_options_that_the_papers_fix():
    names = [*presets.ROUTERS, "similarity_vmoe", "attention_vmoe", "symphony_vmoe"]
    options = {name: model_of(name).router.options for name in names}
    weights = {loss: {"weight": 0.005, "over": "group"} for loss in ("importance", "load")}
    assert options["vmoe"] == {"linear": {"bias": False}, "top_experts": {"renormalize": False}, **weights}
    assert options["smoe_top1"]["linear"]["bias"] is options["smoe_top2"]["linear"]["bias"] is True
    assert options["similarity_vmoe"]["similarity"] == {
        "temperature": 1.0,
        "metric": "dot",
        "learned_weight": False,
        "block_size": None,
    }
    attention = options["attention_vmoe"]["attention"]
    assert (attention["sigma"], attention["heads"], attention["head_factor"]) == ("sqrt_dim", "lowest_entropy", True)
    symphony = options["symphony_vmoe"]["symphony"]
    assert (symphony["decay"], symphony["initial_value"], symphony["normalization"]) == (0.9, 0.0, "row")
    assert options["xmoe"]["cosine"] == {"width": None, "temperature": 0.3}
    assert options["smoe_dropout"]["frozen"] == {"k_start": 1, "k_end": None, "growth_share": 1.0}
    assert model_of("alternate_vmoe").router.inform_by_layer == ("attention", "similarity")


@pytest.mark.parametrize("scale", [0.1, 1.0, 2.0, "sqrt_dim"])
def test_scales_of_the_papers(scale):
    """Mutual-Inform SMoE, Table 8."""
    for step, option in (("similarity", "temperature"), ("attention", "sigma")):
        assert model_of(f"{step}_smoe_top2@{step}.{option}={scale}").router.options[step][option] == scale


def test_settings_of_the_moe_layers_behind_the_name():
    moe = model_of("similarity_vmoe@moe.capacity_factor=2@similarity.temperature=2@moe.batch_priority=true").moe
    assert (moe.capacity_factor, moe.batch_priority) == (2.0, True)
    for setting in ("moe.num_experts=4", "moe.layers=last1", "moe.size=3"):
        with pytest.raises(ValueError, match=r"router=vmoe: expected options capacity_factor, .* of moe; received"):
            model_of(f"vmoe@{setting}")


def test_literal_forms_have_the_options_that_the_papers_print():
    ours, literal = model_of("attention_vmoe").router, model_of("attention_vmoe_literal").router
    assert (ours.options["attention"]["sigma"], literal.options["attention"]["sigma"]) == ("sqrt_dim", 1.0)
    assert literal == dataclasses.replace(ours, options=literal.options)
    assert model_of("alternate_vmoe_literal").router.options["attention"]["sigma"] == 1.0
    for name in ("similarity_vmoe", "symphony_glam", "similarity_smoe_top3"):
        assert model_of(f"{name}_literal") == model_of(name)
    assert model_of("similarity+attention_xmoe_literal@attention.sigma=2").router.options["attention"]["sigma"] == 2.0
    with pytest.raises(ValueError, match=r"router: expected _literal behind a router .*; received 'glam_literal'"):
        model_of("glam_literal")
    with pytest.raises(ValueError, match=r"top: expected 2 with router=attention_smoe_top2_literal; received 4"):
        load(WORDNET, "router=attention_smoe_top2_literal,top=4")


def test_places_of_the_moe_layers():
    """The argument goes before the router's own places, and these before the file's."""
    digits = Path(__file__).parents[2] / "configs" / "digits.py"
    assert load(digits).model.moe.layers == "last1"
    assert load(digits, "router=glam").model.moe.layers == "every2"
    assert load(digits, "router=symphony_glam").model.moe.layers == "every2"
    assert load(digits, "router=alternate_vmoe").model.moe.layers == "last2"
    assert load(digits, "router=glam,where=3").model.moe.layers == (3,)


def test_a_router_that_needs_the_layer_before_gets_a_second_one_only_where_there_is_one():
    digits = WORDNET.with_name("digits.py")
    for router in ("adaptive_clusters_vmoe", "symphony_across_layers_vmoe"):
        assert load(digits, f"router={router}").model.moe.layers == "last2"
        assert load(digits, f"router={router},where=last1").model.moe.layers == "last1"  # parsing says what is wrong
    assert load(WORDNET, "router=adaptive_clusters_smoe_top2").model.moe.layers == "every1"
    assert load(digits, "router=adaptive_clusters_glam").model.moe.layers == "every2"


def test_a_preset_leaves_nothing_of_another():
    config = config_lib.default()
    for name in ("alternate_vmoe", "smoe_dropout", "base", "smoe_top1", "vmoe"):
        presets.set_router(config, name)
        assert config_lib.parse_model(config.model) == model_of(name)


def test_options_behind_the_name():
    router = model_of("similarity_xmoe@similarity.temperature=sqrt_dim@similarity.metric=cosine@cosine.width=4").router
    assert router.options["similarity"]["temperature"] == "sqrt_dim"
    assert router.options["similarity"]["metric"] == "cosine"
    assert router.options["cosine"] == {"width": 4, "temperature": 0.3}
    for name, message in {
        "xmoe@cosine": r"router: expected NAME@STEP.OPTION=VALUE; received 'cosine'",
        "xmoe@cosine.withd=4": r"router=xmoe: expected options width, temperature of cosine; received 'cosine.withd=4'",
        "xmoe@similarity.metric=cosine": r"router=xmoe: expected options of its steps .*, switch, or of moe; received",
        "xmoe@cosine.width=none": r"router.options.cosine.width: expected int >= 1 .* or None; received 'none'",
        "xmoe@cosine.temperature=hot": r"options.cosine.temperature: expected float >= 1e-06 .*; received 'hot'",
        "smoe_top1@linear.bias=yes": r"options.linear.bias: expected true or false; received 'yes'",
    }.items():
        with pytest.raises(ValueError, match=message):
            model_of(name)


def test_help_lists_every_router_in_one_line(capsys):
    with pytest.raises(SystemExit) as stop:
        load(FILES[0], "router=help")
    assert stop.value.code == 0
    lines = capsys.readouterr().out.splitlines()
    for name in (*presets.ROUTERS, *(f"{step}_vmoe" for step in steps.all_steps())):
        assert sum(line.split()[0] == name and len(line.split()) > 3 for line in lines) == 1
    for name in presets.ROUTERS:
        assert len(presets.ROUTERS[name].summary) < 120


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


@pytest.mark.parametrize(
    ("argument", "k", "bias"),
    [
        ("", 2, True),
        ("top=1", 1, True),
        ("top=8", 8, True),
        ("router=similarity_smoe_top8", 8, True),
        ("router=similarity_smoe_top8,top=8", 8, True),
        ("router=symphony_xmoe,top=1", 1, None),
        ("router=glam,top=1", 1, False),
    ],
)
def test_top_is_the_number_of_experts_of_a_token(argument, k, bias):
    model = config_lib.parse(load(WORDNET, argument)).model
    assert model.moe.num_selected_experts == k
    assert model.router.options.get("linear", {}).get("bias") == bias


WORDNET = Path(__file__).parents[2] / "configs" / "wordnet.py"


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("top=two", "top: expected a number >= 1; received 'two'"),
        ("top=0", "top: expected a number >= 1; received '0'"),
        (
            "top=8,router=attention_smoe_top2@attention.sigma=2",
            "top: expected 2 with router=attention_smoe_top2; received 8",
        ),
        ("size=smal", "size: expected one of tiny, small, medium, large; received 'smal' (did you mean 'small'?)"),
        (
            "variant=S/32",
            "config argument: expected one of the keys router, size, top, experts, where; received 'variant'",
        ),
    ],
)
def test_bad_argument_of_a_file_of_text(argument, message):
    with pytest.raises(ValueError) as problem:  # noqa: PT011
        load(WORDNET, argument)
    assert str(problem.value) == message
