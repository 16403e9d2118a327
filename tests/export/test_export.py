"""An exported model is the run's: its arrays to the bit, its program to rounding, and its card says what it is."""

import dataclasses
import json
import pathlib
import subprocess
import sys

import jax
import jaxtyping
import numpy as np
import pytest
import safetensors.numpy
from jax import export

from configs import wikitext103
from tests import tiny
from tests.export.conftest import load
from tests.report.sample_results import results
from vmoe_inform import config as config_lib
from vmoe_inform.data.text import tokenizers
from vmoe_inform.data.text.words import WordTokenizer
from vmoe_inform.evaluation import stored
from vmoe_inform.export import folder as folder_lib
from vmoe_inform.export import program
from vmoe_inform.export.card import Card
from vmoe_inform.export.public_config import public
from vmoe_inform.interop import formats, write_run
from vmoe_inform.interop.exported import flatten, is_exported, read, unflatten
from vmoe_inform.nn import models
from vmoe_inform.runs import run as runs
from vmoe_inform.runs.folder import TOKENIZER_FILE, read_config
from vmoe_inform.sharding.mesh import make_mesh
from vmoe_inform.tasks import from_config

WORDS = ("<unk>", "<eos>", *"abcdefghij")

# What a user runs who has JAX and no vmoe_inform.
USER = """
import pathlib, sys
import numpy as np
from jax import export
from safetensors.numpy import load_file

folder, inputs, outputs = map(pathlib.Path, sys.argv[1:])
arrays = load_file(folder / "model.safetensors")
program = export.deserialize((folder / "model.jax_export").read_bytes())
found = program.call(arrays, dict(np.load(inputs)))
np.savez(outputs, **found)
assert not {"vmoe_inform", "flax"} & {name.split(".")[0] for name in sys.modules}
"""


@pytest.fixture(scope="module", autouse=True)
def sizes_that_are_no_numbers():
    """A batch of any size has none, where the tests' checker of annotated shapes wants one."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


def call(folder, inputs):
    """What the exported program says here."""
    arrays = safetensors.numpy.load_file(folder / "model.safetensors")
    return export.deserialize((folder / "model.jax_export").read_bytes()).call(arrays, inputs)


def call_elsewhere(folder, inputs, tmp_path):
    """The same in a process of a user who has no vmoe_inform."""
    np.savez(tmp_path / "inputs.npz", **inputs)
    arguments = [str(folder), str(tmp_path / "inputs.npz"), str(tmp_path / "outputs.npz")]
    subprocess.run([sys.executable, "-P", "-c", USER, *arguments], cwd=tmp_path, check=True)
    with np.load(tmp_path / "outputs.npz") as found:
        return dict(found)


@pytest.fixture(scope="module")
def exported(loaded, tmp_path_factory):
    saved, run = loaded
    folder = tmp_path_factory.mktemp("exported")
    paths = folder_lib.write(saved, run, folder, ("safetensors", "jax_export"), licence="cc-by-4.0")
    assert [path.name for path in paths] == ["README.md", "model.safetensors", "config.json", "model.jax_export"]
    assert sorted(paths) == sorted(folder.iterdir())
    return folder


def test_the_arrays_are_the_runs_to_the_bit(loaded, exported):
    _, run = loaded
    found = safetensors.numpy.load_file(exported / "model.safetensors")
    assert "routing/block_1/moe/router/symphony/state" in found
    again = unflatten(found)
    assert jax.tree.structure(again) == jax.tree.structure(run.variables)
    for one, other in zip(jax.tree.leaves(again), jax.tree.leaves(run.variables), strict=True):
        assert one.dtype == other.dtype
        np.testing.assert_array_equal(one, other)


def test_the_folder_is_read_back_to_the_bit(loaded, exported):
    saved, run = loaded
    checkpoint = formats.open_checkpoint(exported)
    assert is_exported(checkpoint)
    config, variables = read(checkpoint)
    assert config == public(saved.recorded)
    assert jax.tree.structure(variables) == jax.tree.structure(run.variables)
    for one, other in zip(jax.tree.leaves(variables), jax.tree.leaves(run.variables), strict=True):
        assert one.dtype == other.dtype
        np.testing.assert_array_equal(one, other)


def test_a_folder_that_is_not_as_it_was_exported_is_one_line(exported, tmp_path):
    arrays = safetensors.numpy.load_file(exported / "model.safetensors")
    settings = json.loads((exported / "config.json").read_text())

    def problem(arrays, settings, said):
        safetensors.numpy.save_file(arrays, tmp_path / "model.safetensors", metadata={"format": "vmoe_inform", **said})
        (tmp_path / "config.json").write_text(json.dumps(settings))
        with pytest.raises(ValueError, match="expected") as caught:
            read(formats.open_checkpoint(tmp_path))
        assert "\n" not in str(caught.value)
        return str(caught.value)

    said = {"version": "1"}
    head = {**arrays, "params/head/bias": np.zeros(11, np.float32)}
    assert problem(head, settings, said) == "params/head/bias: expected float32[10]; received 'float32[11]'"
    double = {**arrays, "params/head/bias": np.zeros(10)}
    assert "params/head/bias: expected float32[10]; received 'float64[10]'" in problem(double, settings, said)
    fewer = {name: array for name, array in arrays.items() if not name.startswith("routing/")}
    assert "missing: ['routing/block_1/moe/router/symphony" in problem(fewer, settings, said)
    assert "unknown: ['more']" in problem({**arrays, "more": np.zeros(1)}, settings, said)
    assert "an exported model of version 1; received '2'" in problem(arrays, settings, {"version": "2"})
    assert "expected one of the keys" in problem(arrays, {**settings, "mode": 1}, said)
    (tmp_path / "config.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"expected the config.json that was exported with the arrays"):
        read(formats.open_checkpoint(tmp_path))


def test_the_config_is_the_runs(workdir, exported):
    written = (exported / "config.json").read_text()
    assert "secret" not in written
    assert read_config(exported).model == read_config(workdir).model


def test_the_program_says_what_the_model_says_without_its_code(loaded, exported, tmp_path):
    """Of any number of groups: three in a process without this package, and the first of them here."""
    _, run = loaded
    images = np.random.default_rng(0).integers(0, 256, (6, 32, 32, 3), np.uint8)
    mask = np.arange(6) != 5  # the last image only fills up its group
    inputs = from_config(run.config).prepare(None, {"image": images})["inputs"]
    logits, _ = jax.jit(run.model.apply)(run.variables, inputs, sequence_mask=mask)
    found = call_elsewhere(exported, {"image": images, "mask": mask}, tmp_path)["logits"]
    np.testing.assert_allclose(found[mask], logits[mask], rtol=1e-5, atol=1e-5)
    found = call(exported, {"image": images[:2], "mask": mask[:2]})["logits"]
    np.testing.assert_allclose(found, logits[:2], rtol=1e-5, atol=1e-5)


def test_the_card_says_what_the_model_is(exported):
    card = (exported / "README.md").read_text()
    for words in (
        'license: "cc-by-4.0"',
        "pipeline_tag: image-classification",
        "# my\\_run\n",
        "Vision transformer, with 4 experts in 1 of its 2 blocks, after 7 training steps.",
        "| router informed by | symphony |",
        "| `optimizer.learning_rate` | `0.003` |",
        "This checkpoint was not evaluated.",
        "| `image` | `uint8 [2*groups, 32, 32, 3]` |",
        "| `mask` | `bool [2*groups]` |",
        "## Licence\n\n`cc-by-4.0`\n",
    ):
        assert words in card
    assert "secret" not in card
    assert "{" not in card


def test_the_scores_of_this_checkpoint_are_on_the_card(workdir, loaded, tmp_path):
    saved, run = loaded
    of_it = dataclasses.replace(results()["attention_vmoe"], checkpoint_step=7, config_hash=saved.config_hash)
    of_other = dataclasses.replace(of_it, checkpoint_step=8)
    stored.write_results(workdir / "evaluation" / "results.json", of_other, within=workdir)
    assert folder_lib.results_of(saved, 7) is None
    stored.write_results(workdir / "evaluation" / "results_step_7.json", of_it, within=workdir)
    folder_lib.write(saved, run, tmp_path)
    card = (tmp_path / "README.md").read_text()
    assert "not evaluated" not in card
    assert "Brackets hold 95 % intervals" in card
    assert "| Clean test images | top\\-1 accuracy | 200 images | 90.00 [85.1, 93.4] |" in card
    assert not (tmp_path / "model.jax_export").exists()
    assert "jax_export" not in card


@pytest.mark.parametrize("system", tiny.SYSTEMS)
def test_every_router_is_a_program_for_any_batch(system):
    config = config_lib.parse(tiny.config_dict(system))
    model = models.from_config(config.model)
    shapes = jax.eval_shape(lambda: models.initialize(model, jax.random.key(0)))
    built = program.build(runs.Run("any", pathlib.Path("any"), 0, config, model, dict(shapes), None))
    assert str(built.out_avals[0].shape[0]) == "2*groups"
    assert built.platforms == program.PLATFORMS


# ------------------------------------------------------------------------------------------------------------- text


def text_config(task, **model):
    given = wikitext103.get_config("router=similarity_smoe_top2,size=tiny,experts=4")
    given.task = task
    given.model.update(
        {"num_tokens": 8, "vocabulary_size": len(WORDS), "hidden_size": 8, "mlp_size": 8, "num_layers": 1, **model}
    )
    given.model.moe.layers = (0,)
    given.data.vocabulary_hash = tokenizers.fingerprint(WordTokenizer(WORDS))
    return given


@pytest.fixture(scope="module")
def writer(tmp_path_factory):
    """An exported language model whose attention looks back over more than a sequence."""
    config = config_lib.parse(text_config("language_modeling", attention_span=6))
    folder = tmp_path_factory.mktemp("writer")
    tiny.write_run(folder / "run", config, {3: tiny.variables(models.from_config(config.model))})
    tokenizers.write(folder / "run" / TOKENIZER_FILE, WordTokenizer(WORDS))
    saved, run = load(folder / "run")
    folder_lib.write(saved, run, folder / "exported", ("jax_export",), platforms=("cpu",))
    return run, folder


def test_a_language_model_carries_its_memory_from_call_to_call(writer):
    run, folder = writer
    tokens = np.random.default_rng(0).integers(0, len(WORDS), (3, 16), np.int32)
    memory = {f"memory/{block}": np.asarray(value) for block, value in run.model.initial_memory(3).items()}
    first = call(folder / "exported", {"tokens": tokens[:, :8], **memory})
    carried = {name: value for name, value in first.items() if name.startswith("memory/")}
    second = call(folder / "exported", {"tokens": tokens[:, 8:], **carried})
    apply = jax.jit(run.model.apply)
    logits, aux = apply(run.variables, tokens[:, :8], memory=run.model.initial_memory(3))
    np.testing.assert_allclose(first["logits"], logits, rtol=1e-5, atol=1e-5)
    logits, _ = apply(run.variables, tokens[:, 8:], memory=aux["memory"])
    np.testing.assert_allclose(second["logits"], logits, rtol=1e-5, atol=1e-5)


def test_the_tokenizer_of_a_run_on_text_goes_with_it(writer):
    _, folder = writer
    assert (folder / "exported" / TOKENIZER_FILE).read_bytes() == (folder / "run" / TOKENIZER_FILE).read_bytes()
    card = (folder / "exported" / "README.md").read_text()
    assert "pipeline_tag: text-generation" in card
    assert "| `memory/block_0` | `float32 [batch, 6, 8]` |" in card
    assert "Not stated by the publisher." in card
    assert "license" not in card


def test_the_card_says_that_a_router_may_look_at_later_words(writer):
    config = writer[0].config
    ahead = dataclasses.replace(config, model=dataclasses.replace(config.model, allow_future=True))
    made = Card("writer", 3, config, 1, None, "", {}, None)
    assert "later words" not in made.markdown()
    assert "| later words | The router may look at them." in dataclasses.replace(made, config=ahead).markdown()


def test_it_becomes_a_run_again_with_its_tokenizer(writer, tmp_path):
    run, folder = writer
    write_run.check_folder(tmp_path)
    write_run.write_exported(formats.open_checkpoint(folder / "exported"), tmp_path)
    saved, again = load(tmp_path)
    assert saved.step == 0
    assert saved.recorded == public(runs.find(folder / "run").recorded)
    assert (tmp_path / TOKENIZER_FILE).read_bytes() == (folder / "run" / TOKENIZER_FILE).read_bytes()
    jax.tree.map(np.testing.assert_array_equal, again.variables, run.variables)


def test_a_classifier_of_text_is_told_which_tokens_are_padding():
    given = text_config("text_classification", num_classes=3)
    config = config_lib.parse(given)
    model = models.from_config(config.model)
    variables = tiny.variables(model)
    run = runs.Run("mine", pathlib.Path("mine"), 0, config, model, variables, make_mesh(1, 1, jax.devices()[:1]))
    built = program.build(run, ("cpu",))
    tokens = np.random.default_rng(0).integers(0, len(WORDS), (4, 8), np.int32)
    mask = np.arange(8) < np.array([8, 3, 1, 5])[:, None]
    found = built.call(flatten(variables), {"tokens": tokens, "token_mask": mask})
    expected, _ = jax.jit(model.apply)(variables, tokens, token_mask=mask)
    np.testing.assert_allclose(found["logits"], expected, rtol=1e-5, atol=1e-5)
