"""Plug-ins of one's own, in a package outside this one: how they are found, and what is done with what they add."""

import importlib.metadata
import json
import pathlib
import sys

import pytest

from tests import processes
from vmoe_inform import config as config_lib
from vmoe_inform import plugins, registry
from vmoe_inform.runs.folder import read_config, write_config
from vmoe_inform.training.writers.jsonl import read_metrics

# One file each; what makes it known is one line: an import in the config file, or an entry point.
FILES = {
    "router.py": '''
import jax.numpy as jnp

from vmoe_inform import checks
from vmoe_inform.routing.steps import register_inform


def graph(context, *, share, **options):
    batch, tokens, _ = context.tokens.shape
    return jnp.broadcast_to((1 - share) * jnp.eye(tokens) + share / tokens, (batch, tokens, tokens))


def losses(probabilities, context, **options):
    """How far the tokens of an image are from their mean."""
    far = probabilities - probabilities.mean(axis=1, keepdims=True)
    return {"spread": jnp.mean(far**2, axis=(1, 2))}


@register_inform("image_mean", graph=graph, losses=losses, loss_names=("spread",))
def image_mean(
    probabilities, context, *, share: checks.Share = 0.3, spread_weight: checks.NonNegativeFloat = 0.01
):
    """Each token's probabilities, mixed with the mean over its image."""
    return (1 - share) * probabilities + share * probabilities.mean(axis=1, keepdims=True)
''',
    "source.py": '''
import numpy as np

from vmoe_inform.data.records import SOURCES, ArrayRecords, Source


@SOURCES.register("stripes")
def stripes(data, split):
    """Stripes that lie or stand."""
    count = {"train": 128, "test": 64}[split]
    labels = np.arange(count, dtype=np.int32) % 2
    images = np.random.default_rng(count).integers(0, 100, (count, 8, 8, 1), np.uint8)
    images[labels == 0, ::2] += 100
    images[labels == 1, :, ::2] += 100
    return Source(ArrayRecords(images, labels), ("lying", "standing"))
''',
    "task.py": '''
from vmoe_inform.tasks.classification import Classification
from vmoe_inform.tasks.task import TASKS


@TASKS.register("twice")
class Twice(Classification):
    """Classification with twice the loss."""

    def loss(self, outputs, aux, batch):
        entropy, metrics = super().loss(outputs, aux, batch)
        return 2 * entropy, {**metrics, "once": entropy}
''',
    "suite.py": '''
import numpy as np

from vmoe_inform.data.records import ArrayRecords, Source
from vmoe_inform.evaluation import metrics
from vmoe_inform.evaluation.results import SuiteResult
from vmoe_inform.evaluation.suites import RecordSet, Suite, register, test_split


def score(_, predictions):
    hits = metrics.top_k_hits(predictions.logits, predictions.labels, 1)
    return {"index": predictions.indices, "hit": hits, "skipped": np.asarray(predictions.skipped)}


def summarize(scores):
    found = scores["dark"]
    return SuiteResult(len(found["hit"]), {"top1": float(found["hit"].mean())})


@register("dark", title="Test images at night")
def dark(config):
    """Test images with half the light."""
    source = test_split(config.data)
    records = ArrayRecords(source.records.images // 2, source.records.labels)
    images = RecordSet(lambda: Source(records, source.class_names))
    return Suite("dark", {"dark": images}, score, summarize, source.origin)
''',
    "metric.py": """
import numpy as np

from vmoe_inform.evaluation.metric_registry import of_image


@of_image("brier", title="Brier score", unit="number", less_is_better=True)
def brier(logits, labels):
    probabilities = np.exp(logits - logits.max(axis=1, keepdims=True))
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    return np.sum((probabilities - np.eye(logits.shape[1])[labels]) ** 2, axis=1)
""",
    "settings.py": """
import mine.router
import mine.source
import mine.task
from vmoe_inform.config import presets


def get_config(argument=None):
    config = presets.start(argument, router="vmoe", variant="Ti/4", experts="4", where="0")
    config.task = "twice"
    config.model.num_layers, config.model.hidden_size, config.model.mlp_size = 1, 16, 32
    config.model.num_classes, config.model.image_size_px = 2, 8
    config.model.classifier, config.model.representation_size = "gap", None
    config.data.source = "stripes"
    config.train.steps, config.train.batch_size = 6, 32
    config.train.log_every_steps = 1
    config.evaluation.batch_size, config.evaluation.suites = 32, ("clean", "dark")
    return config
""",
}


def _write_package(folder: pathlib.Path) -> None:
    (folder / "mine").mkdir()
    (folder / "mine" / "__init__.py").touch()
    for name, text in FILES.items():
        (folder / "mine" / name).write_text(text)
    installed = folder / "mine-1.0.dist-info"
    installed.mkdir()
    (installed / "METADATA").write_text("Metadata-Version: 2.1\nName: mine\nVersion: 1.0\n")
    (installed / "entry_points.txt").write_text("[vmoe_inform.plugins]\nnight = mine.suite\nscore = mine.metric\n")


@pytest.fixture(scope="module")
def used(tmp_path_factory) -> pathlib.Path:
    """A folder in which all commands were run with a router, a source, a task, a suite and a metric of one's own."""
    folder = tmp_path_factory.mktemp("plugins")
    _write_package(folder)
    config = f"--config={folder}/mine/settings.py"
    libraries = ("training.loop", "evaluation.run", "report.page", "studies.execute", "studies.report", "analysis.api")
    with processes.Forks("train", folder, imports=libraries, environment={"PYTHONPATH": str(folder)}) as commands:
        # The option is on the command line, which is read before the config file says what steps there are.
        option = "--config.model.router.options.image_mean.share=0.5"
        commands.succeed(f"{config}:router=image_mean_vmoe", option, f"--workdir={folder}/run")
        commands.succeed(f"--workdir={folder}/run", "--suites=dark,clean", module="evaluate")
        option = "--config.model.router.options.image_mean.share=1.0"
        commands.succeed(f"--workdir={folder}/run", "--suites=dark,clean", option, module="evaluate")
        routers = "--routers=vmoe,image_mean_vmoe@image_mean.share=0.5"
        commands.succeed(config, routers, "--seeds=2", f"--workdir={folder}/study", module="study")
        commands.succeed(f"--workdir={folder}/run", "--checkpoints=6", module="analyze")
    return folder


def test_a_run_is_trained_with_all_of_them(used):
    recorded = json.loads((used / "run" / "config.json").read_text())
    assert set(recorded["plugins"]) == {"mine.suite", "mine.metric", "mine.router", "mine.source", "mine.task"}
    assert recorded["model"]["router"]["options"]["image_mean"] == {"share": 0.5, "spread_weight": 0.01}
    last = [entry for entry in read_metrics(used / "run" / "metrics.jsonl") if "loss" in entry][-1]
    assert last["losses/spread"] > 0
    general = sum(0.005 * last[f"losses/{name}"] for name in ("importance", "load"))
    assert last["loss"] == pytest.approx(2 * last["once"] + general + 0.01 * last["losses/spread"], rel=1e-5)


def test_a_run_is_evaluated_with_them(used):
    suites = json.loads((used / "run" / "evaluation" / "results.json").read_text())["suites"]
    assert suites["dark"]["metrics"].keys() == {"top1"}
    assert 0 < suites["clean"]["metrics"]["brier"] < 2
    assert "Test images at night" in (used / "run" / "evaluation" / "report.html").read_text()


def test_a_run_is_compared_with_another_router_of_them(used):
    (folder,) = (used / "run" / "evaluation" / "rerouted").iterdir()
    compared = json.loads((folder / "comparison.json").read_text())
    assert compared["settings"] == {"model.router.options.image_mean.share": 1.0}
    assert next(iter(compared["suites"]["clean"]["metrics"])) == "top1"
    assert compared["suites"]["clean"]["metrics"]["brier"]["unit"] == "number"
    assert list(compared["suites"]["dark"]["metrics"]) == ["top1"]


def test_a_study_compares_them(used):
    tables = (used / "study" / "study.md").read_text()
    assert "image_mean_vmoe@image_mean.share=0.5" in tables


def test_a_run_is_analysed_with_them(used):
    analysis = json.loads((used / "run" / "analysis" / "analysis.json").read_text())
    found = next(iter(analysis["layers"].values()))["graph"]["effective_neighbours"]
    # Rows of the graph: 1/2 + 1/8 for itself and 1/8 for the three others; exp of their entropy.
    assert found["mean"] == pytest.approx(2.9258, abs=1e-3)


def test_a_run_says_which_plug_in_it_lacks(used):
    with pytest.raises(ValueError, match=r"config.json: .*; the run has a plug-in mine.\w+, which is not loaded \(Mod"):
        read_config(used / "run")


# How they are found.


def test_a_broken_plug_in_of_an_installed_package_is_named(tmp_path, monkeypatch):
    _write_package(tmp_path)
    (tmp_path / "mine" / "suite.py").write_text("import surely_not_there")
    monkeypatch.syspath_prepend(str(tmp_path))
    message = "plug-in night: expected mine.suite, of mine, to be importable; received .*surely_not_there"
    with pytest.raises(ValueError, match=message):
        plugins.load_installed.__wrapped__()
    assert [point.value for point in importlib.metadata.entry_points(group=plugins.GROUP)] == [
        "mine.suite",
        "mine.metric",
    ]


def test_a_file_is_run_once_under_the_name_by_which_python_would_import_it(tmp_path, monkeypatch):
    monkeypatch.setattr(plugins, "_files", {})
    (tmp_path / "settings_of_mine.py").write_text("")
    elsewhere = plugins.run_file(tmp_path / "settings_of_mine.py")
    assert elsewhere.__name__.startswith("vmoe_inform_file_settings_of_mine")
    assert plugins.run_file(tmp_path / "settings_of_mine.py") is elsewhere
    (tmp_path / "importable_one.py").write_text("")
    monkeypatch.syspath_prepend(str(tmp_path))
    found = plugins.run_file(tmp_path / "importable_one.py")
    assert found is sys.modules.pop("importable_one")
    path = str(tmp_path / "other_one.py")
    assert set(plugins.load([path, "__main__", "no_such_module"])) == {path, "__main__", "no_such_module"}


def test_files_of_one_name_in_two_folders_are_two_modules(tmp_path, monkeypatch):
    monkeypatch.setattr(plugins, "_files", {})
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "same.py").write_text(f"FOLDER = {folder!r}")
    one, two = (plugins.run_file(tmp_path / folder / "same.py") for folder in ("one", "two"))
    assert (sys.modules[one.__name__], sys.modules[two.__name__]) == (one, two)
    assert [plugins._files[module.__name__].parent.name for module in (one, two)] == [one.FOLDER, two.FOLDER]


def test_a_file_that_cannot_be_run_leaves_no_half_module(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "half_a_file.py").write_text("half = 1\nraise LookupError")
    with pytest.raises(LookupError):
        plugins.run_file(tmp_path / "half_a_file.py")
    assert "half_a_file" not in sys.modules


def test_no_code_is_run_from_the_folder_of_a_run(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(tmp_path))
    run = tmp_path / "some_run"
    run.mkdir()
    config = config_lib.parse({"train": {"steps": 1}, "plugins": []})
    write_config(run, config)
    tree = json.loads((run / "config.json").read_text()) | {"plugins": ["some_run.harmful"]}
    (run / "config.json").write_text(json.dumps(tree))
    (run / "harmful.py").write_text("raise SystemExit(1)")
    assert read_config(run).plugins[0] == "some_run.harmful"  # nothing of it is needed
    assert "it lies in the run's own folder" in plugins.load(["some_run.harmful"], outside=run)["some_run.harmful"]


def test_a_run_cannot_have_a_module_imported_that_is_no_plugin(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "acts_on_import.py").write_text("raise SystemExit(1)")
    (tmp_path / "is_a_plugin.py").write_text("import vmoe_inform")
    run = tmp_path / "run"
    run.mkdir()
    assert "does not mention vmoe_inform" in plugins.load(["acts_on_import"], outside=run)["acts_on_import"]
    assert plugins.load(["is_a_plugin"], outside=run) == {}
    assert "is_a_plugin" in sys.modules
    del sys.modules["is_a_plugin"]
    assert "some_run.harmful" not in sys.modules


def test_what_a_notebook_registered_is_there_as_long_as_it_runs(monkeypatch):
    tree = {"train": {"steps": 1}, "plugins": ["__main__"]}
    monkeypatch.setattr(registry, "_registering", {"__main__": None})
    assert config_lib.parse(config_lib.parse(tree)).plugins == ("__main__",)
    monkeypatch.setattr(registry, "_registering", {})
    with pytest.raises(ValueError, match=r"plugins: expected modules .*a notebook or script registered it"):
        config_lib.parse(tree)


def test_a_plug_in_that_a_config_names_is_imported():
    with pytest.raises(ValueError, match=r"plugins: expected .*ModuleNotFoundError.*; received 'no.such.thing'"):
        config_lib.parse({"train": {"steps": 1}, "plugins": ["no.such.thing"]})
