"""What results and files say of text: a corpus, or labelled texts."""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int

from vmoe_inform.data.text.corpora import Corpus
from vmoe_inform.data.text.lines import LabelledTexts


@dataclass(frozen=True, eq=False)
class DescribedCorpus:
    """A split for a language model. Its records are tokens, which are counted, or the windows that hold them."""

    corpus: Corpus

    @property
    def count(self) -> int:
        """Tokens to predict."""
        return len(self.corpus.ids)

    @property
    def fingerprint(self) -> str:
        """Depends on all token ids, also of what a model is given in their place, and on what the tokens are."""
        corpus = self.corpus
        hasher = hashlib.sha256()
        for ids in (corpus.ids, corpus.inputs):
            if ids is not None:
                found = np.ascontiguousarray(ids, np.int32)
                _add(hasher, [found.tobytes(), *map(str.encode, corpus.tokenizer.tokens(np.unique(found)))])
        return hasher.hexdigest()[:16]

    @property
    def origin(self) -> str:
        return self.corpus.origin

    def named(self, indices: Int[np.ndarray, " n"]) -> Mapping[str, np.ndarray]:
        """The words of the tokens that occur, ``token_ids`` and ``tokens``."""
        del indices
        ids = np.unique(self.corpus.ids)
        return {"token_ids": ids, "tokens": np.array(self.corpus.tokenizer.tokens(ids))}


@dataclass(frozen=True, eq=False)
class DescribedTexts:
    """Labelled texts."""

    texts: LabelledTexts

    @property
    def count(self) -> int:
        return len(self.texts.texts)

    @property
    def fingerprint(self) -> str:
        """Depends on all texts, their labels and the classes."""
        texts = self.texts
        hasher = hashlib.sha256()
        _add(hasher, map(_bytes, texts.class_names))
        _add(hasher, map(_bytes, texts.texts))
        hasher.update(np.ascontiguousarray(texts.labels, np.int64).data)
        return hasher.hexdigest()[:16]

    @property
    def origin(self) -> str:
        return self.texts.origin

    def named(self, indices: Int[np.ndarray, " n"]) -> Mapping[str, np.ndarray]:
        """The number of each text in its split, ``names`` [n], and ``class_names`` of all labels."""
        return {"names": indices.astype(str), "class_names": np.array(self.texts.class_names)}


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def _add(hasher: "hashlib._Hash", parts: Iterable[bytes]) -> None:
    for part in parts:
        hasher.update(f"{len(part)}:".encode())
        hasher.update(part)
