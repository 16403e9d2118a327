"""Looks at splits of text: are they there, as long as published, and does the model know their words and classes?"""

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np
import rich.table
import rich.text
from jaxtyping import Int

from vmoe_inform import text
from vmoe_inform.config import LanguageConfig
from vmoe_inform.data.text import corpora, sources, tokenizers
from vmoe_inform.data.text.tokenizers import Tokenizer


@dataclasses.dataclass
class Finding:
    """What was found out about one split.

    Attributes:
      name: of the split.
      origin: where its text is from; empty if it could not be read.
      count: lines, or labelled texts.
      published_counts: as of :class:`vmoe_inform.data.text.lines.Lines`; empty where they are not looked at.
      num_words: words, the ends of lines included; a text of its own has no end.
      num_tokens: tokens; 0 without a tokenizer.
      unknown_share: share of the tokens that are the unknown word.
      num_classes: different labels; 0 for lines.
      problems: what is wrong, in words.
    """

    name: str
    origin: str = ""
    count: int = 0
    published_counts: tuple[int, ...] = ()
    num_words: int = 0
    num_tokens: int = 0
    unknown_share: float = 0.0
    num_classes: int = 0
    problems: list[str] = dataclasses.field(default_factory=list)

    def take(self, ids: Int[np.ndarray, " T"], tokenizer: Tokenizer) -> None:
        """Counts tokens."""
        self.num_tokens = len(ids)
        if tokenizer.unknown is not None and len(ids) > 0:
            self.unknown_share = float(np.mean(ids == tokenizer.unknown))


def examine_all(config: LanguageConfig, *, whole: bool) -> list[Finding]:
    """The training, validation and test split, and last of all the vocabulary.

    Args:
      config: whose data are looked at; with ``model.num_classes`` they are labelled texts.
      whole: whether numbers of lines have to be the published ones.
    """
    data = config.data
    vocabulary = Finding("vocabulary")
    tokenizer = None
    try:
        tokenizer = corpora.learn_tokenizer(config)
        tokenizers.check_same(tokenizer, data.vocabulary_hash)
        vocabulary.origin = f"{tokenizer.kind} {tokenizers.fingerprint(tokenizer)[:8]}"
        vocabulary.count = tokenizer.size
    except (OSError, ValueError) as problem:
        vocabulary.problems.append(str(problem))
    examine = _lines if config.model.num_classes is None else _labelled
    splits = dict.fromkeys(split for split in (data.train_split, data.validation_split, data.test_split) if split)
    findings = [_guarded(examine, config, split, tokenizer) for split in splits]
    for finding in findings:
        if whole and finding.origin and finding.published_counts and finding.count not in finding.published_counts:
            expected = " or ".join(f"{count:,}" for count in finding.published_counts)
            finding.problems.append(f"expected {expected} lines as published; received {finding.count:,}")
    if vocabulary.problems and vocabulary.problems[0] in findings[0].problems:  # it could not be learned from them
        vocabulary.problems.clear()
    return [*findings, vocabulary]


Examine = Callable[[LanguageConfig, Finding, Tokenizer | None], None]


def _guarded(examine: Examine, config: LanguageConfig, split: str, tokenizer: Tokenizer | None) -> Finding:
    """What is found out about a split; that it cannot be read is a problem."""
    finding = Finding(split)
    try:
        examine(config, finding, tokenizer)
    except (OSError, ValueError) as problem:
        finding.problems.append(str(problem))
        finding.origin = ""
    return finding


def _lines(config: LanguageConfig, finding: Finding, tokenizer: Tokenizer | None) -> None:
    lines = sources.lines(config.data, finding.name)
    finding.origin, finding.published_counts = lines.origin, lines.published_counts
    if tokenizer is None:
        finding.count = sum(1 for _ in lines)
        return
    corpus = corpora.corpus(lines, tokenizer)
    finding.count, finding.num_words = corpus.num_lines, corpus.num_words
    finding.take(corpus.ids, tokenizer)


def _labelled(config: LanguageConfig, finding: Finding, tokenizer: Tokenizer | None) -> None:
    texts = sources.labelled(config.data, finding.name)
    finding.origin, finding.count = texts.origin, len(texts.texts)
    finding.num_classes = len(np.unique(texts.labels))
    if texts.num_classes != config.model.num_classes:
        expected = f"expected {config.model.num_classes} classes (model.num_classes)"
        finding.problems.append(f"{expected}; received {texts.num_classes}")
    if tokenizer is None:
        return
    finding.num_words = sum(len(tokenizer.words(one)) for one in texts.texts)
    encoded = [tokenizer.encode(one) for one in texts.texts]
    finding.take(np.concatenate(encoded), tokenizer)
    longest = max(map(len, encoded))
    if longest > config.model.num_tokens:
        expected = f"expected texts of at most {config.model.num_tokens} tokens (model.num_tokens)"
        finding.problems.append(f"{expected}; received {longest}")


def table(findings: Sequence[Finding]) -> rich.table.Table:
    """The findings, one row each; columns that say nothing are left out, as words that are tokens."""
    rows = [
        {
            "set": finding.name,
            "found": finding.origin or "not readable",
            "count": f"{finding.count:,}" if finding.origin else "",
            "words": f"{finding.num_words:,}" if finding.num_words != finding.num_tokens else "",
            "tokens": f"{finding.num_tokens:,}" if finding.num_tokens else "",
            "unknown": f"{finding.unknown_share:.2%}" if finding.unknown_share else "",
            "classes": f"{finding.num_classes}" if finding.num_classes else "",
            "sound": "no" if finding.problems else ("yes" if finding.origin else ""),
        }
        for finding in findings
    ]
    result = rich.table.Table()
    columns = [name for name in rows[0] if any(row[name] for row in rows)]
    for name in columns:
        result.add_column(
            name, justify="left" if name in ("set", "found", "sound") else "right", no_wrap=name != "found"
        )
    for row in rows:
        result.add_row(*(rich.text.Text(text.printable(row[name])) for name in columns))  # in brackets is no markup
    return result
