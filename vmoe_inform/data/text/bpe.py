"""Subword tokens: byte-pair encoding, or any other tokenizer file of the library ``tokenizers``."""

import itertools
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, ClassVar, Self

import numpy as np
import tokenizers as library
from jaxtyping import Int

from vmoe_inform import checks
from vmoe_inform.data.text import words
from vmoe_inform.data.text.tokenizers import END_OF_LINE, KINDS

_LINES_AT_ONCE = 10_000  # that the library encodes with several threads
_WORD_AFTER_SPACE = re.compile(r"\s*\S+")
_NUM_BYTES = 256
_ENDS = (END_OF_LINE, "<|endoftext|>", "</s>", "[SEP]")  # as known tokenizers call the end of a text


@KINDS.register("bpe")
class BpeTokenizer:
    """A tokenizer of the library ``tokenizers``.

    Attributes:
      library_tokenizer: it; a token ``<eos>`` is added unless it has one of another name.
      unknown: id of its unknown token, or None: tokens of single bytes leave no text unknown.
    """

    kind: ClassVar[str] = "bpe"

    def __init__(self, library_tokenizer: library.Tokenizer):
        known = library_tokenizer.get_vocab()
        end = next((token for token in _ENDS if token in known), END_OF_LINE)
        if end not in known:
            library_tokenizer.add_special_tokens([end])
        library_tokenizer.no_padding()
        library_tokenizer.no_truncation()
        self.library_tokenizer = library_tokenizer
        self.end_of_line = library_tokenizer.get_vocab()[end]
        unknown = getattr(library_tokenizer.model, "unk_token", None)
        self.unknown: int | None = None if unknown is None else library_tokenizer.token_to_id(unknown)
        self._size = 1 + max(library_tokenizer.get_vocab().values())  # ids may have gaps

    @classmethod
    def learn(cls, lines: Iterable[str], size: int) -> Self:
        """Byte-pair encoding (arXiv 1508.07909) over bytes, as GPT-2 has it: pairs never cross a word's beginning.

        Args:
          lines: to learn from; equal lines give equal tokenizers.
          size: largest number of tokens; a short text has fewer pairs.

        Raises:
          ValueError: fewer tokens than bytes and the end of a line.
        """
        if size <= _NUM_BYTES:
            expected = f"at least {_NUM_BYTES + 1} with data.tokenizer = 'bpe': the bytes and {END_OF_LINE}"
            raise checks.error("model.vocabulary_size", expected, size)
        tokenizer = library.Tokenizer(library.models.BPE())
        tokenizer.pre_tokenizer = library.pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = library.decoders.ByteLevel()
        trainer = library.trainers.BpeTrainer(
            vocab_size=size,
            special_tokens=[END_OF_LINE],
            initial_alphabet=sorted(library.pre_tokenizers.ByteLevel.alphabet()),
            show_progress=False,
        )
        tokenizer.train_from_iterator(lines, trainer)
        return cls(tokenizer)

    @property
    def size(self) -> int:
        return self._size

    def words(self, line: str) -> list[str]:
        return words.split(line, "spaces")

    def pieces(self, line: str) -> list[tuple[str, Int[np.ndarray, " _"]]]:
        encoded = self.library_tokenizer.encode(line, add_special_tokens=False)
        ids = np.asarray(encoded.ids, np.int32)
        ends = [found.end() for found in _WORD_AFTER_SPACE.finditer(line)]
        ends = [*ends[:-1], len(line)]  # the last word has the rest of the white space
        last_characters = np.array([end for _, end in encoded.offsets], np.int64)
        word_of_token = np.maximum.accumulate(np.searchsorted(ends, last_characters))
        tokens = np.split(ids, np.searchsorted(word_of_token, np.arange(1, len(ends))))
        texts = [line[begin:end] for begin, end in zip([0, *ends], ends, strict=False)]
        return list(zip(texts, tokens, strict=True))

    def encode(self, text: str) -> Int[np.ndarray, " T"]:
        encoded = self.library_tokenizer.encode(" ".join(text.splitlines()), add_special_tokens=False)
        return np.asarray(encoded.ids, np.int32)

    def encode_lines(self, lines: Iterable[str]) -> Int[np.ndarray, " T"]:
        return np.concatenate([np.zeros(0, np.int32), *self._parts(lines)])

    def _parts(self, lines: Iterable[str]) -> Iterator[Int[np.ndarray, " _"]]:
        """Token ids of some thousand lines at a time."""
        rest = iter(lines)
        end = (self.end_of_line,)
        while some := list(itertools.islice(rest, _LINES_AT_ONCE)):
            encoded = self.library_tokenizer.encode_batch_fast(some, add_special_tokens=False)
            ids = itertools.chain.from_iterable(itertools.chain(line.ids, end) for line in encoded)
            yield np.fromiter(ids, np.int32)

    def decode(self, ids: Int[np.ndarray, " T"]) -> str:
        ends = np.flatnonzero(ids == self.end_of_line)
        lines = np.split(ids, ends)
        parts = [line if number == 0 else line[1:] for number, line in enumerate(lines)]
        return "\n".join(self.library_tokenizer.decode(part.tolist(), skip_special_tokens=False) for part in parts)

    def tokens(self, ids: Int[np.ndarray, " T"]) -> list[str]:
        return [self.library_tokenizer.decode([token], skip_special_tokens=False) for token in ids.tolist()]

    def to_json(self) -> dict[str, Any]:
        return {"tokenizer": json.loads(self.library_tokenizer.to_str())}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Self:
        try:
            tokenizer = library.Tokenizer.from_str(json.dumps(value.get("tokenizer")))
        except Exception as problem:  # the library raises bare Exception
            received = " ".join(str(problem).split())
            raise checks.error("tokenizer", "a file of the library tokenizers", received) from None
        return cls(tokenizer)
