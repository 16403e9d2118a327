"""Changes of routing and perplexity as words of the text that is read are swapped for an unknown one."""

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np

from vmoe_inform.analysis.collect.observing import Observer
from vmoe_inform.analysis.collect.perturbed import Perturbed, compared
from vmoe_inform.analysis.results import Certified, SwappedWords
from vmoe_inform.config import LanguageConfig
from vmoe_inform.data.text import word_swap
from vmoe_inform.data.text.corpora import Corpus


def of_shares(
    observer: Observer, corpus: Corpus, number: int | None, config: LanguageConfig, say: Callable[[str], None]
) -> SwappedWords:
    """Analyses a text with swapped words; the words to predict, and so the tokens, are those of the text as it is.

    Args:
      observer: of the checkpoint.
      corpus: the whole test text.
      number: of its first tokens that are looked at; None: all.
      config: of the run, for the shares of swapped words and what decides which.
      say: called with a line for each share.
    """
    before = observer.certified(first(corpus, number))
    shares, seed = sorted(config.evaluation.swap_shares), config.evaluation.swap_seed
    scores, found = [], []
    for share in shares:
        attacked = word_swap.attack(corpus, share=share, seed=seed, variant="inputs").corpus
        after = observer.certified(first(attacked, number))
        found.append(compared(before, after))
        scores.append(observer.score(after[0]))
        moved = np.mean([layer.rerouted for layer in found[-1].values()])
        say(f"{100 * share:g} % of the words swapped: {observer.metric} {scores[-1]:.4g}, {moved:.1%} of tokens moved")
    return SwappedWords(
        share=tuple(shares),
        score=tuple(scores),
        clean_score=observer.score(before[0]),
        rerouted={block: tuple(layers[block].rerouted for layers in found) for block in found[0]},
        certified={block: _over_shares([layers[block] for layers in found]) for block in before[1]},
    )


def _over_shares(found: Sequence[Perturbed]) -> Certified:
    length, by_margin, by_pairs = zip(*(of_share.certified or () for of_share in found), strict=True)
    return Certified((length,), (by_margin,), (by_pairs,))


def first(corpus: Corpus, number: int | None) -> Corpus:
    """The first tokens of a text; all for None."""
    if number is None:
        return corpus
    inputs = corpus.inputs
    return dataclasses.replace(corpus, ids=corpus.ids[:number], inputs=None if inputs is None else inputs[:number])
