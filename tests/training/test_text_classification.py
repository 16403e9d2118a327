"""Classification of texts: from the beginning, and from what a language model has learned."""

import pathlib

import jax
import numpy as np
import pytest

from tests import tiny_text
from vmoe_inform import checks
from vmoe_inform.runs import run as runs
from vmoe_inform.runs.folder import TOKENIZER_FILE
from vmoe_inform.training import initialize, loop, program, setup

LANGUAGE = {"model__attention_style": "previous", "model__attention_span": 12}
LABELS = {
    "task": "text_classification",
    "data__source": "table",
    "model__num_classes": 2,
    "model__num_tokens": 12,
    "optimizer__learning_rate": 2e-2,
}


@pytest.fixture(scope="module")
def texts(tmp_path_factory):
    """Sentences in tables, labelled by whether there is a cat in them."""
    folder = tiny_text.write_corpus(tmp_path_factory.mktemp("texts"))
    tables = tmp_path_factory.mktemp("tables")
    for split in ("train", "validation", "test"):
        lines = (folder / f"{split}.txt").read_text().splitlines()
        rows = (f"{line},{'cat' if 'cat' in line.split() else 'none'}\n" for line in lines)
        (tables / f"{split}.csv").write_text("text,label\n" + "".join(rows))
    return folder, tables


@pytest.fixture(scope="module")
def language_model(texts, tmp_path_factory):
    """A language model of the same sentences: its folder."""
    workdir = tmp_path_factory.mktemp("language")
    loop.train(tiny_text.parse(texts[0], **LANGUAGE, train__steps=3), workdir, show_progress=False)
    return workdir


def _config(tables, **overrides):
    return tiny_text.parse(tables, **({**LABELS, **LANGUAGE} | overrides))


def test_it_learns_keeps_its_classes_and_resumes(texts, tmp_path):
    config = _config(texts[1], train__steps=40)
    loop.train(config, tmp_path, stop_at_step=4, show_progress=False)
    result = loop.train(config, tmp_path, show_progress=False)
    assert result.config.data.class_names == ("cat", "none")
    labels = [line.endswith(",cat") for line in (texts[1] / "test.csv").read_text().splitlines()[1:]]
    assert result.headline > max(np.mean(labels), 1 - np.mean(labels))
    assert result.state.memory is None  # each text is by itself
    assert (tmp_path / TOKENIZER_FILE).exists()


def test_padding_and_filler_change_nothing(texts, tmp_path):
    """Filler, other texts of the batch and padding change no prediction."""
    result = loop.train(_config(texts[1], train__steps=40), tmp_path, stop_at_step=3, show_progress=False)
    run = runs.load(tmp_path)
    task = result.predictor.task
    found = result.predictor.predict(run.variables, task.test_source)
    assert len(found.logits) == len(task.test_source.texts)
    for number in (0, len(found.logits) - 1):
        tokens = task.tokenizer.encode(task.test_source.texts[number])[None]
        logits, _ = jax.jit(run.model.apply)(run.variables, tokens)
        np.testing.assert_allclose(found.logits[number], logits[0], rtol=1e-4, atol=1e-5)


def test_a_step_in_parts_is_the_step_in_one(texts):
    """Also where one part has long texts and the other short ones: routing is measured over tokens."""
    found = []
    for parts in (1, 2):
        config = _config(texts[1], train__gradient_accumulation_steps=parts, model__dropout_rate=0.0)
        built = program.build(config, 20, jax.devices()[:1])
        lengths = np.where(np.arange(8) % 2 == 0, 12, 2)  # by turns in one part and in the other
        real = np.arange(12)[None] < lengths[:, None]
        tokens = np.random.default_rng(0).integers(2, config.model.vocabulary_size, (8, 12)).astype(np.int32)
        batch = {"tokens": np.where(real, tokens, 0), "token_mask": real, "label": np.arange(8, dtype=np.int32) % 2}
        with built.in_use():
            state, metrics = built.train_step(built.initialize(), built.to_devices(batch))
        found.append((jax.device_get(metrics), jax.device_get(state.params)))
    (one, params), (parts, other_params) = found
    assert "routing/block_1/entropy" in one
    for name in one:
        np.testing.assert_allclose(parts[name], one[name], rtol=1e-4, atol=1e-6, err_msg=name)
    jax.tree.map(lambda *leaves: np.testing.assert_allclose(*leaves, atol=1e-5), params, other_params)


def test_a_language_model_gives_blocks_and_the_same_vocabulary(texts, language_model):
    """The head is the task's own. With the same words the embeddings move too."""
    saved = runs.load(language_model)
    built, fresh, task = _fresh(_config(texts[1], seed=1))
    with built.in_use():
        state = initialize.from_run(language_model, fresh, built, task.config)
    params, theirs = jax.device_get(state.params), jax.device_get(saved.variables["params"])
    for name in ("block_0", "block_1", "final_norm", "relative_keys"):
        jax.tree.map(np.testing.assert_array_equal, params[name], theirs[name])
    np.testing.assert_array_equal(params["vocabulary"]["embedding"], theirs["vocabulary"]["embedding"])
    assert list(params["vocabulary"]) == ["embedding"]
    np.testing.assert_array_equal(params["head"]["kernel"], jax.device_get(fresh.params["head"]["kernel"]))


def test_another_vocabulary_starts_anew(texts, language_model, tmp_path, warnings):
    (tmp_path / "train.csv").write_text("text,label\n" + 4 * "the cat,cat\na tree,none\n")
    built, fresh, task = _fresh(_config(tmp_path, seed=1, model__vocabulary_size=6))
    with built.in_use():
        before = jax.device_get(fresh.params["vocabulary"]["embedding"])
        state = initialize.from_run(language_model, fresh, built, task.config)
    np.testing.assert_array_equal(jax.device_get(state.params["vocabulary"]["embedding"]), before)
    assert any("the vocabulary starts anew" in line for line in warnings)


@pytest.mark.parametrize("router", ["hash", "stablemoe@distilled.switch_step=1"])
def test_routers_of_another_vocabulary_start_anew(texts, tmp_path, router):
    """Their tables have a row for each word; what else they learned moves."""
    before = tmp_path / "before"
    loop.train(tiny_text.parse(texts[0], router, **LANGUAGE, train__steps=3), before, show_progress=False)
    saved = jax.device_get(runs.load(before).variables)["params"]["block_1"]["moe"]
    (tmp_path / "train.csv").write_text("text,label\n" + 4 * "the cat,cat\na tree,none\n")
    settings = {**LABELS, **LANGUAGE, "seed": 1, "model__vocabulary_size": 6}
    built, fresh, task = _fresh(tiny_text.parse(tmp_path, router, **settings))
    with built.in_use():
        state = initialize.from_run(before, fresh, built, task.config)
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(state.routing), jax.device_get(fresh.routing))
    moved, new = (jax.device_get(tree.params)["block_1"]["moe"] for tree in (state, fresh))
    jax.tree.map(np.testing.assert_array_equal, moved["experts"], saved["experts"])
    if router != "hash":
        found = moved["router"]["distilled"]
        np.testing.assert_array_equal(found["embedding"], new["router"]["distilled"]["embedding"])
        np.testing.assert_array_equal(found["kernel"], saved["router"]["distilled"]["kernel"])


def test_positions_of_text_are_those_of_the_first_tokens():
    given, fresh = np.arange(6.0).reshape(1, 3, 2), -np.ones((1, 5, 2))
    np.testing.assert_array_equal(initialize.extend_positions(given, fresh)[0, :, 0], [0, 2, 4, -1, -1])
    np.testing.assert_array_equal(initialize.extend_positions(fresh, given), fresh[:, :3])
    wide = np.zeros((1, 5, 6))  # of another model, which the comparison of all shapes refuses
    assert initialize.extend_positions(given, wide) is given


def test_another_model_is_no_start(texts, language_model, tmp_path):
    """One line, with the paths that differ."""
    (tmp_path / "small").mkdir()
    config = _config(texts[1], train__initial_checkpoint=str(language_model), model__hidden_size=8, model__mlp_size=16)
    with pytest.raises(checks.InputError, match=r"checkpoint 3 is of another model. params/block_0/.*: expected"):
        loop.train(config, tmp_path / "small", show_progress=False)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("model__num_classes", None, "model.num_classes: expected a number with task = 'text_classification'"),
        ("model__num_classes", 3, "model.num_classes: expected the 2 classes of the data; received 3"),
        (
            "model__num_tokens",
            4,
            "model.num_tokens: expected at least the 8 tokens of the longest text; received",
        ),
    ],
)
def test_bad_settings_are_refused(texts, tmp_path, field, value, message):
    with pytest.raises(checks.InputError, match=message):
        loop.train(_config(texts[1], **{field: value}), tmp_path, show_progress=False)


def _fresh(config):
    task = setup.opened(config, pathlib.Path("/nowhere"))
    built = program.build(task.config, 20, task=task)
    with built.in_use():
        return built, built.initialize(), task
