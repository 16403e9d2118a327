"""What a decoder says is what the model says of the whole text; and texts that it writes."""

import dataclasses
import subprocess
import sys
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import digits, wikitext103, wordnet
from tests import tiny
from vmoe_inform import config as config_lib
from vmoe_inform.data.text.words import WordTokenizer
from vmoe_inform.generation import Decoder, Sampling, choose, open_run, write_text
from vmoe_inform.nn import models
from vmoe_inform.routing import scores, steps

WORDS = ("<unk>", "<eos>", *"abcdefghij")
TOKENIZER = WordTokenizer(WORDS)
N = 8


def make(style, router="similarity_smoe_top2"):
    file = wordnet if style == "causal" else wikitext103
    config = file.get_config(f"router={router},size=tiny,experts=4").model
    config.num_tokens, config.vocabulary_size = N, len(WORDS)
    config.hidden_size = config.mlp_size = 8
    config.moe.group_size_sequences = 2  # a text alone is no group
    if style == "previous":
        config.attention_span = 6
    model = models.from_config(config)
    return model, tiny.variables(model)


@pytest.fixture(scope="module")
def causal():
    return make("causal")


def full_pass(model, variables, ids):
    """Logits after each token, of passes over whole sequences; both rows are the text."""
    memory, found = None, []
    for first in range(0, len(ids), N):
        rows = jnp.tile(jnp.asarray(ids[first : first + N], jnp.int32)[None], (2, 1))
        logits, aux = jax.jit(model.apply)(variables, rows, memory=memory)
        memory = aux["memory"]
        found.append(logits[0])
    return np.concatenate(found)


@pytest.mark.parametrize("style", ["causal", "previous"])
def test_what_is_written_is_what_passes_over_the_whole_text_would_write(style):
    """Greedy; with memory over three sequences, of which the prompt has more than one."""
    model, variables = make(style)
    prompt = "a b c" if style == "causal" else "a b c d e f g h i j"
    max_tokens = N - 3 if style == "causal" else 10
    decoder = Decoder(model.config, variables)
    found = write_text(
        decoder, TOKENIZER, prompt, max_tokens=max_tokens, lines=100, sampling=Sampling(0.0), write_unknown=True
    )
    ids = [TOKENIZER.end_of_line, *found.prompt, *found.written]
    logits = full_pass(model, variables, ids[:-1])
    assert list(found.written) == list(np.argmax(logits, axis=-1)[len(found.prompt) :])
    assert len(found.written) == max_tokens
    assert found.text.replace("\n", " ").startswith(prompt)


def test_a_decoder_reads_tokens_in_any_parts(causal):
    model, variables = causal
    ids = [1, 4, 7, 2, 9, 3]
    at_once = Decoder(model.config, variables).read(ids)
    decoder = Decoder(model.config, variables)
    for part in (ids[:3], ids[3:4], ids[4:]):
        logits = decoder.read(part)
    np.testing.assert_allclose(logits, at_once, atol=1e-5)
    np.testing.assert_allclose(at_once, full_pass(model, variables, ids)[-1], atol=1e-5)


def test_a_text_ends_with_its_lines(causal):
    model, variables = causal
    variables = {"params": jax.tree.map(jnp.zeros_like, variables["params"])}
    bias = jnp.zeros(len(WORDS)).at[TOKENIZER.end_of_line].set(2.0).at[3].set(1.0)
    variables["params"]["vocabulary"]["bias"] = bias

    decoder = Decoder(model.config, variables)

    def write(lines):
        return write_text(decoder, TOKENIZER, "a", max_tokens=5, lines=lines, sampling=Sampling(0.0))

    assert write(1).text == "a"
    assert list(write(3).written) == [TOKENIZER.end_of_line] * 2


def test_unknown_words_are_read_and_not_written(causal):
    model, variables = causal
    variables = {"params": jax.tree.map(jnp.zeros_like, variables["params"])}
    variables["params"]["vocabulary"]["bias"] = jnp.zeros(len(WORDS)).at[TOKENIZER.unknown].set(9.0).at[4].set(1.0)

    decoder = Decoder(model.config, variables)

    def write(unknown):
        return write_text(decoder, TOKENIZER, "a zebra", max_tokens=2, sampling=Sampling(0.0), write_unknown=unknown)

    assert list(write(True).written) == [TOKENIZER.unknown] * 2
    assert list(write(False).written) == [4, 4]
    assert write(False).num_unknown == 1


def test_choices_follow_the_probabilities():
    logits, random = np.log(np.array([0.5, 0.3, 0.2])), np.random.default_rng(0)

    def shares(how, **options):
        drawn = [choose(logits, how, random, **options) for _ in range(4000)]
        return np.bincount(drawn, minlength=3) / 4000

    np.testing.assert_allclose(shares(Sampling()), [0.5, 0.3, 0.2], atol=0.03)
    np.testing.assert_allclose(shares(Sampling(0.5)), np.array([25, 9, 4]) / 38, atol=0.03)
    np.testing.assert_allclose(shares(Sampling(1.0, 2)), [0.625, 0.375, 0], atol=0.03)
    np.testing.assert_allclose(shares(Sampling(), never=(0,)), [0, 0.6, 0.4], atol=0.03)
    assert choose(logits, Sampling(0.0), random) == 0
    assert choose(logits, Sampling(1e-300), random) == 0
    assert choose(np.zeros(5), Sampling(1.0, 1), random) == 0


def test_the_same_seed_writes_the_same_text(causal):
    model, variables = causal

    decoder = Decoder(model.config, variables)

    def write(seed):
        return write_text(decoder, TOKENIZER, "a", max_tokens=7, lines=9, seed=seed)

    assert list(write(1).written) == list(write(1).written)
    assert any(list(write(1).written) != list(write(seed).written) for seed in (2, 3))


def test_bad_input(causal):
    model, variables = causal
    config = model.config
    with pytest.raises(ValueError, match=r"max_tokens: expected at most 5 after a prompt of 3 tokens: .*; received 6"):
        write_text(Decoder(config, variables), TOKENIZER, "a b c", max_tokens=6)
    with pytest.raises(ValueError, match=r"prompt: expected at most 7 tokens: the model .*; received '8 tokens'"):
        write_text(Decoder(config, variables), TOKENIZER, "a b c d e f g h", max_tokens=1)
    with pytest.raises(ValueError, match=r"tokens: expected at least one id, each 0 to 11; received \[3, 12\]"):
        Decoder(config, variables).read([3, 12])
    with pytest.raises(ValueError, match=r"tokens: expected at most 8, .*; received 9"):
        Decoder(config, variables).read([1] * 9)
    with pytest.raises(ValueError, match=r"model.allow_future: expected false: .*; received True"):
        Decoder(dataclasses.replace(config, allow_future=True), variables)
    with pytest.raises(ValueError, match=r"model.num_classes: expected None: .*; received 3"):
        Decoder(dataclasses.replace(config, num_classes=3), variables)
    with pytest.raises(ValueError, match=r"model.inputs: expected 'tokens': .*; received 'images'"):
        Decoder(config_lib.parse_model(digits.get_config().model), variables)


def mixing(context, *, bias: bool = False):
    """A linear step that adds the mean over the tokens so far, and does not say so."""
    means = jnp.cumsum(context.tokens, axis=1) / jnp.arange(1.0, context.tokens.shape[1] + 1)[None, :, None]
    return scores.linear_step(dataclasses.replace(context, tokens=context.tokens + means), bias=bias)


def test_a_step_that_cannot_read_token_by_token_is_refused(causal, monkeypatch):
    model, variables = causal
    linear = steps.SCORE_STEPS["linear"]
    monkeypatch.setitem(steps.SCORE_STEPS._entries, "linear", dataclasses.replace(linear, function=mixing))
    with pytest.raises(ValueError, match=r"step linear: expected the same of a text token by token as of the whole"):
        Decoder(model.config, variables)


def test_a_run_without_its_tokenizer_writes_nothing(tmp_path):
    saved = types.SimpleNamespace(config=config_lib.parse(wordnet.get_config("size=tiny")), folder=tmp_path)
    with pytest.raises(FileNotFoundError, match=r"expected the tokenizer that the run keeps, .*; received none"):
        open_run(saved)


def test_a_process_that_only_generates_knows_all_kinds_of_tokenizers():
    code = "import vmoe_inform.generation, vmoe_inform.data.text.tokenizers as t; print(sorted(t.KINDS))"
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert process.stdout.strip() == "['bpe', 'words']"
