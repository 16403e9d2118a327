"""WordNet 3.0's glosses, the embedded text: a line defines a word, ``whale: any of the larger cetacean mammals...``.

The package ships the first word and the gloss of each of the 117,659 sets of synonyms, in the order of WordNet's own
files. The texts are labelled by the lexicographer file that each is from, such as ``noun.animal``.
"""

import dataclasses
import functools
import importlib.resources
import itertools
import lzma
import re
from collections.abc import Iterator

import numpy as np
from jaxtyping import Int

from vmoe_inform import checks, storage
from vmoe_inform.config import TextDataConfig
from vmoe_inform.data.text import files
from vmoe_inform.data.text.lines import LABELLED, LINES, LabelledTexts, Lines, existing_directory, known_split
from vmoe_inform.storage import inputs

# By number, as the manual page lexnames(5WN) lists them.
LEXICOGRAPHER_FILES = (
    *("adj.all", "adj.pert", "adv.all", "noun.Tops", "noun.act", "noun.animal", "noun.artifact", "noun.attribute"),
    *("noun.body", "noun.cognition", "noun.communication", "noun.event", "noun.feeling", "noun.food", "noun.group"),
    *("noun.location", "noun.motive", "noun.object", "noun.person", "noun.phenomenon", "noun.plant"),
    *("noun.possession", "noun.process", "noun.quantity", "noun.relation", "noun.shape", "noun.state"),
    *("noun.substance", "noun.time", "verb.body", "verb.change", "verb.cognition", "verb.communication"),
    *("verb.competition", "verb.consumption", "verb.contact", "verb.creation", "verb.emotion", "verb.motion"),
    *("verb.perception", "verb.possession", "verb.social", "verb.stative", "verb.weather", "adj.ppl"),
)
SPLITS = ("train", "validation", "test")
_PARTS_OF_SPEECH = ("noun", "verb", "adj", "adv")  # the order of the lines
_BLOCK, _TEST_BLOCK, _VALIDATION_BLOCK, _PERIOD = 10, 2, 3, 20


@dataclasses.dataclass(frozen=True, eq=False)
class Glosses:
    """Lines of all splits.

    Attributes:
      lines: ``word: gloss``.
      labels: the lexicographer file of each.
    """

    lines: tuple[str, ...]
    labels: Int[np.ndarray, " n"]


@LINES.register("wordnet")
def lines(data: TextDataConfig, split: str) -> Lines:
    """Glosses of a split, in WordNet's order; the splits are ``train``, ``validation`` and ``test``.

    Of each lexicographer file, every 20th block of ten glosses is for testing, and the block after it for validation:
    5 % each. A neighbour in WordNet is related, so that a block has a context.

    Raises:
      ValueError: another split, or damaged files.
      FileNotFoundError: ``data.directory`` is set and has no dictionary of WordNet.
    """
    known_split(split, SPLITS, "wordnet")
    glosses = _glosses(data)
    chosen = np.flatnonzero(splits(glosses.labels) == SPLITS.index(split)).tolist()
    return Lines(lambda: (glosses.lines[number] for number in chosen), _origin(data))


@LABELLED.register("wordnet")
def labelled(data: TextDataConfig, split: str) -> LabelledTexts:
    """The same lines with the lexicographer file that each is from, 45 in all.

    Raises:
      ValueError, FileNotFoundError: as :func:`lines`.
    """
    known_split(split, SPLITS, "wordnet")
    glosses = _glosses(data)
    chosen = splits(glosses.labels) == SPLITS.index(split)
    texts = list(itertools.compress(glosses.lines, chosen))
    return LabelledTexts(texts, glosses.labels[chosen], LEXICOGRAPHER_FILES, _origin(data))


def splits(labels: Int[np.ndarray, " n"]) -> Int[np.ndarray, " n"]:
    """Index into ``SPLITS`` of each line; ``labels`` are the lexicographer files, each one run of lines."""
    result = np.zeros(len(labels), np.int32)
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        block = np.arange(len(members)) // _BLOCK % _PERIOD
        result[members[block == _VALIDATION_BLOCK]] = SPLITS.index("validation")
        result[members[block == _TEST_BLOCK]] = SPLITS.index("test")
    return result


def _glosses(data: TextDataConfig) -> Glosses:
    if not data.directory:
        return _embedded()
    return parse(read_dictionary(existing_directory(data, "WordNet's files data.noun, data.verb, data.adj, data.adv")))


def _origin(data: TextDataConfig) -> str:
    return "WordNet's files" if data.directory else "WordNet 3.0"


@functools.cache
def _embedded() -> Glosses:
    packed = importlib.resources.files("vmoe_inform.data.text").joinpath("wordnet.txt.xz").read_bytes()
    return parse(lzma.decompress(packed).decode().splitlines())


def parse(numbered: Iterator[str] | list[str]) -> Glosses:
    """Glosses of lines ``NN word: gloss``; NN is the number of the lexicographer file."""
    pairs = [line.split(" ", 1) for line in numbered]
    return Glosses(tuple(text for _, text in pairs), np.asarray([int(number) for number, _ in pairs], np.int32))


def read_dictionary(folder: storage.Path) -> Iterator[str]:
    """Lines ``NN word: gloss`` of the files of WordNet's dictionary, wndb(5WN), such as Debian's wordnet-base has.

    Raises:
      FileNotFoundError: one of them is missing.
      ValueError: a line of another form, or text that is not UTF-8.
    """
    for part in _PARTS_OF_SPEECH:
        path = inputs.local(folder / f"data.{part}")
        for number, line in enumerate(files.lines(path), start=1):
            if line.startswith("  "):  # the licence
                continue
            entry, bar, gloss = line.partition(" | ")
            fields = entry.split(" ")
            if not bar or len(fields) < 5 or not fields[1].isdecimal() or int(fields[1]) >= len(LEXICOGRAPHER_FILES):
                raise checks.error(f"{path}:{number}", "a synset of WordNet with its gloss", line)
            word = re.sub(r"\(\w+\)$", "", fields[4]).replace("_", " ")  # without where an adjective may stand
            yield f"{fields[1]} {word}: {gloss.strip()}"
