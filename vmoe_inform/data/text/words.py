"""Word level: a token is a word of a vocabulary, or the unknown word."""

import collections
import re
from array import array
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar, Literal, Self, TypedDict, get_args

import numpy as np
from jaxtyping import Int

from vmoe_inform import checks
from vmoe_inform.data.text.tokenizers import END_OF_LINE, KINDS, UNKNOWN

Splitting = Literal["spaces", "marks"]
# A word with its inner apostrophes, a token in angle brackets, or a punctuation mark.
_WORD_OR_MARK = re.compile(r"<\w+>|\w+(?:'\w+)*|[^\w\s]")


class _Form(TypedDict):
    """JSON of a word tokenizer."""

    splitting: Splitting
    vocabulary: list[str]


def split(line: str, splitting: Splitting) -> list[str]:
    """The words of a line, see :class:`WordTokenizer`."""
    return line.split() if splitting == "spaces" else _WORD_OR_MARK.findall(line.lower())


@KINDS.register("words")
class WordTokenizer:
    """Words of a vocabulary.

    Attributes:
      vocabulary: the words in the order of their ids, ``<unk>`` and ``<eos>`` among them.
      splitting: ``"spaces"``, a line is split at white space, as WikiText is made for. ``"marks"``, for text as people
        write it: lower case, and each punctuation mark is a word.
    """

    kind: ClassVar[str] = "words"

    def __init__(self, vocabulary: Sequence[str], splitting: Splitting = "spaces"):
        """Raises ValueError: a word twice, one of several words, or none of ``<unk>`` or ``<eos>``."""
        self.vocabulary = tuple(vocabulary)
        self.splitting: Splitting = splitting
        self._ids = {word: number for number, word in enumerate(self.vocabulary)}
        if splitting not in get_args(Splitting):
            raise checks.error("splitting", f"one of {get_args(Splitting)}", splitting)
        if len(self._ids) < len(self.vocabulary):
            twice, _ = collections.Counter(self.vocabulary).most_common(1)[0]
            raise checks.error("vocabulary", "words that occur once", twice)
        for word in (UNKNOWN, END_OF_LINE):
            if word not in self._ids:
                raise checks.error("vocabulary", f"{word} among its words", f"{len(self.vocabulary)} words without it")
        for word in self.vocabulary:
            if word.split() != [word]:
                raise checks.error("vocabulary", "words without white space", word)
        self.unknown = self._ids[UNKNOWN]
        self.end_of_line = self._ids[END_OF_LINE]

    @classmethod
    def learn(cls, lines: Iterable[str], size: int, splitting: Splitting = "spaces") -> Self:
        """The most frequent words of lines; of equally frequent ones, the first in the order of characters.

        Args:
          lines: to count.
          size: largest number of tokens, ``<unk>`` and ``<eos>`` included.
          splitting: of the lines.

        Raises:
          ValueError: fewer than three tokens, or lines without a word.
        """
        if size < 3:
            raise checks.error("model.vocabulary_size", f"at least 3 ({UNKNOWN}, {END_OF_LINE} and a word)", size)
        counts: collections.Counter[str] = collections.Counter()
        for line in lines:
            counts.update(split(line, splitting))
        for word in (UNKNOWN, END_OF_LINE):
            del counts[word]
        if not counts:
            raise checks.error("data", "text with words", checks.NOTHING)
        ranked = sorted(counts, key=lambda word: (-counts[word], word))
        return cls((UNKNOWN, END_OF_LINE, *ranked[: size - 2]), splitting)

    @property
    def size(self) -> int:
        return len(self.vocabulary)

    def words(self, line: str) -> list[str]:
        return split(line, self.splitting)

    def pieces(self, line: str) -> list[tuple[str, Int[np.ndarray, " _"]]]:
        words = self.words(line)
        ids = np.array([self._ids.get(word, self.unknown) for word in words], np.int32)
        return list(zip(words, ids.reshape(-1, 1), strict=True))

    def encode(self, text: str) -> Int[np.ndarray, " T"]:
        return np.fromiter((self._ids.get(word, self.unknown) for word in self.words(text)), np.int32)

    def encode_lines(self, lines: Iterable[str]) -> Int[np.ndarray, " T"]:
        ids, get, unknown, end_of_line = array("i"), self._ids.get, self.unknown, self.end_of_line
        for line in lines:
            ids.extend([get(word, unknown) for word in self.words(line)])
            ids.append(end_of_line)
        return np.frombuffer(ids, np.int32) if ids else np.zeros(0, np.int32)

    def decode(self, ids: Int[np.ndarray, " T"]) -> str:
        text = " ".join("\n" if token == self.end_of_line else self.vocabulary[token] for token in ids.tolist())
        return text.replace(" \n", "\n").replace("\n ", "\n")

    def tokens(self, ids: Int[np.ndarray, " T"]) -> list[str]:
        return [self.vocabulary[token] for token in ids.tolist()]

    def to_json(self) -> dict[str, Any]:
        return {"splitting": self.splitting, "vocabulary": list(self.vocabulary)}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Self:
        problem = checks.misfit(dict(value), _Form)
        if problem is not None:
            raise checks.error("tokenizer", "a word tokenizer as it was written", problem)
        return cls(value["vocabulary"], value["splitting"])
