"""Test texts, seen by checkpoints of language models that are made by hand."""

import copy
import dataclasses
import math

import jax
import numpy as np
import pytest

from tests import tiny_text
from vmoe_inform.analysis import analyze
from vmoe_inform.analysis.collect import comparable
from vmoe_inform.analysis.collect.observing import Observer
from vmoe_inform.analysis.draw._panels import named
from vmoe_inform.analysis.inputs import AnalysedRuns
from vmoe_inform.analysis.page.words import word_page
from vmoe_inform.analysis.text.data import Texts, Windows
from vmoe_inform.config import as_language
from vmoe_inform.evaluation.predict import Predictor
from vmoe_inform.tasks.language_modeling import LanguageModeling
from vmoe_inform.tasks.text_classification import TextClassification

from .made import runs


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tiny_text.write_corpus(tmp_path_factory.mktemp("corpus"))


@pytest.fixture(scope="module")
def checkpoints(folder):
    return runs(folder)


@pytest.fixture(scope="module")
def data(checkpoints):
    return Windows.of_run(checkpoints[20].config, "clean", None)


def analysis_and_choices(runs, data, say=lambda line: None):
    """An analysis without views of single texts: in their place the choices that they would be of."""
    data = copy.copy(data)
    data.views = lambda runs, choices, found: choices
    return analyze(runs, data, say=say)


@pytest.fixture(scope="module")
def found(checkpoints, data):
    """The later checkpoint with its earlier one, compared with that one as if it were another run."""
    before, newest = checkpoints.values()
    other = dataclasses.replace(before, name="other")
    said = []
    made = analysis_and_choices(AnalysedRuns(newest, before, other), data, said.append)
    assert said[0].startswith("similarity_smoe_top2, step 20: ")
    return made


def test_every_token_of_the_text_counts_once_and_filler_never(found, checkpoints, data):
    analysis, choices = found
    num_tokens = len(data.source().ids)
    assert choices.real.sum() == num_tokens
    assert choices.real.size > num_tokens  # there is filler
    assert (analysis.run.unit, analysis.run.count) == ("windows", len(choices.indices))
    seen = Observer(checkpoints[20]).observe(data.source())
    assert int(seen.sums["block_1"].tokens) == num_tokens
    # Each token has two experts: of the load, counted once more from the choices, each is half.
    counts = np.bincount(choices.of_tokens["block_1"].ravel(), minlength=4)
    assert analysis.layers["block_1"].load == pytest.approx(counts / counts.sum(), abs=1e-6)


def test_evaluation_counts_no_filler_either(found, checkpoints, data):
    """Its load is the mean over windows, each over the tokens that it really has."""
    run, choices = checkpoints[20], found[1]
    hits = np.eye(4)[choices.experts["block_1"]].mean(axis=2)  # [windows, N, E]
    windows = hits.mean(axis=1, where=choices.real[..., None])
    predictor = Predictor(run.model, LanguageModeling(run.config), run.mesh)
    _, routing, _ = predictor.predict_with_routing(run.variables, data.source())
    assert routing["block_1"].load == pytest.approx(windows.mean(axis=0), abs=1e-6)
    assert windows.mean(axis=0) != pytest.approx(hits.mean(axis=(0, 1)), abs=1e-6)


def test_the_score_is_the_perplexity_of_the_evaluation(found, checkpoints, data):
    run = checkpoints[20]
    headline = Predictor(run.model, LanguageModeling(run.config), run.mesh).headline(run.variables)
    assert found[0].run.metric == "perplexity"
    assert found[0].run.score == pytest.approx(headline.value, rel=1e-5)


def test_layers_of_a_language_model_have_all_but_classes(found):
    analysis = found[0]
    layer = analysis.layers["block_1"]
    assert layer.specialisation is None
    assert analysis.class_names == ()
    assert 1 <= layer.graph.effective_neighbours.mean <= (8 + 1) / 2  # of j <= i in rows of 8 tokens
    other = analysis.against.layers["block_1"]
    assert other.entropy_ratio == layer.entropy / other.entropy
    assert 0 < analysis.fluctuation.layers["block_1"].set < 1


def test_some_of_the_text(checkpoints, data):
    config = checkpoints[20].config
    some = Windows.of_run(config, "clean", 20).source()
    np.testing.assert_array_equal(some.ids, data.source().ids[:20])
    with pytest.raises(ValueError, match=r"--limit: expected at least evaluation.batch_size = 8 tokens; received 7"):
        Windows.of_run(config, "clean", 7)
    with pytest.raises(ValueError, match=r"--suite: expected clean or word_swap, .*; received 'c:fog:3'"):
        Windows.of_run(config, "c:fog:3", None)


def test_runs_with_another_vocabulary_are_not_compared(checkpoints):
    own = as_language(checkpoints[20].config)
    other = dataclasses.replace(own, data=dataclasses.replace(own.data, vocabulary_hash="other"))
    with pytest.raises(ValueError, match=r"another shape. data.vocabulary_hash: expected '.*' as in --workdir"):
        comparable.check_comparable(own, other, Windows.compared_fields)


def test_the_words_that_are_shown_are_those_of_the_text(found, checkpoints, data):
    views = data.views(list(checkpoints.values()), found[1], found[0])
    tokens = data.source().tokenizer.tokens(data.source().ids)
    assert views.targets[0] == tokens[:8]
    assert views.tokens[0] == ["<eos>", *tokens[:7]]
    assert "first window of a row" in word_page(views)
    assert sum(map(len, views.tokens)) == sum(map(len, views.targets))
    view = views.views[1]
    assert view.label == "similarity_smoe_top2, step 20"
    np.testing.assert_array_equal(view.layers["block_1"].experts[0], found[1].experts["block_1"][0])
    near = view.layers["block_1"].neighbours
    assert (near.others * (near.weights > 0) <= np.arange(8)[:, None]).all()  # no token attends to a later one


def test_what_a_model_expects_next_is_its_softmax(found, checkpoints, data):
    run = checkpoints[20]
    views = data.views([run], found[1], found[0])
    words = {word: token for token, word in enumerate(data.source().tokenizer.tokens(np.arange(16)))}
    ids = np.array([[words[word] for word in views.tokens[0]]], np.int32)
    logits = jax.jit(run.model.apply)(run.variables, ids)[0][0]
    chances = np.sort(jax.nn.softmax(logits, axis=-1), axis=-1)[:, ::-1]
    expected = views.views[0].expected
    np.testing.assert_allclose(expected.shares[0], chances[:, :3], rtol=2e-4)
    of_next = jax.nn.log_softmax(logits, axis=-1)[np.arange(8), [words[word] for word in views.targets[0]]]
    np.testing.assert_allclose(expected.nats[0], -np.asarray(of_next), rtol=2e-4, atol=1e-5)
    assert set(views.likely) >= set(expected.likely.ravel().tolist())


def test_memory_is_carried_from_window_to_window(folder):
    """With attention to earlier windows, windows that are seen on their own have another score."""
    options = {"model__attention_style": "previous", "model__attention_span": 8, "model__block": "post_ln_double"}
    run = runs(folder, "smoe_top2", **options)[20]
    data = Windows.of_run(run.config, "clean", None)
    score = Observer(run).observe(data.source()).score
    headline = Predictor(run.model, LanguageModeling(run.config), run.mesh).headline(run.variables)
    assert score == pytest.approx(headline.value, rel=1e-5)
    assert math.isfinite(score)


def test_routers_that_look_ahead_are_labelled_everywhere(folder):
    run = runs(folder, model__allow_future=True)[20]
    data = Windows.of_run(run.config, "clean", 20)
    analysis, choices = analysis_and_choices(AnalysedRuns(run), data)
    assert analysis.run.score_in_words.endswith(", with routers that look ahead")
    assert named(analysis.run).endswith("(clean); routers look ahead")
    view = data.views([run], choices, analysis).views[0]
    assert view.label.endswith(", routers look ahead")
    near = view.layers["block_1"].neighbours
    assert (near.others * (near.weights > 0.01) > np.arange(8)[:, None]).any()  # tokens attend to later ones


def test_labelled_texts_have_classes_and_no_padding_counts(tmp_path):
    lines = ["text,label", *("the cat sees a dog,0",) * 2, *("the house sees a dog,1",) * 2, "a tree,0"]
    for split in ("train", "validation", "test"):
        (tmp_path / f"{split}.csv").write_text("\n".join(lines) + "\n")
    options = {"task": "text_classification", "model__num_classes": 2, "data__source": "table"}
    run = runs(tmp_path, "smoe_top2", task_class=TextClassification, **options)[20]
    data = Texts.of_run(run.config, "clean", None)
    analysis, choices = analysis_and_choices(AnalysedRuns(run), data)
    assert choices.real.sum() == 4 * 5 + 2
    assert (analysis.run.unit, analysis.run.metric, analysis.class_names) == ("texts", "top1", ("0", "1"))
    assert analysis.layers["block_1"].specialisation.class_entropy > 0
    views = data.views([run], choices, analysis)
    assert views.tokens[0] == ["the", "cat", "sees", "a", "dog"]
    assert views.tokens[-1] == ["a", "tree"]
    assert views.labels == [0, 0, 1, 1, 0]
    assert views.views[0].expected is None
    assert len(views.views[0].predictions) == 5
    assert "Right: " in word_page(views)
    assert len(Texts.of_run(run.config, "clean", 2).source().texts) == 2
