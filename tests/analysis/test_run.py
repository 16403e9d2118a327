"""Whole sets of images, seen by checkpoints that are made by hand; and the command, once."""

import dataclasses
import json
import pathlib
import re

import grain
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from tests import processes, tiny
from tests.analysis import sample
from vmoe_inform import analysis as analysis_lib
from vmoe_inform import config as config_lib
from vmoe_inform import documents
from vmoe_inform.analysis.collect import choices, comparable, layers
from vmoe_inform.analysis.collect.adjacencies import adjacencies
from vmoe_inform.analysis.collect.observing import Observer
from vmoe_inform.analysis.images import data as images_lib
from vmoe_inform.analysis.images.choice import parse
from vmoe_inform.analysis.inputs import AnalysedRuns
from vmoe_inform.analysis.results import Analysis, RunFacts
from vmoe_inform.data.sources import ArrayRecords, Source
from vmoe_inform.nn import models
from vmoe_inform.runs.checkpoints import Checkpoints
from vmoe_inform.runs.folder import write_config
from vmoe_inform.runs.run import Run
from vmoe_inform.runs.state import TrainState
from vmoe_inform.sharding.mesh import make_mesh

STEPS = (10, 20)
CLASSES = tuple("0123456789")


def _config(**overrides):
    inform = {"model__router__inform": ("attention", "symphony")}
    return config_lib.parse(tiny.config_dict("vmoe", evaluation__batch_size=16, **(inform | overrides)))


def _variables(config):
    """By step; the later ones are the earlier ones, moved a little."""
    first = tiny.variables(models.from_config(config.model))
    random = np.random.default_rng(2)
    state = first["routing"]["block_1"]["moe"]["router"]["symphony"]
    state["state"] = jnp.asarray(random.dirichlet(np.ones(4), 4), jnp.float32)
    moved = jax.tree.map(lambda leaf: leaf + 0.05 * jnp.asarray(random.normal(size=leaf.shape), leaf.dtype), first)
    return dict(zip(STEPS, (first, {**moved, "routing": first["routing"]}), strict=True))


@pytest.fixture(scope="module")
def checkpoints():
    """Of one run, by step."""
    config, mesh = _config(), make_mesh(1, 1, jax.devices()[:1])
    model = models.from_config(config.model)
    return {
        step: Run("mine", pathlib.Path("mine"), step, config, model, variables, mesh)
        for step, variables in _variables(config).items()
    }


@pytest.fixture(scope="module")
def newest(checkpoints):
    return checkpoints[20]


class MadeUpImages(images_lib.Images):
    """Noise on a shade for each class; a corruption darkens it, the more the severer. The choices stand for views."""

    class_names = CLASSES

    def __init__(self, count=15):
        self._config, self.choice, self.suite = _config(), parse("c"), "clean"
        random = np.random.default_rng(3)
        self.labels = random.integers(0, 10, count).astype(np.int32)
        self.noise = random.integers(0, 256, (count, 32, 32, 3)).astype(np.uint8)

    def views(self, runs, choices, found):
        return choices

    def clean(self):
        return Source(ArrayRecords(self.noise, self.labels), CLASSES)

    def corrupted(self, corruption, severity):
        darker = self.noise if corruption == "fog" else self.noise // (1 + severity)
        return Source(ArrayRecords(darker, self.labels), CLASSES)


@pytest.fixture(scope="module")
def found(checkpoints):
    """The run next to its own earlier checkpoint, with all corruptions."""
    before, newest = checkpoints.values()
    other = dataclasses.replace(before, name="other")
    other_before = dataclasses.replace(newest, name="other", step=5)
    states = {step: jax.device_get(run.variables["routing"]) for step, run in checkpoints.items()}
    said = []
    runs = AnalysedRuns(newest, before, other, other_before, adjacencies(newest.config.model, states))
    made = analysis_lib.analyze(runs, MadeUpImages(), say=said.append)
    assert len(said) == 4 + 15
    return made


def test_corruptions_that_cannot_be_had_are_said_before_any_work(newest):
    class NoCorruptions(MadeUpImages):
        def corrupted(self, corruption, severity):
            raise ValueError("not available")

    said = []
    with pytest.raises(ValueError, match="not available"):
        analysis_lib.analyze(AnalysedRuns(newest), NoCorruptions(), say=said.append)
    assert said == []


def _keys(value):
    """The keys of nested dicts; of dicts by block or in a list only one."""
    if isinstance(value, dict):
        if value and all(key.startswith("block_") for key in value):
            return {"block": _keys(next(iter(value.values())))}
        return {key: _keys(item) for key, item in value.items()}
    return "list" if isinstance(value, list) else "value"


def _sample_content():
    """Of a run whose tokens attend to each other, so that it has no certificates."""
    content = sample.content()
    for layer in content["layers"].values():
        layer["certificate"] = None
    content["corruptions"]["certified"] = {}
    return content


def test_the_content_has_exactly_the_keys_that_the_figures_are_drawn_from(found):
    content = documents.to_json(found[0])
    assert _keys(content) == _keys(_sample_content())
    assert documents.from_json(json.loads(json.dumps(content, allow_nan=False)), Analysis) == found[0]


def test_what_was_looked_at(found):
    analysis, choices_of_it = found
    assert choices_of_it.indices.tolist() == list(range(15))
    assert analysis.run == RunFacts(
        name="mine",
        step=20,
        router="linear + attention + symphony",
        num_experts=4,
        num_selected_experts=2,
        num_tokens=5,
        layers=("block_1",),
        suite="clean",
        unit="images",
        count=15,
        metric="top1",
        score=analysis.corruptions.clean_top1,
    )
    assert analysis.against.run.step == 10
    assert analysis.layers["block_1"].adjacency.steps == (10, 20)
    assert (analysis.fluctuation.from_step, analysis.fluctuation.to_step) == STEPS


def test_the_other_run_is_looked_at_as_this_one_is(found):
    """Its newest checkpoint is this one's earlier one, and the other way round."""
    own, other = found[0], found[0].against
    assert (other.fluctuation.from_step, other.fluctuation.to_step) == (5, 10)
    assert other.fluctuation.layers == own.fluctuation.layers
    layer = other.layers["block_1"]
    assert layer.entropy_ratio == own.layers["block_1"].entropy / layer.entropy
    assert len(layer.load) == 4
    assert layer.load != own.layers["block_1"].load


def test_corruptions_reroute_tokens_only_where_they_change_the_image(found):
    corruptions = found[0].corruptions
    assert len(corruptions.names) == 15
    rerouted = dict(zip(corruptions.names, corruptions.rerouted["block_1"], strict=True))
    top1 = dict(zip(corruptions.names, corruptions.top1, strict=True))
    assert rerouted["fog"] == (0.0,) * 5
    assert top1["fog"] == (corruptions.clean_top1,) * 5
    assert min(rerouted["frost"]) > 0
    assert rerouted["frost"] == rerouted["snow"]


def test_the_tables_are_those_of_the_experts_of_every_token(found, checkpoints):
    """The fluctuation, worked out once more from the choices of the two checkpoints; on eight devices."""
    observer = Observer(dataclasses.replace(checkpoints[20], mesh=make_mesh(4, 2)))
    whole = [dataclasses.replace(run, variables=jax.device_get(run.variables)) for run in checkpoints.values()]
    seen = [observer.with_run(run).observe(MadeUpImages().clean()) for run in whole]
    changed = choices.fluctuation(seen[0].choices.of_tokens, seen[1].choices.of_tokens)
    assert changed["block_1"].set > 0
    _same(documents.to_json(found[0].fluctuation.layers["block_1"]), documents.to_json(changed["block_1"]))
    layer = layers.of_sums(seen[1].sums["block_1"])
    shown = dataclasses.replace(found[0].layers["block_1"], adjacency=None)
    _same(documents.to_json(layer), documents.to_json(shown))
    assert seen[1].choices.experts["block_1"].dtype == np.uint8


def test_only_runs_of_the_same_model_and_data_share_what_is_compiled(newest, checkpoints):
    observer = Observer(newest)
    earlier = observer.with_run(checkpoints[10])
    assert (earlier.run, observer.run) == (checkpoints[10], newest)
    assert earlier._runner is observer._runner
    config = _config(data__class_names=CLASSES)
    assert observer.with_run(dataclasses.replace(newest, config=config))._runner is not observer._runner


def test_the_page_shows_readable_images_clean_and_in_every_severity(newest, found):
    images, readable = MadeUpImages(), np.arange(15) % 5 != 0
    images.choice = parse("c:frost:2")
    analysis, choices_of_it = found
    read = choices_of_it.of(np.flatnonzero(readable))
    views = images_lib.Images.views(images, [newest], read, dataclasses.replace(analysis, corruptions=None))
    assert views.labels == images.labels[readable].tolist()
    assert list(views.images) == [("", 0), *(("frost", severity) for severity in (1, 2, 3, 4, 5))]
    np.testing.assert_array_equal(views.images["frost", 2], (images.noise // 3)[readable])
    assert [view.condition for view in views.views] == list(views.images)
    assert all(view.layers["block_1"].neighbours is not None for view in views.views)


def test_the_corruption_on_the_page():
    nothing = sample.plain_analysis()
    assert images_lib.corruption_to_show(parse("clean"), nothing) is None
    assert images_lib.corruption_to_show(parse("c:snow:2"), nothing) == "snow"
    worst = sample.content(corruptions=("fog", "frost"))
    worst["corruptions"]["top1"] = [[0.5, 0.4], [0.9, 0.1]]  # means 0.45 and 0.5
    assert images_lib.corruption_to_show(parse("c"), sample.of(worst)) == "fog"


def _same(one, other):
    """Nested tables are alike, but for rounding."""
    if isinstance(one, dict):
        assert one.keys() == other.keys()
        for key in one:
            _same(one[key], other[key])
    elif one is None:
        assert other is None
    else:
        np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-4)


# --------------------------------------------------------------------------------------------------------- bad input


def _check_comparable(own, other):
    comparable.check_comparable(own, other, images_lib.Images.compared_fields)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model__moe__num_experts": 8}, "model.moe.num_experts (E): expected 4 as in --workdir; received 8"),
        ({"model__moe__num_selected_experts": 1}, "model.moe.num_selected_experts (K): expected 2 as in --workdir"),
        ({"model__moe__layers": (0, 1)}, "blocks with a MoE layer: expected [1] as in --workdir; received [0, 1]"),
        ({"model__image_size_px": 64}, "model.image_size_px: expected 32 as in --workdir; received 64"),
    ],
)
def test_runs_of_another_shape_are_not_set_beside_each_other(changes, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        _check_comparable(_config(), _config(**changes))
    _check_comparable(_config(), _config(model__router__inform="none", seed=3))


def test_runs_of_other_classes_are_not_set_beside_each_other():
    own, other = _config(data__class_names=CLASSES), _config(data__class_names=(*"abc", *CLASSES[3:]))
    with pytest.raises(ValueError, match=r"another shape. classes: missing: 0, 1, 2; unknown: a, b, c"):
        _check_comparable(own, other)
    _check_comparable(own, _config(data__class_names=CLASSES[::-1]))
    _check_comparable(own, _config())  # of an older version


def test_a_run_with_its_classes_in_another_order_is_shown_in_this_ones(newest):
    other = dataclasses.replace(newest, config=_config(data__class_names=CLASSES[::-1]))
    shown = other.with_classes_in_order_of(CLASSES)
    assert shown.config == _config(data__class_names=CLASSES)
    before, after = other.variables["params"], shown.variables["params"]
    for name, values in before["head"].items():
        np.testing.assert_array_equal(after["head"][name], values[..., ::-1])
    assert after["block_1"] is before["block_1"]
    assert newest.class_names == ()  # of an older version
    assert newest.with_classes_in_order_of(CLASSES) is newest
    assert other.with_classes_in_order_of(newest.class_names) is other


# ------------------------------------------------------------------------------------------------------- the command


def _write_run(workdir: pathlib.Path, runs) -> pathlib.Path:
    write_config(workdir, runs[0].config)
    with Checkpoints(workdir, keep=5) as saved:
        for run in runs:
            state = TrainState(
                step=jnp.int32(run.step),
                seed=jnp.uint32(0),
                params=run.variables["params"],
                opt_state=optax.sgd(0.1).init(run.variables["params"]),
                routing=run.variables["routing"],
                ema_params=None,
            )
            saved.save(state, iter(grain.MapDataset.range(3).to_iter_dataset()))
    return workdir


@pytest.fixture(scope="module")
def runs(tmp_path_factory, checkpoints):
    """Runs with two checkpoints, of other K, without MoE layers, without a checkpoint, and with a file in the way."""
    folder = tmp_path_factory.mktemp("runs")
    _write_run(folder / "mine", list(checkpoints.values()))
    write_config(folder / "one_expert", _config(model__moe__num_selected_experts=1))
    write_config(folder / "dense", _config(model__moe__layers="none", model__router__inform="none"))
    for name in ("one_expert", "dense"):  # none of which is read
        (folder / name / "checkpoints").symlink_to(folder / "mine" / "checkpoints")
    write_config(folder / "new", _config())
    write_config(folder / "blocked", _config())
    (folder / "blocked" / "analysis").touch()
    return folder


CASES = {
    ("--workdir={mine}", "--checkpoints=15"): "--checkpoints: expected steps among 10, 20 in",
    ("--workdir={mine}", "--checkpoints=10,20,30"): "--checkpoints: expected last2, STEP, or STEP,STEP",
    ("--workdir={mine}", "--suite=fog"): "--suite: expected clean, c or c:NAME:SEVERITY",
    ("--workdir={mine}", "--against={one_expert}"): "model.moe.num_selected_experts (K): expected 2 as in --workdir",
    ("--workdir={mine}", "--against={mine}@last"): "--against: expected the folder of a run, or FOLDER@STEP",
    ("--workdir={mine}", "--against={mine}@15"): "checkpoint: expected one of step 15 in",
    ("--workdir={mine}", "--against={mine}"): "--against: expected another run or checkpoint than step 20 of",
    ("--workdir={mine}@10", "--checkpoints=10"): "--checkpoints: expected none with --workdir=",
    ("--workdir={mine}@15",): "--checkpoints: expected steps among 10, 20 in",
    ("--workdir={mine}", "--limit=0"): "--limit: expected int >= 1 and <= 2147483647; received 0",
    ("--workdir={dense}",): "model.moe.layers: expected at least one MoE layer",
    ("--workdir={new}",): "checkpoint: expected one in",
    ("--workdir={nowhere}",): "workdir: expected a run with config.json",
    ("--workdir={mine}", "--against={nowhere}"): "--against: expected a run with config.json",
    ("--workdir={blocked}",): "blocked/analysis: expected a folder; received a file",
    (): "--workdir: expected the folder of a run; received nothing",
}
GOOD = ("--workdir={mine}", "--limit=16", "--against={mine}@10")


@pytest.fixture(scope="module")
def ended(runs, tmp_path_factory):
    """Exit code, output and errors of each command line."""
    lines = [
        tuple(re.sub(r"\{(\w+)\}", lambda match: str(runs / match[1]), argument) for argument in arguments)
        for arguments in (*CASES, GOOD)
    ]
    imports = ("analysis.page.render", "analysis.api", "analysis.stored")
    found = processes.run_many("analyze", lines, tmp_path_factory.mktemp("ended"), imports=imports)
    return dict(zip((*CASES, GOOD), found, strict=True))


def test_the_command_writes_tables_figures_and_the_page(runs, ended):
    code, printed, errors = ended[GOOD]
    assert code == 0, errors
    assert "mine, step 20: 16 images (clean)" in printed
    folder = runs / "mine" / "analysis"
    assert printed.splitlines()[-3:] == [str(folder / name) for name in ("analysis.json", "routing.html", "figures")]
    analysis = json.loads((folder / "analysis.json").read_text())
    content = _sample_content()
    content["corruptions"] = content["against"]["fluctuation"] = None
    assert _keys(analysis) == _keys(content)
    assert analysis["fluctuation"]["from_step"] == 10
    assert analysis["against"]["fluctuation"] is None  # of its checkpoints none is earlier
    names = {path.stem for path in (folder / "figures").glob("*.svg")}
    assert {"load", "entropy", "entropy_ratio", "fluctuation", "margin", "neighbours", "spectral_gap"} <= names
    assert names == {path.stem for path in (folder / "figures").glob("*.png")}
    assert (folder / "routing.html").read_text().startswith("<!doctype html>")


@pytest.mark.parametrize("arguments", CASES, ids=" ".join)
def test_bad_input_is_one_line_that_says_what_differs(ended, arguments):
    code, printed, errors = ended[arguments]
    assert code == 2, printed + errors
    assert CASES[arguments] in errors
    assert errors.startswith("error: ")
    assert len(errors.strip().splitlines()) == 1, errors


def test_a_run_at_hand(runs, newest):
    run_at_hand = analysis_lib.load(runs / "mine", 10)
    assert (run_at_hand.name, run_at_hand.step) == ("mine", 10)
    sample_of_it = analysis_lib.sample(run_at_hand, 8)
    assert sample_of_it.images.shape == (8, 32, 32, 3)
    assert sample_of_it.images.dtype == np.uint8
    # Evenly over the 364 test images.
    source = images_lib.Images(newest.config).clean()
    assert sample_of_it.labels.tolist() == [source.records[i * 364 // 8]["label"] for i in range(8)]
    trace = analysis_lib.trace(run_at_hand, sample_of_it, keep=["indices"], graphs=True)
    (layer,) = (trace.layers[block] for block in list(trace.layers)[-1:])
    assert layer.graph.shape == (8, newest.config.model.num_tokens, newest.config.model.num_tokens)
    view = analysis_lib.view(run_at_hand, sample_of_it)
    assert (view.run, view.condition, len(view.predictions)) == ("mine", ("", 0), 8)
    np.testing.assert_array_equal(view.layers[list(trace.layers)[-1]].experts, layer.indices)
    moved = analysis_lib.load(runs / "mine", 10, here={"data.directory": "elsewhere"})
    assert moved.config == config_lib.override(run_at_hand.config, {"data.directory": "elsewhere"})
    with pytest.raises(ValueError, match="suite: expected clean, or c:NAME:SEVERITY: one set of images; received 'c'"):
        analysis_lib.sample(run_at_hand, 8, "c")
