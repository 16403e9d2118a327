"""Which words the attack swaps, and what a model is given and asked in both variants."""

import dataclasses
import itertools

import numpy as np
import pytest

from vmoe_inform.data.text import corpora, word_swap
from vmoe_inform.data.text.bpe import BpeTokenizer
from vmoe_inform.data.text.lines import Lines
from vmoe_inform.data.text.words import WordTokenizer

LINES = (
    " = Whales of the North = ",
    "",
    "The whale , at 3 @.@ 5 m , dived ; it was 1990 , and <unk> waves broke over the well-known bow of the ship . " * 5,
    ", . ; @-@",
    "the of and",
    "whale",
)
WORDS = WordTokenizer.learn(LINES, 100)
BPE = BpeTokenizer.learn(LINES, 300)


def corpus(tokenizer, lines=LINES):
    return corpora.corpus(Lines(lambda: iter(lines), "a test"), tokenizer)


def attack(tokenizer=WORDS, lines=LINES, *, share=0.1, seed=0, variant="text"):
    return word_swap.attack(corpus(tokenizer, lines), share=share, seed=seed, variant=variant)


def changed(attacked, lines=LINES):
    """By line, the places whose token changed."""
    tokenizer = attacked.corpus.tokenizer
    clean = corpus(tokenizer, lines).ids
    ids = attacked.corpus.ids if attacked.corpus.inputs is None else attacked.corpus.inputs
    ends = np.flatnonzero(clean == tokenizer.end_of_line) + 1
    return [np.flatnonzero(part).tolist() for part in np.split(ids != clean, ends)[:-1]]


@pytest.mark.parametrize(
    ("line", "number"),
    [
        ("whale " * 5, 1),
        ("whale " * 20, 2),  # int(0.1 * 20)
        ("whale " * 29, 2),
        ("whale the " * 15, 3),  # stop words count
        ("whale , ; " * 10, 1),  # marks do not
        ("the of and", 0),
        ("", 0),
        (", . @-@ -- '", 0),
        ("whale" + 19 * " the", 1),  # of 2 that are to be swapped, only one may be
        ("The", 1),  # stop words are in lower case
        ("don't", 0),
        ("U.S.", 1),
        ("3", 1),
    ],
)
def test_the_number_of_swapped_words(line, number):
    attacked = attack(WordTokenizer.learn((line, "whale"), 100), lines=(line,))
    assert attacked.num_swapped == number
    assert len(changed(attacked, (line,))[0]) == number


def test_no_stop_word_and_no_mark_is_swapped_even_if_all_words_are():
    attacked = attack(share=1.0)
    # But not "m", which is on the list as of "I'm".
    unknown = {"Whales", "North", "The", "whale", "3", "5", "dived", "1990", "<unk>", "waves", "broke", "well-known"}
    unknown |= {"bow", "ship"}
    tokens = WORDS.tokens(corpus(WORDS).ids)
    expected = [WORDS.unknown if token in unknown else WORDS.encode(token)[0] for token in tokens if token != "<eos>"]
    ids = attacked.corpus.ids
    assert ids[ids != WORDS.end_of_line].tolist() == expected


def test_the_seed_decides_and_a_larger_share_swaps_those_of_a_smaller_too():
    lines = (LINES[2].replace("<unk>", "all"),)
    attacks = [attack(lines=lines, share=share) for share in (0.015, 0.05, 0.1, 0.5)]
    assert [attacked.num_swapped for attacked in attacks] == [1, 5, 10, 52]  # of 105 words, 55 of which may be
    places = [changed(attacked, lines)[0] for attacked in attacks]
    for fewer, more in itertools.pairwise(places):
        assert set(fewer) < set(more)
    assert changed(attack(lines=lines, share=0.1), lines)[0] == places[2]
    assert changed(attack(lines=lines, share=0.1, seed=1), lines)[0] != places[2]


def test_equal_lines_have_different_words_swapped():
    places = changed(attack(lines=("whale " * 50,) * 20, share=0.02), ("whale " * 50,) * 20)
    assert len({line[0] for line in places}) > 10


def test_every_word_is_swapped_equally_often():
    lines = ("a0 a1 a2 the a4",) * 2000
    counts = np.bincount(np.concatenate(changed(attack(WordTokenizer.learn(lines, 100), lines), lines)), minlength=5)
    assert counts[3] == 0
    np.testing.assert_allclose(counts[[0, 1, 2, 4]], 500, atol=80)  # 4 standard deviations


@pytest.mark.parametrize("tokenizer", [WORDS, BPE], ids=["words", "bpe"])
def test_swapped_inputs_leave_the_targets_as_they_are(tokenizer):
    clean = corpus(tokenizer)
    attacked = attack(tokenizer, variant="inputs")
    np.testing.assert_array_equal(attacked.corpus.ids, clean.ids)
    assert attacked.corpus.inputs.dtype == np.int32
    assert attacked.corpus.inputs.shape == clean.ids.shape
    assert 0 < np.count_nonzero(attacked.corpus.inputs != clean.ids) < 80
    ends = clean.ids == tokenizer.end_of_line
    np.testing.assert_array_equal(attacked.corpus.inputs == tokenizer.end_of_line, ends)
    assert attacked.num_swapped == attack(tokenizer, variant="text").num_swapped


def test_swapped_text_changes_inputs_and_targets_alike():
    attacked = attack(variant="text")
    assert attacked.corpus.inputs is None
    np.testing.assert_array_equal(attacked.corpus.ids, attack(variant="inputs").corpus.inputs)
    assert attacked.corpus.num_words == corpus(WORDS).num_words


def test_byte_pairs_spell_the_swapped_words():
    attacked = attack(BPE, variant="text")
    text = BPE.decode(attacked.corpus.ids)
    words = [line.split() for line in text.split("\n")[:-1]]
    assert [len(line) for line in words] == [len(line.split()) for line in LINES]
    assert sum(line.count("AAA") + line.count("<AAA>") for line in words) == attacked.num_swapped
    assert text.startswith(" = ")  # white space stays


def test_of_a_piece_with_marks_only_the_word_is_swapped():
    attacked = attack(BPE, ('("whales, dived.)',), share=1.0)
    assert BPE.decode(attacked.corpus.ids) == '("AAA, AAA.)\n'


def test_aaa_in_the_vocabulary_is_still_unknown():
    tokenizer = WordTokenizer(("<unk>", "<eos>", "AAA", "whale"))
    assert attack(tokenizer, ("whale", "AAA")).corpus.ids.tolist() == [0, 1, 0, 1]


def test_an_attack_leaves_the_corpus_as_it_is():
    clean = corpus(WORDS)
    before = dataclasses.replace(clean, ids=clean.ids.copy())
    word_swap.attack(clean, share=1.0, seed=0, variant="text")
    np.testing.assert_array_equal(clean.ids, before.ids)


@pytest.mark.parametrize("share", [0.0, -0.1, 1.01, float("nan")])
def test_other_shares_are_refused(share):
    with pytest.raises(ValueError, match=r"share: expected above 0 and at most 1; received"):
        attack(share=share)
