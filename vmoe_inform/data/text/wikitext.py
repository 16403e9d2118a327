"""WikiText (Merity 2016, arXiv 1609.07843), as its published archives and Hugging Face's Parquet files hold it."""

import functools
import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path

from vmoe_inform import checks, storage
from vmoe_inform.config import TextDataConfig
from vmoe_inform.data.text import columns, files
from vmoe_inform.data.text.lines import LINES, Lines, existing_directory, known_split
from vmoe_inform.data.text.tokenizers import UNKNOWN

# Lines of WikiText-103, and of WikiText-2 where they differ.
NUM_LINES = {"train": (1_801_350, 36_718), "validation": (3_760,), "test": (4_358,)}
SPLITS = tuple(NUM_LINES)
_FOLDERS = ("wikitext-103", "wikitext-103-v1", "wikitext-2", "wikitext-2-v1")  # where the root may hold the files
_RAW_FOLDERS = ("wikitext-103-raw", "wikitext-103-raw-v1", "wikitext-2-raw", "wikitext-2-raw-v1")
_LINES_TO_AN_UNKNOWN_WORD = 10_000  # the word-level text has one in its first article


@LINES.register("wikitext")
def lines(data: TextDataConfig, split: str) -> Lines:
    """Lines of WikiText-103 or WikiText-2; the splits are ``train``, ``validation`` and ``test``.

    ``data.directory`` has the files ``wiki.train.tokens``, ``wiki.valid.tokens`` and ``wiki.test.tokens``, or Parquet
    files ``train-00000-of-00002.parquet``, ... with the column ``data.text_field``; or a folder of the published name
    with either. The vocabulary is made of all three splits, as the published scores have it: no word is unknown.

    With ``data.tokenizer = "words"`` the raw variant (``wiki.train.raw``, ...) is refused. With others it is taken
    where both are there.

    Raises:
      FileNotFoundError: a missing folder or file.
      ValueError: another split, the raw variant for words, an empty file, or several copies.
    """
    known_split(split, SPLITS, "wikitext")
    names = ("validation", "valid") if split == "validation" else (split,)
    expected = f"wiki.{names[-1]}.tokens or {split}-*.parquet"
    root = existing_directory(data, expected)
    words = _find(names, [root, *(root / folder for folder in _FOLDERS)], ".tokens")
    raw = _find(names, [root / folder for folder in _RAW_FOLDERS], ".raw")
    raw = raw or files.of_split([root], [f"wiki.{name}" for name in names], [".raw"])
    wants_words = data.tokenizer == "words"
    chosen = (words or raw) if wants_words else (raw or words)
    if not chosen:
        raise FileNotFoundError(
            f"data.directory: expected {expected} in it; received {str(root)!r} without such a file"
        )
    for path in chosen:
        files.check_not_empty(path)
    if wants_words and (not words or _is_raw(words, data.text_field)):
        expected = (
            f"the word-level text, whose rare words are {UNKNOWN}, since the published vocabulary of 267,735 words "
            "is made of it (the raw one goes with data.tokenizer = 'bpe')"
        )
        raise checks.error(str(chosen[0]), expected, "the raw text")
    read = functools.partial(_read, chosen, data.text_field)
    return Lines(read, "WikiText", separated=True, vocabulary_splits=SPLITS, published_counts=NUM_LINES[split])


def _find(names: Sequence[str], folders: Sequence[storage.Path], suffix: str) -> tuple[Path, ...]:
    """The files ``wiki.NAME.SUFFIX`` of a split, or its Parquet files."""
    found = files.of_split(folders, [f"wiki.{name}" for name in names], [suffix])
    return found or files.of_split([*folders, *(folder / "data" for folder in folders)], names, [columns.PARQUET])


def _is_raw(paths: Sequence[Path], text_field: str) -> bool:
    """Whether files hold the raw text: names of Parquet files do not tell, and others may have been renamed."""
    return not any(UNKNOWN in line for line in itertools.islice(_read(paths, text_field), _LINES_TO_AN_UNKNOWN_WORD))


def _read(paths: Sequence[Path], text_field: str) -> Iterator[str]:
    for path in paths:
        if path.suffix == columns.PARQUET:
            yield from (text.removesuffix("\n") for text in columns.texts(path, text_field))
        else:
            yield from files.lines(path)
