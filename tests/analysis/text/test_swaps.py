"""Swapped words: which text a checkpoint is shown, and what is worked out of its choices."""

import dataclasses
import pathlib

import numpy as np
import pytest

from tests import tiny_text
from vmoe_inform.analysis.collect import certified_rows
from vmoe_inform.analysis.collect.choices import Choices
from vmoe_inform.analysis.collect.observing import Certifiable
from vmoe_inform.analysis.results import SwappedWords
from vmoe_inform.analysis.text.data import Windows
from vmoe_inform.config import as_language
from vmoe_inform.tasks.language_modeling import LanguageModeling


class Observer:
    """An unknown word has other experts and base probabilities than all other words; these are certified up to 0.5."""

    metric = "perplexity"

    def __init__(self):
        self.shown = []

    def certified(self, corpus):
        self.shown.append(corpus)
        inputs = corpus.ids if corpus.inputs is None else corpus.inputs
        is_unknown = (inputs == corpus.tokenizer.unknown)[None, :, None]
        base = np.where(is_unknown, [0.1, 0.9], [0.8, 0.2]).astype(np.float32)
        experts = {"block_1": is_unknown.astype(np.int64)}
        real = np.ones(base.shape[:2], bool)
        radii = np.full((*real.shape, 2), [0.4, 0.5], np.float32)
        return Choices(np.array([0]), real, experts, is_unknown, {}), {"block_1": Certifiable(base, radii)}

    def score(self, found):
        return 2.0 + found.kept.mean()


@pytest.fixture(scope="module")
def config(tmp_path_factory) -> object:
    folder: pathlib.Path = tiny_text.write_corpus(tmp_path_factory.mktemp("corpus"))
    made = tiny_text.parse(folder, evaluation__swap_shares=(0.5, 0.2))
    return LanguageModeling(as_language(made)).opened().config


@pytest.mark.parametrize("number", [None, 40])
def test_words_are_swapped_in_what_is_read_and_not_in_what_is_predicted(config, number):
    observer = Observer()
    data = Windows.of_run(config, "word_swap", number)
    found = data.swapped_words(observer, lambda _: None)
    assert found.share == (0.2, 0.5)
    clean, *attacked = observer.shown
    assert clean.inputs is None
    assert len(clean.ids) == (number or len(clean.ids))
    shares = []
    for corpus in attacked:
        np.testing.assert_array_equal(corpus.ids, clean.ids)
        shares.append(np.mean(corpus.inputs != corpus.ids))
    assert 0.05 < shares[0] < shares[1] < 0.5
    # A swapped word moves by 0.7 sqrt(2), beyond what is certified; all others stay.
    assert found.rerouted["block_1"] == pytest.approx(shares)
    assert found.certified["block_1"].length[0] == pytest.approx([0.7 * np.sqrt(2) * share for share in shares])
    assert found.certified["block_1"].by_pairs[0] == pytest.approx([1 - share for share in shares])
    assert (found.clean_score, *found.score) == pytest.approx((2.0, *(2 + share for share in shares)))
    rows = certified_rows.of_swaps(found)
    assert [row.name for row in rows] == ["20 % of the words of a line", "50 % of the words of a line"]
    assert [row.kept for row in rows] == pytest.approx([1 - share for share in shares])
    assert certified_rows.of_swaps(dataclasses.replace(found, certified={})) == ()
    assert certified_rows.of_swaps(None) == ()
    assert isinstance(found, SwappedWords)


def test_clean_text_is_not_swapped(config):
    assert Windows.of_run(config, "clean", None).swapped_words(Observer(), lambda _: None) is None
    with pytest.raises(ValueError, match=r"--suite: expected clean or word_swap, with .*; received 'c'"):
        Windows.of_run(config, "c", None)
