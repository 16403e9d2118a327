"""Training on text from beginning to end: what is learned, carried from batch to batch, kept, and resumed."""

import json
import shutil

import chex
import jax
import numpy as np
import pytest

from tests import processes, tiny_text
from vmoe_inform import checks, generation, storage
from vmoe_inform.data.skipped import SkippedRecords
from vmoe_inform.data.text import tokenizers
from vmoe_inform.drill.compare import differing
from vmoe_inform.evaluation.predict import Predictor
from vmoe_inform.runs import run as runs
from vmoe_inform.runs.folder import TOKENIZER_FILE
from vmoe_inform.sharding.mesh import BATCH
from vmoe_inform.tasks import from_config
from vmoe_inform.training import loop, program

PAST = {
    "model__attention_style": "previous",
    "model__attention_span": 12,
    "model__block": "post_ln_double",
    "train__ema_decay": 0.9,
    "checkpoint__every_steps": 4,
}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return tiny_text.write_corpus(tmp_path_factory.mktemp("corpus"))


@pytest.fixture(scope="module")
def whole(corpus, tmp_path_factory):
    """A run with carried memory on 8 devices: its folder, and how it ended."""
    folder = tmp_path_factory.mktemp("whole")
    return folder, loop.train(tiny_text.parse(corpus, **PAST), folder, show_progress=False)


def test_what_is_logged(whole):
    folder, result = whole
    entries = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    steps = [entry for entry in entries if "loss" in entry]
    assert [entry["step"] for entry in steps] == [4, 8, 12]
    for entry in steps:
        np.testing.assert_allclose(entry["perplexity"], np.exp(entry["cross_entropy"]), rtol=1e-5)
    assert steps[-1]["perplexity"] < steps[0]["perplexity"]
    assert steps[-1]["tokens_per_second"] > 0
    assert entries[-1]["evaluation/test/perplexity"] == result.headline
    assert 2 < result.headline < 20  # 16 tokens, of which each word is as likely as the others


def test_the_state_carries_what_attention_looks_back_to(whole):
    """By row, over all devices; evaluation and the optimizer have nothing to do with it."""
    _, result = whole
    assert jax.device_count() == 8
    for block, memory in result.state.memory.items():
        assert memory.shape == (8, 12, 16), block
        assert memory.sharding.spec == BATCH
        assert np.any(np.asarray(memory))


@pytest.fixture(scope="module")
def stopped(corpus, tmp_path_factory):
    """The folder of a run that stopped after six of its steps."""
    folder = tmp_path_factory.mktemp("stopped")
    result = loop.train(tiny_text.parse(corpus, **PAST), folder, stop_at_step=6, show_progress=False)
    assert result.headline is None
    return folder


def test_a_run_that_stops_ends_with_the_same_bits(whole, stopped, corpus, tmp_path):
    shutil.copytree(stopped, tmp_path, dirs_exist_ok=True)
    loop.train(tiny_text.parse(corpus, **PAST), tmp_path, show_progress=False)
    assert differing(whole[0], tmp_path) == []


def test_without_its_memory_it_would_not(whole, stopped, corpus, tmp_path, monkeypatch):
    """The positive control of the test above."""
    shutil.copytree(stopped, tmp_path, dirs_exist_ok=True)
    monkeypatch.setattr(
        "vmoe_inform.training.setup._state",
        lambda *args, before=loop.setup._state: (
            lambda state: state.replace(memory=jax.tree.map(lambda leaf: 0 * leaf, state.memory))
        )(before(*args)),
    )
    loop.train(tiny_text.parse(corpus, **PAST), tmp_path, show_progress=False)
    assert any(path.startswith("params/") for path in differing(whole[0], tmp_path))


def test_a_finished_run_is_known_from_its_log(whole, corpus):
    folder, result = whole
    assert loop.finished_headline(tiny_text.parse(corpus, **PAST), folder) == result.headline


def test_the_run_keeps_its_tokenizer(whole, corpus):
    """So that what looks at it needs no training text; the config records which it was."""
    folder, _ = whole
    run = runs.load(folder)
    assert run.config.data.tokenizer == str(folder / TOKENIZER_FILE)
    task = from_config(run.config)
    assert task.tokenizer.size == len(tiny_text.WORDS) + 2
    assert tokenizers.fingerprint(task.tokenizer) == run.config.data.vocabulary_hash
    assert storage.read_json(folder / "config.json")["data"]["tokenizer"] == "words"


def test_the_vocabulary_of_another_run_is_refused(whole, corpus, tmp_path):
    folder, _ = whole
    (tmp_path / "config.json").write_bytes((folder / "config.json").read_bytes())
    words = ["<unk>", "<eos>", *reversed(tiny_text.WORDS)]
    (tmp_path / TOKENIZER_FILE).write_text(json.dumps({"kind": "words", "splitting": "marks", "vocabulary": words}))
    with pytest.raises(checks.InputError, match=r"data.vocabulary_hash: expected the vocabulary of the run \("):
        loop.train(tiny_text.parse(corpus, **PAST), tmp_path, show_progress=False)


def test_a_command_continues_a_text(whole, corpus, tmp_path):
    """With the run's folder alone: its training text is elsewhere."""
    folder, _ = whole
    corpus.rename(tmp_path / "elsewhere")
    try:
        with processes.Forks("generate", tmp_path, imports=("generation", "runs.run")) as forks:
            how = ("--prompt=the zebra sees", "--temperature=0.8", "--top_k=5", "--max_tokens=20", "--lines=3")
            results = [
                forks.run(f"--workdir={folder}", *how, "--seed=7"),
                forks.run(f"--workdir={folder}@4", "--temperature=0", "--max_tokens=12"),
                forks.run(f"--workdir={folder}@5", *how),
                forks.run(f"--workdir={folder}", "--temperature=-1"),
            ]
        newest, earlier = (generation.open_run(runs.find(folder, step)) for step in (None, 4))
    finally:
        (tmp_path / "elsewhere").rename(corpus)
    tokenizer, decoder = newest
    sampling = generation.Sampling(0.8, 5)
    text = generation.write_text(
        decoder, tokenizer, "the zebra sees", max_tokens=20, lines=3, sampling=sampling, seed=7
    ).text
    code, printed, errors = results[0]
    assert (code, printed) == (0, text + "\n"), errors
    assert printed.startswith("the <unk> sees ")
    assert "words of the prompt that the vocabulary lacks, read as <unk>: 1" in errors
    tokenizer, decoder = earlier
    text = generation.write_text(decoder, tokenizer, "", max_tokens=12, sampling=generation.Sampling(0.0)).text
    assert results[1][:2] == (0, text + "\n"), results[1]
    for (code, printed, errors), message in zip(
        results[2:],
        ("checkpoint: expected one of step 5 in ", "--temperature: expected float >= 0 "),
        strict=True,
    ):
        assert (code, printed) == (2, "")
        assert [message in line for line in errors.splitlines()] == [True], errors


def test_evaluation_carries_memory_and_counts_each_target_once(whole, corpus):
    """Without memory, the first window of each row is the same, and the others are not."""
    folder, result = whole
    run = runs.load(folder)
    task = from_config(run.config)
    predictor = Predictor(run.model, task, run.mesh)
    found = predictor.predict(run.variables, task.test_source)
    assert np.count_nonzero(found.mask) == len(task.test_source.ids)
    assert np.bincount(found.targets[found.mask]).tolist() == np.bincount(task.test_source.ids).tolist()
    assert float(np.exp(np.mean(found.nats[found.mask].astype(np.float64)))) == pytest.approx(result.headline, rel=1e-6)
    forgetful = Predictor(run.model, task, run.mesh)
    task.carries_memory = False
    again = forgetful.predict(run.variables, task.test_source)
    windows = task.num_examples(task.test_source) // 8
    first = found.indices % windows == 0
    np.testing.assert_allclose(again.nats[first], found.nats[first], rtol=1e-5)
    assert np.any(again.nats[~first] != found.nats[~first])


def test_parts_of_a_batch_have_their_rows_memory(corpus):
    """A step in two parts is the step in one: gradients, and the memory of each row."""
    states = []
    for parts in (1, 2):
        config = tiny_text.parse(corpus, **PAST, train__gradient_accumulation_steps=parts, model__dropout_rate=0.0)
        built = program.build(config, 12, jax.devices()[:2])
        batches = built.task.training_batches(SkippedRecords(0.0), 0, 1)
        with built.in_use():
            state = built.initialize()
            for _ in range(2):
                state, metrics = built.train_step(state, built.to_devices(next(batches)))
        batches.close()
        states.append((jax.device_get(state.memory), float(metrics["perplexity"])))
    chex.assert_trees_all_close(states[0], states[1], rtol=1e-3, atol=1e-4)
    memory = states[0][0]["block_0"]
    assert len({row.tobytes() for row in memory}) == 8  # each row has its own


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("train__label_smoothing", 0.1, "train.label_smoothing: expected 0.0 with task = 'language_modeling'"),
        ("model__num_classes", 3, "model.num_classes: expected None with task = 'language_modeling'; received 3"),
        ("train__loss", "sigmoid", "train.loss: expected 'softmax' with task = 'language_modeling'"),
        ("model__vocabulary_size", 2, "model.vocabulary_size: expected at least 3"),
        ("train__batch_size", 800, "data: expected a corpus of at least train.batch_size x model.num_tokens"),
    ],
)
def test_bad_settings_are_refused(corpus, tmp_path, field, value, message):
    with pytest.raises(checks.InputError, match=message):
        loop.train(tiny_text.parse(corpus, **{field: value}), tmp_path, show_progress=False)


@pytest.mark.parametrize(
    ("router", "settings", "name", "logged"),
    [
        ("similarity_smoe_top2", {}, "perplexity", "perplexity_with_future"),
        ("expert_choice", {}, "nats", None),
        ("smoe_top2", {"model__moe__capacity_factor": 1.0, "model__moe__batch_priority": True}, "nats", None),
    ],
)
def test_what_looks_ahead_has_another_name(corpus, router, settings, name, logged):
    """So that no table mixes it with perplexities; where experts choose by later tokens there is no perplexity."""
    task = from_config(tiny_text.parse(corpus, router, model__allow_future=True, train__steps=12, **settings))
    assert task.headline_name == f"test/{name}_with_future"
    nats, mask = np.array([[1.0, 2.0], [3.0, 99.0]]), np.array([[True, True], [True, False]])
    value = task.headline({"nats": nats, "mask": mask}, {}).value
    assert value == pytest.approx(np.exp(2.0) if logged else 2.0)
    metrics = task.metrics_of_step({"cross_entropy": np.float32(2.0)})
    assert metrics.keys() == {"cross_entropy"} | ({logged} if logged else set())
    assert "look ahead" in task.headline_in_words(value)
