"""The word-swap attack: some words of every line become unknown words, by the rules of TextAttack's augmentation.

Of a line with n words, ``max(int(share * n), 1)`` are swapped for "AAA" (arXiv 2005.05909). Stop words count among the
n, but are not swapped. Marks are no words. Seed and number of the line decide which words are swapped; those of a
smaller share are among those of a larger.

To a tokenizer with an unknown token a swapped word is that token, even if "AAA" is in its vocabulary. Others encode the
text.
"""

import dataclasses
import re
from collections.abc import Iterator, Sequence
from typing import Literal

import numpy as np
from jaxtyping import Int

from vmoe_inform import checks
from vmoe_inform.data.text.corpora import Corpus
from vmoe_inform.data.text.stop_words import ENGLISH
from vmoe_inform.data.text.tokenizers import Tokenizer

Variant = Literal["text", "inputs"]
_SWAPPED = "AAA"
# A letter or digit of any script, and what may stand behind it. TextAttack also takes for letters three marks that look
# like some.
_WORD = re.compile(r"(?:[^\W_]|[`×˗])(?:\w|['*@`×˗-])*")
_Spans = dict[int, list[tuple[int, int]]]  # by number of a piece, where words begin and end in it


@dataclasses.dataclass(frozen=True, eq=False)
class Attacked:
    """A corpus with swapped words.

    Attributes:
      corpus: it; its lines are as they were.
      num_swapped: words that were swapped.
    """

    corpus: Corpus
    num_swapped: int


def attack(corpus: Corpus, *, share: float, seed: int, variant: Variant) -> Attacked:
    """Swaps words of every line.

    Args:
      corpus: not attacked.
      share: of the words of a line, above 0 and at most 1; at least one word of a line is swapped.
      seed: decides which.
      variant: ``"text"``, the papers' attack, swaps words of the text, so that a model also has to predict the swapped
        words. With ``"inputs"`` a model is given them, and predicts the words of the corpus. A word of several tokens
        then keeps their number: what replaces it is cut or repeated.

    Raises:
      ValueError: another share.
    """
    if not 0 < share <= 1:
        raise checks.error("share", "above 0 and at most 1", share)
    tokenizer, end = corpus.tokenizer, np.array([corpus.tokenizer.end_of_line], np.int32)
    parts: list[Int[np.ndarray, " _"]] = []
    num_swapped = 0
    for number, line in enumerate(corpus.lines):
        pieces = tokenizer.pieces(line)
        spans = _choose([text for text, _ in pieces], share, np.random.default_rng((seed, number)))
        num_swapped += sum(map(len, spans.values()))
        parts += [*_swapped(tokenizer, pieces, spans, variant), end]
    ids = np.concatenate(parts).astype(np.int32)
    if variant == "text":
        return Attacked(dataclasses.replace(corpus, ids=ids), num_swapped)
    return Attacked(dataclasses.replace(corpus, inputs=ids), num_swapped)


def _choose(texts: Sequence[str], share: float, random: np.random.Generator) -> _Spans:
    """The words of a line's pieces that are swapped."""
    words = [(place, found) for place, text in enumerate(texts) for found in _WORD.finditer(text)]
    candidates = [(place, found.span()) for place, found in words if found[0] not in ENGLISH]
    chosen = random.permutation(len(candidates))[: max(int(share * len(words)), 1)]
    spans: _Spans = {}
    for number in sorted(chosen.tolist()):
        place, span = candidates[number]
        spans.setdefault(place, []).append(span)
    return spans


def _swapped(
    tokenizer: Tokenizer, pieces: Sequence[tuple[str, Int[np.ndarray, " _"]]], spans: _Spans, variant: Variant
) -> Iterator[Int[np.ndarray, " _"]]:
    """The tokens of each piece of a line after the swaps."""
    for place, (text, ids) in enumerate(pieces):
        if place not in spans:
            yield ids
            continue
        if tokenizer.unknown is not None:
            replacement = np.array([tokenizer.unknown], np.int32)
        else:
            for begin, end in reversed(spans[place]):
                text = text[:begin] + _SWAPPED + text[end:]
            replacement = tokenizer.encode(text)
        yield replacement if variant == "text" else np.resize(replacement, len(ids))
