"""Text to token ids and back. A run keeps its tokenizer, so that generation needs no data."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar, Protocol, Self

import numpy as np
from jaxtyping import Int

from vmoe_inform import checks, storage
from vmoe_inform.registry import Registry

UNKNOWN, END_OF_LINE = "<unk>", "<eos>"
_MOST_BYTES = 1 << 28  # of a file; one of 267,735 words has 4 MB


class Tokenizer(Protocol):
    """Encodes lines of text; what it knows is a JSON object.

    Attributes:
      kind: registered name.
      size: number of token ids, which are 0 to ``size`` - 1.
      unknown: id of a word that is not in the vocabulary; None: every text has tokens.
      end_of_line: id that ends each line, and stands before the first.
    """

    kind: ClassVar[str]

    @property
    def size(self) -> int: ...

    @property
    def unknown(self) -> int | None: ...

    @property
    def end_of_line(self) -> int: ...

    def words(self, line: str, /) -> list[str]:
        """The words of a line. Joined by spaces, they have the tokens of the line, or those of its words."""
        ...

    def pieces(self, line: str, /) -> list[tuple[str, Int[np.ndarray, " _"]]]:
        """The words of a line in order, with the white space that its tokens stand for, and the tokens of each.

        All together are the tokens of the line that :meth:`encode_lines` gives, without its end.
        """
        ...

    def encode(self, text: str, /) -> Int[np.ndarray, " T"]:
        """Token ids of a text, int32, without the end of a line. Line breaks are white space."""
        ...

    def encode_lines(self, lines: Iterable[str], /) -> Int[np.ndarray, " T"]:
        """Token ids of lines, int32, one after the other, with ``end_of_line`` after each."""
        ...

    def decode(self, ids: Int[np.ndarray, " T"], /) -> str:
        """The text of token ids, with a line break for each ``end_of_line``."""
        ...

    def tokens(self, ids: Int[np.ndarray, " T"], /) -> list[str]:
        """Each token as a text to show."""
        ...

    def to_json(self) -> dict[str, Any]:
        """All that :func:`from_json` needs."""
        ...

    @classmethod
    def from_json(cls, value: Mapping[str, Any], /) -> Self:
        """Raises ValueError where ``value`` is no object as :meth:`to_json` gives it."""
        ...


KINDS: Registry[type[Tokenizer]] = Registry("kind of tokenizer")


def fingerprint(tokenizer: Tokenizer) -> str:
    """SHA-256 of what a tokenizer knows, in hexadecimal digits: equal for equal tokenizers only."""
    text = json.dumps(to_json(tokenizer), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def to_json(tokenizer: Tokenizer) -> dict[str, Any]:
    """A JSON object that :func:`from_json` takes."""
    return {"kind": tokenizer.kind, **tokenizer.to_json()}


def from_json(value: Any) -> Tokenizer:
    """The tokenizer of a JSON object that :func:`to_json` gave.

    Raises:
      ValueError: another object.
    """
    if not isinstance(value, Mapping) or not isinstance(value.get("kind"), str):
        raise checks.error("tokenizer", "a JSON object with a 'kind'", value)
    return KINDS[value["kind"]].from_json(value)


def write(path: storage.Path, tokenizer: Tokenizer, *, within: storage.Path | None = None) -> None:
    """Writes a tokenizer as a JSON file; ``within`` as of :mod:`vmoe_inform.storage`."""
    storage.write_json(path, to_json(tokenizer), within=within)


def read(path: storage.Path, *, within: storage.Path | None = None) -> Tokenizer:
    """The tokenizer that :func:`write` wrote, or of a ``tokenizer.json`` of the library ``tokenizers``.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: it is damaged, or of neither form.
    """
    value = storage.read_json(path, dict[str, Any], within=within, most_bytes=_MOST_BYTES)
    try:
        return from_json(value if "kind" in value else {"kind": "bpe", "tokenizer": value})
    except ValueError as problem:
        raise checks.InputError(f"{path}: {problem}") from None


def check_same(tokenizer: Tokenizer, recorded: str, field: str = "data.vocabulary_hash") -> None:
    """Raises ValueError unless ``recorded``, as a run has it, is the tokenizer's fingerprint or empty."""
    received = fingerprint(tokenizer)
    if recorded not in ("", received):
        expected = f"the vocabulary of the run ({recorded[:12]}), whose token ids the model has learned"
        raise checks.error(field, expected, received[:12])
