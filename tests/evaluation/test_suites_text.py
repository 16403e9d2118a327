"""The suites of text on made-up answers: what a model would say whose surprise is known for every token."""

import dataclasses
import math
import re

import numpy as np
import pytest

from configs import wordnet
from vmoe_inform import config as config_lib
from vmoe_inform.data.text import corpora, ngrams
from vmoe_inform.data.text.lines import LabelledTexts, Lines
from vmoe_inform.data.text.words import WordTokenizer
from vmoe_inform.evaluation import examples, fingerprints, stored, suites
from vmoe_inform.evaluation.results import Scale
from vmoe_inform.evaluation.suites import _ngrams, _text, classification
from vmoe_inform.evaluation.units import PredictionFiles, Unit
from vmoe_inform.storage import write_arrays
from vmoe_inform.tasks.predictions import Predictions, TokenLosses

TEXT = ("the old cat sat here", "the dog ran after it", "a bird sang loudly today", "nobody saw one falling star")
WORDS = WordTokenizer.learn(TEXT, 100, "spaces")


def corpus_of(lines):
    return corpora.corpus(Lines(lambda: iter(lines), "made up"), WORDS)


class Task:
    """In place of the task of a run: its text."""

    inputs = "tokens"
    tokenizer = WORDS

    def __init__(self, config, test):
        self.config, self.test_source = config, test


@pytest.fixture
def config(monkeypatch, tmp_path):
    """Of a run whose test text is the first half of TEXT, and its validation text the other."""
    found = wordnet.get_config("router=smoe_top2,size=tiny")
    found.evaluation.cache_directory = str(tmp_path)
    found.evaluation.batch_size = 2
    found.model.vocabulary_size = 100
    parsed = config_lib.parse(found)
    task = Task(parsed, corpus_of(TEXT[:2]))
    for module in (_text, _ngrams, classification):
        monkeypatch.setattr(module, "task_of", lambda _: task)
    monkeypatch.setattr(_text, "_load", lambda task, split: {"validation": corpus_of(TEXT[2:])}[split])
    monkeypatch.setattr(corpora, "training", lambda config, tokenizer: corpus_of(TEXT * 3))
    return parsed


def losses_of(corpus, nats, num_tokens=4):
    """Answers for windows of a corpus; ``nats`` of each token."""
    count = math.ceil(len(corpus.ids) / num_tokens)
    mask = np.arange(count * num_tokens).reshape(count, num_tokens) < len(corpus.ids)
    targets = np.resize(corpus.ids, mask.shape)
    values = np.where(mask, np.resize(np.asarray(nats, np.float32), mask.shape), 99.0)  # filler must not count
    return TokenLosses(values, targets, mask, np.arange(count), 0)


def scores_of(suite, nats_of_set):
    return {name: suite.score(name, losses_of(of.load(), nats_of_set(name))) for name, of in suite.sets.items()}


def test_perplexity_is_exp_of_the_mean_over_real_tokens(config):
    suite = suites.load("perplexity", config)
    result = suite.result(scores_of(suite, lambda name: {"clean": math.log(7), "validation": math.log(9)}[name]))
    assert result.metrics["perplexity"] == pytest.approx(7, rel=1e-6)
    assert result.metrics["validation_perplexity"] == pytest.approx(9, rel=1e-6)
    assert result.metrics["nll"] == pytest.approx(math.log(7), rel=1e-6)
    assert result.standard_errors["perplexity"] == pytest.approx(0, abs=1e-4)  # all tokens are alike
    assert (result.count, result.counted, result.streams) == (12, "words", 2)  # ten words, two ends of lines
    assert (result.headline, result.scale) == ("perplexity", Scale("perplexity", less_is_better=True))
    assert result.origin == "made up"
    assert "word_perplexity" not in result.metrics  # tokens are words


def test_n_gram_models_of_the_training_text_stand_beside_it_and_are_counted_once(config, monkeypatch):
    suite = suites.load("perplexity", config)
    first = suite.result(scores_of(suite, lambda _: 1.0)).metrics
    assert 1 < first["trigram"] < first["bigram"] < first["unigram"] < 100
    monkeypatch.setattr(corpora, "training", lambda *_: pytest.fail("counted twice"))
    again = suite.result(scores_of(suite, lambda _: 1.0)).metrics
    assert [again[name] for name in ngrams.NAMES] == [first[name] for name in ngrams.NAMES]


def test_without_the_training_text_there_is_still_a_perplexity(config, monkeypatch, caplog):
    def missing(*_):
        raise FileNotFoundError("data.directory: expected wiki.train.tokens")

    monkeypatch.setattr(corpora, "training", missing)
    suite = suites.load("perplexity", config)
    metrics = suite.result(scores_of(suite, lambda _: 1.0)).metrics
    assert metrics["perplexity"] == pytest.approx(math.e)
    assert not set(ngrams.NAMES) & set(metrics)
    assert "no n-gram perplexities: data.directory: expected wiki.train.tokens" in caplog.text


def test_perplexity_of_words_counts_the_words_of_a_text_in_parts_of_words():
    scores = {"nats": np.array([4.0, 2.0]), "tokens": np.array([4, 2])}
    assert _text.perplexity_of(scores)[0] == pytest.approx(math.e)
    assert _text.perplexity_of(scores, 3)[0] == pytest.approx(math.e**2)


def test_standard_error_is_that_of_independent_windows():
    """nats 1 and 3 of one token each: mean 2, deviations 1 and 1, error sqrt(2) / 2, times the perplexity."""
    scores = {"nats": np.array([1.0, 3.0]), "tokens": np.array([1, 1])}
    assert _text.perplexity_of(scores)[1] == pytest.approx(math.exp(2) * math.sqrt(2) / 2)


def test_a_model_that_has_diverged_is_said_so():
    scores = {"nats": np.array([1e4]), "tokens": np.array([10])}
    with pytest.raises(ValueError, match=r"perplexity: expected a finite number; received 'exp\(1000\)'"):
        _text.perplexity_of(scores)


def test_predictions_of_routers_that_may_look_ahead_say_so(config, tmp_path):
    """Those that a run without the flag has left are not taken for them."""
    unit = Unit.of(suites.load("perplexity", config), "clean")
    plain, ahead = (PredictionFiles(tmp_path, 7, "hash", allow_future) for allow_future in (False, True))
    for files, label in ((plain, []), (ahead, [True])):
        assert not files.has(unit)
        files.write(unit, losses_of(unit.source, 1.0))
        assert files.has(unit)
        with np.load(tmp_path / "clean" / "clean.npz") as file:
            assert [file[name].item() for name in file.files if name == "allow_future"] == label


def test_word_swap_has_a_curve_for_each_variant_and_split(config):
    suite = suites.load("word_swap", config)

    def nats(name):
        return 1.0 if "/" not in name else 1 + 10 * float(name.rpartition("/")[2]) + name.startswith("validation")

    result = suite.result(scores_of(suite, nats))
    assert set(result.swapped) == {"text", "inputs", "validation_text", "validation_inputs"}
    for curve in result.swapped.values():
        assert curve.share == (0.0, 0.015, 0.05, 0.1)
        assert curve.swapped == (0.0, *3 * (2 / 12,))  # one word of each of two lines, of twelve
        assert curve.perplexity[0] == pytest.approx(math.e)
    assert result.metrics["perplexity"] == pytest.approx(math.exp(1.15), rel=1e-6)
    assert result.metrics["inputs_perplexity"] == pytest.approx(math.exp(1.15), rel=1e-6)
    assert result.metrics["validation_perplexity"] == pytest.approx(math.exp(2.15), rel=1e-6)
    assert result.seed == config.evaluation.swap_seed


def test_word_swap_asks_for_the_words_that_its_variant_says(config):
    sets = suites.load("word_swap", config).sets
    clean, text, inputs = (sets[name].load() for name in ("clean", "text/0.05", "inputs/0.05"))
    swapped = text.ids != clean.ids
    assert swapped.sum() == 2
    assert (text.ids[swapped] == WORDS.unknown).all()
    assert text.inputs is None
    assert (inputs.ids == clean.ids).all()
    assert (inputs.inputs == text.ids).all()
    assert sets["text/0.05"].load() is text  # not drawn again
    assert sets["text/0.05"].settings != sets["inputs/0.05"].settings


@pytest.mark.parametrize(
    ("router", "moe", "setting"),
    [
        ({"select": "expert_choice"}, {}, "model.router.select = 'expert_choice'"),
        ({}, {"capacity_factor_evaluation": 1.0}, "model.moe.capacity_factor_evaluation = 1.0"),
    ],
)
def test_no_perplexity_where_later_tokens_decide_which_experts_a_token_gets(config, router, moe, setting):
    model = dataclasses.replace(
        config.model,
        router=dataclasses.replace(config.model.router, **router),
        moe=dataclasses.replace(config.model.moe, **moe),
        allow_future=True,
    )
    for name in ("perplexity", "word_swap"):
        with pytest.raises(suites.NotAvailable, match=re.escape(f"({setting}): there is no perplexity")):
            suites.load(name, dataclasses.replace(config, model=model))


def test_suites_of_text_and_of_images_go_with_runs_of_their_own(config):
    assert suites.names("language_modeling") == ("perplexity", "word_swap")
    assert suites.names("text_classification") == ("classification",)
    assert suites.chosen(None, config) == ("perplexity", "word_swap")
    with pytest.raises(suites.NotAvailable, match="a suite of classification, and the run's task is language_modeling"):
        suites.load("clean", config)


def test_a_text_is_known_again_by_its_tokens_and_their_words():
    text, copy, other = corpus_of(TEXT), corpus_of(TEXT), corpus_of(TEXT[::-1])
    assert fingerprints.fingerprint(text) == fingerprints.fingerprint(copy) != fingerprints.fingerprint(other)
    inputs = dataclasses.replace(text, inputs=other.ids)
    assert fingerprints.fingerprint(inputs) != fingerprints.fingerprint(text)
    renamed = WordTokenizer.learn([line.replace("cat", "cow") for line in TEXT], 100, "spaces")
    assert fingerprints.fingerprint(dataclasses.replace(text, tokenizer=renamed)) != fingerprints.fingerprint(text)
    assert fingerprints.count_of(text) == len(text.ids)


def test_examples_show_each_token_with_its_own_surprise_and_expert(tmp_path):
    corpus = corpus_of(TEXT[:1])
    losses = losses_of(corpus, np.arange(6), num_tokens=3)  # two windows: the old cat | sat here <eos>
    experts = {"block_0": np.arange(6).reshape(2, 3, 1)}
    found = examples.choose(Task(None, corpus), corpus, losses, experts)
    assert found["token"].tolist() == [["the", "old"], ["sat", "here"]]
    assert found["nats"].tolist() == [[0, 1], [3, 4]]
    # The model sees "the" at the second place of the window, after the token that ended the window before.
    assert found["experts/block_0"].tolist() == [[1, 2], [4, 5]]
    write_arrays(tmp_path / "examples.npz", found, within=tmp_path)
    first = stored.read_examples(tmp_path / "examples.npz", within=tmp_path)[0]
    assert first["token"].tolist() == ["the", "old"]
    assert set(first["experts"]) == {"block_0"}


def test_examples_are_whole_windows():
    """Not the rests with which rows end, whatever the number of windows in a row."""
    corpus = corpus_of(TEXT[:1])
    mask = np.arange(4) < np.where(np.arange(32) % 4 == 3, 1, 4)[:, None]  # eight rows of four windows
    targets = np.broadcast_to(corpus.ids[:4], mask.shape)
    for count in (32, 31):  # the last row may have a window less
        nats, indices = np.zeros((count, 4), np.float32), np.arange(count)
        losses = TokenLosses(nats, targets[:count], mask[:count], indices, 0)
        found = examples.choose(Task(None, corpus), corpus, losses, {"block_0": np.zeros((count, 4, 1), int)})
        assert found["token"].tolist() == [["the", "old", "cat"]] * 8


@pytest.fixture
def texts(config, monkeypatch):
    """The task of a classifier of three texts in two classes."""
    found = LabelledTexts(TEXT[:3], np.array([0, 1, 1]), ("pets", "birds"), "made up")
    monkeypatch.setattr(classification, "task_of", lambda _: Task(config, found))
    return found


def test_classification_of_texts_has_accuracy_and_calibration(texts, config):
    suite = suites.load("classification", dataclasses.replace(config, task="text_classification"))
    logits = np.array([[9.0, 0], [0, 9.0], [9.0, 0]])
    predictions = Predictions(logits, texts.labels, np.arange(3), 0)
    result = suite.result({"clean": suite.score("clean", predictions)})
    assert result.metrics["top1"] == pytest.approx(2 / 3)
    assert result.metrics["ece"] == pytest.approx(1 / 3, abs=1e-3)  # always sure
    assert (result.count, result.counted, result.scale) == (3, "texts", None)
    assert result.reliability.count[-1] == 3
    assert result.worst_classes[0].name == "birds"
    found = fingerprints.named(texts, predictions.indices)
    assert found["class_names"].tolist() == ["pets", "birds"]
    assert fingerprints.count_of(texts) == 3
    relabelled = dataclasses.replace(texts, labels=np.array([0, 1, 0]))
    assert fingerprints.fingerprint(relabelled) != fingerprints.fingerprint(texts)


def test_examples_of_texts_are_wrong_answers_first(texts, config):
    predictions = Predictions(np.array([[9.0, 0], [0, 9.0], [9.0, 0]]), texts.labels, np.arange(3), 0)
    found = examples.choose(Task(config, texts), texts, predictions, {"block_1": np.full((3, 8, 2), 3)})
    assert found["label"].tolist() == ["birds", "pets", "birds"]
    assert found["prediction"].tolist() == ["pets", "pets", "birds"]
    assert " ".join(found["token"][0]).strip() == TEXT[2]
    assert found["experts/block_1"].shape == found["token"].shape


@pytest.mark.parametrize("name", ["perplexity", "word_swap"])
def test_each_window_adds_to_the_perplexities(config, name):
    suite = suites.load(name, config)
    scores = scores_of(suite, lambda name: np.linspace(0.1, len(name), 7))
    metrics, found = suite.result(scores).metrics, suite.contributions_of(scores)
    assert next(iter(found)) == suite.headline
    assert len(found) == {"perplexity": 2, "word_swap": 3}[name]
    for metric, contributions in found.items():
        assert contributions.value == pytest.approx(metrics[metric], rel=1e-9)
        assert contributions.scale == Scale("perplexity", less_is_better=True)
    # As the standard error of the one perplexity, but for the factor n / (n - 1) of a sample.
    error = math.sqrt(np.square(found[suite.headline].influences).sum())
    assert error == pytest.approx(suite.result(scores).standard_errors[suite.headline], rel=1e-6)
